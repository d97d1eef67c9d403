"""A copy of a search in Optuna's storage, for ``optuna-dashboard`` and whatever else reads studies."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

ARCHITECTURE = "architecture"
"""The user attribute of a mirrored trial that holds the architecture's text."""

_JOURNAL_SUFFIXES = (".log", ".journal")


class StudyMirror:
    """Writes every told candidate into a study, once, also when the search is stopped and goes on.

    The study is a view: the search never reads values from it, so that what it asks depends on its own state alone.

    Args:
        storage: an SQLAlchemy URL (``sqlite:///study.db``), or the path of a journal file (``study.log``).
        study_name: the study is made if there is none of this name.
        directions: of the objectives.
        metric_names: names of the objectives, as the dashboard shows them.

    Raises:
        UserError: the storage is neither a URL nor a journal file, or its folder does not exist.
    """

    def __init__(
        self, storage: str, study_name: str, directions: Sequence[StudyDirection], metric_names: Sequence[str]
    ) -> None:
        _check_storage(storage)
        self._location, self._study_name = storage, study_name
        self._directions, self._metric_names = list(directions), list(metric_names)
        self._study: optuna.Study | None = None
        self._written: set[str] = set()

    def write(
        self,
        architecture: str,
        values: Sequence[float] | None,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        constraints: Mapping[str, float],
    ) -> None:
        """Add one candidate, unless the study has it.

        Args:
            architecture: its text.
            values: of the objectives; ``None`` makes it a failed trial.
            params: the decisions that lead to it.
            distributions: of these decisions.
            constraints: excess of each constraint by name, above 0 where it is broken.

        Raises:
            UserError: the storage cannot be opened, or its study is another search's.
        """
        study = self._opened()
        if architecture in self._written:
            return
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if values is None else TrialState.COMPLETE,
                values=None if values is None else list(values),
                params=dict(params),
                distributions=dict(distributions),
                constraints=dict(constraints) or None,
                user_attrs={ARCHITECTURE: architecture},
            )
        )
        self._written.add(architecture)

    def _opened(self) -> optuna.Study:
        """The study, opened at the first candidate, so that checking a recipe writes nothing."""
        if self._study is not None:
            return self._study
        try:
            study = optuna.create_study(
                storage=_open_storage(self._location),
                study_name=self._study_name,
                directions=self._directions,
                load_if_exists=True,
            )
            if study.directions != self._directions:
                raise UserError(
                    f"strategy optuna, option storage: the study '{self._study_name}' in {self._location} has "
                    f"{len(study.directions)} objectives, expected {len(self._directions)} of the same directions; "
                    f"choose another study_name"
                )
            if not study.trials:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    study.set_metric_names(self._metric_names)
        except UserError:
            raise
        except Exception as error:  # of whatever database there is
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"strategy optuna, option storage: {self._location} cannot be opened: {line}") from error
        self._written = {str(trial.user_attrs.get(ARCHITECTURE)) for trial in study.get_trials(deepcopy=False)}
        self._study = study
        return study


def _check_storage(storage: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if storage.endswith(_JOURNAL_SUFFIXES):
        path: Path | None = Path(storage)
    else:
        try:
            url = make_url(storage)
        except ArgumentError:
            raise UserError(
                f"strategy optuna, option storage: found {storage!r}, expected a URL such as sqlite:///study.db or a "
                f"journal file such as study.log"
            ) from None
        path = Path(url.database) if url.drivername.startswith("sqlite") and url.database else None
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f"strategy optuna, option storage: the folder {path.absolute().parent} does not exist; make it")


def _open_storage(location: str) -> BaseStorage | str:
    if location.endswith(_JOURNAL_SUFFIXES):
        from optuna.storages.journal import JournalFileBackend

        return optuna.storages.JournalStorage(JournalFileBackend(location))
    return location
