"""The finished models in words: the headline, and winner against uniform for every budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from orchestrator import formatting as f
from orchestrator.report.data import TEACHER, UNIFORM, WINNER, Budget, RunData
from orchestrator.report.latency_sections import other_device
from orchestrator.report.views import Cell, Comparison, Comparisons, Headline, Metric, Note, Rival, Section, Tile
from orchestrator.summary import EQUAL_SIZE

WHAT_ONE_SHOT_FOUND = "what the one-shot training found"
"""What is said of a budget whose winner no search has chosen."""


@dataclass(frozen=True)
class _Measure:
    """One row of a comparison: how a model's number is got and shown, and whether less or more of it is better."""

    group: str
    name: str
    value: Callable[[pd.Series, pd.Series | None], float | None]
    show: Callable[[float | None], str]
    better: Callable[[list[float]], float] | None = None
    unit: str = ""
    is_number: bool = True


def _column(name: str) -> Callable[[pd.Series, pd.Series | None], float | None]:
    return lambda model, teacher: float(model[name])


def _encoder_share(model: pd.Series, teacher: pd.Series | None) -> float | None:
    if teacher is None or not teacher["encoder_parameters"] > 0:
        return None
    return float(model["encoder_parameters"] / teacher["encoder_parameters"])


def _tying(model: pd.Series, teacher: pd.Series | None) -> float | None:
    """1: tied, 0: untied; ``None`` where no masked tokens are predicted."""
    return float(model["tied_embeddings"]) if pd.notna(model["masked_lm_loss"]) else None


def _show_tying(tied: float | None) -> str:
    return f.NOTHING if tied is None else "tied" if tied else "untied"


def _show_whole(number: float | None) -> str:
    return f.NOTHING if number is None or pd.isna(number) else f"{number:,.0f}"


_MEASURES = (
    _Measure("Parameters", "encoder", _column("encoder_parameters"), f.count),
    _Measure("Parameters", "of the teacher’s", _encoder_share, f.percent),
    _Measure("Parameters", "with embeddings", _column("parameters"), f.count),
    _Measure("Parameters", "vocabulary", _column("vocabulary_size"), _show_whole),
    _Measure("Parameters", "input and output embeddings", _tying, _show_tying, is_number=False),
    _Measure("Parameters", "size in float32", _column("size_bytes"), f.file_size, unit="B"),
    _Measure("Latency of a batch", "measured", _column("measured_latency_ms"), f.milliseconds, min, "ms"),
    _Measure("Latency of a batch", "predicted", _column("predicted_latency_ms"), f.milliseconds, unit="ms"),
    _Measure("Latency of a batch", "speed-up", _column("speed_up"), f.times, max),
    _Measure("Cosine similarity", "undistilled", _column("initial_cosine_similarity"), f.similarity, max),
    _Measure("Cosine similarity", "distilled", _column("cosine_similarity"), f.similarity, max),
    _Measure("Relative MSE", "distilled", _column("relative_mse"), f.significant, min),
    _Measure("Masked tokens", "loss", _column("masked_lm_loss"), f.significant, min, "nats"),
    _Measure("Masked tokens", "perplexity", _column("perplexity"), f.significant, min),
    _Measure("Masked tokens", "predicted right", _column("masked_lm_accuracy"), f.percent, max),
)


_WHERE_MEASURED = ("Masked tokens",)
"""Groups that are left out where no student has them."""


def headline(data: RunData) -> Headline:
    """What was carved: the teacher against the best student of the largest budget that has one."""
    name = data.teacher or "The teacher"
    teacher = _teacher(data)
    for budget in data.budgets:
        winner = _best(data, budget, WINNER)
        if winner is not None:
            rival = _best(data, budget, UNIFORM)
            share = _encoder_share(winner, teacher)
            title = f"{name}, carved down to {f.percent(share)}" if share is not None else f"{name}, carved"
            tiles = _tiles(winner, rival, teacher)
            return Headline(title, _sentence(budget, winner, rival, teacher), winner["architecture"], tiles)
    return Headline(f"{name}, being carved", _how_far(data))


