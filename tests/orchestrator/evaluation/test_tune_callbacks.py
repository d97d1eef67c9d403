"""Callbacks that a user names, on a real local Ray: what they are told, what they leave, and what they cannot spoil."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from tensorboardX.proto.event_pb2 import Event

from cluster.connect import ClusterInfo
from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Score
from orchestrator.evaluation.local import evaluate_locally
from orchestrator.evaluation.records import Proposal, SearchRecord
from orchestrator.evaluation.trial_view import trial_metrics
from orchestrator.evaluation.tune import TuneEvaluation
from orchestrator.evaluation.tune_callbacks import named_callbacks
from orchestrator.recipe import signature
from orchestrator.recipe.search import SearchSettings
from tests.orchestrator.evaluation.toy_evaluation import ToyEvaluatorFactory, make_loop, row

HERE = __name__
BUDGET, BATCH = 12, 3
NO_MEASUREMENT_LOST = {"budget": BUDGET, "batch_size": BATCH, "window": 4}


class Listener(tune.Callback):  # type: ignore[misc]
    """Keeps what it is told, and tampers with it."""

    results: list[dict[str, Any]] = []  # noqa: RUF012
    ended = 0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        Listener.results.append(dict(result))
        result["loss"] = -1.0

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        Listener.ended += 1


class Failing(tune.Callback):  # type: ignore[misc]
    """Fails in the hook it is told to fail in, and counts what it is told before and after."""

    calls = 0

    def __init__(self, hook: str) -> None:
        if hook == "none":
            raise ValueError("expected a hook's name")
        setattr(self, hook, self._fail)

    def _fail(self, **info: Any) -> None:
        Failing.calls += 1
        raise ConnectionError("the dashboard\nis gone")


class _NeedsWhatIsMissing(tune.Callback):  # type: ignore[misc]
    def __init__(self) -> None:
        import no_such_package_of_anybody  # noqa: F401


def settings(*callbacks: str | dict[str, Any], **keys: Any) -> SearchSettings:
    listed = [{"name": one} if isinstance(one, str) else one for one in callbacks]
    return SearchSettings.model_validate_json(json.dumps({"callbacks": listed, **keys}))


def search(folder: Path, notices: list[str], *callbacks: str | dict[str, Any]) -> tuple[Any, list[SearchRecord]]:
    """The experiment and the records of a small search."""
    records: list[SearchRecord] = []
    evaluation = TuneEvaluation(ToyEvaluatorFactory(), callbacks=named_callbacks(settings(*callbacks), "toys"))
    loop = make_loop(records.append, **NO_MEASUREMENT_LOST)  # type: ignore[arg-type]
    return evaluation.run(loop, None, str(folder), "evolution", notices.append), records


def undisturbed() -> list[Any]:
    rows: list[Any] = []
    evaluate_locally(
        make_loop(lambda record: rows.append(row(record)), **NO_MEASUREMENT_LOST),  # type: ignore[arg-type]
        ToyEvaluatorFactory(),
    )
    return sorted(rows)


def events(folder: Path) -> Iterator[Event]:
    """What a TensorBoard file says; records are length, its checksum, the event, its checksum."""
    for file in folder.glob("events.out.tfevents.*"):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]


def test_without_callbacks_there_is_a_data_frame_and_no_other_file(local_ray: ClusterInfo, tmp_path: Path) -> None:
    grid, records = search(tmp_path, [])
    (experiment,) = tmp_path.iterdir()
    frame = grid.get_dataframe()
    assert frame["candidates"].sum() == len(records) == BUDGET
    best = grid.get_best_result("loss", "min").metrics
    assert best["loss"] == frame["loss"].min() == min(record.score.loss for record in records)
    assert {file.name for file in experiment.glob("*/*")} == {"result.json"}


def test_callbacks_see_few_numbers_and_spoil_nothing(local_ray: ClusterInfo, tmp_path: Path) -> None:
    Listener.results, Listener.ended, Failing.calls = [], 0, 0
    failing = {"name": f"{HERE}:Failing", "options": {"hook": "on_trial_result"}}
    notices: list[str] = []
    grid, records = search(tmp_path, notices, failing, "tensorboard", "json", "csv", f"{HERE}:Listener")

    assert sorted(map(row, records)) == undisturbed()
    assert Failing.calls == 1
    assert len(notices) == 1
    assert notices[0].startswith(f"search.callbacks.0 ({HERE}:Failing) failed in on_trial_result and is told nothing")
    assert notices[0].endswith("ConnectionError: the dashboard is gone")

    # What a callback of the user's own hears: numbers, and the candidates as their number.
    lowest = min(record.score.loss for record in records if record.score.loss is not None)
    assert len(Listener.results) == BUDGET // BATCH
    assert Listener.ended == 1
    told = sorted(Listener.results, key=lambda result: result["evaluated"])
    assert [result["evaluated"] for result in told] == [*range(BATCH, BUDGET + 1, BATCH)]
    assert min(result["loss"] for result in told) == told[-1]["best_loss"] == lowest
    assert not any(isinstance(value, (list, tuple)) for result in told for value in result.values())
    assert str(told[0]["config"]["candidates"]) == "3 candidates"
    by_text = {str(record.architecture): record for record in records}
    for result in told:
        best = by_text[result["architecture"]]
        assert (result["loss"], result["parameters"]) == (best.score.loss, best.cheap["parameters"])
        assert best.origin.trial_id == result["trial_id"]

    # The experiment, as it is returned and as it is read from its folder.
    folder = tmp_path / "evolution-1"
    for found in (grid, tune.ResultGrid(tune.ExperimentAnalysis(str(folder)))):
        assert isinstance(found, tune.ResultGrid)
        assert not found.errors
        frame = found.get_dataframe(filter_metric="loss", filter_mode="min")
        assert sorted(frame["trial_id"]) == sorted(result["trial_id"] for result in told)
        assert {"loss", "best_loss", "parameters", "failed", "config/batch"} <= set(frame.columns)
        assert set(frame["config/search"]) == {"evolution"}
        assert "scores" not in frame.columns
    best = found.get_best_result("evaluated", "max")
    assert best.metrics["best_loss"] == lowest

    # What the named loggers left, in the folder of each trial.
    for result in told:
        trial = folder / result["trial_id"]
        scalars = [
            (event.step, value)
            for event in events(trial)
            for value in event.summary.value
            if value.WhichOneof("value") == "simple_value"
        ]
        steps = {value.tag: step for step, value in scalars}
        values = {value.tag: value.simple_value for _, value in scalars}
        assert values["ray/tune/loss"] == pytest.approx(result["loss"])
        assert values["ray/tune/best_loss"] == pytest.approx(result["best_loss"])
        assert steps["ray/tune/loss"] == result["evaluated"]
        assert b"evolution" in b"".join(file.read_bytes() for file in trial.glob("events.*")), "no hyperparameters"
        assert not any("scores" in tag for tag in values)
        logged = json.loads((trial / "result.json").read_text())  # one line: nobody else has written it, too
        assert logged["loss"] == result["loss"]
        assert logged["config"]["candidates"] == "3 candidates"
        with (trial / "progress.csv").open() as file:
            assert float(next(csv.DictReader(file))["best_loss"]) == result["best_loss"]
        everything = b"".join(file.read_bytes() for file in trial.glob("events.*"))
        assert everything.count(result["architecture"].encode()) == 0


def test_a_callback_that_cannot_begin_ends_the_search_before_it_begins(local_ray: ClusterInfo, tmp_path: Path) -> None:
    log = tmp_path / "scored.jsonl"
    named = named_callbacks(settings({"name": f"{HERE}:Failing", "options": {"hook": "setup"}}), "toys")
    with pytest.raises(
        UserError, match=r"^search.callbacks.0 \(.*Failing\) could not begin: ConnectionError: the dash"
    ):
        TuneEvaluation(ToyEvaluatorFactory(log=log), callbacks=named).run(make_loop())
    assert not log.exists()


def test_mlflow_has_a_run_for_each_trial(local_ray: ClusterInfo, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'netsuke[mlflow]'")
    server = f"sqlite:///{tmp_path / 'mlflow.db'}"
    notices: list[str] = []
    _, records = search(tmp_path, notices, {"name": "mlflow", "options": {"tracking_uri": server}})
    assert sorted(map(row, records)) == undisturbed()
    assert notices == []

    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("toys")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {record.origin.trial_id for record in records}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {frozenset(run.data.params.items()) for run in runs} == {
        frozenset({("search", "evolution"), ("batch", str(batch)), ("candidates", "3 candidates")})
        for batch in range(BUDGET // BATCH)
    }
    last = max(runs, key=lambda run: run.data.metrics["evaluated"])
    assert last.data.metrics["best_loss"] == min(run.data.metrics["loss"] for run in runs)
    assert client.get_metric_history(last.info.run_id, "best_loss")[0].step == BUDGET
    assert {"parameters", "failed", "candidates_per_second"} <= set(last.data.metrics)


def test_a_trial_is_shown_by_its_best_candidate_at_full_fidelity() -> None:
    loop = make_loop(window=4, batch_size=4)
    batch = loop.next_batch()
    assert batch is not None
    first, second, third, fourth = batch.proposals
    cheaper = Proposal(second.number, second.architecture, fidelity=1)
    proposals = [first, cheaper, third, fourth]
    scores = [Score("ok", 0.5, 0.0), Score("ok", 0.1, 0.0), Score("ok", 0.9, 0.0, masked_lm_loss=0.4), Score.failed("")]
    metrics = trial_metrics(loop, proposals, scores)
    assert (metrics["loss"], metrics["architecture"]) == (0.4, str(third.architecture))
    assert metrics["parameters"] == loop.cheap.values(third.architecture)["parameters"]
    assert (metrics["candidates"], metrics["failed"], metrics["evaluated"], metrics["best_loss"]) == (4, 1, 4, 0.4)

    nothing = trial_metrics(loop, [cheaper, fourth], [Score("ok", 0.1, 0.0), Score.failed("")])
    assert not {"loss", "best_loss", "architecture", "parameters"} & set(nothing)


@pytest.mark.parametrize(
    ("callback", "line"),
    [
        ("nowhere_at_all.callbacks:Mine", r"0.name: found 'nowhere_at_all.*finds no module 'nowhere_at_all'; install"),
        ("ray.tune.logger:Mine", r"0.name: found 'ray.tune.logger:Mine', but ray.tune.logger has no 'Mine'"),
        ("ray.tune:TuneConfig", r"0.name: found 'ray.tune:TuneConfig', expected a subclass of ray.tune.Callback"),
        ("json:dumps", r"0.name: found 'json:dumps', expected a subclass of ray.tune.Callback"),
        (
            {"name": "tensorboard", "options": {"folder": "x"}},
            r"0.options: tensorboard: got an unexpected keyword argument 'folder'; its options are: none",
        ),
        (f"{HERE}:Failing", r"0.options: .*: missing a required argument: 'hook'; its options are: hook"),
        ({"name": f"{HERE}:Failing", "options": {"hook": "none"}}, r"0.options: .* refuses them: ValueError: expected"),
        (
            f"{HERE}:_NeedsWhatIsMissing",
            r"which needs the package 'no_such_package_of_anybody', and that is not installed; pip install no_such",
        ),
    ],
)
def test_a_wrong_callback_is_named(callback: str | dict[str, Any], line: str) -> None:
    (named,) = named_callbacks(settings(callback), "toys")
    with pytest.raises(UserError, match=f"^search.callbacks.*{line}") as caught:
        named.make()
    assert "\n" not in str(caught.value)


def test_callbacks_change_nothing_of_what_is_computed_and_keep_the_experiment() -> None:
    plain, watched = settings(), settings("tensorboard")
    assert signature(plain) == signature(watched) == signature(settings("mlflow", keep_experiment=False))
    assert not plain.keeps_experiment
    assert watched.keeps_experiment
    assert settings(keep_experiment=True).keeps_experiment
    assert not settings("mlflow", keep_experiment=False).keeps_experiment
