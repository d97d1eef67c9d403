"""The Tune adapter on a real local Ray: equal to the plain loop, busy, and unmoved by kills."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.connect import ClusterInfo
from cluster.processes import end_processes
from orchestrator.errors import RunError, UserError
from orchestrator.evaluation.evaluator import CandidateEvaluator
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.search_loop import SearchProgress, SearchRecord
from orchestrator.evaluation.tune import TuneEvaluation
from tests.orchestrator.evaluation import fault_driver, search_driver
from tests.orchestrator.evaluation.toy_evaluation import (
    Row,
    RowFile,
    ToyEvaluatorFactory,
    front,
    make_loop,
    read_log,
    row,
)

REPOSITORY = Path(__file__).resolve().parents[3]


def local_rows(**options: object) -> list[Row]:
    rows: list[Row] = []
    loop = make_loop(lambda record: rows.append(row(record)), **options)  # type: ignore[arg-type]
    evaluate_locally(loop, ToyEvaluatorFactory())
    return sorted(rows)


def test_equals_the_plain_loop_busy_and_quiet(
    local_ray: ClusterInfo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    records: list[SearchRecord] = []
    seen: list[SearchProgress] = []
    log = tmp_path / "scored.jsonl"
    loop = make_loop(records.append, budget=48, window=4, state_file=tmp_path / "state.json")
    TuneEvaluation(ToyEvaluatorFactory(seconds=0.3, log=log)).run(loop, progress=seen.append)

    assert sorted(map(row, records)) == local_rows(budget=48, window=4)
    assert all(record.origin.trial_id and record.origin.host for record in records)
    assert len({record.origin.pid for record in records}) == 2, "actors were not reused"
    assert seen[-1].evaluated == 48
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""

    trials = read_log(log)
    wall = max(end for _, _, end, _ in trials) - min(begin for _, begin, _, _ in trials)
    concurrency = sum(end - begin for _, begin, end, _ in trials) / wall
    # One actor alone gives 1.0, a collapse after each barrier 1.2; how close to 2 it comes is the benchmark's business,
    # since it depends on what else the machine is doing. Where that is too much, nothing can be said of it.
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip(f"two actors ran {concurrency:.2f} trials at once on average on a machine that is overloaded")
    assert concurrency >= 1.4, f"two actors ran {concurrency:.2f} trials at once on average"


def test_an_actor_killed_between_trials_is_replaced_and_changes_nothing(local_ray: ClusterInfo) -> None:
    """Nor is it held against the candidate that it would have been given next, though that has one attempt alone."""
    records: list[SearchRecord] = []

    def kill_once(record: SearchRecord) -> None:
        records.append(record)
        if len(records) == 11:
            assert record.origin.pid is not None
            os.kill(record.origin.pid, signal.SIGKILL)

    loop = make_loop(kill_once, batch_size=1, window=4)
    TuneEvaluation(ToyEvaluatorFactory(seconds=0.1), max_failures=0).run(loop)
    assert sorted(map(row, records)) == local_rows(batch_size=1, window=4)
    pids = [record.origin.pid for record in records]
    assert len(set(pids)) == 3
    survivor = next(pid for pid in pids if pid != pids[10])
    successor = next(pid for pid in pids if pid not in (survivor, pids[10]))
    shares = [pids[pids.index(successor) :].count(pid) for pid in (survivor, successor)]
    assert min(shares) >= 0.3 * sum(shares), f"the successor of a dead actor did not get its share: {shares}"


def test_only_the_candidates_that_kill_their_actor_or_diverge_fail(local_ray: ClusterInfo) -> None:
    budget = 20
    expected = local_rows(budget=budget, strategy="random")
    victim, diverging = expected[7][1], expected[14][1]
    records: list[SearchRecord] = []
    loop = make_loop(records.append, strategy="random", budget=budget, batch_size=4)
    TuneEvaluation(ToyEvaluatorFactory(kills=victim, diverges=diverging), max_failures=0).run(loop)
    failed = {str(record.architecture): record.score.error for record in records if record.status == "failed"}
    assert set(failed) == {victim, diverging}
    assert "died at each of 1 attempts (killed, or out of memory)" in failed[victim]
    assert failed[diverging] == "the loss is nan"
    assert [one for one in sorted(map(row, records)) if one[3] == "ok"] == [
        one for one in expected if one[1] not in failed
    ]


def _no_evaluator() -> CandidateEvaluator:
    raise FileNotFoundError("supernet/weights.safetensors is missing")


def test_an_evaluator_that_cannot_be_made_ends_the_search(local_ray: ClusterInfo) -> None:
    with pytest.raises(RunError, match=r"set up: FileNotFoundError: supernet/weights.safetensors is missing"):
        TuneEvaluation(_no_evaluator).run(make_loop())


def test_an_error_of_the_driver_ends_the_search(local_ray: ClusterInfo) -> None:
    def refuse(record: SearchRecord) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        TuneEvaluation(ToyEvaluatorFactory()).run(make_loop(refuse))


def test_too_small_a_cluster_is_refused(local_ray: ClusterInfo) -> None:
    with pytest.raises(UserError, match="needs 64 CPU, the cluster has 2"):
        TuneEvaluation(ToyEvaluatorFactory(), cpus_per_actor=64).run(make_loop())


@pytest.mark.parametrize(
    ("strategy", "moment"),
    [pytest.param("regularised_evolution", "any", marks=pytest.mark.slow), ("nsga2", "before_state")],
)
def test_a_killed_driver_resumes_to_the_same_table_and_front(
    local_ray: ClusterInfo, tmp_path: Path, strategy: str, moment: search_driver.Moment
) -> None:
    command = [sys.executable, "-m", "tests.orchestrator.evaluation.search_driver", str(tmp_path), strategy, moment]
    rows = RowFile(tmp_path / "rows.jsonl")
    with (tmp_path / "output.txt").open("w") as output:
        driver = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)
        helpers: list[psutil.Process] = []
        try:
            deadline = time.monotonic() + 90
            while len(rows.rows()) < 30 or not (tmp_path / "state.json").exists():
                ended = driver.poll()
                if moment == "before_state" and ended is not None:
                    break
                assert ended is None, (tmp_path / "output.txt").read_text()
                helpers = psutil.Process(driver.pid).children(recursive=True) or helpers
                assert time.monotonic() < deadline, "the search did not get going"
                time.sleep(0.05)
        finally:
            driver.kill()
            driver.wait()
            end_processes(helpers, patience=0.0)

    assert driver.returncode == -signal.SIGKILL, (tmp_path / "output.txt").read_text()
    before = rows.rows()
    scored = len(read_log(tmp_path / "scored.jsonl"))
    assert 20 <= len(before) < search_driver.BUDGET
    search_driver.search(tmp_path, strategy)

    expected = local_rows(strategy=strategy, budget=search_driver.BUDGET, window=4)
    assert sorted(rows.rows()) == expected
    assert front(rows.rows()) == front(expected)
    texts = {text for _, text, *_ in before}
    later = [text for _, _, _, batch in read_log(tmp_path / "scored.jsonl")[scored:] for text in batch]
    assert not texts & set(later), "a recorded candidate was scored again"


def _drive(*arguments: object, output: Path) -> float:
    """Run the fault driver to its end; how many seconds that took."""
    command = [sys.executable, "-m", "tests.orchestrator.evaluation.fault_driver", *map(str, arguments)]
    begun = time.monotonic()
    with output.open("w") as file:
        driver = subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=file)
        try:
            driver.wait(timeout=300)
        finally:
            end_processes([psutil.Process(driver.pid)] if driver.poll() is None else [], patience=0.0)
    assert driver.returncode == 0, output.read_text()
    return time.monotonic() - begun


@pytest.mark.slow
def test_a_lost_node_changes_nothing_and_one_that_joins_is_used(tmp_path: Path) -> None:
    _drive("node", tmp_path, output=tmp_path / "output.txt")
    rows = RowFile(tmp_path / "rows.jsonl").rows()
    expected = local_rows(budget=fault_driver.BUDGET, window=4)
    assert sorted(rows) == expected
    assert front(rows) == front(expected)
    pids = (tmp_path / "pids.txt").read_text().split()
    before, late = set(pids[: fault_driver.REMOVED_AT]), set(pids[-8:])
    assert len(before) == 2
    assert len(late) == 2, "the node that joined got no work"
    assert len(before & late) == 1, "the actor on the node that stayed was not kept"


@pytest.mark.slow
@pytest.mark.skipif(psutil.virtual_memory().available < 10 * 1024**3, reason="takes some GiB of memory")
def test_only_the_candidate_that_takes_all_memory_fails(tmp_path: Path) -> None:
    options = {"budget": fault_driver.MEMORY_BUDGET, "strategy": "random", "batch_size": fault_driver.MEMORY_BATCH}
    expected = local_rows(**options)
    number, victim, fidelity, *_ = expected[7]
    _drive("memory", tmp_path, victim, output=tmp_path / "output.txt")
    rows = sorted(RowFile(tmp_path / "rows.jsonl").rows())
    assert rows == [(number, victim, fidelity, "failed", None) if one[0] == number else one for one in expected]


def test_ray_still_has_what_keeps_actors_steady() -> None:
    from ray.air.execution._internal import RayActorManager
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment.trial import Trial

    assert "_default_result_or_future" in Trial._get_default_result_or_future.__code__.co_names
    assert {"_actor_cache", "_actor_manager"} <= set(TuneController.__init__.__code__.co_names)
    assert list(inspect.signature(RayActorManager._actor_task_failed).parameters)[1:] == [
        "tracked_actor_task",
        "exception",
    ]
