"""A search's copy in Optuna's storage: complete, once, readable by Optuna itself."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives, Constraint
from orchestrator.strategies.optuna_strategy import OptunaStrategy
from orchestrator.testing import ToySpace, toy_loss


def make(storage: str, seed: int = 0) -> OptunaStrategy:
    return OptunaStrategy(
        ToySpace(), (LOSS, PARAMETERS), [Constraint("parameters", 1500)], seed, storage=storage, study_name="toy"
    )


def measure(strategy: OptunaStrategy, count: int) -> list[Measurement]:
    cheap = CheapObjectives(strategy.space)
    return [
        Measurement(one, {"loss": toy_loss(one), **cheap.values(one)})  # type: ignore[arg-type]
        for one in strategy.ask(count)
    ]


@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_a_study_holds_every_told_candidate_once_also_after_a_resume(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    storage = f"sqlite:///{path}" if name.endswith("db") else str(path)
    strategy = make(storage)
    first = measure(strategy, 6)
    strategy.tell(first)
    saved = json.loads(json.dumps(strategy.state_dict()))
    late = measure(strategy, 3)
    strategy.tell(late)  # in the study, but not in the state: the process is killed here
    resumed = make(storage)
    resumed.load_state_dict(saved)
    repeated = measure(resumed, 3)
    assert [one.architecture for one in repeated] == [one.architecture for one in late]
    failed = resumed.ask(1)[0]
    resumed.tell([*repeated, Measurement(failed, None, "failed")])

    from orchestrator.strategies.optuna_mirror import _open_storage

    study = optuna.load_study(study_name="toy", storage=_open_storage(storage))
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    assert len(study.trials) == 10
    assert len(complete) == 9
    assert study.metric_names == ["loss", "parameters"]
    by_text = {trial.user_attrs["architecture"]: trial for trial in complete}
    for one in (*first, *late):
        trial = by_text[str(one.architecture)]
        assert one.objectives is not None
        assert trial.values == [one.objectives["loss"], one.objectives["parameters"]]
        assert resumed.space.from_decisions(trial.params) == one.architecture
        assert trial.constraints["parameters"] <= 0


def test_nothing_is_written_before_something_is_told(tmp_path: Path) -> None:
    make(f"sqlite:///{tmp_path / 'study.db'}").ask(3)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="option storage: found 'no url'"):
        make("no url")
    with pytest.raises(UserError, match=r"the folder .*absent does not exist"):
        make(f"sqlite:///{tmp_path}/absent/study.db")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=storage, study_name="toy", direction="minimize")
    strategy = make(storage)
    with pytest.raises(UserError, match="has 1 objectives, expected 2"):
        strategy.tell(measure(strategy, 1))