def winners(data: RunData) -> Section:
    """Per budget: the winner, the uniform baseline of equal size, and the teacher, side by side."""
    cards = tuple(card for budget in data.budgets if (card := _card(data, budget)) is not None)
    if not cards:
        note = Note("No students yet: winners appear here once the first one has been distilled and measured.")
        return Section("winners", "Winners", "", (note,))
    models = data.tables["models"]
    lead = (
        f"Each winner against a uniform BERT of equal size, which also started {_start(models)} and was distilled for "
        "as long. Cosine similarity of sentence embeddings and relative MSE of token states are measured against the "
        "teacher on held-out text. Latencies are those of what people load: teacher and uniform BERT run as the "
        "BertModel of transformers, winners as the code that is exported with them; all are timed in turn."
    )
    if models["masked_lm_loss"].notna().any():
        lead += " Masked tokens are hidden in the same text, the same for all models: loss is their cross entropy."
    lead += other_device(data)
    return Section("winners", "Winners", lead, (Comparisons(cards),))


def _start(models: pd.DataFrame) -> str:
    return "at random weights" if (models["initialisation"] == "scratch").any() else "from the teacher"


def _sentence(budget: Budget, winner: pd.Series, rival: pd.Series | None, teacher: pd.Series | None) -> str:
    cosine = winner["cosine_similarity"]
    sentence = f"The best student for the budget “{budget.name}”"
    if winner["speed_up"] > 0:
        sentence += f" runs {f.times(winner['speed_up'])} as fast as its teacher"
    if pd.notna(winner["masked_lm_loss"]):
        sentence += f". It predicts {_prediction(winner)}"
        rivals = {"the teacher": teacher, "a uniform BERT of equal size and equal distillation": rival}
        compared = [
            f"{name} {_prediction(one, briefly=True)}"
            for name, one in rivals.items()
            if one is not None and pd.notna(one["masked_lm_loss"])
        ]
        sentence += f" ({', '.join(compared)})" if compared else ""
    if pd.notna(cosine):
        sentence += f". Its sentence embeddings have a cosine similarity of {f.similarity(cosine)} to the teacher’s"
    if rival is not None and pd.notna(gain := cosine - rival["cosine_similarity"]):
        place = "above" if gain > 0 else "below"
        sentence += f", {f.similarity(abs(gain))} {place} those of a uniform BERT of equal size and equal distillation"
    return sentence + "."


def _prediction(model: pd.Series, briefly: bool = False) -> str:
    tokens = "" if briefly else " of masked tokens right"
    return f"{f.percent(model['masked_lm_accuracy'])}{tokens} at a loss of {f.significant(model['masked_lm_loss'])}"


def _tiles(winner: pd.Series, rival: pd.Series | None, teacher: pd.Series | None) -> tuple[Tile, ...]:
    own = winner["encoder_parameters"]
    tiles = [Tile("encoder parameters", f.count(own), "the teacher was not measured")]
    if (share := _encoder_share(winner, teacher)) is not None and teacher is not None:
        of = f"{f.count(own)} of {f.count(teacher['encoder_parameters'])}"
        tiles = [Tile("of the encoder’s parameters", f.percent(share), of)]
    latency = f"{f.milliseconds(winner['measured_latency_ms'])} a batch"
    if teacher is not None:
        latency += f" instead of {f.milliseconds(teacher['measured_latency_ms'])}"
    tiles.append(Tile("as fast as the teacher", f.times(winner["speed_up"]), latency))
    if pd.notna(winner["masked_lm_loss"]):
        loss = f"loss {f.significant(winner['masked_lm_loss'])}"
        if teacher is not None and pd.notna(teacher["masked_lm_loss"]):
            right = f.percent(teacher["masked_lm_accuracy"])
            loss += f"; the teacher: {right}, {f.significant(teacher['masked_lm_loss'])}"
        tiles.append(Tile("of masked tokens predicted right", f.percent(winner["masked_lm_accuracy"]), loss))
    before = f"{f.similarity(winner['initial_cosine_similarity'])} before distillation"
    tiles.append(Tile("cosine similarity to the teacher", f.similarity(winner["cosine_similarity"]), before))
    if rival is not None:
        gain = winner["cosine_similarity"] - rival["cosine_similarity"]
        against = f"cosine of the uniform one: {f.similarity(rival['cosine_similarity'])}"
        tiles.append(Tile("against a uniform BERT of equal size", f.signed_similarity(gain), against))
    return tuple(tiles)


def _how_far(data: RunData) -> str:
    """The state of a run that has no student yet."""
    runs = data.tables["runs"]
    parts = ["No students yet"]
    if not runs.empty:
        last = runs.iloc[-1]
        parts.append(f"the last stage on record is “{last['stage']}” ({last['status']})")
    if len(data.candidates):
        parts.append(f"{f.plural(data.candidates['arch_id'].nunique(), 'candidate')} evaluated so far")
    if len(parts) == 1:
        parts.append("nothing has been recorded in this run folder")
    return "; ".join(parts) + "."


