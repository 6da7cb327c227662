"""hiptrack: train, compare and ship single-object visual trackers."""

__version__ = "0.1.0"
