"""What the report shows: every section of the page, built from a run's tables.

A section tells in words what is not there yet, so a page can be written at any moment of a run.
"""

from __future__ import annotations

import pandas as pd

from orchestrator import formatting as f
from orchestrator.report import figures
from orchestrator.report.compositions import searches_components
from orchestrator.report.data import Budget, RunData, records
from orchestrator.report.latency_sections import latency
from orchestrator.report.models import headline, winners
from orchestrator.report.oneshot_sections import is_one_shot, one_shot
from orchestrator.report.phase_sections import is_trained, judging_task, phases, scoring_task
from orchestrator.report.ranking_sections import finalists, rank_fidelity, tried
from orchestrator.report.supernet_sections import blocks, shrinking, signal
from orchestrator.report.task_sections import scores, tasks
from orchestrator.report.views import Column, Facts, Fold, Grid, Note, Page, Part, Plot, Plots, Section


def page(data: RunData) -> Page:
    """The whole page for one run."""
    sections = [winners(data)]
    if not scores(data).empty:
        sections.append(tasks(data))
    if data.phases:
        sections.append(phases(data))
    if is_one_shot(data):
        sections.append(one_shot(data))
    sections += [front(data), search(data)]
    if not tried(data).empty:
        sections.append(finalists(data))
    if not data.agreements.empty:
        sections.append(rank_fidelity(data))
    sections.append(training(data))
    if not data.tables["shrinking"].empty:
        sections.append(shrinking(data))
    if not searches_components(data):  # which has no blocks that learn by themselves
        sections.append(blocks(data))
    if not data.signals.empty:
        sections.append(signal(data))
    sections += [latency(data), how_it_was_run(data)]
    return Page(
        title=f"{data.recipe or data.run_id}: netsuke report",
        run_id=data.run_id,
        recipe=data.recipe,
        headline=headline(data),
        sections=tuple(sections),
    )


def front(data: RunData) -> Section:
    """Loss against parameters and latency of every evaluated candidate."""
    candidates = data.candidates
    parts: list[Part] = []
    for cost, shade in ((figures.PARAMETERS, figures.LATENCY), (figures.LATENCY, figures.PARAMETERS)):
        if candidates[cost.column].notna().any():
            parts.append(_front_plot(data, cost, shade))
    if not parts:
        return Section("front", "The front", "", (Note("No candidates have been evaluated yet."),))
    distinct = candidates["arch_id"].nunique()
    how = f"scored as subnets of the supernet, with inherited weights, on {_fidelity(candidates)}"
    if data.phases:
        if is_trained(data.phases[-1]):
            how = "each judged after a short training"
        elif (task := scoring_task(data.phases[-1])) is not None:
            how = f"scored as subnets of the supernet tuned on tasks, by 1 - the metric of {task} on held-out rows"
        how = f"of the last phase, {how}"
    lead = (
        f"{f.plural(distinct, 'candidate')} {how}. Lower left is better; the line is the Pareto front. Point "
        "at a candidate to read its architecture, drag to zoom in, double-click to zoom out."
    )
    if distinct > figures.MOST_POINTS:
        lead += f" Of these, {f.count(figures.MOST_POINTS)} are drawn: the whole front and a random choice."
    return Section("front", "The front", lead, tuple(parts))


def _front_plot(data: RunData, cost: figures.Cost, shade: figures.Cost) -> Plots:
    chosen = data.selections
    chosen = chosen[chosen["chosen"]]
    task = judging_task(data.phases[-1]) if data.phases else None
    loss = {} if task is None else {"loss": f"1 - the metric of {task}"}
    figure = figures.front(data.candidates, chosen, data.budgets, cost, shade, **loss)
    name = cost.column.replace("_ms", "").replace("_", "-")
    title = cost.title.partition(",")[0]
    description = f"Loss against {title} of all candidates, with the Pareto front, budgets and winners"
    return Plots((Plot(f"front-{name}", figure, description, f"Loss against {title}"),))


