"""Reading the text form of architectures by a grammar; mistakes are told with their column.

::

    architecture := layer { "|" layer }
    layer        := "0" | attention | feed_forward | attention "/" feed_forward
    attention    := "H" stages [ ".Q" numbers ] [ ".M" ]
    feed_forward := "F" stages [ ".M" ]
    stages       := numbers { ">" numbers }
    numbers      := range { "," range }
    range        := number [ "-" number ]

Numbers ascend within a sublayer, from 1 on. Spaces between them do not matter.
"""

from __future__ import annotations

import re
from typing import NoReturn

from spaces.components.architecture import ABSENT, ATTENTION, FEED_FORWARD, ComponentsArchitecture, LayerChoice
from spaces.components.sublayers import Stages, SublayerChoice
from spaces.errors import ArchitectureSyntaxError

_NUMBER = re.compile(r"[0-9]+")
_LARGEST = 9999
_EXAMPLE = "H1-12.Q1-2.M/F1-8.M|H1-4>5-8/F1,3.M|0"
_COMPONENTS = {ATTENTION: "head", FEED_FORWARD: "slice"}


def parse_architecture(text: str) -> ComponentsArchitecture:
    """Read the text of an architecture.

    Raises:
        ArchitectureSyntaxError: it is malformed; the message names the column, counted from 1.
    """
    return ComponentsArchitecture(_Reader(text, "architecture").layers())


def parse_sublayer(letter: str, text: str) -> SublayerChoice:
    """Read the text of one sublayer alone, ``0`` for an absent one.

    Raises:
        ArchitectureSyntaxError: it is malformed, or another kind of sublayer.
    """
    return _Reader(text, "sublayer").alone(letter)


class _Reader:
    """Recursive descent, one method a rule; the place is that of the next character that is no space."""

    def __init__(self, text: str, kind: str) -> None:
        self._text, self._kind, self._place = text, kind, 0
        self._skip_spaces()

    def layers(self) -> tuple[LayerChoice, ...]:
        layers = [self._layer()]
        while self._took("|"):
            layers.append(self._layer())
        self._expect_end("'|' and another layer")
        return tuple(layers)

    def alone(self, letter: str) -> SublayerChoice:
        if self._took(ABSENT):
            choice = SublayerChoice()
        else:
            self._expect(letter, f"{letter} and the numbers of {_COMPONENTS[letter]}s, or 0 for nothing")
            choice = self._sublayer(letter)
        self._expect_end("nothing more")
        return choice

    def _layer(self) -> LayerChoice:
        if self._took(ABSENT):
            return LayerChoice()
        if self._took(FEED_FORWARD):
            return LayerChoice(feed_forward=self._sublayer(FEED_FORWARD))
        self._expect(ATTENTION, "a layer: H and the numbers of heads, F and those of slices, or 0 for nothing")
        attention = self._sublayer(ATTENTION)
        if not self._took("/"):
            return LayerChoice(attention)
        self._expect(FEED_FORWARD, "F and the numbers of slices behind '/'")
        return LayerChoice(attention, self._sublayer(FEED_FORWARD))

    def _sublayer(self, letter: str) -> SublayerChoice:
        """What stands behind its letter."""
        stages = self._stages(_COMPONENTS[letter])
        query_key: tuple[int, ...] = ()
        marks = "Q and the numbers of query-key slices, or M" if letter == ATTENTION else "M"
        if not self._took("."):
            return SublayerChoice(stages)
        if letter == ATTENTION and self._took("Q"):
            query_key = self._numbers("query-key slice", ())
            if not self._took("."):
                return SublayerChoice(stages, query_key)
            marks = "M"
        self._expect("M", f"{marks} behind '.'")
        return SublayerChoice(stages, query_key, True)

    def _stages(self, component: str) -> Stages:
        stages = [self._numbers(component, ())]
        while self._took(">"):
            stages.append(self._numbers(component, stages[-1]))
        return tuple(stages)

    def _numbers(self, component: str, before: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers from 0 on, above those before."""
        found: list[int] = []
        while True:
            least = found[-1] + 2 if found else before[-1] + 2 if before else 1
            first = last = self._number(component, least)
            if self._took("-"):
                last = self._number(component, first + 1)
            found += range(first - 1, last)
            if not self._took(","):
                return tuple(found)

    def _number(self, component: str, least: int) -> int:
        """A number as it is written, from 1 on."""
        place, matched = self._place, _NUMBER.match(self._text, self._place)
        expected = f"the number of a {component}" + (f", {least} or more" if least > 1 else "")
        if matched is None:
            self._fail(f"expected {expected}, found {self._found()}")
        self._advance(len(matched[0]))
        number = int(matched[0][: len(str(_LARGEST)) + 1])
        if not least <= number <= _LARGEST or matched[0][0] == "0":
            self._place = place
            expected += f", {_LARGEST} at most" if number > _LARGEST else ""
            self._fail(f"expected {expected}, found {_shortened(matched[0])}")
        return number

    # --- characters ----------------------------------------------------------------------------------------------

    def _took(self, character: str) -> bool:
        """Pass over a character if it is the next one."""
        if not self._text.startswith(character, self._place):
            return False
        self._advance(len(character))
        return True

    def _expect(self, character: str, expected: str) -> None:
        if not self._took(character):
            self._fail(f"expected {expected}, found {self._found()}")

    def _expect_end(self, or_else: str) -> None:
        if self._place < len(self._text):
            self._fail(f"expected {or_else}, found {self._found()}")

    def _advance(self, characters: int) -> None:
        self._place += characters
        self._skip_spaces()

    def _skip_spaces(self) -> None:
        while self._place < len(self._text) and self._text[self._place].isspace():
            self._place += 1

    def _found(self) -> str:
        return "the end" if self._place == len(self._text) else repr(self._text[self._place])

    def _fail(self, message: str) -> NoReturn:
        raise ArchitectureSyntaxError(
            f"{self._kind} {self._text!r}, column {self._place + 1}: {message}; an example: {_EXAMPLE}"
        )


def _shortened(digits: str) -> str:
    return digits if len(digits) <= 12 else f"{digits[:12]}..."
