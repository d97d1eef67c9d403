"""How a part of a space travels: by name, to be taken of the space that a process makes from its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spaces.space import SearchSpace


@dataclass(frozen=True)
class Narrowing:
    """A part of a space: the architectures that agree with one of them in some aspects.

    Attributes:
        architecture: text form of that one.
        keep: names of aspects; none leave the space as it is.
    """

    architecture: str = ""
    keep: tuple[str, ...] = ()

    def of(self, space: SearchSpace[Any]) -> SearchSpace[Any]:
        """The part of a space.

        Raises:
            SpaceError: the space has no such architecture or aspect.
        """
        return space.narrowed(space.parse(self.architecture), self.keep) if self.keep else space
