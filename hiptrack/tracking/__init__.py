"""One target, frame by frame."""
