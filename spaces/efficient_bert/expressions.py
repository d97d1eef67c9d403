"""Expressions that take the place of a feed-forward: trees as values, and their text form.

The text is that of nested function calls, ``tanh(linear2(gelu(linear1(x))))``. ``x`` is the input, ``linear1`` the map
from the hidden size to the inner size and ``linear2`` the map back, each with weights of its own; the activations take
one argument, ``add``, ``mul`` and ``max`` two. Texts are read by a grammar, never evaluated.

Nodes and heights are those of the paper's trees, in which a linear map has its weights as a second argument: it counts
two nodes, so that the plain feed-forward ``linear2(gelu(linear1(x)))`` has 6 nodes and height 3 (paper notes, section
2.5).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from spaces.errors import ArchitectureSyntaxError, SpaceError

INPUT = "x"
LINEAR_MAPS = ("linear1", "linear2")
ACTIVATIONS = ("gelu", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "swish")
COMBINATIONS = ("add", "mul", "max")
ARITIES = {**dict.fromkeys((*LINEAR_MAPS, *ACTIVATIONS), 1), **dict.fromkeys(COMBINATIONS, 2)}
"""Every operator, and how many arguments it takes."""

DEEPEST = 50
"""Deeper texts are refused before they are read to the end; no space has trees anywhere near."""

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[(),]")
_EXAMPLE = "tanh(linear2(gelu(linear1(x))))"


@dataclass(frozen=True)
class Expression:
    """A node of an expression tree with all that is below it.

    Two expressions are equal if their texts are. Nothing is asked here but that operators are known and have as many
    arguments as they take; which trees a network may have is what :mod:`spaces.efficient_bert.rules` says.

    Attributes:
        operator: ``x``, or a key of :data:`ARITIES`.
        arguments: none for ``x``.
        text: the canonical text form, without spaces.
        nodes: of the paper's tree, weights included.
        height: edges of the longest way down.

    Raises:
        SpaceError: the operator is unknown, or has another number of arguments than it takes.
    """

    operator: str = field(compare=False)
    arguments: tuple[Expression, ...] = field(default=(), compare=False)
    text: str = field(init=False)
    nodes: int = field(init=False, compare=False, repr=False)
    height: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        problem = _misuse(self.operator, len(self.arguments))
        if problem is not None:
            raise SpaceError(f"expression: {problem}")
        inside = ",".join(argument.text for argument in self.arguments)
        weights = 1 if self.operator in LINEAR_MAPS else 0
        below = (argument.height + 1 for argument in self.arguments)
        values = {
            "text": f"{self.operator}({inside})" if self.arguments else self.operator,
            "nodes": 1 + weights + sum(argument.nodes for argument in self.arguments),
            "height": max(below, default=0),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read the text form; spaces between words do not matter.

        Raises:
            ArchitectureSyntaxError: the text is malformed; the message names the column, counted from 1.
        """
        return parse_within(text, 0, len(text), "expression")

    @classmethod
    def from_nested(cls, nested: str | Sequence[Any]) -> Expression:
        """Make the expression of a nested form, see :meth:`nested`.

        Raises:
            SpaceError: it is no expression.
        """
        if isinstance(nested, str):
            return cls(nested)
        if not nested or not isinstance(nested[0], str):
            raise SpaceError(f"expression: found {nested!r}, expected x or [operator, argument, ...]")
        return cls(nested[0], tuple(cls.from_nested(argument) for argument in nested[1:]))

    def nested(self) -> str | list[Any]:
        """Plain lists that configurations and modules are made of: ``x`` or ``[operator, argument, ...]``."""
        if not self.arguments:
            return self.operator
        return [self.operator, *(argument.nested() for argument in self.arguments)]

    def walk(self) -> Iterator[Expression]:
        """This node and all below it, in the order of the text."""
        yield self
        for argument in self.arguments:
            yield from argument.walk()

    def prefix(self) -> Iterator[str]:
        """The names of the paper's nodes in prefix order, ``weights1`` and ``weights2`` included."""
        yield self.operator
        for argument in self.arguments:
            yield from argument.prefix()
        if self.operator in LINEAR_MAPS:
            yield f"weights{self.operator[-1]}"

    def replaced(self, place: int, by: Expression) -> Expression:
        """The tree with another subtree at a place of :meth:`walk`, counted from 0."""
        if place == 0:
            return by
        place -= 1
        arguments = list(self.arguments)
        for index, argument in enumerate(arguments):
            size = sum(1 for _ in argument.walk())
            if place < size:
                arguments[index] = argument.replaced(place, by)
                break
            place -= size
        return Expression(self.operator, tuple(arguments))


