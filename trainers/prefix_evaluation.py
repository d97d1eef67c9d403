"""Losses of many paths through one block of a supernet, each shared beginning computed once.

Shape legend: A architectures, B batch, T tokens, D hidden size of the teacher, H hidden size of a block.

The architectures of a block are paths of a tree: those that begin with the same steps share the states after these
steps. Sorted by their steps, the architectures come in the order of a walk through that tree, depth first, so that
each costs what its last steps cost, instead of all of them; and no more states are alive than the deepest path has
steps. Each loss is bit for bit the one of evaluating the architecture alone (:meth:`PrefixEvaluator.loss_alone`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.supernet import BlockwiseSupernet
from trainers.losses import masked_mse
from trainers.precision import Precision, autocast
from trainers.validation import ValidationBatch

Steps = tuple[Hashable, ...]
OutputForm = Literal["full", "factored"]
OnResult = Callable[[int, float], None]

READ_TOGETHER = 256
"""Losses that leave an accelerator in one transfer: reading each by itself would wait for it each time."""


class PrefixEvaluator:
    """Scores block architectures on validation batches, in this process.

    Args:
        supernet: in evaluation mode.
        batches: validation text with the teacher's answers, on the supernet's device.
        precision: number format of forward passes.
        output: how a state is compared with the teacher's. ``full`` maps it to the teacher's width D and takes the
            difference there, as :func:`~trainers.losses.masked_mse` does. ``factored`` compares within the H
            directions the map can reach and adds what lies outside as a constant: 2 H² instead of 2 H D operations a
            token. Its losses agree with the others to about 1e-6 in float32, not bit for bit.
    """

    def __init__(
        self,
        supernet: BlockwiseSupernet[Any],
        batches: Sequence[ValidationBatch],
        precision: Precision = "float32",
        output: OutputForm = "full",
    ) -> None:
        self.supernet = supernet
        self.batches = list(batches)
        self.precision = precision
        self.output = output
        self.states_computed = 0
        """Steps run since the evaluator was made, over all batches."""
        self.most_states_alive = 0
        """The most states that were kept at the same time."""
        self._judges: dict[tuple[int, Hashable, int], _Judge] = {}

    def losses(self, index: int, blocks: Sequence[Any], on_result: OnResult | None = None) -> NDArray[np.float64]:
        """The mean squared error of each block architecture over valid tokens and dimensions of all batches.

        Args:
            index: the block, from 0.
            blocks: its architectures, in any order; repeats cost nothing.
            on_result: called with the place in ``blocks`` and the loss as soon as the last batch has given it.

        Returns:
            One loss for each of ``blocks``, in their order.
        """
        by_batch_AN = self.batch_losses(index, blocks, on_result)
        return mean_over_batches(by_batch_AN, self.tokens())

    def batch_losses(self, index: int, blocks: Sequence[Any], on_result: OnResult | None = None) -> NDArray[np.float64]:
        """The same for each batch by itself, ``[A, batches]``; ``on_result`` is told of the mean."""
        places: dict[Steps, list[int]] = {}
        for place, block in enumerate(blocks):
            places.setdefault(self.supernet.block_steps(block), []).append(place)
        paths = sort_paths(list(places))
        tokens = self.tokens()
        found_AN = np.full((len(blocks), len(self.batches)), np.nan)
        for number in range(len(self.batches)):
            last = number + 1 == len(self.batches)
            for path, loss in self._walk(index, paths, number):
                found_AN[places[path], number] = loss
                if last and on_result is not None:
                    for place in places[path]:
                        on_result(place, float(mean_over_batches(found_AN[place], tokens)))
        return found_AN

    def loss_alone(self, index: int, block: Any) -> float:
        """The loss of one architecture by itself: what :meth:`losses` gives, without sharing anything."""
        errors = []
        with self._computing():
            for batch in self.batches:
                visible_BT = batch.mask_BT.to(torch.bool)
                output_BTD = self.supernet.forward_block(index, block, batch.states_BTD[index], visible_BT)
                errors.append(masked_mse(output_BTD, batch.states_BTD[index + 1], batch.mask_BT).item())
        return float(mean_over_batches(np.array(errors), self.tokens()))

    def tokens(self) -> NDArray[np.float64]:
        """Valid tokens of each batch."""
        return np.array([batch.tokens for batch in self.batches])

    def _walk(self, index: int, paths: Sequence[Steps], number: int) -> Iterator[tuple[Steps, float]]:
        """Yield each path with its loss on one batch; ``paths`` are in the order of :func:`sort_paths`."""
        batch = self.batches[number]
        visible_BT = batch.mask_BT.to(torch.bool)
        states: list[Tensor] = []
        before: Steps = ()
        waiting: list[tuple[Steps, Tensor]] = []
        for path in paths:
            shared = common_length(before, path)
            del states[shared:]
            with self._computing():
                for position in range(shared, len(path)):
                    state = states[-1] if states else batch.states_BTD[index]
                    states.append(self.supernet.run_step(index, position, path[position], state, visible_BT))
                waiting.append((path, self._judge(index, path[0], number).error(states[-1])))
            self.states_computed += len(path) - shared
            self.most_states_alive = max(self.most_states_alive, len(states))
            before = path
            if len(waiting) == READ_TOGETHER:
                yield from _read(waiting)
                waiting = []
        yield from _read(waiting)

    def _judge(self, index: int, entry: Hashable, number: int) -> _Judge:
        """What compares the ends of paths with the teacher; kept while paths have the same entry."""
        key = (index, entry, number)
        if key not in self._judges:
            self._judges = {other: judge for other, judge in self._judges.items() if other[:2] == key[:2]}
            batch = self.batches[number]
            affine = self.supernet.leave_map(index, entry) if self.output == "factored" else None
            if affine is not None and affine[0].shape[1] < affine[0].shape[0]:
                self._judges[key] = _FactoredOutput(*affine, batch.states_BTD[index + 1], batch.mask_BT)
            else:
                self._judges[key] = _FullOutput(
                    self.supernet, index, entry, batch.states_BTD[index + 1], batch.mask_BT, self._scratch(batch)
                )
        return self._judges[key]

    def _scratch(self, batch: ValidationBatch) -> Tensor:
        """Memory for one error, shared by all judges of batches of this shape (they take turns)."""
        state = batch.states_BTD[0]
        for judge in self._judges.values():
            if isinstance(judge, _FullOutput) and judge.scratch_BTD.shape == state.shape:
                return judge.scratch_BTD
        return torch.empty_like(state, dtype=torch.float32)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(autocast(self.precision, self.batches[0].mask_BT.device))
            yield


class _Judge(Protocol):
    """Compares the end of a path with the teacher's state."""

    def error(self, state: Tensor) -> Tensor:
        """The mean squared error over valid tokens and dimensions, a scalar on the state's device."""
        ...


