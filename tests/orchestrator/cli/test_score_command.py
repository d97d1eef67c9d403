"""``netsuke score`` and ``netsuke signal`` on runs whose supernet is there and whose later stages are not."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from cluster.lease import RunLock
from orchestrator.results import ResultsWriter, open_results
from orchestrator.run_directory import RunDirectory
from spaces.registry import load_space
from tests.orchestrator.cli.conftest import Answer, call_here
from tests.orchestrator.pipeline.microscopic_run import RECIPE, shape_of_teacher
from tests.orchestrator.trained_run import make_trained_run
from tests.orchestrator.without_ray import without_ray

SPACE = load_space("nas_bert", RECIPE["space"]["options"], shape_of_teacher())
SOME = ("16:M-F", "32:S3-M-F", "16:M", "32:F2")


@pytest.fixture
def trained(place, tmp_path, local_ray):
    return make_trained_run(place, tmp_path / "run")


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A file of architectures: of blocks, of a network, with a comment, a repeat and an empty line."""
    file = tmp_path_factory.mktemp("listed") / "listed.txt"
    file.write_text("# mine\n\n" + "\n".join((*SOME, SOME[0], "E32|16:S3|32:M  # a network")) + "\n")
    return file


@pytest.fixture
def here():
    """Scoring without actors, which other tests are about."""
    with without_ray():
        yield


@dataclass(frozen=True)
class Scored:
    """A run whose second block was scored, then both; tests leave it as it is."""

    run: RunDirectory
    first: Answer
    losses_between: dict[tuple[int, str], float]
    second: Answer


@pytest.fixture(scope="module")
def scored(place, listed, local_ray, tmp_path_factory) -> Scored:
    run = make_trained_run(place, tmp_path_factory.mktemp("scored") / "run")
    command = ("score", run.path, "--architectures", listed)
    first = call_here(*command, "--block", "1")
    return Scored(run, first, losses(run), call_here(*command, "--json"))


def losses(run):
    frame = open_results(run.results).frame("block_losses")
    return {(row.block, row.architecture): row.loss for row in frame.itertuples()}


def test_a_file_of_blocks_and_networks_is_scored(scored):
    answer, found = scored.second, losses(scored.run)
    assert answer.code == 0, answer.err
    assert set(found) == {(index, text) for index in (0, 1) for text in SOME} | {(0, "16:S3"), (1, "32:M")}
    assert answer.json["batches"] == RECIPE["tables"]["block_batches"]
    for one in answer.json["blocks"]:
        best = [(row["architecture"], row["loss"]) for row in one["best"]]
        mine = sorted((loss, text) for (index, text), loss in found.items() if index == one["block"])
        assert best == [(text, loss) for loss, text in mine][: len(best)]
        assert all(row["latency_ms"] == 0.5 * len(row["architecture"].split("-")) for row in one["best"])
    assert answer.json["rows"].endswith("results/block_losses")
    assert answer.json["architectures_per_second"] > 0


def test_what_is_recorded_is_not_scored_again_and_starts_no_actor(scored, listed, netsuke):
    assert "5 asked for, 5 scored on 1 validation batch" in scored.first.out
    assert "the rest" not in scored.first.out
    blocks = scored.second.json["blocks"]
    assert [(one["block"], one["asked"], one["scored"]) for one in blocks] == [(0, 5, 5), (1, 5, 0)]
    before = scored.losses_between
    assert len(before) == 5
    assert {key: loss for key, loss in losses(scored.run).items() if key in before} == before
    again = netsuke("score", scored.run.path, "--architectures", listed)
    assert "10 asked for, 0 scored" in again.out
    assert "the rest was recorded" in again.out


@pytest.mark.usefixtures("here")
def test_all_architectures_of_one_block_with_more_batches(trained, netsuke):
    command = ("score", trained.path, "--block", "1", "--batches", "2", "--architectures")
    answer = netsuke(*command, "all")
    assert answer.code == 0, answer.err
    frame = open_results(trained.results).frame("block_losses")
    assert len(frame) == SPACE.block_cardinality()
    assert set(frame["architecture"]) == {str(block) for block in SPACE.enumerate_blocks()}
    assert (set(frame["block"]), set(frame["fidelity"])) == ({1}, {2})
    best = frame.nsmallest(1, "loss").iloc[0]
    assert best["architecture"] in answer.out
    assert "a second" in answer.out

    alive = netsuke(*command, "alive")
    assert "nothing was shrunk, so all architectures are alive" in alive.out
    assert f"{SPACE.block_cardinality()} asked for, 0 scored" in alive.out


