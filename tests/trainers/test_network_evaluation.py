"""Last states of whole networks, beginnings shared: those of running alone bit for bit, each step computed once."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.supernet import Supernet
from tests.spaces.microscopic import make_space, shaken
from tests.trainers.states_alive import watch_states
from trainers.network_evaluation import last_states, network_steps
from trainers.prefix_evaluation import common_length, sort_paths

SPACE = make_space()
torch.manual_seed(4)
SUPERNET = shaken(SPACE.supernet()).eval().requires_grad_(False)
INPUT_IDS_BT = torch.randint(1, SPACE.options.shape.vocab_size, (3, 12))
MASK_BT = (torch.arange(12)[None, :] < torch.tensor((12, 7, 3))[:, None]).long()
RELATIVES = [
    "E32|32:M-F|24:M",
    "E32|32:M-F|24:M-S3",
    "E32|32:M-F|24:M-F",
    "E32|32:M-F1|24:M",
    "E32|16:S3|24:M",
    "E16|32:M-F|24:M",
]


def sampled(seed: int, count: int) -> list:
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


@pytest.fixture
def steps_run(monkeypatch):
    return watch_states(monkeypatch, SUPERNET)


@torch.inference_mode()
def states_of(networks) -> dict[int, torch.Tensor]:
    found = list(last_states(SUPERNET, networks, INPUT_IDS_BT, MASK_BT))
    assert sorted(place for place, _ in found) == list(range(len(networks)))
    return dict(found)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), strangers=st.integers(0, 4), relatives=st.lists(st.sampled_from(RELATIVES)))
def test_states_are_those_of_running_alone_bit_for_bit(seed, strangers, relatives):
    networks = [*sampled(seed, strangers), *map(SPACE.parse, relatives)]
    random.Random(seed).shuffle(networks)
    found = states_of(networks)
    with torch.inference_mode():
        for place, network in enumerate(networks):
            assert torch.equal(found[place], SUPERNET(network, INPUT_IDS_BT, MASK_BT))


def test_what_networks_share_is_run_once(steps_run):
    networks = [SPACE.parse(text) for text in RELATIVES]
    states_of([*networks, *networks])
    beginnings = {
        steps[:length]
        for steps in (network_steps(SUPERNET, network) for network in networks)
        for length in range(1, len(steps) + 1)
    }
    assert len(steps_run) == sum(beginning[-1][0] == "run" for beginning in beginnings)


def test_only_states_where_networks_part_are_kept(steps_run):
    networks = sampled(3, 60)
    with torch.inference_mode():
        assert sum(1 for _ in last_states(SUPERNET, networks, INPUT_IDS_BT, MASK_BT)) == 60
    paths = sort_paths([network_steps(SUPERNET, network) for network in networks])
    partings = {common_length(*pair) for pair in pairwise(paths)}
    assert max(steps_run) <= len(partings) + 2  # what a step makes, what it is made of, and the beginnings of others
    assert len(partings) < max(map(len, paths)) / 2


def test_a_supernet_without_blocks_runs_its_networks_one_by_one():
    class Whole(Supernet):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(99, 8)

        def forward(self, architecture, input_ids_BT, attention_mask_BT):
            return architecture * self.embedding(input_ids_BT)

        def extract(self, architecture):
            raise NotImplementedError

    supernet = Whole().eval()
    with torch.inference_mode():
        found = dict(last_states(supernet, [2, 3, 2], INPUT_IDS_BT, MASK_BT))
        assert torch.equal(found[1], 3 * supernet.embedding(INPUT_IDS_BT))
        assert torch.equal(found[2], found[0])