class _FullOutput:
    """:func:`~trainers.losses.masked_mse` of the mapped state, operation for operation, without its temporaries."""

    def __init__(
        self,
        supernet: BlockwiseSupernet[Any],
        index: int,
        entry: Hashable,
        teacher_BTD: Tensor,
        mask_BT: Tensor,
        scratch_BTD: Tensor,
    ) -> None:
        self._supernet, self._index, self._entry = supernet, index, entry
        self._teacher_BTD = teacher_BTD.float()
        self._weight_BT = mask_BT.to(torch.float32)
        self._tokens = self._weight_BT.sum()
        self.scratch_BTD = scratch_BTD

    def error(self, state: Tensor) -> Tensor:
        output_BTD = self._supernet.leave(self._index, self._entry, state)
        # Into memory of its own: the output may be the state itself, which later paths still need.
        torch.sub(output_BTD, self._teacher_BTD, out=self.scratch_BTD)
        error_BT = self.scratch_BTD.square_().mean(-1)
        return (error_BT * self._weight_BT).sum() / self._tokens


class _FactoredOutput:
    """The same error, split into the directions that the map to the teacher's width reaches, and the rest.

    With the map ``W h + b`` and ``W = Q R`` (Q orthonormal, D x H), the squared length of ``W h + b - y`` is that of
    ``R h - Q'(y - b)`` plus that of the part of ``y - b`` outside Q's range, which no path can change.
    """

    def __init__(self, weight_DH: Tensor, bias_D: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> None:
        basis_DH, triangle_HH = torch.linalg.qr(weight_DH.double())
        wanted_BTD = teacher_BTD.double() - bias_D.double()
        reachable_BTH = wanted_BTD @ basis_DH
        outside_BT = wanted_BTD.square().sum(-1) - reachable_BTH.square().sum(-1)
        weight_BT = mask_BT.double()
        self._triangle_HH = triangle_HH.float()
        self._reachable_BTH = reachable_BTH.float()
        self._weight_BT = (weight_BT / weight_BT.sum() / len(weight_DH)).float()
        self._constant = (outside_BT.clamp(min=0.0) * weight_BT).sum() / weight_BT.sum() / len(weight_DH)

    def error(self, state: Tensor) -> Tensor:
        reached_BTH = torch.nn.functional.linear(state, self._triangle_HH)
        error_BT = (reached_BTH - self._reachable_BTH).square_().sum(-1)
        error: Tensor = (error_BT * self._weight_BT).sum() + self._constant
        return error


def mean_over_batches(by_batch: NDArray[np.float64], tokens_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Losses of batches (last axis) as one: weighted by valid tokens, summed in the batches' order."""
    total: NDArray[np.float64] = np.zeros(by_batch.shape[:-1])
    for number, tokens in enumerate(tokens_N):
        total += by_batch[..., number] * tokens
    total /= tokens_N.sum()
    return total


def sort_paths(paths: Sequence[Steps]) -> list[Steps]:
    """Different paths in the order of a walk through their tree, depth first, each before its continuations.

    Steps are ordered by their first appearance, so any keys will do.
    """
    ranks: dict[Hashable, int] = {}
    for path in paths:
        for key in path:
            ranks.setdefault(key, len(ranks))
    return sorted(paths, key=lambda path: [ranks[key] for key in path])


def common_length(first: Steps, second: Steps) -> int:
    """How many steps two paths have in common from their beginning on."""
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def pieces_of_walk(paths: Sequence[Steps], costs: Sequence[float], pieces: int) -> list[list[int]]:
    """Cut the walk through a tree into pieces of about equal cost, for processes that evaluate at the same time.

    A piece is a run of the walk within one entry: subtrees that follow each other. It repeats what leads to its first
    path, at most as many steps as that path has.

    Args:
        paths: of one block, different ones.
        costs: of each path's own end (its last step and leaving), in any unit.
        pieces: how many are wanted; there may be up to one more for each entry.

    Returns:
        For each piece, places in ``paths``, in the walk's order. Every place is in one piece.
    """
    place = {path: number for number, path in enumerate(paths)}
    limit = sum(costs) / max(1, pieces)
    found: list[list[int]] = []
    cost = 0.0
    entry: Hashable = None
    for path in sort_paths(paths):
        number = place[path]
        if not found or path[0] != entry or cost + costs[number] / 2 > limit:
            found.append([])
            cost, entry = 0.0, path[0]
        found[-1].append(number)
        cost += costs[number]
    return found


def _read(waiting: Sequence[tuple[Steps, Tensor]]) -> Iterator[tuple[Steps, float]]:
    if not waiting:
        return
    values = torch.stack([loss for _, loss in waiting]).tolist()
    for (path, _), value in zip(waiting, values, strict=True):
        yield path, value
