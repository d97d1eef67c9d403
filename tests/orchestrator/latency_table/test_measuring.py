"""Timing parts and networks: everything is timed, in order, whatever fits into memory together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.latency_table import LatencyConditions, measure_part, measuring
from orchestrator.latency_table.measuring import measure_parts_and_networks
from orchestrator.latency_table.sampling import spread_architectures
from tests.spaces.microscopic import architecture, make_space

CONDITIONS = LatencyConditions(batch_size=2, sequence_length=12, threads=1, warm_up=1, repeats=3)


@pytest.mark.parametrize("method", ["chain", "alone"])
def test_every_part_can_be_measured(method):
    space = make_space(hidden_sizes=(16, 32))
    conditions = replace(CONDITIONS, method=method, repeats=1)
    measured, networks = measure_parts_and_networks(space, space.parts(), [], conditions, 99)
    assert list(measured) == list(space.parts())
    assert all(each.median_ms > 0 and each.repeats == 1 for each in measured.values())
    assert networks == []


def test_a_chain_has_layers_with_weights_of_their_own_and_counts_one_of_them():
    space = make_space()
    built = []

    class Watched:
        def parts(self):
            return space.parts()

        def build_part(self, part):
            built.append(space.build_part(part))
            return built[-1]

    operation = next(part for part in space.parts() if part.kind == "operation")
    embeddings = next(part for part in space.parts() if part.kind == "embeddings")
    measure_part(Watched(), operation, CONDITIONS, vocab_size=99)
    assert len({id(weight) for layer in built for weight in layer.parameters()}) == len(built) * len(
        list(built[0].parameters())
    )
    assert len(built) == CONDITIONS.chain_layers > 1
    built.clear()
    measure_part(Watched(), embeddings, CONDITIONS, vocab_size=99)
    assert len(built) == 1


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_networks_are_measured_in_as_many_groups_as_memory_asks_for(monkeypatch, groups):
    space = make_space()
    networks = spread_architectures(space, 4, "seed", 12)
    weights = 4 * sum(space.cost(network).parameters for network in networks)
    monkeypatch.setattr(measuring, "GROUP_BYTES", -(-weights // groups))
    timed = []
    monkeypatch.setattr(measuring, "_network_run", lambda space, network, *_: lambda: timed.append(network))
    seen = []
    parts, measured = measure_parts_and_networks(
        space, space.parts()[:2], networks, CONDITIONS, 99, lambda done, total: seen.append((done, total))
    )
    assert set(timed) == set(networks)
    assert [each.repeats for each in measured] == [CONDITIONS.repeats] * 4
    rounds = groups * CONDITIONS.repeats
    assert seen == [(done + 1, rounds) for done in range(rounds)]
    assert [each.repeats for each in parts.values()] == [rounds] * 2


def test_the_slow_network_is_told_from_the_fast_ones_also_in_groups(monkeypatch):
    monkeypatch.setattr(measuring, "GROUP_BYTES", 1)
    space = make_space()
    names = ["E16|16:S3|16:S3", "E32|16:S3|16:S3", "E48|16:S3|16:S3"]
    networks = [architecture(name) for name in names]
    costs = {networks[0]: 1, networks[1]: 400, networks[2]: 1}

    def slow(space, network, *_):
        return lambda: sum(range(costs[network] * 1000))

    monkeypatch.setattr(measuring, "_network_run", slow)
    _, measured = measure_parts_and_networks(space, [], networks, CONDITIONS, 99)
    assert max(range(3), key=lambda index: measured[index].median_ms) == 1


def test_whole_networks_of_the_space_can_be_measured():
    space = make_space()
    _, (measured,) = measure_parts_and_networks(space, [], [space.smallest()], CONDITIONS, 99)
    assert measured.median_ms > 0


def test_nothing_to_measure_is_no_mistake():
    assert measure_parts_and_networks(make_space(), [], [], CONDITIONS, 99) == ({}, [])