def parse_within(text: str, start: int, end: int, kind: str) -> Expression:
    """Read the expression between two places of a longer text.

    Args:
        text: the whole text, which error messages repeat.
        start: where the expression begins, counted from 0.
        end: where it ends.
        kind: what the whole text is called.

    Raises:
        ArchitectureSyntaxError: it is malformed; the message names the column of the whole text, counted from 1.
    """
    return _Reader(text, start, end, kind).read()


class _Reader:
    """Recursive descent over ``expression := x | operator "(" expression { "," expression } ")"``."""

    def __init__(self, text: str, start: int, end: int, kind: str) -> None:
        self._text, self._place, self._end, self._kind = text, start, end, kind

    def read(self) -> Expression:
        expression = self._expression(0)
        self._skip_spaces()
        if self._place < self._end:
            found = self._text[self._place : self._end]
            self._fail(self._place, f"expected nothing more after {str(expression)!r}, found {_shortened(found)}")
        return expression

    def _expression(self, depth: int) -> Expression:
        name, place = self._next("x or an operator")
        if not (name[0].isalpha() or name[0] == "_"):
            self._fail(place, f"expected x or an operator, found {name!r}")
        if name == INPUT:
            return X
        if name not in ARITIES:
            self._fail(place, _unknown(name))
        if depth == DEEPEST:
            self._fail(place, f"expected at most {DEEPEST} operators inside each other, found more")
        self._expect("(", f"'(' and {_arguments(ARITIES[name])} behind {name}")
        arguments = [self._expression(depth + 1)]
        while len(arguments) < ARITIES[name]:
            self._expect(",", f"',' and another argument: {name} takes {_arguments(ARITIES[name])}")
            arguments.append(self._expression(depth + 1))
        self._expect(")", f"')', since {name} takes {_arguments(ARITIES[name])}")
        return Expression(name, tuple(arguments))

    def _next(self, expected: str) -> tuple[str, int]:
        self._skip_spaces()
        if self._place == self._end:
            self._fail(self._place, f"expected {expected}, found the end")
        matched = _TOKEN.match(self._text, self._place, self._end)
        if matched is None:
            self._fail(self._place, f"expected {expected}, found {self._text[self._place]!r}")
        self._place = matched.end()
        return matched[0], matched.start()

    def _expect(self, token: str, expected: str) -> None:
        found, place = self._next(expected)
        if found != token:
            self._fail(place, f"expected {expected}, found {_shortened(found)}")

    def _skip_spaces(self) -> None:
        while self._place < self._end and self._text[self._place].isspace():
            self._place += 1

    def _fail(self, place: int, message: str) -> NoReturn:
        raise ArchitectureSyntaxError(
            f"{self._kind} {self._text!r}, column {place + 1}: {message}; an example: {_EXAMPLE}"
        )


def _misuse(operator: str, count: int) -> str | None:
    """Why an operator cannot have a number of arguments; ``None`` if it can."""
    if operator == INPUT:
        return None if count == 0 else f"x has {_arguments(count)}, expected none"
    if operator not in ARITIES:
        return _unknown(operator)
    if count != ARITIES[operator]:
        return f"{operator} has {_arguments(count)}, expected {ARITIES[operator]}"
    return None


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, [INPUT, *ARITIES], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected x or one of {', '.join(ARITIES)}"
    return f"found {_shortened(name)}, which is no operator; {hint}"


def _arguments(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


def _shortened(found: str) -> str:
    return repr(found if len(found) <= 40 else f"{found[:37]}...")


X = Expression(INPUT)
PLAIN = Expression("linear2", (Expression("gelu", (Expression("linear1", (X,)),)),))
"""The plain feed-forward, which every search starts from."""
