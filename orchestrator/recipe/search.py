"""The recipe's sections ``search`` and ``budgets``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from orchestrator.recipe.budgets import parse_size
from orchestrator.recipe.callbacks import WRITE_INTO_THE_EXPERIMENT, CallbackSettings
from orchestrator.recipe.section import (
    BatchSize,
    Count,
    FlopsLimit,
    HowItRuns,
    Label,
    LatencyLimit,
    Later,
    Objective,
    Section,
    SizeLimit,
    raise_problems,
    repeated,
)


class StrategySettings(Section):
    """One strategy that proposes architectures."""

    name: str = Field(min_length=1, description="a registered strategy")
    evaluations: Count = Field(200, description="architectures the strategy may have scored")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy, validated by it")


def _default_strategies() -> tuple[StrategySettings, ...]:
    return (
        StrategySettings(name="regularised_evolution"),
        StrategySettings(name="optuna", options={"sampler": "nsga2"}),
    )


class SearchSettings(Section):
    """Which architectures are scored, on what, and by how many actors."""

    strategies: tuple[StrategySettings, ...] = Field(
        default_factory=_default_strategies,
        strict=False,
        min_length=1,
        description="strategies, each with its own evaluations",
    )
    objectives: tuple[Objective, ...] = Field(
        ("loss", "encoder_parameters", "latency_ms"),
        strict=False,
        min_length=1,
        description="what is minimised, the loss among it",
    )
    validation_batches: Count = Field(2, description="validation batches behind each loss")
    batch_size: BatchSize = Field(32, description="sequences in a validation batch")
    rank_by: Literal["hidden_states", "masked_lm"] = Field(
        "hidden_states",
        description="what decides between whole networks: hidden_states: the error of the last state of the chained "
        "blocks; masked_lm: their loss at predicting hidden tokens through the teacher's masked-LM head, of which "
        "distillation.mask_probability says how many are hidden",
    )
    actors: Annotated[int, HowItRuns()] = Field(2, ge=1, le=10_000, description="processes that hold the supernet")
    cpus_per_actor: Annotated[float, HowItRuns()] = Field(1, gt=0, le=10_000, description="processor cores an actor")
    gpus_per_actor: Annotated[float, HowItRuns()] = Field(0, ge=0, le=1_000, description="accelerators an actor")
    candidates_per_trial: Count | Literal["auto"] = Field(
        "auto",
        description="architectures that travel to an actor together; auto: by their FLOPs as many as take a second "
        "or two, and few enough that a strategy learns from the first before it has asked half of its evaluations",
    )
    tell: Literal["in_order", "on_arrival"] = Field(
        "in_order",
        description="when strategies learn of scores: in_order: in the order in which they asked, so that a search "
        "finds the same however fast its actors are; on_arrival: as soon as they are there, so that a strategy knows "
        "more when it is asked, and no search can be repeated",
    )
    stop: Annotated[Count | None, Later()] = Field(
        None,
        description="evaluations without a lower loss, by candidates at full fidelity, after which a strategy ends "
        "before it has had all of its own; null: it has them all",
    )
    callbacks: Annotated[tuple[CallbackSettings, ...], HowItRuns()] = Field(
        (), strict=False, description="Ray Tune callbacks that are told of each trial, such as TensorBoard's; none: []"
    )
    keep_experiment: Annotated[bool | None, HowItRuns()] = Field(
        None,
        description="whether Ray Tune's experiment stays in the run folder when the search is done; null: where "
        "callbacks are named",
    )

    @model_validator(mode="after")
    def _check_names(self) -> SearchSettings:
        problems = [
            *repeated("strategies.{}.name", (strategy.name for strategy in self.strategies)),
            *repeated("objectives.{}", self.objectives),
        ]
        if "loss" not in self.objectives:
            found = f"found {', '.join(self.objectives)}, expected 'loss' among them; nothing else judges quality"
            problems.append(("objectives", found))
        writing = [callback.name for callback in self.callbacks if callback.name in WRITE_INTO_THE_EXPERIMENT]
        if writing and self.keep_experiment is False:
            found = f"found false, expected true or null: {', '.join(writing)} of callbacks would be removed with it"
            problems.append(("keep_experiment", found))
        raise_problems(problems)
        return self

    @property
    def keeps_experiment(self) -> bool:
        """Whether the folder of Ray Tune's experiment stays when the search is done."""
        return bool(self.callbacks) if self.keep_experiment is None else self.keep_experiment


class Budget(Section):
    """Limits that a student has to keep; each budget gets a winner."""

    name: Label = Field(description="label of the budget, also in folder names")
    encoder_parameters: SizeLimit | None = Field(
        None, description="most weights behind the embeddings: 50% of the teacher's, or 5M, 500k, 5000000; null: any"
    )
    parameters: SizeLimit | None = Field(
        None, description="most weights in all, embeddings included, written likewise; null: any"
    )
    flops: FlopsLimit | None = Field(
        None,
        description="most floating-point operations of one sequence of corpus.sequence_length tokens, embedding "
        "look-ups not counted: 800M, 2.3G; null: any",
    )
    latency_ms: LatencyLimit | None = Field(
        None, description="longest predicted latency of a batch in milliseconds (4, 4ms, 0.5s); null: any"
    )

    choose: Annotated[Literal["loss", "oneshot"], Later()] = Field(
        "loss",
        description="who wins among those that keep the limits: the candidate of lowest loss (or the best of the "
        "trials), or the architecture that the one-shot training of the supernet has come to (components), which needs "
        "no limit",
    )

    @model_validator(mode="after")
    def _check_some_limit(self) -> Budget:
        if self.choose == "loss" and all(
            limit is None for limit in (self.encoder_parameters, self.parameters, self.flops, self.latency_ms)
        ):
            expected = "expected encoder_parameters, parameters, flops or latency_ms"
            raise_problems([("", f"found no limit, {expected}; or several of them")])
        return self


def default_budgets() -> tuple[Budget, ...]:
    """What a recipe without budgets is asked for."""
    return (Budget(name="half", encoder_parameters=parse_size("50%")),)
