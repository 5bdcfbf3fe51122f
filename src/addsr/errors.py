"""Errors with a message for the person who ran the command: one sentence that names the input and the limit."""


class AddSRError(Exception):
    """Base of all errors that this package raises on purpose."""


class InputImageError(AddSRError):
    """A picture cannot be read, or is of a kind or size that is not accepted."""


class OutputError(AddSRError):
    """A result cannot be written where it was asked for."""


class ModelError(AddSRError):
    """A model is unknown, incomplete or damaged.

    Attributes:
        details: every key that does not fit, a line each, where the message names only some.
    """

    details: tuple[str, ...] = ()


class DataError(AddSRError):
    """Training data is missing or unusable."""


class TrainingError(AddSRError):
    """A training run cannot start, go on or continue; its last checkpoint is intact."""


class MissingExtraError(AddSRError):
    """An optional dependency is not installed; the message names the extra that brings it."""
