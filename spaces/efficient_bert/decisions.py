"""EfficientBERT architectures as named categorical choices, which samplers such as Optuna's are asked.

Block by block: its sizes, the *form* of its expression (in which ``activation`` and ``combination`` stand for any), and
then which activations and combinations these are. Two activations of x that are combined are one choice of two
different ones, since rule 7 forbids equal ones. Where a window leaves sizes of a block that hang on those before, there
is a decision for each set of sizes that may be left; where not all sizes run the same forms, one for each set of forms.
More forms than anybody would list are asked in two steps: a group of neighbours in the order of
:mod:`spaces.efficient_bert.counting`, and which of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from itertools import permutations

from spaces.efficient_bert.architecture import EfficientBertArchitecture, architecture_of
from spaces.efficient_bert.counting import FORM_ALPHABET, TreeCounter, TreeKind, kinds_that_run, tree_counter
from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, INPUT, LINEAR_MAPS, Expression
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.windows import WindowedChoices
from spaces.space import Decision

MOST_LISTED = 2_000
"""More forms than these are asked in two steps."""
GROUP = 1_000
"""Forms of a group then."""

Sizes = tuple[int, int]
_PAIRS = tuple(",".join(pair) for pair in permutations(ACTIVATIONS, 2))
_SLOTS: Mapping[str, tuple[str, ...]] = {"combination": COMBINATIONS, "activation": ACTIVATIONS, "pair": _PAIRS}
"""What a form leaves open, with the choices."""
_WORDS = {FORM_ALPHABET.activations[0]: "activation", FORM_ALPHABET.combinations[0]: "combination"}


class DecisionBook:
    """The decisions of one space, and the ways between choices and architectures.

    Args:
        options: of the space.
        sizes: what every block can have, within the space's window.
    """

    def __init__(self, options: EfficientBertOptions, sizes: WindowedChoices[Sizes]) -> None:
        self._options, self._sizes = options, sizes
        self._counter = tree_counter(options.limits, FORM_ALPHABET)

    @cached_property
    def decisions(self) -> list[Decision]:
        """All decisions, in an order in which conditions only look back."""
        listed: list[Decision] = []
        for block in range(self._options.layers):
            listed += self._size_decisions(block)
            if self._options.fixed_expressions is None:
                listed += self._form_decisions(block)
                listed += self._slot_decisions(block)
        return listed

    def from_decisions(self, chosen: Mapping[str, str]) -> EfficientBertArchitecture:
        """The architecture of a complete set of choices."""
        sizes, expressions = [], []
        for block in range(self._options.layers):
            sizes.append(self._size(block, chosen))
            expressions.append(self._options.fixed_expression(block) or self._expression(block, chosen))
        return architecture_of(self._options.hidden_size, sizes, expressions)

    def to_decisions(self, architecture: EfficientBertArchitecture) -> dict[str, str]:
        """The choices that lead to an architecture."""
        chosen: dict[str, str] = {}
        for block, choice in enumerate(architecture.blocks):
            if self._options.fixed_linear_ids is None:
                chosen[self._size_name(block, self._spent(block, chosen))] = choice.linear_id
            if self._options.fixed_expressions is None:
                kinds = self._kinds(choice.divisor)
                form, slots = _opened(choice.expression)
                if self._counter.count(kinds) <= MOST_LISTED:
                    chosen[self._form_name(block, kinds)] = form_text(form)
                else:
                    group, member = divmod(self._counter.place(form, kinds), GROUP)
                    chosen[self._form_name(block, kinds, "group")] = str(group)
                    chosen[self._member_name(block, kinds, group)] = str(member)
                chosen.update(
                    {
                        f"block_{block + 1}_{slot}_{number}": filling
                        for slot, fillings in slots.items()
                        for number, filling in enumerate(fillings, start=1)
                    }
                )
        return chosen

    # --- sizes ---------------------------------------------------------------------------------------------------

    def _size_decisions(self, block: int) -> Iterator[Decision]:
        if self._options.fixed_linear_ids is not None:
            return
        left_open = self._choice_sets[block]
        for choices in left_open:
            condition = None if len(left_open) == 1 else partial(self._leaves, block, choices)
            yield Decision(self._variant_name(block, choices), tuple(map(_linear_id, choices)), condition)

    @cached_property
    def _choice_sets(self) -> list[tuple[tuple[Sizes, ...], ...]]:
        """For each block the sets of sizes that may be left for it."""
        return [self._sizes.possible_sets(block) for block in range(self._options.layers)]

    def _variant_name(self, block: int, choices: tuple[Sizes, ...]) -> str:
        left_open = self._choice_sets[block]
        name = f"block_{block + 1}_size"
        return name if len(left_open) == 1 else f"{name}_{left_open.index(choices) + 1}"

    def _size_name(self, block: int, spent: int) -> str:
        return self._variant_name(block, self._sizes.possible(block, spent))

    def _leaves(self, block: int, choices: tuple[Sizes, ...], chosen: Mapping[str, str]) -> bool:
        return self._sizes.possible(block, self._spent(block, chosen)) == choices

    def _spent(self, block: int, chosen: Mapping[str, str]) -> int:
        """What the blocks before one take of the window."""
        spent = 0
        if self._options.fixed_linear_ids is None:
            for before in range(block):
                spent += self._sizes.amount(before, _sizes_of(chosen[self._size_name(before, spent)]))
        return spent

    def _size(self, block: int, chosen: Mapping[str, str]) -> Sizes:
        if self._options.fixed_linear_ids is not None:
            return self._options.sizes_of_block(block)[0]
        return _sizes_of(chosen[self._size_name(block, self._spent(block, chosen))])

    # --- forms ---------------------------------------------------------------------------------------------------

    def _kinds(self, divisor: int) -> tuple[TreeKind, ...]:
        return kinds_that_run(self._options.widths(divisor), self._options.parallel)

    def _all_kinds(self, block: int) -> list[tuple[TreeKind, ...]]:
        """The sets of kinds that the sizes of a block can run."""
        return list(dict.fromkeys(self._kinds(divisor) for _, divisor in self._options.sizes_of_block(block)))

    def _form_decisions(self, block: int) -> Iterator[Decision]:
        several = len(self._all_kinds(block)) > 1
        for kinds in self._all_kinds(block):
            condition = partial(self._runs, block, kinds) if several else None
            count = self._counter.count(kinds)
            if count <= MOST_LISTED:
                texts = tuple(map(form_text, self._counter.enumerate(kinds)))
                if texts:
                    yield Decision(self._form_name(block, kinds), texts, condition)
                continue
            groups = -(-count // GROUP)
            name = self._form_name(block, kinds, "group")
            yield Decision(name, tuple(map(str, range(groups))), condition)
            for last in dict.fromkeys((False, count % GROUP > 0)):
                members = count % GROUP if last else GROUP
                asked = partial(self._in_group, block, kinds, name, groups - 1 if count % GROUP else None, last)
                group = groups - 1 if last else 0
                yield Decision(self._member_name(block, kinds, group), tuple(map(str, range(members))), asked)

    def _form_name(self, block: int, kinds: tuple[TreeKind, ...], step: str = "") -> str:
        name = f"block_{block + 1}_form{f'_{step}' if step else ''}"
        return name if len(self._all_kinds(block)) == 1 else "_".join([name, *kinds])

    def _member_name(self, block: int, kinds: tuple[TreeKind, ...], group: int) -> str:
        count = self._counter.count(kinds)
        last = count % GROUP > 0 and group == count // GROUP
        return self._form_name(block, kinds, "last_member" if last else "member")

    def _runs(self, block: int, kinds: tuple[TreeKind, ...], chosen: Mapping[str, str]) -> bool:
        return self._kinds(self._size(block, chosen)[1]) == kinds

    def _in_group(
        self,
        block: int,
        kinds: tuple[TreeKind, ...],
        group: str,
        short_group: int | None,
        last: bool,
        chosen: Mapping[str, str],
    ) -> bool:
        return self._runs(block, kinds, chosen) and (chosen[group] == str(short_group)) == last

    def _form(self, block: int, chosen: Mapping[str, str]) -> Expression:
        kinds = self._kinds(self._size(block, chosen)[1])
        if self._counter.count(kinds) <= MOST_LISTED:
            return read_form(chosen[self._form_name(block, kinds)])
        group = int(chosen[self._form_name(block, kinds, "group")])
        member = int(chosen[self._member_name(block, kinds, group)])
        return _form_at(self._counter, group * GROUP + member, kinds)

    # --- what forms leave open -----------------------------------------------------------------------------------

    def _slot_decisions(self, block: int) -> Iterator[Decision]:
        for slot, most in self._most_slots.items():
            for number in range(1, most + 1):
                needs = partial(self._has_slot, block, slot, number)
                yield Decision(f"block_{block + 1}_{slot}_{number}", _SLOTS[slot], needs)

    @cached_property
    def _most_slots(self) -> dict[str, int]:
        """How many of each slot a form can have: counted, or where there are too many forms bounded by their nodes."""
        kinds = max((kinds for block in range(self._options.layers) for kinds in self._all_kinds(block)), key=len)
        if self._counter.count(kinds) > MOST_LISTED:
            spare = self._options.limits.max_nodes - 5  # behind two linear maps and x
            return {"combination": spare // 2, "activation": spare, "pair": spare // 4}
        opened = [_opened(form)[1] for form in self._counter.enumerate(kinds)]
        return {slot: max((len(slots[slot]) for slots in opened), default=0) for slot in _SLOTS}

    def _has_slot(self, block: int, slot: str, number: int, chosen: Mapping[str, str]) -> bool:
        return len(_opened(self._form(block, chosen))[1][slot]) >= number

    def _expression(self, block: int, chosen: Mapping[str, str]) -> Expression:
        form = self._form(block, chosen)
        slots = {
            slot: [chosen[f"block_{block + 1}_{slot}_{number}"] for number in range(1, len(found) + 1)]
            for slot, found in _opened(form)[1].items()
        }
        return _filled(form, slots)


@lru_cache(maxsize=4096)
def _form_at(counter: TreeCounter, place: int, kinds: tuple[TreeKind, ...]) -> Expression:
    """A form by its place, kept since one decision after the other asks for it."""
    return counter.at(place, kinds)


def form_text(form: Expression) -> str:
    """The text of a form, such as ``linear2(activation(linear1(x)))``."""
    return re.sub("|".join(_WORDS), lambda found: _WORDS[found[0]], form.text)


@lru_cache(maxsize=4096)
def read_form(text: str) -> Expression:
    """The inverse of :func:`form_text`."""
    for operator, word in _WORDS.items():
        text = text.replace(word, operator)
    return Expression.parse(text)


def _opened(expression: Expression) -> tuple[Expression, Mapping[str, tuple[str, ...]]]:
    """The form of an expression, and what fills its slots."""
    found: dict[str, list[str]] = {slot: [] for slot in _SLOTS}

    def note(slot: str, filling: str) -> str:
        found[slot].append(filling)
        activation, combination = _WORDS
        return {"combination": combination, "activation": activation, "pair": f"{activation},{activation}"}[slot]

    form = _rebuilt(expression, note)
    return form, {slot: tuple(fillings) for slot, fillings in found.items()}


def _filled(form: Expression, slots: Mapping[str, list[str]]) -> Expression:
    left = {slot: iter(fillings) for slot, fillings in slots.items()}
    return _rebuilt(form, lambda slot, _: next(left[slot]))


def _rebuilt(node: Expression, fill: Callable[[str, str], str]) -> Expression:
    """The tree with another filling in every slot, asked in the order of the text."""
    if node.operator == INPUT:
        return node
    if node.operator in LINEAR_MAPS:
        return Expression(node.operator, (_rebuilt(node.arguments[0], fill),))
    if node.operator in ACTIVATIONS:
        operator = fill("activation", node.operator)
        return Expression(operator, (_rebuilt(node.arguments[0], fill),))
    operator = fill("combination", node.operator)
    if all(argument.operator in ACTIVATIONS and argument.nodes == 2 for argument in node.arguments):
        names = fill("pair", ",".join(argument.operator for argument in node.arguments)).split(",")
        arguments = [Expression(name, argument.arguments) for name, argument in zip(names, node.arguments, strict=True)]
        return Expression(operator, tuple(arguments))
    return Expression(operator, tuple(_rebuilt(argument, fill) for argument in node.arguments))


def _linear_id(sizes: Sizes) -> str:
    return f"{sizes[0]}_{sizes[1]}"


def _sizes_of(linear_id: str) -> Sizes:
    stacked, divisor = linear_id.split("_")
    return int(stacked), int(divisor)
