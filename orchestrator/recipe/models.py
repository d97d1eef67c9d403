"""The recipe: everything a run is told, as one validated value.

Every key has a default, so a recipe only says what differs. Where a default depends on another key (a short training
warms up for fewer steps), the key's description says how. Fields marked with :class:`HowItRuns` change how a run is
carried out but not what it computes; :func:`orchestrator.recipe.signatures.signature` leaves them out, so a run may
be continued with more workers or on another cluster.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from orchestrator.recipe.distillation import DistillationSettings
from orchestrator.recipe.finetuning import FineTuningSettings
from orchestrator.recipe.phases import PhaseSettings, phase_problems
from orchestrator.recipe.results import ResultsSettings
from orchestrator.recipe.search import Budget, SearchSettings, default_budgets
from orchestrator.recipe.section import BatchSize, Count, HowItRuns, Label, Later, Section, raise_problems, repeated
from orchestrator.recipe.selection import RANK_FIDELITY, RankFidelitySettings, SelectionSettings
from orchestrator.recipe.supernet import SupernetSettings
from orchestrator.recipe.tables import TablesSettings
from orchestrator.recipe.teacher import CorpusSettings, TeacherSettings


class SpaceSettings(Section):
    """The family of architectures that is searched."""

    name: str = Field("nas_bert", min_length=1, description="a registered search space (netsuke space list)")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the space, validated by it")


class EvaluationSettings(Section):
    """How finished models are judged on held-out text."""

    sequences: Count = Field(512, description="held-out sequences at most")
    batch_size: BatchSize = Field(32, description="sequences in a batch")
    latency_repeats: Count = Field(30, description="timed forward passes behind each model's median latency")


class ClusterSettings(Section):
    """The Ray cluster that does the work."""

    address: str | None = Field(
        None, min_length=1, description="a running cluster: auto, host:port or ray://host:port; null: start one here"
    )
    num_cpus: int | None = Field(
        None, ge=1, le=100_000, description="processor cores of a cluster started here; null: all of this machine's"
    )

    @model_validator(mode="after")
    def _check_one_cluster(self) -> ClusterSettings:
        if self.address is not None and self.num_cpus is not None:
            found = f"found {self.num_cpus}, expected null: a running cluster (address) brings its own cores"
            raise_problems([("num_cpus", found)])
        return self


class Recipe(Section):
    """Everything a run is told."""

    name: Label = Field(description="name of the run; where absent: the recipe file's name without its ending")
    description: Annotated[str, HowItRuns()] = Field("", max_length=1_000, description="what the recipe is for")
    seed: int = Field(1, ge=0, le=2**32 - 1, description="start of every random number of the run")
    teacher: TeacherSettings = Field(default_factory=TeacherSettings, description="the network that is imitated")
    corpus: CorpusSettings = Field(default_factory=CorpusSettings, description="the text that is read")
    space: SpaceSettings = Field(default_factory=SpaceSettings, description="the architectures that are searched")
    supernet: SupernetSettings = Field(default_factory=SupernetSettings, description="the weight-sharing network")
    tables: TablesSettings = Field(default_factory=TablesSettings, description="block losses and latencies")
    search: SearchSettings = Field(default_factory=SearchSettings, description="strategies and their evaluations")
    phases: Annotated[tuple[PhaseSettings, ...], Later()] = Field(
        (), strict=False, description="the search in several steps, each of which narrows the space; none: []"
    )
    budgets: tuple[Budget, ...] = Field(
        default_factory=default_budgets, strict=False, min_length=1, description="limits, each of which gets a winner"
    )
    selection: SelectionSettings = Field(default_factory=SelectionSettings, description="choosing the winners")
    distillation: DistillationSettings = Field(default_factory=DistillationSettings, description="the winners")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="judging the models")
    finetuning: FineTuningSettings = Field(
        default_factory=FineTuningSettings, description="judging the models on downstream tasks"
    )
    rank_fidelity: RankFidelitySettings = Field(
        default_factory=RankFidelitySettings, description="whether the search ranked what matters"
    )
    cluster: Annotated[ClusterSettings, HowItRuns()] = Field(
        default_factory=ClusterSettings, description="where the run happens"
    )
    results: Annotated[ResultsSettings, HowItRuns()] = Field(
        default_factory=ResultsSettings, description="where the tables lie"
    )

    @model_validator(mode="after")
    def _check_budgets(self) -> Recipe:
        problems = repeated("budgets.{}.name", (budget.name for budget in self.budgets))
        for index, budget in enumerate(self.budgets):
            if budget.name == RANK_FIDELITY:
                taken = f"found '{RANK_FIDELITY}', which names the rows of that stage in the table selections"
                problems.append((f"budgets.{index}.name", f"{taken}; choose another name"))
        problems += phase_problems(self.phases)
        raise_problems(problems)
        return self
