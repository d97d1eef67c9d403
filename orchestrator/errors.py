"""Errors that end a command with one line instead of a traceback."""


class UserError(ValueError):
    """The user's input is wrong: one line that names the key or file, what was found, what was expected, what to do.

    The command ends with exit code 2.
    """


class RunError(RuntimeError):
    """A run failed for a reason outside the user's input; the command ends with exit code 1."""
