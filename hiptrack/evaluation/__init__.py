"""Sequences tracked, scored and handed in."""
