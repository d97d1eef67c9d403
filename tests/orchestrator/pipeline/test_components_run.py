"""A whole run of the space of components: supernet and distribution learn together, evolution goes on from there."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from orchestrator.errors import UserError
from orchestrator.phases import FOUND, FOUND_BY_LAMBDA, LAMBDAS
from orchestrator.pipeline import plan_recipe, stage_signatures
from orchestrator.recipe import load_recipe
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunPlan
from orchestrator.stages.lambda_sweep import own_losses
from spaces import huggingface as _registered  # noqa: F401 - AutoModel has to know the project's models
from spaces.registry import load_space
from tests.orchestrator.pipeline.components_run import OPTIONS, STEPS, components_recipe
from tests.orchestrator.pipeline.microscopic_run import SEQUENCE_LENGTH, shape_of_teacher
from tests.orchestrator.pipeline.runs import FinishedRun, Run
from tests.orchestrator.without_ray import without_ray
from tests.spaces.microscopic import parameters_of
from trainers.errors import TrainingInputError
from trainers.supernet_store import load_supernet

MODELS = ("most", "half")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def recipe(place):
    file = place / "components.yaml"
    file.write_text(yaml.safe_dump(components_recipe(), sort_keys=False), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def run(recipe, local_ray, tmp_path_factory):
    started = Run(recipe, tmp_path_factory.mktemp("components") / "run")
    with without_ray():
        return FinishedRun(started.recipe, started.folder, started.start())


@pytest.fixture(scope="module")
def space():
    return load_space("components", OPTIONS, shape_of_teacher())


@pytest.fixture(scope="module")
def found(run, space):
    return space.parse(RunDirectory(run.folder).stage_record("supernet").outputs[FOUND])


def test_training_shows_the_three_phases(run, found):
    rows = run.table("training")
    rows = rows[rows["stage"] == "supernet"].sort_values("step")
    assert rows["step"].tolist() == list(range(2, STEPS + 1, 2))
    searching = rows[(rows["step"] > 2) & (rows["step"] <= 14)]
    assert (rows[rows["step"] <= 2]["cost_weight"] == 0).all()
    assert searching["cost_weight"].is_monotonic_increasing
    assert searching["cost_weight"].iloc[-1] == 2.0
    assert searching["expected_cost"].iloc[-1] < searching["expected_cost"].iloc[0] < 1
    frozen = rows[rows["step"] > 14]
    assert (frozen["arch_id"] == found.arch_id).all()
    assert rows[rows["step"] <= 14]["arch_id"].isna().all()


def test_the_found_architecture_is_the_distributions_most_likely(run, space, found):
    distribution = space.distribution()
    distribution.load_state_dict(load_file(RunDirectory(run.folder).distribution))
    assert distribution.most_likely() == found
    assert found != space.largest(), "with this lambda something goes"


def test_the_search_begins_with_what_was_found(run, found):
    rows = run.table("evaluations")
    rows = rows[rows["strategy"] != "oneshot"]
    assert rows.iloc[0]["arch_id"] == found.arch_id
    assert len(rows) == 16
    assert (rows["status"] == "ok").all()


def test_other_lambdas_make_a_front(run, space, found):
    """What costs more to begin with comes to less: with lambda 0 the cost does not fall, with a large one more goes."""
    swept = RunDirectory(run.folder).stage_record("lambdas").outputs["found"]
    assert [one["cost_weight"] for one in swept] == [0.0, 8.0]
    shares = {one["cost_weight"]: one["cost_share"] for one in swept}
    costs = space.expected_cost("flops", SEQUENCE_LENGTH)
    assert shares[8.0] < costs.of(found) / costs.of(space.largest()) <= shares[0.0]
    rows = run.table("evaluations")
    own = rows[rows["strategy"] == "oneshot"]
    assert own["architecture"].tolist() == [one["architecture"] for one in swept]
    assert own["loss"].tolist() == [one["loss"] for one in swept]
    assert own["supernet_signature"].nunique() == 2
    trained = run.table("training")
    assert set(trained[trained["stage"] == "lambdas"]["subject"]) == {"lambda 0", "lambda 8"}


def test_the_search_tries_what_other_lambdas_came_to(run):
    rows = run.table("evaluations")
    tried = rows[rows["strategy"] != "oneshot"]["architecture"].tolist()
    swept = RunDirectory(run.folder).stage_record("lambdas").outputs["found"]
    assert {one["architecture"] for one in swept} <= set(tried[:3])


def test_students_have_no_trace_of_the_search(run, space):
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "models" / "most")
    assert tokenizer.pad_token is not None
    chosen = run.table("selections")
    for label in MODELS:
        model = AutoModel.from_pretrained(run.folder / "models" / label)
        winner = space.parse(chosen[(chosen["budget"] == label) & chosen["chosen"]]["architecture"].iloc[0])
        cost = space.cost(winner, SEQUENCE_LENGTH)
        assert parameters_of(model) == cost.parameters
        assert "-" not in {name for name, _ in model.named_parameters()}
        states = model(torch.tensor([[2, 5, 7, 3]])).last_hidden_state
        assert torch.isfinite(states).all()
    assert space.cost(winner, SEQUENCE_LENGTH).encoder_parameters <= 0.5 * shape_of_teacher().encoder_parameters


def test_a_budget_has_the_best_that_one_shot_trainings_found(run, found):
    rows = run.table("evaluations")
    (main,) = rows[(rows["arch_id"] == found.arch_id) & (rows["strategy"] != "oneshot")]["loss"].tolist()
    swept = RunDirectory(run.folder).stage_record("lambdas").outputs["found"]
    losses = {str(found): main} | {one["architecture"]: one["loss"] for one in swept}
    chosen = run.table("selections")
    (winner,) = chosen[(chosen["budget"] == "most") & chosen["chosen"]]["architecture"].tolist()
    assert losses[winner] == min(losses.values())


def test_what_another_lambda_came_to_starts_at_its_own_weights(run, space):
    """The budget's winner is that of lambda 0, which nothing of the main supernet is like after its search."""
    folder = RunDirectory(run.folder)
    swept = folder.stage_record("lambdas").outputs["found"]
    chosen = run.table("selections")
    (winner,) = chosen[(chosen["budget"] == "most") & chosen["chosen"]]["architecture"].tolist()
    number = [one["architecture"] for one in swept].index(winner)
    own = load_supernet(space, folder.lambda_folder(number) / "supernet.safetensors").extract(space.parse(winner))
    start = load_file(folder.student("most") / "model.safetensors")
    for name, tensor in own.state_dict().items():
        torch.testing.assert_close(start[name], tensor)


