"""Tables of prices as files, and the spaces they are refused for."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd
import pytest

from orchestrator.latency_table.files import read_tables, require_same_parts, space_of, write_tables
from tests.orchestrator.latency_table.test_files import said
from tests.orchestrator.latency_table.test_marginals import SPACE, make_table, networks
from tests.orchestrator.latency_table.test_table import TABLE
from tests.spaces.components.microscopic import make_space
from tests.spaces.microscopic import SHAPE
from tests.spaces.microscopic import make_space as make_space_of_parts


@pytest.fixture(params=["json", "parquet"])
def file(request, tmp_path):
    path = tmp_path / f"table.{request.param}"
    write_tables(path, [make_table()])
    return path


def test_a_file_keeps_prices_and_what_they_are_worth(file):
    (table,) = read_tables(file)
    assert table == make_table()
    assert table.predict_ms(SPACE, networks()[3]) == make_table().predict_ms(SPACE, networks()[3])
    assert space_of(table, file).latency_terms() == SPACE.latency_terms()
    require_same_parts(table, SPACE, file)
    require_same_parts(table, make_space(dropout=0.0, drawing="architectures"), file)


def test_parquet_tells_others_what_each_price_is(tmp_path):
    path = tmp_path / "table.parquet"
    write_tables(path, [make_table()])
    rows = pd.read_parquet(path)
    terms = make_table().marginals.terms
    assert rows["term"].tolist() == [term.name for term in terms]
    assert rows["price_ms"].tolist() == [term.value for term in terms]
    assert rows["meaning"].tolist() == [term.meaning for term in terms]
    assert set(rows["device"]) == {"a device"}


BEYOND = (
    "it tells {} apart, which this one has no price of its own for, because of what may be kept or stand behind others"
)


@pytest.mark.parametrize(
    ("space", "difference"),
    [
        (make_space(feed_forward_slices=4), "feed-forward slices 8 there, here 4"),
        (make_space(query_key_slices=4), "query-key slices 2 there, here 4"),
        (make_space(shape=replace(SHAPE, hidden_size=64)), "hidden size 32 there, here 64"),
        (make_space(shape=replace(SHAPE, num_layers=5)), "layers 4 there, here 5"),
        (make_space(fixed_attention=("H1",) * 4), "fixed attention none there, here H1 | H1 | H1 | H1"),
        (make_space(vertical=()), BEYOND.format("attention.plain_stage")),
        (make_space(within="H1-4.Q1-2/F1-8|0|0|H1.M"), BEYOND.format("feed_forward.norm")),
    ],
)
def test_a_table_of_another_space_or_teacher_is_refused(file, space, difference):
    message = said(require_same_parts, read_tables(file)[0], space, file)
    assert message == f"{file}: it is a table of another space: {difference}; build it with this recipe"


def test_a_space_that_needs_more_prices_is_refused(file):
    pruning = make_space(vertical=())
    prices = tuple(term for term in make_table().marginals.prices if term.name in pruning.latency_terms())
    fewer = replace(make_table(), marginals=replace(make_table().marginals, prices=prices))
    message = said(require_same_parts, fewer, SPACE, file)
    assert "no price for attention.plain_stage and 1 more of the 11 that this one needs" in message


def test_parts_and_prices_do_not_stand_in_for_each_other(file):
    assert "found parts, expected marginal prices" in said(require_same_parts, TABLE, SPACE, file)
    message = said(require_same_parts, read_tables(file)[0], make_space_of_parts(), file)
    assert message.startswith(f"{file}: it is a table of another space: no entry for embeddings at width 16 and ")


def test_prices_of_a_space_that_was_called_otherwise_are_refused(file):
    origin = replace(make_table().origin, space_name="nas_bert", shape=asdict(SHAPE))
    message = said(require_same_parts, replace(make_table(), origin=origin), SPACE, file)
    assert "layers None there, here 4" in message
