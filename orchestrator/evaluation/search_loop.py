"""The bookkeeping of a search, independent of who scores the candidates: budget, cache, order of telling, resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement, Score
from orchestrator.evaluation.records import Batch, Origin, Proposal, SearchProgress, SearchRecord
from orchestrator.objectives import LOSS, MEASURED_LATENCY, CheapObjectives
from orchestrator.strategies.base import Strategy

STATE_FORMAT = 2
SAVE_INTERVAL_SECONDS = 2.0


@dataclass
class _Outstanding:
    """A batch that was asked but not told: its proposals, and the scores that have arrived, by proposal number."""

    proposals: list[Proposal]
    scores: dict[int, Score] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every score has arrived."""
        return len(self.scores) == len(self.proposals)

    def state(self) -> list[list[Any]]:
        """For each proposal its number, text, fidelity, and score where it has arrived; JSON-native."""
        rows: list[list[Any]] = []
        for proposal in self.proposals:
            score = self.scores.get(proposal.number)
            text, known = str(proposal.architecture), None if score is None else astuple(score)
            rows.append([proposal.number, text, proposal.fidelity, known])
        return rows

    @classmethod
    def from_state(cls, rows: Sequence[Sequence[Any]], parse: Callable[[str], Any]) -> _Outstanding:
        """The inverse of :meth:`state`."""
        proposals = [Proposal(number, parse(text), fidelity) for number, text, fidelity, _ in rows]
        return cls(proposals, {number: Score(*values) for number, _, _, values in rows if values is not None})


