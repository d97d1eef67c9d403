"""The searches of a run: one, or one a phase, each in the part of the space that the winner before it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.recipe import Recipe
from orchestrator.recipe.phases import CandidateTrainingSettings, PhaseSettings, TaskTuningSettings
from orchestrator.recipe.search import StrategySettings
from orchestrator.run_directory import SUPERNET_FILE, RunDirectory
from spaces.narrowing import Narrowing

SUPERNET, TUNING, SEARCH = "supernet", "tuning", "search"
FOUND = "architecture"
"""The output of a one-shot training that holds the text of the architecture that it has come to."""

LAMBDAS, FOUND_BY_LAMBDA = "lambdas", "found"
"""The stage that sweeps lambda, and its output: for each one the text of its architecture, its loss and its cost."""

Outputs = Mapping[str, Mapping[str, Any]]
"""What finished stages left, by their names; each with its ``signature``."""


@dataclass(frozen=True)
class Phase:
    """One search of a run.

    Attributes:
        recipe: of the run.
        settings: its own; ``None`` for the only search of a run without phases.
        before: the name of the phase before it; "" for the first.
        index: of the phase in the recipe's list.
    """

    recipe: Recipe
    settings: PhaseSettings | None = None
    before: str = ""
    index: int = 0

    @property
    def name(self) -> str:
        """Of the phase; "" where there are none."""
        return "" if self.settings is None else self.settings.name

    @property
    def key(self) -> str:
        """Where the recipe says what makes it different, for error messages."""
        return SEARCH if self.settings is None else f"phases.{self.index}"

    # --- its stages ----------------------------------------------------------------------------------------------

    @property
    def search_stage(self) -> str:
        """The stage that searches."""
        return stage_name(SEARCH, self.name)

    @property
    def supernet_stage(self) -> str:
        """The stage that trains the supernet of candidates."""
        return stage_name(SUPERNET, self.name) if self.trains_supernet else SUPERNET

    @property
    def tuning_stage(self) -> str:
        """The stage that tunes the supernet on tasks, where the phase has its own tuned."""
        return stage_name(TUNING, self.name)

    @property
    def weights_stage(self) -> str:
        """The stage that leaves the weights that candidates have."""
        return self.supernet_stage if self.task_tuning is None else self.tuning_stage

    @property
    def trains_supernet(self) -> bool:
        """Whether it has a supernet of its own."""
        return self.settings is not None and self.settings.supernet is not None

    @property
    def builds_on(self) -> tuple[str, ...]:
        """The search whose winner it keeps something of, if it does."""
        return (stage_name(SEARCH, self.before),) if self.keep else ()

    def supernet_weights(self, folder: RunDirectory) -> Path:
        """What the stage leaves that trains the supernet of candidates."""
        return folder.phase_supernet(self.name) if self.trains_supernet else folder.supernet_weights

    def weights(self, folder: RunDirectory) -> Path:
        """Of the supernet whose weights candidates have."""
        return self.supernet_weights(folder) if self.task_tuning is None else folder.tuned_supernet(self.name)

    # --- what it searches ----------------------------------------------------------------------------------------

    @property
    def keep(self) -> tuple[str, ...]:
        """Aspects of the winner before it that stay as they are."""
        return () if self.settings is None else self.settings.keep

    def narrowing(self, outputs: Outputs) -> Narrowing:
        """The part of the run's space that is searched, once the phase before it is over."""
        if not self.keep:
            return Narrowing()
        return Narrowing(str(outputs[stage_name(SEARCH, self.before)]["winner"]), self.keep)

    @property
    def strategies(self) -> tuple[StrategySettings, ...]:
        """Its strategies, with the evaluations of each."""
        own = None if self.settings is None else self.settings.strategies
        return self.recipe.search.strategies if own is None else own

    @property
    def strategies_key(self) -> str:
        """Where the recipe lists them."""
        own = None if self.settings is None else self.settings.strategies
        return f"{SEARCH}.strategies" if own is None else f"{self.key}.strategies"

    @property
    def stop(self) -> int | None:
        """Evaluations without a lower loss after which a strategy ends."""
        own = None if self.settings is None else self.settings.stop
        return self.recipe.search.stop if own is None else own

    # --- how it scores -------------------------------------------------------------------------------------------

    @property
    def training(self) -> CandidateTrainingSettings | None:
        """How each candidate is trained; ``None`` where the supernet's weights are taken as they are."""
        return None if self.settings is None else self.settings.candidate_training

    @property
    def task_tuning(self) -> TaskTuningSettings | None:
        """How its supernet is tuned on tasks, one of which then scores candidates; ``None`` where it is not."""
        return None if self.settings is None else self.settings.task_tuning

    @property
    def searched_by_task(self) -> bool:
        """Whether the run's supernet has learnt a task, whose held-out rows score candidates."""
        return self.training is None and self.recipe.supernet.one_shot.task is not None

    @property
    def fidelity(self) -> int:
        """The greatest: validation batches, all of a candidate's training, or all held-out rows of a task."""
        if self.task_tuning is not None or self.searched_by_task:
            return 1
        return self.recipe.search.validation_batches if self.training is None else self.training.fidelities


def phases_of(recipe: Recipe) -> tuple[Phase, ...]:
    """The searches of a run in order, at least one."""
    if not recipe.phases:
        return (Phase(recipe),)
    names = ["", *(settings.name for settings in recipe.phases)]
    return tuple(Phase(recipe, settings, names[index], index) for index, settings in enumerate(recipe.phases))


def last_phase(recipe: Recipe) -> Phase:
    """The search whose candidates winners are chosen from."""
    return phases_of(recipe)[-1]


def stage_name(stage: str, phase: str) -> str:
    """What a phase's stage is called; of a run without phases: the stage's own name."""
    return f"{stage}.{phase}" if phase else stage


def weights_of_found(outputs: Outputs, folder: RunDirectory) -> dict[str, Path]:
    """For the text of each architecture that another lambda has come to, the weights it was trained with.

    What the main search has come to as well is not among them: it has that one's.

    Args:
        outputs: of the stages ``supernet`` and, where lambda is swept, ``lambdas``.
        folder: of the run.
    """
    swept = outputs.get(LAMBDAS, {}).get(FOUND_BY_LAMBDA, [])
    own = {str(one[FOUND]): folder.lambda_folder(number) / SUPERNET_FILE for number, one in enumerate(swept)}
    main = outputs.get(SUPERNET, {}).get(FOUND)
    return {text: file for text, file in own.items() if text != main}
