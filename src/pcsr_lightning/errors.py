"""The errors a user is meant to read: what was wrong, what was expected, what to do."""


class PCSRError(Exception):
    """An error whose message is meant for the user.

    The command-line doors print such a message on its own, without a traceback.
    """


class DataError(PCSRError):
    """Training or validation data is missing, unusable, or cannot be fetched or cached."""


class ConfigError(PCSRError):
    """A setting is unknown, out of range, or at odds with another one."""


class ModelFileError(PCSRError):
    """A model file is missing, unreadable, or not one of this library's."""


class PictureError(PCSRError):
    """A picture file cannot be read or written."""


class TrainingError(PCSRError):
    """A training ended without a result."""
