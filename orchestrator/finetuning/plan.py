"""Which fine-tunings a comparison needs, and in which order: teachers first, MNLI before what starts there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.storage import sha256_of_file
from orchestrator.recipe.signatures import signature
from trainers.tasks.catalogue import MNLI, STARTS_AT_MNLI, Task, find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.jobs import TuningJob, mark_of, was_tuned_for
from trainers.tasks.sources import TaskSource

TEACHER = "teacher"


@dataclass(frozen=True)
class Contestant:
    """A model that takes part.

    Attributes:
        label: its name in tables.
        location: folder or hub id.
        role: teacher, winner, uniform, or model.
        budget: the budget it was made for; empty elsewhere.
    """

    label: str
    location: str
    role: str = "model"
    budget: str = ""

    def identity(self) -> str:
        """What changes when the model does: a hash of its files, or its hub id."""
        folder = Path(self.location)
        if not folder.is_dir():
            return self.location
        files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
        return signature({file.name: sha256_of_file(file) for file in files if file.is_file()})


@dataclass(frozen=True)
class Comparison:
    """Who is compared on what, with equal settings for all.

    Attributes:
        contestants: the models.
        teacher: tuned first, gives soft targets to the others; ``None`` for none.
        tasks: in the order of the table.
        seeds: of each fine-tuning.
        settings: of each fine-tuning.
        source: where the tasks' data is.
        work: folder for tuned models.
        start_from_mnli: whether RTE, MRPC and STS-B start from the model tuned on MNLI with the same seed.
        save_models: whether tuned models stay.
        train: false only judges models that come with a head.
        stage: of a run that records the scores, where it is not ``finetuning``.
    """

    contestants: tuple[Contestant, ...]
    teacher: Contestant | None
    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    settings: FineTuningSettings
    source: TaskSource
    work: Path
    start_from_mnli: bool = False
    save_models: bool = False
    train: bool = True
    stage: str = ""

    @property
    def starts_from_mnli(self) -> bool:
        """Whether anything starts from MNLI: models that are only judged start nowhere."""
        return self.train and self.start_from_mnli

    @property
    def starting(self) -> list[str]:
        """Names of the tasks that start from MNLI."""
        return [task.name for task in self.tasks if self.starts_from_mnli and task.name in STARTS_AT_MNLI]

    def folder(self, contestant: Contestant, task: Task, seed: int) -> Path:
        """Where a tuned model goes."""
        return self.work / contestant.label / task.name.replace(":", "-").replace("/", "-") / f"seed-{seed}"


@dataclass(frozen=True)
class PlannedJob:
    """One fine-tuning of a comparison.

    Attributes:
        contestant: who.
        task: on what.
        seed: with which.
        signature: of all that its result depends on.
        job: what a worker is given.
        needs: signatures and seeds of the jobs whose models it uses.
        lasts: whether its model is to stay when all is done.
        start: the task that its model was tuned on before; empty where it starts from the model as it is.
    """

    contestant: Contestant
    task: Task
    seed: int
    signature: str
    job: TuningJob
    needs: tuple[JobKey, ...] = ()
    lasts: bool = False
    start: str = ""

    @property
    def key(self) -> JobKey:
        """What finished jobs are found by."""
        return self.contestant.label, self.task.name, self.seed, self.signature

    @property
    def is_kept(self) -> bool:
        """Whether its model is there, if it leaves one: of just these settings, since others go to the same folder."""
        return self.job.save_to is None or mark_of(self.job.save_to) == self.signature

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.contestant.label} on {self.task.name}, seed {self.seed}"


JobKey = tuple[str, str, int, str]


def with_start(tasks: Iterable[Task], start_from_mnli: bool) -> tuple[Task, ...]:
    """The tasks, and MNLI before them where some start from it and it is not among them."""
    chosen = tuple(tasks)
    names = [task.name for task in chosen]
    if start_from_mnli and MNLI not in names and any(name in STARTS_AT_MNLI for name in names):
        return (find_task(MNLI), *chosen)
    return chosen


def planned_jobs(comparison: Comparison) -> list[PlannedJob]:
    """All jobs, each after those it needs.

    Models that only serve as a start (MNLI where it is not among the tasks) are jobs too, and are scored like others.
    """
    return _Planner(comparison).jobs()


class _Planner:
    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._by_place: dict[tuple[str, str, int], PlannedJob] = {}
        everyone = [*comparison.contestants, *([comparison.teacher] if comparison.teacher else [])]
        self._identities = {contestant.label: contestant.identity() for contestant in everyone}
        self._data = {task.name: comparison.source.fingerprint(task) for task in self._tasks()}

    def jobs(self) -> list[PlannedJob]:
        """Teachers first, and for each model MNLI first."""
        comparison = self.comparison
        everyone = [contestant for contestant in comparison.contestants if contestant != comparison.teacher]
        if comparison.teacher is not None:
            everyone.insert(0, comparison.teacher)
        for contestant in everyone:
            for task in sorted(self._tasks(), key=lambda task: self._is_start(task), reverse=True):
                for seed in comparison.seeds:
                    self._by_place[contestant.label, task.name, seed] = self._job(contestant, task, seed)
        return list(self._by_place.values())

    def _tasks(self) -> Sequence[Task]:
        return with_start(self.comparison.tasks, self.comparison.starts_from_mnli)

    def _is_start(self, task: Task) -> bool:
        return self.comparison.starts_from_mnli and task.name == MNLI

    def _job(self, contestant: Contestant, task: Task, seed: int) -> PlannedJob:
        comparison = self.comparison
        is_teacher = contestant == comparison.teacher
        train = comparison.train and not (is_teacher and was_tuned_for(contestant.location, task))
        needs: list[PlannedJob] = []
        model, teacher = contestant.location, None
        starts_from_mnli = train and task.name in comparison.starting
        if starts_from_mnli:
            start = self._by_place[contestant.label, MNLI, seed]
            needs.append(start)
            model = str(start.job.save_to or start.job.model)
        if train and comparison.teacher is not None and not is_teacher and comparison.settings.wants_teacher:
            tuned = self._by_place[comparison.teacher.label, task.name, seed]
            needs.append(tuned)
            teacher = str(tuned.job.save_to or tuned.job.model)
        serves = self._is_start(task) or (is_teacher and comparison.train and bool(comparison.contestants))
        lasts = comparison.save_models and train
        save_to = comparison.folder(contestant, task, seed) if train and (serves or lasts) else None
        settings = comparison.settings
        if teacher is None:
            settings = replace(settings, distillation_weight=0.0, layer_weight=0.0)
        parts = [asdict(settings), self._data[task.name], self._identities[contestant.label], train]
        inputs = [needed.signature for needed in needs]
        own = signature(*parts, [task.name, *task.columns], inputs)
        job = TuningJob(model, task, comparison.source, settings, seed, teacher, save_to, train, own)
        return PlannedJob(
            contestant,
            task,
            seed,
            own,
            job,
            tuple(needed.key for needed in needs),
            lasts,
            MNLI if starts_from_mnli else "",
        )
