from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainers import build_bundled_novels as builder

CORPORA = resources.files("trainers") / "corpora"
REPOSITORY = Path(__file__).parents[2]


def read(name: str) -> pa.Table:
    with resources.as_file(CORPORA / name) as path:
        return pq.read_table(path)


@pytest.fixture
def source_folder() -> Path:
    data = Path(os.environ.get("NETSUKE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (data / "books" / "train.parquet").is_file():
        pytest.skip("no novels to rebuild from: set NETSUKE_DATA to a folder that holds books/train.parquet")
    return data / "books"


@pytest.mark.parametrize("name", ["novels-train.parquet", "novels-validation.parquet"])
def test_the_bundled_text_is_what_its_readme_says(name: str) -> None:
    table = read(name)
    readme = (CORPORA / "README.md").read_text(encoding="utf-8")
    assert table.schema.names == ["author", "title", "year", "text"]
    assert max(table["year"].to_pylist()) <= 1922
    assert f"| `{name}` | {table.num_rows} | {sum(map(len, table['text'].to_pylist())):,} |" in readme
    for author, title, year in {tuple(row.values())[:3] for row in table.to_pylist()}:
        assert f"| {author} | {title} | {year} |" in readme


def test_the_held_out_text_shares_no_author_and_no_paragraph_with_training() -> None:
    train, validation = read("novels-train.parquet"), read("novels-validation.parquet")
    assert not set(train["author"].to_pylist()) & set(validation["author"].to_pylist())
    in_train = {paragraph for text in train["text"].to_pylist() for paragraph in text.split("\n\n")}
    long = [part for text in validation["text"].to_pylist() for part in text.split("\n\n") if len(part) > 40]
    assert len(long) > 200
    assert not in_train.intersection(long)


def test_any_prefix_of_the_training_rows_mixes_the_authors() -> None:
    authors = read("novels-train.parquet")["author"].to_pylist()
    assert len(set(authors[:16])) == 16


def test_the_files_are_exactly_what_the_script_builds(source_folder: Path) -> None:
    for selection in (builder.TRAIN, builder.VALIDATION):
        assert builder.build_table(selection, source_folder).equals(read(f"{selection.name}.parquet"))


def test_an_excerpt_skips_front_matter_and_keeps_paragraphs_whole() -> None:
    paragraphs = [f"{number:02d}" + "x" * 98 for number in range(100)]
    excerpt = builder.excerpt_of(paragraphs, 950)
    assert excerpt == paragraphs[5:15]
    assert "\n\n".join(builder.passages_of(excerpt)) == "\n\n".join(excerpt)
    assert builder.passages_of([]) == []


def test_paragraphs_lose_line_breaks_italics_marks_and_mojibake() -> None:
    text = 'One _long_\nline.\n\n \nA broken ť one.\n\nCafé.\n"Ay."\nThe last\n'
    assert builder.paragraphs_of(text, has_blank_lines=True) == ["One long line.", 'Café. "Ay." The last']
    assert builder.paragraphs_of(text, has_blank_lines=False)[-2:] == ['"Ay."', "The last"]
