"""The recipe's list ``search.callbacks``: who is told of a search while it runs, besides netsuke's own tables."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from orchestrator.recipe.section import Section

KNOWN_CALLBACKS = {
    "tensorboard": "ray.tune.logger:TBXLoggerCallback",
    "mlflow": "ray.air.integrations.mlflow:MLflowLoggerCallback",
    "json": "ray.tune.logger:JsonLoggerCallback",
    "csv": "ray.tune.logger:CSVLoggerCallback",
}
"""Ray Tune's callbacks that have a short name here, and where they are."""

WRITE_INTO_THE_EXPERIMENT = ("tensorboard", "json", "csv")
"""Those whose files lie in the folder of the experiment, and would go with it."""

_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _check_name(name: str) -> str:
    if name in KNOWN_CALLBACKS or _PLACE.fullmatch(name):
        return name
    raise ValueError(
        f"found {name!r}, expected {', '.join(KNOWN_CALLBACKS)}, or package.module:ClassName of a ray.tune.Callback"
    )


class CallbackSettings(Section):
    """One Ray Tune callback that is told of the trials of a search."""

    name: Annotated[str, AfterValidator(_check_name)] = Field(
        description=f"{', '.join(KNOWN_CALLBACKS)}, or package.module:ClassName of any other ray.tune.Callback that "
        "Python can import"
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the callback's class. They are stored with the recipe: passwords belong into the "
        "environment. mlflow without an experiment_name uses the recipe's name",
    )

    @property
    def place(self) -> str:
        """Where the class is: ``package.module:ClassName``."""
        return KNOWN_CALLBACKS.get(self.name, self.name)