def _card(data: RunData, budget: Budget) -> Comparison | None:
    students = [model for role in (WINNER, UNIFORM) for model in _ranked(data, budget, role)]
    if not students:
        return None
    teacher = _teacher(data)
    columns = students if teacher is None else [*students, teacher]
    return Comparison(
        title=budget.name,
        limits=_limits(budget),
        remark=" ".join(filter(None, (_sharing(students), _matching(students)))),
        rivals=tuple(Rival(model["role"], model["architecture"], model["path"]) for model in columns),
        metrics=tuple(
            _metric(measure, columns, len(students), teacher)
            for measure in _MEASURES
            if measure.group not in _WHERE_MEASURED or any(pd.notna(measure.value(one, teacher)) for one in students)
        ),
    )


def _metric(measure: _Measure, models: list[pd.Series], students: int, teacher: pd.Series | None) -> Metric:
    """One row; the best of the students (the first ``students`` models) is set off, unless all look the same."""
    values = [measure.value(model, teacher) for model in models]
    texts = [measure.show(value) for value in values]
    measured = [value for value in values[:students] if value is not None and pd.notna(value)]
    best = measure.better(measured) if measure.better and len(set(texts[:students])) > 1 and measured else None
    return Metric(
        measure.group,
        measure.name,
        tuple(
            Cell(
                text,
                _exact(value, measure.unit) if measure.is_number else "",
                index < students and value is not None and value == best,
            )
            for index, (text, value) in enumerate(zip(texts, values, strict=True))
        ),
    )


def _exact(value: float | None, unit: str) -> str:
    if value is None or pd.isna(value):
        return ""
    number = f"{value:,.0f}" if value == int(value) and abs(value) >= 1_000 else f"{value:.6g}"
    return f"{number} {unit}".strip()


def _limits(budget: Budget) -> str:
    limits = [WHAT_ONE_SHOT_FOUND] if budget.choose == "oneshot" else []
    if budget.max_encoder_parameters is not None:
        limits.append(f"at most {f.count(budget.max_encoder_parameters)} encoder parameters")
    if budget.max_parameters is not None:
        limits.append(f"at most {f.count(budget.max_parameters)} parameters in all")
    if budget.max_flops is not None:
        limits.append(f"at most {f.count(budget.max_flops)} FLOPs")
    if budget.max_latency_ms is not None:
        limits.append(f"at most {f.milliseconds(budget.max_latency_ms)}")
    return ", ".join(limits)


def _sharing(students: list[pd.Series]) -> str:
    """Which of a budget's models are another budget's as well; empty where none is."""
    shared = [f"the {model['role']} is that of “{model['same_as']}”" for model in students if model["same_as"]]
    if not shared:
        return ""
    return f"Distilled and measured once for several budgets: {' and '.join(shared)}."


def _matching(students: list[pd.Series]) -> str:
    """In what winner and uniform BERT are not of equal size; empty where they are, give or take a hundredth."""
    by_role = {model["role"]: model for model in students}
    winner, uniform = by_role.get(WINNER), by_role.get(UNIFORM)
    if winner is None or uniform is None or not abs(uniform["parameters"] / winner["parameters"] - 1) > EQUAL_SIZE:
        return ""
    return (
        f"The uniform BERT has the teacher’s embeddings: it is as large as the winner behind them, but has "
        f"{f.count(uniform['parameters'])} parameters in all against {f.count(winner['parameters'])}."
    )


def _teacher(data: RunData) -> pd.Series | None:
    rows = data.tables["models"]
    rows = rows[rows["role"] == TEACHER]
    return None if rows.empty else rows.iloc[-1]


def _ranked(data: RunData, budget: Budget, role: str) -> list[pd.Series]:
    """The models of a budget in one role, the most faithful first."""
    rows = data.tables["models"]
    rows = rows[(rows["budget"] == budget.name) & (rows["role"] == role)]
    ordered = rows.sort_values("cosine_similarity", ascending=False, na_position="last", kind="stable")
    return [row for _, row in ordered.iterrows()]


def _best(data: RunData, budget: Budget, role: str) -> pd.Series | None:
    return next(iter(_ranked(data, budget, role)), None)
