import pytest

from orchestrator.errors import UserError
from orchestrator.limits import (
    LIMITED,
    budget_constraints,
    check_smallest,
    common_constraints,
    limit_columns,
    limits_of,
)
from orchestrator.objectives import OBJECTIVES
from orchestrator.recipe import Budget, Recipe, parse_size
from orchestrator.results.schemas import TABLES
from tests.spaces.microscopic import SHAPE, make_space

LENGTH = 16


def recipe_of(**limits):
    return Recipe(name="a", budgets=(Budget(name="small", **limits),))


def test_shares_are_of_the_teachers_encoder_or_of_all_its_weights():
    budget = Budget(name="b", encoder_parameters="50%", parameters="50%", flops="2k", latency_ms=3)
    whole = SHAPE.encoder_parameters + SHAPE.embedding_parameters
    assert limits_of(budget, SHAPE) == {
        "parameters": whole // 2,
        "encoder_parameters": SHAPE.encoder_parameters // 2,
        "flops": 2000,
        "latency_ms": 3.0,
    }
    assert limits_of(Budget(name="b", parameters=5), SHAPE) == {"parameters": 5}


def test_every_limit_is_an_objective_a_key_and_a_column():
    assert set(LIMITED) <= OBJECTIVES.keys()
    assert set(LIMITED) <= Budget.model_fields.keys()
    assert limit_columns({}).keys() <= {column.name for column in TABLES["selections"].columns}


def test_budgets_share_the_loosest_of_the_limits_they_all_have():
    budgets = (Budget(name="a", parameters=10, latency_ms=1), Budget(name="b", parameters=20))
    constraints = common_constraints(budget_constraints(Recipe(name="r", budgets=budgets), SHAPE))
    assert [(one.objective, one.maximum) for one in constraints] == [("parameters", 20)]


@pytest.mark.parametrize("name", ["parameters", "encoder_parameters"])
def test_a_budget_below_every_architecture_is_refused(name):
    space = make_space()
    least = getattr(space.cost(space.smallest()), name)
    if name == "parameters":
        assert space.smallest().embedding_size == min(space.embedding_choices())
    check_smallest(recipe_of(**{name: parse_size(least)}), SHAPE, space, LENGTH)
    with pytest.raises(UserError, match=f"budgets.small.{name}: found {least // 2} .*fewer than {least:,}"):
        check_smallest(recipe_of(**{name: parse_size(least // 2)}), SHAPE, space, LENGTH)
