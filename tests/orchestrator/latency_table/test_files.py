"""Tables as files: both formats keep everything, and what is wrong with a file is said in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from orchestrator.errors import UserError
from orchestrator.latency_table.files import choose_table, read_tables, require_same_parts, space_of, write_tables
from tests.orchestrator.latency_table.test_table import SPACE, TABLE
from tests.spaces.microscopic import OPTIONS, SHAPE, architecture, make_space


def with_batch(batch_size):
    conditions = replace(TABLE.origin.conditions, batch_size=batch_size)
    return replace(TABLE, origin=replace(TABLE.origin, conditions=conditions))


@pytest.fixture(params=["json", "parquet"])
def file(request, tmp_path):
    path = tmp_path / f"table.{request.param}"
    write_tables(path, [TABLE, with_batch(7)])
    return path


def said(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_file_keeps_tables_of_several_shapes(file):
    first, second = read_tables(file)
    assert (first.entries, first.remainder) == (TABLE.entries, TABLE.remainder)
    assert choose_table([first, second], 7, 12, file) is second
    assert choose_table([first, second], 2, 12, file) is first
    network = architecture("E32|16:M-F|32:S3")
    assert second.predict_ms(SPACE, network) == TABLE.predict_ms(SPACE, network)


def test_a_shape_that_a_file_has_not_is_named(file):
    message = said(choose_table, read_tables(file), 8, 64, file)
    assert message.startswith(f"{file}: found tables for batches of 2 × 12, 7 × 12 tokens, expected one for 8 × 64")


def test_parquet_tells_others_what_each_part_costs(tmp_path):
    path = tmp_path / "table.parquet"
    write_tables(path, [TABLE])
    rows = pd.read_parquet(path)
    assert len(rows) == len(TABLE.entries)
    assert set(rows["device"]) == {"a device"}
    expected = [TABLE.part_ms(part) for part in TABLE.entries]
    assert rows["with_remainder_ms"].tolist() == pytest.approx(expected)


def test_the_space_of_a_file_is_made_again(file):
    space = space_of(read_tables(file)[0], file)
    assert space.parts() == SPACE.parts()
    assert space.cardinality() == SPACE.cardinality()
    require_same_parts(read_tables(file)[0], SPACE, file)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"hidden_sizes": (16, 24, 40)}, "operation M at width 40"),
        ({"operations": ("M", "F", "F1", "S3", "S7")}, "operation S7 at width 16"),
        ({"embedding_sizes": (16, 20)}, "embeddings at width 20"),
    ],
)
def test_a_table_of_another_space_is_refused(file, changes, part):
    message = said(require_same_parts, read_tables(file)[0], make_space(**changes), file)
    assert message.startswith(f"{file}: it is a table of another space: no entry for {part} and ")


def test_a_part_that_is_built_otherwise_there_is_refused(file):
    message = said(require_same_parts, read_tables(file)[0], make_space(separable_units=1), file)
    assert "operation S3 at width 16 has" in message


def test_heads_of_another_size_are_another_part_though_they_have_as_many_weights(file):
    message = said(require_same_parts, read_tables(file)[0], make_space(head_size=4, hidden_sizes=(16, 24, 32)), file)
    assert message.startswith(
        f"{file}: it is a table of another space: operation M at width 16 has head size 8 there, here 4"
    )


def test_a_space_of_fewer_parts_may_use_the_table(file):
    require_same_parts(read_tables(file)[0], make_space(hidden_sizes=(16, 32)), file)
    require_same_parts(read_tables(file)[0], make_space(num_blocks=1), file)


@pytest.mark.parametrize("space", [("other_space", OPTIONS), ("nas_bert", {"blocks": 3})])
def test_a_space_that_cannot_be_made_is_named(tmp_path, space):
    origin = replace(TABLE.origin, space_name=space[0], space_options=space[1])
    file = tmp_path / "table.json"
    assert said(space_of, replace(TABLE, origin=origin), file).startswith(f"{file}: the space it was measured on")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"tables": []}', b'{"tables": [{}]}', b"\xff\xfe", b"PAR1 no"]
)
@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_damaged_files_are_named(tmp_path, content, ending):
    path = tmp_path / f"table.{ending}"
    path.write_bytes(content)
    assert said(read_tables, path).startswith(f"{path}: ")


def test_a_parquet_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "other.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(path)
    assert said(read_tables, path).startswith(f"{path}: not a latency table, or damaged")


def test_a_file_cut_off_in_the_middle_is_named(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert said(read_tables, file).startswith(f"{file}: not a latency table, or damaged")


def test_a_table_without_an_origin_is_no_file(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"tables": [replace(TABLE, origin=None).to_json()]}))
    assert "says where it was measured" in said(read_tables, path)


def test_absent_files_and_other_endings_are_named(tmp_path):
    assert "no such file" in said(read_tables, tmp_path / "table.json")
    assert "found the ending '.csv', expected .json or .parquet" in said(read_tables, tmp_path / "table.csv")
    assert "expected .json or .parquet" in said(write_tables, tmp_path / "table", [TABLE])
    assert not (tmp_path / "table").exists()


def test_the_shape_of_a_teacher_is_kept(file):
    assert read_tables(file)[0].origin.shape["vocab_size"] == SHAPE.vocab_size
