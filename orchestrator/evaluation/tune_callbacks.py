"""Ray Tune callbacks that a user names, such as TensorBoard's and MLflow's: found, checked, and kept from doing harm.

Their part in a search is to watch. What is measured has reached netsuke's own tables before they are told of it, and
one that fails while the search is under way is left out from there on: the search needs no dashboard.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partialmethod
from importlib import import_module
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.utils.util import SafeFallbackEncoder

from cluster.errors import type_and_text
from orchestrator.errors import UserError
from orchestrator.recipe.search import SearchSettings

Notice = Callable[[str], None]


@dataclass(frozen=True)
class NamedCallback:
    """A callback as a recipe names it.

    Attributes:
        key: of the recipe, such as ``search.callbacks.0``.
        name: as the recipe has it.
        place: ``package.module:ClassName``.
        options: arguments of the class.
    """

    key: str
    name: str
    place: str
    options: Mapping[str, Any]

    def make(self) -> tune.Callback:
        """A new callback; each search has its own.

        Raises:
            UserError: there is no such class, it is no callback, it refuses the options, or a package is missing.
        """
        found = self._load()
        try:
            inspect.signature(found).bind(**self.options)
        except TypeError as error:
            known = ", ".join(inspect.signature(found).parameters) or "none"
            raise UserError(f"{self.key}.options: {self.name}: {error}; its options are: {known}") from None
        try:
            return found(**self.options)
        except ImportError as error:
            raise self._lacks(error) from None
        except Exception as error:
            raise UserError(f"{self.key}.options: {self.name} refuses them: {type_and_text(error)}") from None

    def _load(self) -> type[tune.Callback]:
        module, _, name = self.place.partition(":")
        try:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(f"{error.name}.")):
                raise UserError(
                    f"{self.key}.name: found {self.name!r}, but Python finds no module {error.name!r}; install the "
                    "package that has it, or add the folder it is in to PYTHONPATH"
                ) from None
            raise self._lacks(error) from None
        except AttributeError:
            raise UserError(f"{self.key}.name: found {self.name!r}, but {module} has no {name!r}") from None
        except Exception as error:
            raise UserError(f"{self.key}.name: {self.name} cannot be imported: {type_and_text(error)}") from None
        if not (isinstance(found, type) and issubclass(found, tune.Callback)):
            raise UserError(f"{self.key}.name: found {self.name!r}, expected a subclass of ray.tune.Callback")
        return found

    def _lacks(self, error: ImportError) -> UserError:
        if self.name == "mlflow":
            needed, command = "mlflow", "pip install 'netsuke[mlflow]'"
        else:
            needed = error.name or type_and_text(error)
            command = f"pip install {error.name}" if error.name else "install it"
        return UserError(
            f"{self.key}.name: found {self.name!r}, which needs the package {needed!r}, and that is not installed; "
            f"{command}, or leave the callback out"
        )


def named_callbacks(search: SearchSettings, recipe_name: str) -> tuple[NamedCallback, ...]:
    """The callbacks of a recipe.

    Args:
        search: the recipe's section.
        recipe_name: MLflow's experiment where the recipe does not name one.
    """
    named = []
    for index, settings in enumerate(search.callbacks):
        options = {"experiment_name": recipe_name} if settings.name == "mlflow" else {}
        named.append(
            NamedCallback(f"search.callbacks.{index}", settings.name, settings.place, options | settings.options)
        )
    return tuple(named)


class DriverOnly:
    """Lives in the driver alone: Tune pickles its searchers and callbacks for a restore that netsuke does not use."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class ResultFiles(DriverOnly, tune.Callback):  # type: ignore[misc]
    """Writes each trial's result to where ``ResultGrid.get_dataframe`` and ``ExperimentAnalysis`` look for it.

    Ray's own logger makes three files a trial, and would be told only of what other callbacks have left.
    """

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial is done."""
        trial.init_local_path()
        line = json.dumps(result, cls=SafeFallbackEncoder)
        Path(trial.local_path, "result.json").write_text(f"{line}\n", encoding="utf-8")


def watchers(
    callbacks: Sequence[NamedCallback], result_files: bool, refuse: Callable[[Exception], None], notice: Notice
) -> list[tune.Callback]:
    """Who is told of a search besides the loop: new callbacks, for this search alone.

    Args:
        callbacks: that the user names.
        result_files: whether to write :class:`ResultFiles`, unless one of the callbacks writes them.
        refuse: see :class:`GuardedCallback`.
        notice: likewise.
    """
    guarded = [GuardedCallback(one, refuse, notice) for one in callbacks]
    written = any(one.writes_results for one in guarded)
    return [*([ResultFiles()] if result_files and not written else []), *guarded]


class GuardedCallback(DriverOnly, tune.Callback):  # type: ignore[misc]
    """Passes on to a user's callback whatever Tune tells, and nothing of its failures to Tune.

    Args:
        named: whose callback it is, for messages.
        refuse: gets the error if the callback cannot begin, when nothing has been measured yet.
        notice: gets one line if it fails later; it is told nothing more then.

    Attributes:
        writes_results: whether it is Ray's own writer of result files.

    Raises:
        UserError: see :meth:`NamedCallback.make`.
    """

    def __init__(self, named: NamedCallback, refuse: Callable[[Exception], None], notice: Notice) -> None:
        self._callback: tune.Callback | None = named.make()
        self.writes_results = isinstance(self._callback, JsonLoggerCallback)
        self._named = f"{named.key} ({named.name})"
        self._refuse = refuse
        self._notice = notice

    def setup(self, **info: Any) -> None:
        """Begin; what fails here (a server that cannot be reached) ends the search before it begins."""
        assert self._callback is not None
        try:
            self._callback.setup(**info)
        except Exception as error:
            self._callback = None
            self._refuse(
                UserError(
                    f"{self._named} could not begin: {type_and_text(error)}; mend that or leave the callback out, and "
                    "run the same command again to go on"
                )
            )

    def _tell(self, hook: str, **info: Any) -> None:
        if self._callback is None:
            return
        try:
            getattr(self._callback, hook)(**info)
        except Exception as error:
            self._callback = None
            self._notice(
                f"{self._named} failed in {hook} and is told nothing more of this search: {type_and_text(error)}"
            )

    on_step_begin = partialmethod(_tell, "on_step_begin")
    on_step_end = partialmethod(_tell, "on_step_end")
    on_trial_start = partialmethod(_tell, "on_trial_start")
    on_trial_restore = partialmethod(_tell, "on_trial_restore")
    on_trial_save = partialmethod(_tell, "on_trial_save")
    on_trial_result = partialmethod(_tell, "on_trial_result")
    on_trial_complete = partialmethod(_tell, "on_trial_complete")
    on_trial_recover = partialmethod(_tell, "on_trial_recover")
    on_trial_error = partialmethod(_tell, "on_trial_error")
    on_checkpoint = partialmethod(_tell, "on_checkpoint")
    on_experiment_end = partialmethod(_tell, "on_experiment_end")
