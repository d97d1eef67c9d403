"""Errors that a person's input can cause in a search space."""


class SpaceError(ValueError):
    """A space's options, or an architecture typed by a person, do not fit.

    The message is one line that names what was found and what was expected.
    """


class ArchitectureSyntaxError(SpaceError):
    """An architecture's text form cannot be parsed."""
