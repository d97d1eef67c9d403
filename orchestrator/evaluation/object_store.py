"""What evaluators of a search have in common, in Ray's object store: loaded once, one copy in the memory of a node.

A supernet and the teacher's answers are read by every actor and changed by none. So one task loads them, and the actors
of a node see its tensors in shared memory, without copying them; another node gets them from there, whether or not it
can read the files. Actors that are started in place of dead ones are ready sooner. If the node that held the material
is lost, Ray runs the task again.

Ray copies a tensor into each process that reads it, unless a switch of the whole process says otherwise; so tensors
travel as arrays here, which it maps.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import cloudpickle
from ray.exceptions import RayTaskError
from torch import Tensor

from orchestrator.evaluation.evaluator import CandidateEvaluator, EvaluatorFactory, SharingEvaluatorFactory

LARGEST_SHARE = 0.5
"""Of a node's object store that material may fill; Ray needs the rest, and writes to the disk what does not fit."""


@dataclass(frozen=True)
class Packed:
    """An object whose arrays and tensors lie beside it.

    Attributes:
        pickled: the object without them.
        buffers: their bytes, uint8.
    """

    pickled: bytes
    buffers: Sequence[NDArray[np.uint8]]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.pickled) + sum(buffer.nbytes for buffer in self.buffers)


def pack(material: object) -> Packed:
    """Take an object apart; the buffers are views of its tensors' memory as long as these are contiguous.

    Args:
        material: picklable; tensors on the CPU, without gradients.
    """
    buffers: list[NDArray[np.uint8]] = []
    file = io.BytesIO()
    _Pickler(
        file, protocol=5, buffer_callback=lambda buffer: buffers.append(np.frombuffer(buffer.raw(), np.uint8))
    ).dump(material)
    return Packed(file.getvalue(), buffers)


def unpack(packed: Packed) -> Any:
    """Put an object together again; its tensors are views of the buffers and must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return pickle.loads(packed.pickled, buffers=packed.buffers)


def share_material(factory: EvaluatorFactory, cpus: float, gpus: float) -> list[Any]:
    """Have the material of a factory loaded on the Ray that this process is connected to.

    Args:
        factory: of the evaluators.
        cpus: that an actor reserves.
        gpus: that an actor reserves. Where there are any, one actor's share of resources loads the material before
            actors start; else it is loaded while they start.

    Returns:
        What actors are handed for :func:`make_evaluator`; empty if the factory shares nothing.
    """
    if not isinstance(factory, SharingEvaluatorFactory):
        return []
    resources = {"num_cpus": cpus, "num_gpus": gpus} if gpus else {"num_cpus": 0}
    limit = int(LARGEST_SHARE * _smallest_object_store())
    references = [ray.remote(**resources)(_load).remote(cloudpickle.dumps(factory), limit)]
    if gpus:
        ray.wait(references)
    return references


def make_evaluator(factory: EvaluatorFactory, references: Sequence[Any]) -> CandidateEvaluator:
    """Make the evaluator of an actor.

    Args:
        factory: of the evaluators.
        references: of :func:`share_material`.

    Raises:
        Exception: whatever the factory raised when it loaded the material, here or in the task.
    """
    try:
        packed = ray.get(references[0]) if references else None
    except RayTaskError as error:
        raise error.cause from None
    if packed is None:
        return factory()
    assert isinstance(factory, SharingEvaluatorFactory)
    return factory.make(unpack(packed))


def _load(pickled: bytes, limit: int) -> Packed | None:
    """Load a factory's material; ``None`` where it is too large for the object store, so that each actor loads it."""
    packed = pack(cloudpickle.loads(pickled).load())
    return packed if packed.size <= limit else None


def _smallest_object_store() -> float:
    """Bytes of the smallest node's object store."""
    sizes = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    return float(min(sizes, default=0.0))


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Hands tensors on as arrays, whose memory may lie outside the pickle."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and value.device.type == "cpu" and value.layout == torch.strided:
            flat = value.detach().contiguous().reshape(-1)
            return _tensor, (flat.view(torch.uint8).numpy(), value.dtype, tuple(value.shape))
        return super().reducer_override(value)


def _tensor(content: NDArray[np.uint8], dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(content).view(dtype).reshape(shape)