def test_summary_and_report_tell_what_was_found(run, found):
    most, half = run.summary.budgets
    assert (most.choose, half.choose) == ("oneshot", "loss")
    assert most.winners_place >= 1
    assert run.summary.remarks[0].startswith(f"The one-shot search found {found}, which takes")
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert 'id="one-shot"' in page
    assert "what the one-shot training found, " not in page, "the budget has no other limit"
    assert "what the one-shot training found" in page


def test_a_second_start_has_nothing_to_do(run):
    assert plan_recipe(load_recipe(str(run.recipe)), run.folder).is_done


def test_the_report_tells_what_each_lambda_came_to(run):
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "What the searches with other lambdas have come to" in page
    for one in RunDirectory(run.folder).stage_record("lambdas").outputs["found"]:
        assert one["architecture"].replace(">", "&gt;") in page


def test_a_plan_tells_the_phases(recipe, tmp_path):
    plan = plan_recipe(load_recipe(str(recipe)), tmp_path / "run")
    (stage,) = (stage for stage in plan.stages if stage.name == "supernet")
    assert stage.steps == STEPS
    assert "lambda 2 on flops" in stage.work
    assert "2 steps of warm-up, 12 of search, 6 at the frozen architecture" in stage.work


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("supernet.shared_layers=1", "supernet.shared_layers: found 1, expected 0, since 'components' is trained"),
        ("supernet.architectures=sampled", "supernet.architectures: found sampled, expected largest, since"),
        (
            ["supernet.oneshot.cost=latency_ms", "tables.latency.marginal_architectures=0"],
            "supernet.oneshot.cost: found latency_ms, but tables.latency.marginal_architectures is 0",
        ),
        ("supernet.init=paper", "supernet.init: found paper, expected teacher: a one-shot search"),
        (
            "supernet={batch_size: 2, steps: 20, paths_per_step: 4}",
            "supernet.batch_size: found 2, expected 4 or more, a sequence for each of the paths",
        ),
        (
            "supernet={batch_size: 2, steps: 20, paths_per_step: 1, oneshot: {estimator: score_function}}",
            "supernet.paths_per_step: found 1 on one worker, expected 2 or more: score_function compares",
        ),
        (  # two workers draw two paths, but each other lambda has a single one
            [
                "supernet.scaling.workers=2",
                "supernet.paths_per_step=1",
                "supernet.oneshot.estimator=score_function",
                "supernet.oneshot.sweep=[8]",
            ],
            "supernet.paths_per_step: found 1 on one worker, expected 2 or more: score_function compares",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(recipe, tmp_path, change, expected):
    with pytest.raises((UserError, TrainingInputError), match=r"^supernet\.") as error:
        plan_recipe(load_recipe(str(recipe), [change] if isinstance(change, str) else change), tmp_path / "run")
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_other_spaces_have_no_one_shot_search(place, tmp_path):
    recipe = load_recipe(str(place / "microscopic.yaml"), ["supernet.oneshot={cost_weight: 2}"])
    with pytest.raises(UserError, match=r"^supernet\.oneshot: found a section, expected null, since the blocks of"):
        plan_recipe(recipe, tmp_path / "run")


def test_other_spaces_find_nothing_to_choose(place, tmp_path):
    recipe = load_recipe(str(place / "microscopic.yaml"), ["budgets=[{name: found, choose: oneshot}]"])
    with pytest.raises(UserError, match=r"^budgets\.0\.choose: found oneshot, but the supernet of 'nas_bert' is not"):
        plan_recipe(recipe, tmp_path / "run")


def test_what_the_recipe_leaves_out_changes_no_signature(place, tmp_path):
    recipe = load_recipe(str(place / "microscopic.yaml"), [])
    space = load_space(recipe.space.name, recipe.space.options, shape_of_teacher())
    plan = RunPlan(recipe, RunDirectory(tmp_path / "run"), shape_of_teacher(), space)
    named = plan.recipe.model_copy(update={"supernet": recipe.supernet.model_copy(update={"oneshot": None})})
    other = RunPlan(named, plan.folder, plan.shape, plan.space)
    assert stage_signatures(plan) == stage_signatures(other)


def test_what_two_searches_came_to_is_judged_by_the_main_supernet():
    """Its student starts there; only what no other weights serve has a loss of its own."""
    swept = [{FOUND: "both", "loss": 0.1}, {FOUND: "other", "loss": 0.3}, {FOUND: "failed", "loss": None}]
    outputs = {"supernet": {FOUND: "both"}, LAMBDAS: {FOUND_BY_LAMBDA: swept}}
    assert own_losses(outputs) == {"other": 0.3}