class SearchLoop:
    """Asks a strategy for batches of candidates, hands them to whoever scores them, and tells the scores in order.

    A driver (``evaluate_locally``, ``TuneEvaluation``) calls :meth:`next_batch` and :meth:`receive` until
    :attr:`finished`, and :meth:`tick` often. Not thread-safe.

    *Order.* With ``deterministic``, batch k is asked when exactly the batches up to k - ``window`` have been told, in
    their order; scores that arrive earlier wait. The candidates of a search are then a function of the seed and the
    scores alone, whatever the number of processes, their speed, and interruptions; at most ``window`` batches are under
    way. Without it scores are told as their batches are complete, and a faster actor changes what is asked.

    *Once.* A score in the cache is never asked for again. Every evaluated candidate gives one record.

    *Resume.* The state is written to ``state_file`` at most every two seconds, after ``before_save`` has made the
    records durable. Afterwards: :meth:`preload` the scores in the results, then :meth:`resume`. If the state file is
    older than the results, or gone, a deterministic search asks the same candidates again and finds them in the cache.

    Args:
        strategy: a new strategy, of the same settings as the one that is to be resumed.
        cheap: computes the cheap objectives of each record.
        budget: how many evaluations the strategy gets: distinct pairs of architecture and fidelity; known scores and
            failures count.
        fidelity: how thoroughly candidates are scored (validation batches) where the strategy does not say less.
        batch_size: candidates of a batch.
        window: batches under way at once when ``deterministic``; twice the number of actors keeps them busy.
        on_result: gets each record as it arrives.
        state_file: where the state is saved; ``None``: nowhere.
        before_save: called before each save; flush there what ``on_result`` has buffered.
        deterministic: see above.
        stop: evaluations without a lower loss at full fidelity after which nothing more is asked; ``None``: the whole
            budget is spent. Told evaluations count, so a search stops at the same one however fast its actors are.

    Raises:
        UserError: an objective is neither measured nor cheap, or a number is below 1.
    """

    def __init__(
        self,
        strategy: Strategy,
        cheap: CheapObjectives,
        budget: int,
        *,
        fidelity: int = 1,
        batch_size: int = 1,
        window: int = 4,
        on_result: Callable[[SearchRecord], None] | None = None,
        state_file: Path | None = None,
        before_save: Callable[[], None] | None = None,
        deterministic: bool = True,
        stop: int | None = None,
    ) -> None:
        for name, value in (("budget", budget), ("fidelity", fidelity), ("batch_size", batch_size), ("window", window)):
            if value < 1:
                raise UserError(f"search {name} is {value}, expected at least 1")
        for objective in strategy.objectives:
            known = (LOSS.name, MEASURED_LATENCY.name, *cheap.names)
            if objective.name not in known:
                raise UserError(
                    f"search objective {objective.name!r} is not measured, expected one of {', '.join(known)}"
                )
        self.strategy = strategy
        self.budget = budget
        strategy.use_fidelity(fidelity)
        strategy.use_budget(budget)
        self.fidelity = fidelity
        self.batch_size = batch_size
        self.window = window
        self.deterministic = deterministic
        self.stop = stop
        self.cheap = cheap
        self._on_result = on_result or (lambda record: None)
        self._state_file = state_file
        self._before_save = before_save or (lambda: None)
        self._known: dict[tuple[str, int], Score] = {}
        self._recorded: set[tuple[str, int]] = set()
        self._outstanding: dict[int, _Outstanding] = {}
        self._to_send: list[int] = []
        self._next_number = 0
        self._asked = 0
        self._evaluated = 0
        self._failed = 0
        self._evaluated_before = 0
        self._best_loss: float | None = None
        self._best_told: float | None = None
        self._told_since = 0
        self._stopped = False
        self._exhausted = False
        self._stalled = False
        self._started = monotonic()
        self._next_save = 0.0

    @property
    def measures_latency(self) -> bool:
        """Whether each candidate's latency has to be measured on the device."""
        return any(objective.name == MEASURED_LATENCY.name for objective in self.strategy.objectives)

    @property
    def finished(self) -> bool:
        """Whether everything that will be asked has been scored and told."""
        return self.all_asked and not self._outstanding

    @property
    def all_asked(self) -> bool:
        """Whether no further candidate will be asked: the budget is spent, or the space used up."""
        return self._asks_no_more and not self._to_send

    @property
    def _asks_no_more(self) -> bool:
        return self._asked >= self.budget or self._exhausted or self._stopped

    @property
    def progress(self) -> SearchProgress:
        """How far the search is."""
        elapsed = max(monotonic() - self._started, 1e-9)
        rate = (self._evaluated - self._evaluated_before) / elapsed
        return SearchProgress(self._evaluated, self.budget, self._failed, rate, self._best_loss)

    def preload(self, scores: Mapping[tuple[str, int], Score], recorded: bool) -> None:
        """Fill the cache; call it before the search begins or resumes.

        Args:
            scores: known scores of the same supernet by ``arch_id`` and fidelity.
            recorded: whether they are in the results as this strategy's already, so that no record is given for them
                (rows of an interrupted search), or whether they are another's (a record of this strategy is due).
        """
        self._known.update(scores)
        if recorded:
            self._recorded.update(scores)

    def next_batch(self) -> Batch | None:
        """The next candidates to score; ``None`` if there is nothing to send now (or ever: see :attr:`all_asked`)."""
        while True:
            if self._to_send:
                number = self._to_send.pop(0)
            else:
                asked = self._ask_batch()
                if asked is None:
                    return None
                number = asked
            self._answer_from_cache(number)
            waiting = self._outstanding[number]
            unknown = tuple(proposal for proposal in waiting.proposals if proposal.number not in waiting.scores)
            if unknown:
                return Batch(number, unknown)
            self._tell_completed()

    @property
    def is_prepared(self) -> bool:
        """Whether the next batch is there already, so that :meth:`next_batch` takes no time."""
        return bool(self._to_send)

    def prepare(self) -> None:
        """Ask for the next batch while there is time, if it may be asked by now.

        Where the order is fixed this changes nothing of what is asked; elsewhere a batch is asked when it is wanted, so
        that the strategy knows as much as possible, and nothing happens here.
        """
        if self.deterministic and not self.is_prepared:
            self.settle_known()

    def settle_known(self) -> bool:
        """Go on as far as the scores in the cache reach.

        Returns:
            Whether anything is left to be scored; if not, nobody needs to be started to score it.
        """
        batch = self.next_batch()
        if batch is not None:
            self._to_send.insert(0, batch.number)
        return not self.finished

    def receive(self, batch: int, scores: Sequence[tuple[int, Score]], origin: Origin) -> None:
        """Take scores of a batch, all or some of them.

        Args:
            batch: the batch's number.
            scores: pairs of a proposal's number and its score; what is known already is ignored.
            origin: who scored them.
        """
        waiting = self._outstanding.get(batch)
        if waiting is None:
            return
        proposals = {proposal.number: proposal for proposal in waiting.proposals}
        for number, score in scores:
            if number not in waiting.scores:
                self._settle(waiting, proposals[number], score, origin, known=False)
        self._tell_completed()

    def tick(self) -> None:
        """Save the state if the last time is long enough ago; cheap to call often."""
        if self._state_file is not None and monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        """Make the records durable, then write the state file (into a temporary file that replaces the old one)."""
        started = monotonic()
        self._before_save()
        if self._state_file is not None:
            temporary = self._state_file.with_name(f".{self._state_file.name}.tmp")
            self._state_file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._state()), encoding="utf-8")
            temporary.replace(self._state_file)
        # A state that takes long to write is written less often: at most a twentieth of the time goes into it.
        finished = monotonic()
        self._next_save = finished + max(SAVE_INTERVAL_SECONDS, 20 * (finished - started))

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Save at the end of the block, also when it ends with an error (which then is the one that is raised)."""
        try:
            yield
        except BaseException:
            with suppress(Exception):
                self.save()
            raise
        self.save()

    def resume(self) -> bool:
        """Go on from the state file, if there is one.

        Returns:
            Whether there was one.

        Raises:
            UserError: it cannot be read, or was written by a search with other settings.
        """
        if self._state_file is None or not self._state_file.exists():
            return False
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"search state {self._state_file} is not readable ({error}): remove it, the search then goes on from "
                "the recorded results"
            ) from None
        self._check_settings(state.get("settings"))
        self._load(state)
        return True

    def _ask_batch(self) -> int | None:
        """Ask the strategy for one more batch when its turn has come; its number, or ``None``."""
        if self._asks_no_more:
            self._tell_completed()
            return None
        due = self._next_number - self.window
        if self.deterministic:
            if any(number <= due and not waiting.complete for number, waiting in self._outstanding.items()):
                return None
            self._tell_up_to(due)
        if self._stalled and not self._tell_first():
            return None
        if self.stop is not None and self._told_since >= self.stop:
            # Decided only where a batch is asked, and for good: what is under way could still be better, but then it
            # would depend on the actors' speed how much the strategy knows when it goes on.
            self._stopped = True
            self._tell_completed()
            return None
        wanted = min(self.batch_size, self.budget - self._asked)
        architectures = self.strategy.ask(wanted)
        waiting = self.strategy.waiting and bool(self._outstanding or architectures)
        self._exhausted = len(architectures) < wanted and not waiting
        if not architectures and waiting:
            # Asked again only after more was told: asking in vain costs random numbers, too.
            self._stalled = True
            return self._ask_batch()
        if not architectures:
            self._tell_completed()
            return None
        numbered = enumerate(architectures, start=self._asked)
        proposals = [
            Proposal(number, architecture, self.strategy.fidelity_of(architecture)) for number, architecture in numbered
        ]
        number = self._next_number
        self._outstanding[number] = _Outstanding(proposals)
        self._next_number += 1
        self._asked += len(proposals)
        return number

    def _answer_from_cache(self, number: int) -> None:
        """Settle the proposals of a batch whose scores are known."""
        waiting = self._outstanding[number]
        for proposal in waiting.proposals:
            score = self._known.get(proposal.key)
            if score is not None and proposal.number not in waiting.scores:
                self._settle(waiting, proposal, score, Origin(), known=True)

    def _settle(self, waiting: _Outstanding, proposal: Proposal, score: Score, origin: Origin, known: bool) -> None:
        """Hand out the record of a score unless the results have it, then note and count it."""
        if proposal.key not in self._recorded:
            # First the record: should writing it fail, the candidate still counts as not evaluated.
            cheap = self.cheap.values(proposal.architecture)
            self._on_result(SearchRecord(proposal, score, cheap, origin, known))
            self._recorded.add(proposal.key)
        self._known[proposal.key] = score
        waiting.scores[proposal.number] = score
        self._count(proposal, score)

    def _count(self, proposal: Proposal, score: Score) -> None:
        self._evaluated += 1
        self._failed += score.status == "failed"
        if score.judged is None or proposal.fidelity < self.fidelity:
            return  # losses of different fidelities are not comparable
        if self._best_loss is None or score.judged < self._best_loss:
            self._best_loss = score.judged

    def _tell_completed(self) -> None:
        """Tell what may be told without waiting for an ask: everything in arrival mode, the rest at the end."""
        if not self.deterministic:
            for number in [number for number, waiting in self._outstanding.items() if waiting.complete]:
                self._tell(number)
        elif self._asks_no_more:
            # Nothing will be asked any more; telling in order keeps the strategy's final state reproducible, too.
            for number in sorted(self._outstanding):
                if not self._outstanding[number].complete:
                    break
                self._tell(number)

    def _tell_first(self) -> bool:
        """Tell the batch that was asked first, if it is complete; whether anything was told."""
        first = min(self._outstanding)
        if not self._outstanding[first].complete:
            return False
        self._tell(first)
        return True

    def _tell_up_to(self, last: int) -> None:
        for number in sorted(number for number in self._outstanding if number <= last):
            self._tell(number)

    def _tell(self, number: int) -> None:
        """Tell the strategy a complete batch, in proposal order."""
        waiting = self._outstanding.pop(number)
        self._stalled = False
        for proposal in waiting.proposals:
            self._note_told(proposal, waiting.scores[proposal.number])
        self.strategy.tell(
            [self._measurement(proposal, waiting.scores[proposal.number]) for proposal in waiting.proposals]
        )

    def _note_told(self, proposal: Proposal, score: Score) -> None:
        """Count what was told since the lowest loss; losses of lower fidelities cannot be compared with it."""
        loss = score.judged if proposal.fidelity >= self.fidelity else None
        if loss is not None and (self._best_told is None or loss < self._best_told):
            self._best_told, self._told_since = loss, 0
        else:
            self._told_since += 1

    def _measurement(self, proposal: Proposal, score: Score) -> Measurement:
        if score.status == "failed" or score.judged is None:
            return Measurement(proposal.architecture, None, "failed")
        objectives = {**self.cheap.values(proposal.architecture), LOSS.name: score.judged}
        if score.measured_latency_ms is not None:
            objectives[MEASURED_LATENCY.name] = score.measured_latency_ms
        return Measurement(proposal.architecture, objectives)

    def _settings(self) -> dict[str, Any]:
        """What must be equal for a state to fit."""
        return {
            "format": STATE_FORMAT,
            "batch_size": self.batch_size,
            "window": self.window,
            "deterministic": self.deterministic,
        }

    def _check_settings(self, found: Any) -> None:
        for name, expected in self._settings().items():
            value = found.get(name) if isinstance(found, dict) else None
            if value != expected:
                raise UserError(
                    f"search state {self._state_file} was made with {name} = {value}, now it is {expected}: go on with "
                    "the old value, or remove the file to search afresh from the recorded results"
                )

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self._settings(),
            "strategy": self.strategy.state_dict(),
            "next_number": self._next_number,
            "asked": self._asked,
            "evaluated": self._evaluated,
            "failed": self._failed,
            "best_loss": self._best_loss,
            "stalled": self._stalled,
            "best_told": self._best_told,
            "told_since": self._told_since,
            "stopped": self._stopped,
            "outstanding": [[number, waiting.state()] for number, waiting in self._outstanding.items()],
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        """Take over a state; batches under way are sent again, without what has arrived of them."""
        space = self.strategy.space
        self.strategy.load_state_dict(state["strategy"])
        for number, saved in state["outstanding"]:
            waiting = _Outstanding.from_state(saved, space.parse)
            self._outstanding[number] = waiting
            for proposal in waiting.proposals:
                if proposal.number in waiting.scores:
                    self._known[proposal.key] = waiting.scores[proposal.number]
                    self._recorded.add(proposal.key)
        self._to_send = [number for number, waiting in self._outstanding.items() if not waiting.complete]
        under_way = [proposal.architecture for waiting in self._outstanding.values() for proposal in waiting.proposals]
        if self.strategy.ask(len(under_way)) != under_way:
            raise UserError(f"search state {self._state_file} contradicts itself: remove it to search afresh")
        self._next_number = state["next_number"]
        self._asked = state["asked"]
        self._evaluated = self._evaluated_before = state["evaluated"]
        self._failed = state["failed"]
        self._best_loss = state["best_loss"]
        self._stalled = state["stalled"]
        self._best_told = state.get("best_told")
        self._told_since = state.get("told_since", 0)
        self._stopped = state.get("stopped", False)
