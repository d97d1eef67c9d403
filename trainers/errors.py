"""Errors that a person's input can cause in training."""


class TrainingInputError(ValueError):
    """A teacher, corpus or training setting does not fit.

    The message is one line that names the key or file, what was found, what was expected and what to do.
    """


class TrainingError(RuntimeError):
    """A training failed for a reason outside the user's input; the message is one line."""
