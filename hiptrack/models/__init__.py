"""The tracker's network, its files, and what it starts from."""
