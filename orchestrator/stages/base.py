"""What a stage of a run is: named work with inputs, a signature, and a plan of what it will do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cluster.connect import ClusterInfo
from cluster.resources import ResourceRequest
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory
from spaces.encoder_shape import EncoderShape
from spaces.space import SearchSpace


@dataclass(frozen=True)
class RunPlan:
    """What is known of a run before anything has happened.

    Attributes:
        recipe: validated.
        folder: the run folder.
        shape: of the teacher, from its configuration alone.
        space: fits the teacher.
    """

    recipe: Recipe
    folder: RunDirectory
    shape: EncoderShape
    space: SearchSpace[Any]


@dataclass(frozen=True)
class RunContext:
    """What a stage works with.

    Attributes:
        plan: recipe, folder, shape and space.
        results: where measurements go.
        cluster: the Ray this process is connected to.
        signature: of the stage that runs.
        outputs: plain values left by the finished stages, by stage name.
    """

    plan: RunPlan
    results: ResultsWriter
    cluster: ClusterInfo
    signature: str
    outputs: Mapping[str, Mapping[str, Any]]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.plan.recipe

    @property
    def folder(self) -> RunDirectory:
        """The run folder."""
        return self.plan.folder

    @property
    def space(self) -> SearchSpace[Any]:
        """The space that is searched."""
        return self.plan.space

    @property
    def device(self) -> str:
        """Where the driver itself computes: an accelerator if this process sees one."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    Attributes:
        detail: in one line, for people.
        outputs: plain values that later stages read.
    """

    detail: str
    outputs: Mapping[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """One stage. Its signature is the hash of its recipe sections, its version and its inputs' signatures.

    A stage whose signature has not changed since it finished is skipped. One that was interrupted is run again, and
    goes on from what it finds (its own checkpoints, the recorded results).
    """

    name: str
    inputs: ClassVar[tuple[str, ...]] = ()
    resumable: ClassVar[bool] = False
    """Whether it leaves a state in the run folder when it is interrupted, and goes on from it."""
    version: ClassVar[int] = 1
    """Raised when the same recipe would give another result than before."""

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """The stages whose results this one reads in a run; :attr:`inputs`, unless the recipe decides."""
        return self.inputs

    @abstractmethod
    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """Recipe sections and plain values that the stage's result depends on, besides its inputs."""

    @abstractmethod
    def check(self, plan: RunPlan) -> None:
        """Validate everything that can be before the run starts.

        Raises:
            ValueError: one of the packages' errors for a user's mistake.
        """

    def requests(self, plan: RunPlan) -> ResourceRequest | None:
        """What its workers or actors need of the cluster; ``None``: nothing that has to be made sure of before."""
        return None

    @abstractmethod
    def planned(self, plan: RunPlan) -> PlannedStage:
        """The stage's work, for ``--dry-run``; ``action`` and ``reason`` are filled in by the pipeline."""

    def unchecked(self, plan: RunPlan) -> Sequence[str]:
        """What :meth:`check` could not look at, a sentence each, for ``--dry-run``."""
        return ()

    @abstractmethod
    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Do the work."""

    def clean_up(self, context: RunContext) -> None:  # noqa: B027 - most stages leave nothing to clean up
        """Remove what only served to go on after an interruption; called once the stage is recorded as finished."""

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the files the stage leaves are still there."""
        return True