@pytest.mark.usefixtures("here")
def test_alive_means_the_survivors(place, tmp_path, local_ray, netsuke):
    run = make_trained_run(place, tmp_path / "run", alive_every=20)
    answer = netsuke("score", run.path, "--block", "0", "--architectures", "alive", "--json")
    living = [str(block) for block in SPACE.enumerate_blocks()][::20]
    assert answer.json["blocks"][0]["asked"] == len(living)
    frame = open_results(run.results).frame("block_losses")
    assert sorted(frame["architecture"]) == sorted(living)
    assert frame["alive"].all()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--block", "2"], "--block: found '2', expected all, or the number of a block, 0 to 1"),
        (["--block", "-1"], "--block: found '-1', expected all"),
        (["--block", "first"], "--block: found 'first', expected all"),
        (["--batches", "0"], "--batches: found 0, expected at least 1"),
        (["--architectures", "nowhere.txt"], "--architectures nowhere.txt: cannot be read (No such file or directory)"),
    ],
)
def test_mistakes_in_options_are_one_line(trained, netsuke, arguments, expected):
    answer = netsuke("score", trained.path, *arguments)
    assert answer.code == 2
    assert answer.error.startswith(expected), "nothing was begun that could be stopped"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("16:M\n\n16:M-X\n", 3, "16:M-X"),
        ("16:M\n999:M\n", 2, "999"),
        ("E32|16:M\n", 1, "E32|16:M"),
        ("E31|16:M|16:M\n", 1, "31"),
    ],
)
def test_an_architecture_outside_the_space_is_named_with_its_line(trained, netsuke, tmp_path, text, line, reason):
    file = tmp_path / "wrong.txt"
    file.write_text(text)
    answer = netsuke("score", trained.path, "--architectures", file)
    assert answer.code == 2
    assert answer.error.startswith(f"{file}:{line}: ")
    assert reason in answer.error
    assert losses(trained) == {}


def test_files_without_text_or_architectures_are_refused(trained, netsuke, tmp_path):
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("# nothing\n\n")
    binary.write_bytes(b"\xff\xfe16:M")
    assert "found no architecture, expected one a line" in netsuke("score", trained.path, "--architectures", empty).err
    assert "it is not UTF-8 text" in netsuke("score", trained.path, "--architectures", binary).err


def test_a_run_without_a_supernet_is_told_how_to_go_on(trained, netsuke):
    trained.supernet_weights.unlink()
    answer = netsuke("score", trained.path)
    assert answer.code == 2
    assert "without a trained supernet" in answer.error
    assert "netsuke run microscopic" in answer.error


def test_a_folder_without_a_run_is_refused(tmp_path, netsuke):
    answer = netsuke("score", tmp_path)
    assert answer.code == 2
    assert "no run.json" in answer.error


def test_a_locked_run_is_left_alone(trained, listed, netsuke):
    with RunLock(trained.path):
        answer = netsuke("score", trained.path, "--architectures", listed)
    assert answer.code == 2
    assert f"is in use by process {os.getpid()}" in answer.err
    assert losses(trained) == {}


# --- netsuke signal ---------------------------------------------------------------------------------------------------


def record_signals(run, **changes):
    row = {"supernet_signature": "s", "block": 0, "architectures": 8, "batches": 2, "spread": 0.03, "noise": 0.01}
    row |= {"signal": 3.0, "kendall_tau": 0.8, "explained_by_size": 0.6}
    with ResultsWriter(run.results, "run") as results:
        results.append("signals", hidden_size=16, **row)
        results.append("signals", hidden_size=32, **(row | changes))


def test_recorded_signals_are_shown_with_a_warning_where_they_are_weak(trained, netsuke):
    record_signals(trained, noise=0.02, signal=1.5)
    answer = netsuke("signal", trained.path)
    assert answer.code == 0, answer.err
    assert "warning: block 0: the ranking within hidden size 32 (signal 1.5) is mostly noise" in answer.out
    as_json = netsuke("signal", trained.path, "--json").json
    assert [(row["hidden_size"], row["signal"]) for row in as_json["signals"]] == [(16, pytest.approx(3)), (32, 1.5)]
    assert len(as_json["warnings"]) == 1


def test_unknown_noise_is_shown_as_unknown(trained, netsuke):
    record_signals(trained, noise=None, signal=None, kendall_tau=None)
    assert netsuke("signal", trained.path, "--json").json["signals"][1]["signal"] is None
    assert netsuke("signal", trained.path).code == 0


@pytest.mark.usefixtures("here")
def test_two_seeds_are_compared_on_what_both_scored(scored, place, tmp_path, listed, netsuke):
    other = make_trained_run(place, tmp_path / "other", seed=2)
    compare = ("signal", scored.run.path, "--other", other.path)
    nothing = netsuke(*compare)
    assert nothing.code == 2
    assert "no architecture that both runs scored" in nothing.error

    netsuke("score", other.path, "--architectures", listed)
    answer = netsuke(*compare, "--json")
    assert answer.code == 0, answer.err
    rows = {(row["block"], row["hidden_size"]): row for row in answer.json["signals"]}
    assert {key: row["architectures"] for key, row in rows.items()} == {(0, 16): 3, (0, 32): 2, (1, 16): 2, (1, 32): 3}
    mine, theirs = losses(scored.run), losses(other)
    texts = ("32:F2", "32:S3-M-F")
    gap = [mine[0, text] - theirs[0, text] for text in texts]
    assert rows[0, 32]["noise"] == pytest.approx(abs(gap[0] - gap[1]) / 2)  # of two values: |a - b| / sqrt(2) / sqrt(2)


def test_a_run_is_not_compared_with_itself(scored, netsuke):
    assert "of another seed" in netsuke("signal", scored.run.path, "--other", scored.run.path).error


def test_a_run_without_signals_is_told_what_to_do(trained, netsuke):
    answer = netsuke("signal", trained.path)
    assert answer.code == 2
    assert "tables.signal_architectures" in answer.error
