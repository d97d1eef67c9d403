"""One of two workers of a training, or several, in a process: ``python -m tests.trainers.two_workers RANK FOLDER...``.

Reads ``job.pt`` (a factory, the number of workers and of steps) and writes ``worker-<rank>.pt``: gradients of the first
step, weights and rows, and what shrinking there was.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.trainers.blockwise_tasks import gradients_of_first_step

REPOSITORY = Path(__file__).resolve().parents[2]


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    job = torch.load(folder / "job.pt", weights_only=False)
    if job["workers"] > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        meeting_place = f"file://{folder / 'meeting-place'}"
        dist.init_process_group("gloo", init_method=meeting_place, rank=rank, world_size=job["workers"])
    task = job["factory"](rank, job["workers"], torch.device("cpu"))
    gradients = gradients_of_first_step(task)
    news, at_first_round = task.news(), None
    for step in range(1, job["steps"]):
        task.step(step)
        told = task.news()
        if told and at_first_round is None:
            at_first_round = {name: tensor.clone() for name, tensor in task.tensors().items()}
        news += told
    result = {
        "gradients": gradients,
        "weights": dict(task.tensors()),
        "rows": task.rows(job["steps"]),
        "news": news,
        "shrinking": task.optimiser_state().get("shrinking"),
        "weights at the first round": at_first_round,
    }
    torch.save(result, folder / f"worker-{rank}.pt")
    if job["workers"] > 1:
        dist.destroy_process_group()


def run_two(*folders: Path) -> None:
    """Do the jobs of some folders one after the other, each by the same two processes."""
    command = [sys.executable, "-m", "tests.trainers.two_workers"]
    processes = [
        subprocess.Popen([*command, str(rank), *map(str, folders)], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        main(Path(argument), int(sys.argv[1]))
