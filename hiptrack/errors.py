"""The errors a user is meant to read: one paragraph, naming the file and what to do."""


class HiptrackError(Exception):
    """Base of every error caused by input rather than by a defect of the program."""


class ConfigError(HiptrackError):
    """A gin file or a command-line override is wrong."""


class DataError(HiptrackError):
    """A data set, image, ground truth or annotation file is missing or malformed."""


class CheckpointError(HiptrackError):
    """A weights or checkpoint file is missing, damaged, unsafe or of another model."""


class NotFoundError(HiptrackError):
    """A path that was asked for does not exist; `path` holds it."""

    def __init__(self, message, path=None):
        super().__init__(message)
        self.path = path


class ToldElsewhere(HiptrackError):
    """An error of another process, which reports it; this one only stops too."""
