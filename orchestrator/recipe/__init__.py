"""The recipe of a run: one YAML file, validated as a whole before anything runs."""

from orchestrator.recipe.budgets import Size, parse_latency_ms, parse_size
from orchestrator.recipe.loading import list_recipes, load_recipe
from orchestrator.recipe.models import Recipe
from orchestrator.recipe.search import Budget
from orchestrator.recipe.shipped import ShippedRecipe
from orchestrator.recipe.signatures import resolved_yaml, signature

__all__ = [
    "Budget",
    "Recipe",
    "ShippedRecipe",
    "Size",
    "list_recipes",
    "load_recipe",
    "parse_latency_ms",
    "parse_size",
    "resolved_yaml",
    "signature",
]
