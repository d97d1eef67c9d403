"""The teacher's states at the block borders of training text, computed, or read from disk where they were seen before.

Shape legend: B batch, T tokens, D hidden size of the teacher, N rows of the corpus, L block borders.

The cache is one memory-mapped file ``[N, L, T, D]`` for all workers of a machine, written row by row the first time a
row is seen. Another file has a byte a row that says whether the row is there. Its folder is named after the machine and
its last start: after a crash of the machine nobody could say which of the pages had reached the disk, whereas the death
of a process loses none.
"""

from __future__ import annotations

import errno
import os
import socket
import uuid
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.storage import free_bytes, readable_bytes
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.precision import Precision, autocast
from trainers.teacher import Teacher

CacheFormat = Literal["off", "float32", "bfloat16", "float16"]

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_THIS_PROCESS = uuid.uuid4().hex


def cache_bytes(rows: int, num_blocks: int, tokens: int, hidden_size: int, form: CacheFormat) -> int:
    """Size of a cache on disk.

    Args:
        rows: sequences of the corpus.
        num_blocks: of the supernet; states are kept at the borders of its blocks.
        tokens: of a sequence, padding included.
        hidden_size: of the teacher.
        form: number format; ``off`` needs nothing.
    """
    if form == "off":
        return 0
    return rows * (num_blocks + 1) * tokens * hidden_size * FORMATS[form].itemsize + rows


class TeacherStates:
    """Gives the teacher's states of training rows at the block borders.

    Rows that were all seen before are read; otherwise the teacher runs on the whole batch, as it would without a cache.
    Either way the caller gets what the number format holds, so that it does not matter which rows an interrupted
    training had already seen.

    Args:
        teacher: on ``device``.
        corpus: the rows' text.
        num_blocks: of the supernet.
        precision: number format of the teacher's forward pass.
        device: where states are computed and wanted.
        form: number format of the cache; ``off`` for none.
        folder: of the cache; a folder for this machine is made in it.

    Raises:
        TrainingInputError: the disk has no room for the cache.
    """

    def __init__(
        self,
        teacher: Teacher,
        corpus: PackedCorpus,
        num_blocks: int,
        precision: Precision,
        device: torch.device,
        form: CacheFormat = "off",
        folder: Path | None = None,
    ) -> None:
        self.teacher = teacher
        self.layers = teacher.block_layers(num_blocks)
        self.precision: Precision = precision
        self.device = device
        self.form: CacheFormat = form
        self.rows_read = 0
        """Rows that came from the cache."""
        if form != "off":
            if folder is None:
                raise TrainingInputError("supernet.teacher_cache: found no folder to keep the states in, expected one")
            self._open(folder / _machine(), len(corpus), corpus.description.sequence_length)

    def of(self, rows_B: NDArray[np.int64], input_ids_BT: Tensor, mask_BT: Tensor) -> list[Tensor]:
        """The states of some rows, float32 ``hidden_BTD`` at each block border.

        Args:
            rows_B: numbers of the rows in the corpus.
            input_ids_BT: their tokens, on the device.
            mask_BT: 1 for valid tokens, on the device.
        """
        if self.form == "off":
            return self._compute(input_ids_BT, mask_BT)
        if self._seen[rows_B].all():
            self.rows_read += len(rows_B)
            states = self._states[torch.from_numpy(rows_B)].to(self.device)
            # contiguous, as computed states are: sums over another layout would be rounded differently
            return [states[:, border].float().contiguous() for border in range(len(self.layers))]
        states_BTD = [state.to(FORMATS[self.form]) for state in self._compute(input_ids_BT, mask_BT)]
        places, first = np.unique(rows_B, return_index=True)  # a batch over the end of an epoch may have a row twice
        is_new = self._seen[places] == 0
        new = torch.from_numpy(first[is_new])
        stacked = torch.stack([state.cpu()[new] for state in states_BTD], 1)
        self._states[torch.from_numpy(places[is_new])] = stacked
        self._seen[places[is_new]] = 1  # only now: another worker may be reading
        return [state.float() for state in states_BTD]

    def _compute(self, input_ids_BT: Tensor, mask_BT: Tensor) -> list[Tensor]:
        with autocast(self.precision, self.device):
            return [state.float() for state in self.teacher.states(input_ids_BT, mask_BT, self.layers)]

    def _open(self, folder: Path, rows: int, tokens: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shape = (rows, len(self.layers), tokens, self.teacher.shape.hidden_size)
        dtype = FORMATS[self.form]
        count = int(np.prod(shape))
        states, seen = folder / f"states-{self.form}.bin", folder / f"seen-{self.form}.bin"
        _allocate(states, count * dtype.itemsize)
        _allocate(seen, rows)
        self._states = torch.from_file(str(states), shared=True, size=count, dtype=dtype).view(shape)
        self._seen = np.memmap(seen, dtype=np.uint8, mode="r+", shape=(rows,))


def _allocate(file: Path, size: int) -> None:
    """Make sure that a file has its full size on the disk; what it holds stays.

    Writing through a memory map to a disk that is full would kill the process.
    """
    with file.open("ab") as stream:
        held = file.stat().st_blocks * 512 if hasattr(os.stat_result, "st_blocks") else 0
        free = free_bytes(file.parent)
        if held < size and free < size - held:
            raise _no_room(file, size, free)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
            else:
                stream.truncate(size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _no_room(file, size, free) from error
            raise


def _no_room(file: Path, size: int, free: int) -> TrainingInputError:
    return TrainingInputError(
        f"supernet.teacher_cache: the teacher's states take {readable_bytes(size)} on the disk of {file.parent}, "
        f"{readable_bytes(free)} are free; set it to bfloat16 or off, or use less text (corpus.max_tokens)"
    )


def _machine() -> str:
    """A name for this machine since its last start; where that cannot be told, for this process."""
    try:
        since = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        since = _THIS_PROCESS
    return f"{socket.gethostname()}-{since}"