def _fidelity(candidates: pd.DataFrame) -> str:
    levels = sorted(candidates["fidelity"].dropna().unique())
    if not levels:
        return "held-out text"
    counts = f"{levels[0]:.0f}" if len(levels) == 1 else f"{levels[0]:.0f} to {levels[-1]:.0f}"
    return f"{counts} validation batch{'' if levels == [1] else 'es'}"


def search(data: RunData) -> Section:
    """Best loss within each budget against evaluations."""
    title = "Search progress"
    if data.candidates.empty:
        return Section("search", title, "", (Note("The search has not scored any candidate yet."),))
    lead = "The lowest loss each strategy had found within a budget after so many evaluations."
    failed = data.tables["evaluations"]
    failed = failed[failed["status"] == "failed"]
    if len(failed):
        reason = next((error for error in failed["error"] if error), "no reason given")
        lead += f" {f.plural(len(failed), 'evaluation')} failed (the first: {reason})."
    budgets = data.budgets or [Budget("no budget", None, None)]
    plots = [
        Plot(
            f"search-{index}",
            figures.progress(data.candidates, budget),
            f"Best loss within budget {budget.name} against evaluations, for each strategy",
            f"Budget {budget.name}" if data.budgets else "All candidates",
        )
        for index, budget in enumerate(budgets)
        if figures.within(data.candidates, budget).any()
    ]
    empty = [budget.name for budget in budgets if not figures.within(data.candidates, budget).any()]
    parts: list[Part] = [Plots(tuple(plots))] if plots else []
    if empty:
        parts.append(Note(f"No evaluated candidate lies within: {', '.join(empty)}."))
    return Section("search", title, lead, tuple(parts))


def training(data: RunData) -> Section:
    """Training curves of the supernet, on text and on tasks, and of the students."""
    rows = _named_by_phase(data.tables["training"])
    supernet, students = rows[rows["stage"] == "supernet"], rows[rows["stage"] == "distillation"]
    plots: list[Plot] = []
    notes: list[Part] = []
    if supernet.empty:
        notes.append(Note("The supernet has not been trained yet."))
    else:
        figure = figures.supernet_training(supernet)
        plots.append(Plot("training-supernet", figure, "Relative MSE of each block of the supernet", "Supernet"))
    own = [stage for stage in rows["stage"].drop_duplicates() if stage.startswith("supernet.")]
    for stage in own:
        figure = figures.supernet_training(rows[rows["stage"] == stage])
        title = f"Supernet of the phase {stage.partition('.')[2]}"
        plots.append(Plot(f"training-{stage.replace('.', '-')}", figure, f"Relative MSE: {title.lower()}", title))
    tuned = [stage for stage in rows["stage"].drop_duplicates() if stage.startswith("tuning.")]
    for stage in tuned:
        figure = figures.distillation(rows[rows["stage"] == stage], {})
        title = f"Supernet of the phase {stage.partition('.')[2]} on tasks"
        plots.append(Plot(f"training-{stage.replace('.', '-')}", figure, f"Loss of each task: {title.lower()}", title))
    if students.empty:
        notes.append(Note("No student has been distilled yet."))
    else:
        figure = figures.distillation(students, data.students)
        error = figures.error_name(students)
        plots.append(Plot("training-distillation", figure, f"{error} of each student".capitalize(), "Distillation"))
    shown = rows[rows["stage"].isin(["supernet", *own, *tuned, "distillation"])]
    parts: list[Part] = [Plots(tuple(plots)), _trainings(shown)] if plots else []
    lead = "Relative MSE: squared error of the hidden states, divided by the variance of the teacher’s."
    if not students.empty and figures.error_name(students) != "relative MSE":
        lead += (
            " Students that learn to predict masked tokens are shown by their training loss: the cross entropy of the "
            "tokens, mixed with the divergence from the teacher’s predictions where that is learned too."
        )
    return Section("training", "Training", lead if plots else "", (*parts, *notes))


