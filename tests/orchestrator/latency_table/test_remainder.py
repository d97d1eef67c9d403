"""The fitted remainder: known terms are found again, noise invents none, and the parts still add up."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.latency_table.remainder import (
    FEWEST_ARCHITECTURES,
    LAYER,
    NETWORK,
    PROJECTION,
    SCALE,
    MeasuredNetwork,
    Remainder,
    fit_remainder,
)
from orchestrator.latency_table.sampling import spread_architectures
from spaces.space import Part
from tests.spaces.microscopic import make_space

SPACE = make_space()
PARTS_MS = {part: 0.2 + 0.03 * index for index, part in enumerate(SPACE.parts())}
NETWORKS = spread_architectures(SPACE, 24, "fit", 12)


def synthetic(parts_ms, *, scales=None, scale=1.0, network=0.0, layer=0.0, projection=0.0, noise=0.0, outliers=()):
    """Networks that were "measured" with known terms."""
    rng = np.random.default_rng(3)
    measured = []
    for index, architecture in enumerate(NETWORKS):
        parts = SPACE.parts_of(architecture)
        total = network
        for part in parts:
            total += (scales or {}).get(part.name, scale) * parts_ms[part]
            total += {"operation": layer, "projection": projection}.get(part.kind, 0.0)
        total *= float(np.exp(noise * rng.standard_normal())) * (3.0 if index in outliers else 1.0)
        measured.append(MeasuredNetwork(parts, total))
    return measured


def predict(remainder: Remainder, network: MeasuredNetwork) -> float:
    return remainder.constant_ms + sum(remainder.part_ms(part, PARTS_MS[part]) for part in network.parts)


def values(remainder: Remainder) -> dict[str, float]:
    return {term.name: term.value for term in remainder.terms}


def test_a_table_that_adds_up_gets_no_terms():
    fitted = fit_remainder(PARTS_MS, synthetic(PARTS_MS))
    assert fitted.terms == ()
    assert fitted.error_without == pytest.approx(0, abs=1e-12)
    assert fitted.architectures == len(NETWORKS)


@pytest.mark.parametrize(
    "known",
    [
        {"scale": 1.3},
        {"network": 2.0},
        {"scale": 0.8, "network": 3.0},
        {"scale": 1.1, "network": 1.0, "layer": 0.5},
        {"scale": 1.1, "network": 1.0, "layer": 0.5, "projection": 1.5},
    ],
)
def test_known_terms_are_found_again(known):
    fitted = fit_remainder(PARTS_MS, synthetic(PARTS_MS, **known))
    assert values(fitted) == pytest.approx(known, rel=0.1)
    assert fitted.error_in_sample < 0.01
    assert fitted.error_out_of_sample < 0.01 < 0.1 < fitted.error_without


def test_a_scale_for_each_operation_is_found_where_operations_differ():
    scales = {"M": 1.6, "F": 0.9, "F1": 1.0, "S3": 1.2, "S5": 1.25, "projection": 1.0}
    fitted = fit_remainder(PARTS_MS, synthetic(PARTS_MS, scales=scales))
    found = values(fitted)
    assert found[f"{SCALE}:M"] == pytest.approx(1.6, abs=0.08)
    assert found[f"{SCALE}:F"] == pytest.approx(0.9, abs=0.08)
    assert SCALE not in found
    assert fitted.error_out_of_sample < 0.02


def test_noise_alone_justifies_no_more_terms_than_a_scale():
    fitted = fit_remainder(PARTS_MS, synthetic(PARTS_MS, scale=1.2, noise=0.04))
    assert len(fitted.terms) <= 2
    assert fitted.error_out_of_sample < 0.06


def test_a_few_disturbed_networks_hardly_move_the_fit():
    disturbed = synthetic(PARTS_MS, scale=1.2, noise=0.01, outliers=(2, 17))
    fitted = fit_remainder(PARTS_MS, disturbed)
    errors = [abs(predict(fitted, network) / network.milliseconds - 1) for network in disturbed]
    assert float(np.median(errors)) < 0.03


def test_terms_are_never_negative():
    # Measured networks that are faster, the more layers they have: a negative overhead would fit best.
    networks = [
        MeasuredNetwork(network.parts, network.milliseconds - 0.1 * sum(p.kind == "operation" for p in network.parts))
        for network in synthetic(PARTS_MS)
    ]
    fitted = fit_remainder(PARTS_MS, networks)
    assert all(term.value > 0 for term in fitted.terms)
    assert fitted.error_in_sample <= fitted.error_without


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(0.5, 2.0),
    network=st.floats(0, 5),
    layer=st.floats(0, 1),
    projection=st.floats(0, 1),
    seed=st.integers(),
)
def test_any_fit_is_additive_and_grows_with_each_part(scale, network, layer, projection, seed):
    fitted = fit_remainder(
        PARTS_MS, synthetic(PARTS_MS, scale=scale, network=network, layer=layer, projection=projection, noise=0.03)
    )
    assert fitted.constant_ms >= 0
    for part, milliseconds in PARTS_MS.items():
        assert fitted.part_ms(part, milliseconds) > 0
    parts = list(SPACE.parts_of(NETWORKS[5]))
    shuffled = random.Random(seed).sample(parts, len(parts))
    there, back = (predict(fitted, MeasuredNetwork(each, 1.0)) for each in (parts, shuffled))
    assert there == pytest.approx(back)
    assert fitted.error_out_of_sample < 0.1


def test_too_few_networks_give_no_terms():
    few = synthetic(PARTS_MS, scale=1.5)[: FEWEST_ARCHITECTURES - 1]
    assert fit_remainder(PARTS_MS, few) == Remainder(architectures=len(few))
    assert fit_remainder(PARTS_MS, []) == Remainder()


def test_terms_name_their_units():
    fitted = fit_remainder(PARTS_MS, synthetic(PARTS_MS, scale=1.1, network=1.0, layer=0.5, projection=1.5))
    units = {term.name: term.unit for term in fitted.terms}
    assert units[NETWORK] == "ms a network"
    assert units[LAYER] == "ms an operation"
    assert units[PROJECTION] == "ms a projection"
    assert units[SCALE] == "1"
    assert all(term.meaning for term in fitted.terms)
    assert Remainder.from_json(fitted.to_json()) == fitted


def test_embeddings_have_no_overhead_of_layers():
    remainder = fit_remainder(PARTS_MS, synthetic(PARTS_MS, layer=0.5, network=2.0))
    assert remainder.part_ms(Part("embeddings", "embeddings", 16), 1.0) == pytest.approx(1.0, rel=0.1)
