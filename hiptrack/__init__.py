"""hiptrack: train, compare and ship single-object visual trackers."""

__version__ = "0.1.0"


def __getattr__(name):
    if name == "Tracker":  # imported on demand: it brings PyTorch along
        from hiptrack.tracking.tracker import Tracker

        return Tracker
    raise AttributeError(f"module 'hiptrack' has no attribute '{name}'")