def _named_by_phase(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of training, a phase's own supernet being called by its stage, tasks that it is tuned on by both."""
    subjects = rows["subject"].where(~rows["stage"].str.startswith("supernet."), rows["stage"])
    on_tasks = rows["stage"] + " on " + rows["subject"]
    return rows.assign(subject=subjects.where(~rows["stage"].str.startswith("tuning."), on_tasks))


def _trainings(rows: pd.DataFrame) -> Grid:
    """Length, speed and last error (what its curve shows) of every subject that was trained."""
    columns = (
        Column("trained"),
        Column("steps", is_number=True),
        Column("tokens", is_number=True),
        Column("tokens a second", is_number=True),
        Column("last error", is_number=True),
    )
    texts = []
    for subject, part in rows.sort_values("step", kind="stable").groupby("subject", sort=False):
        at_end = part[part["step"] == part["step"].max()]
        error = figures.training_error(at_end).mean()
        speed = part["tokens_per_second"].median()
        steps, tokens = at_end["step"].iloc[0], at_end["tokens"].max()
        texts.append((str(subject), f.count(steps), f.count(tokens), f.count(speed), f.significant(error)))
    return Grid(columns, tuple(texts))


def how_it_was_run(data: RunData) -> Section:
    """Stages with their times, the device, versions, and the recipe."""
    runs = data.tables["runs"]
    parts: list[Part] = [Facts(_facts(data))]
    if runs.empty:
        parts.append(Note("No stage has been recorded yet."))
    else:
        parts.append(_stages(runs))
    if data.recipe_text:
        parts.append(Fold("The recipe, resolved", data.recipe_text))
    return Section("run", "How it was run", "", tuple(parts))


def _stages(runs: pd.DataFrame) -> Grid:
    """The last word on every stage of every attempt, without those that were skipped as already finished.

    Nor does the page say of itself that it is still being written.
    """
    last = runs.drop_duplicates(["attempt", "stage"], keep="last")
    finished = set(last.loc[last["status"] == "finished", "stage"])
    last = last[(last["status"] != "skipped") | ~last["stage"].isin(finished)]
    last = last[(last["stage"] != "report") | (last["status"] != "started")]
    columns = (
        Column("attempt", is_number=True),
        Column("stage"),
        Column("status"),
        Column("time", is_number=True),
        Column("what it did", is_sentence=True),
    )
    rows = tuple(
        (
            f.count(row["attempt"]),
            row["stage"],
            row["status"] if row["status"] != "started" else "started, no end recorded",
            f.seconds(row["seconds"]),
            row["detail"],
        )
        for row in records(last)
    )
    total = f"{f.seconds(last['seconds'].sum())} in all" if last["seconds"].notna().any() else ""
    attempts = int(runs["attempt"].nunique())
    return Grid(columns, rows, f"{total}, {f.plural(attempts, 'attempt')}.".lstrip(", "))


def _facts(data: RunData) -> tuple[tuple[str, str], ...]:
    runs, latency_rows = data.tables["runs"], data.tables["latency"]
    facts = {
        "run": data.run_id,
        "recipe": data.recipe,
        "teacher": data.teacher,
        "netsuke": data.netsuke_version or _distinct(runs["netsuke_version"]),
        "PyTorch": _distinct(runs["torch_version"]),
        "Ray": _distinct(runs["ray_version"]),
        "host": _distinct(runs["host"]),
        "device of the latencies": _distinct(latency_rows["device"]),
        "threads": _distinct(latency_rows["threads"].dropna().map("{:.0f}".format)),
        "number format": _distinct(latency_rows["dtype"]),
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _distinct(values: pd.Series) -> str:
    """The different texts of a column, in order of appearance."""
    return ", ".join(dict.fromkeys(value for value in values if value))
