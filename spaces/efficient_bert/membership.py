"""Whether an architecture is one of EfficientBERT's space, and what keeps it out if it is not."""

from __future__ import annotations

from spaces.efficient_bert.architecture import BlockChoice, EfficientBertArchitecture
from spaces.efficient_bert.cost import block_parameters, fixed_parameters
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.rules import broken_rule, width_problem


def misfit(architecture: EfficientBertArchitecture, options: EfficientBertOptions) -> str | None:
    """What keeps an architecture out of the space of some options, in a few words; ``None`` if nothing does."""
    if architecture.hidden_size != options.hidden_size:
        return f"its hidden size is {architecture.hidden_size}, expected {options.hidden_size}"
    if len(architecture.blocks) != options.layers:
        found = "1 block" if len(architecture.blocks) == 1 else f"{len(architecture.blocks)} blocks"
        return f"it has {found}, expected {options.layers}"
    for block, choice in enumerate(architecture.blocks):
        problem = _block_misfit(block, choice, options)
        if problem is not None:
            return f"block {block + 1}: {problem}"
    if not in_window(architecture, options):
        return f"it has {window_parameters(architecture, options):,} parameters, expected {_window(options)}"
    return None


def _block_misfit(block: int, choice: BlockChoice, options: EfficientBertOptions) -> str | None:
    """What keeps a block, counted from 0, out."""
    allowed = options.sizes_of_block(block)
    if choice.sizes not in allowed:
        return f"{choice.linear_id} is not one of {', '.join(f'{n}_{d}' for n, d in allowed)}"
    fixed = options.fixed_expression(block)
    if fixed is not None and choice.expression != fixed:
        return f"its expression is {choice.expression}, expected {fixed}"
    broken = broken_rule(choice.expression, options.limits)
    if broken is not None:
        return f"{choice.expression} breaks the rule {broken[0]}: {broken[1]}"
    problem = width_problem(choice.expression, options.widths(choice.divisor))
    return None if problem is None else f"{choice.expression} breaks the rule widths: {problem}"


def window_parameters(architecture: EfficientBertArchitecture, options: EfficientBertOptions) -> int:
    """The parameters that a window is about: with the linear map to the teacher's width, without a pooler."""
    return fixed_parameters(options) + sum(block_parameters(choice.sizes, options) for choice in architecture.blocks)


def in_window(architecture: EfficientBertArchitecture, options: EfficientBertOptions) -> bool:
    """Whether the parameters lie within ``options.parameter_window`` (rule 8); always where there is none."""
    window = options.parameter_window
    return window is None or window[0] <= window_parameters(architecture, options) <= window[1]


def _window(options: EfficientBertOptions) -> str:
    assert options.parameter_window is not None
    low, high = options.parameter_window
    return f"{low:,} to {high:,} (space.options.parameter_window)"
