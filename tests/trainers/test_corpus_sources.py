from __future__ import annotations

from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainers.corpus import CorpusSource
from trainers.errors import TrainingInputError


def write_parquet(file, texts, column="text", kind=None):
    pq.write_table(pa.table({"id": pa.array(range(len(texts))), column: pa.array(texts, type=kind)}), file)
    return file


def complaint(source):
    """The message of reading it; :meth:`CorpusSource.check` may not see it all, but what it says is the same."""
    with pytest.raises(TrainingInputError) as raised:
        list(source.documents())
    message = str(raised.value)
    assert "\n" not in message
    return message


def check_complaint(source):
    with pytest.raises(TrainingInputError) as raised:
        source.check()
    assert str(raised.value) == complaint(source)
    return str(raised.value)


def test_a_text_file_is_one_document(tmp_path):
    for name in ("a.txt", "a.text", "a.md"):
        (tmp_path / name).write_text("Grüße\n\nzwei", encoding="utf-8")
        source = CorpusSource(str(tmp_path / name))
        source.check()
        assert list(source.documents()) == ["Grüße\n\nzwei"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_each_row_of_parquet_is_a_document_and_empty_ones_are_left_out(tmp_path, kind):
    texts = ["one", "", None, "two", *(f"number {number}" for number in range(600))]
    source = CorpusSource(str(write_parquet(tmp_path / "a.parquet", texts, "body", kind)), text_column="body")
    source.check()
    assert list(source.documents()) == [text for text in texts if text]


def test_a_folder_is_its_files_in_order(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("second")
    write_parquet(tmp_path / "a.parquet", ["first"])
    (tmp_path / "deep" / "c.md").write_text("third")
    (tmp_path / "z.json").write_text("{}")
    source = CorpusSource(str(tmp_path), split="train")
    source.check()
    assert list(source.documents()) == ["first", "second", "third"]


def test_a_split_of_a_folder_is_the_files_that_start_with_it(tmp_path):
    for name in ("train-0.txt", "train-1.txt", "validation.txt"):
        (tmp_path / name).write_text(name)
    assert list(CorpusSource(str(tmp_path)).documents()) == ["train-0.txt", "train-1.txt"]
    assert list(CorpusSource(str(tmp_path), split="validation").documents()) == ["validation.txt"]
    assert len(list(CorpusSource(str(tmp_path), split="test").documents())) == 3


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("home")
    assert list(CorpusSource("~/a.txt").documents()) == ["home"]


def test_bundled_novels_are_there():
    for split in ("train", "validation"):
        source = CorpusSource("bundled:novels", split=split)
        source.check()
        first, second = islice(source.documents(), 2)
        assert first != second
        assert len(first) > 1000


def test_wikipedia_of_the_shared_data_is_read(netsuke_data):
    folder = netsuke_data / "wikipedia-en-2015-sample"
    columns = pq.ParquetFile(folder / "validation.parquet").schema_arrow.names
    assert "text" in columns
    source = CorpusSource(str(folder), split="validation")
    source.check()
    documents = list(islice(source.documents(), 50))
    assert len(documents) == 50
    assert all(isinstance(document, str) and document for document in documents)


# --- what is wrong is named in one line ------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    source = CorpusSource(str(tmp_path / "no.txt"), key="corpus.validation_source")
    assert check_complaint(source) == (
        f"corpus.validation_source: '{tmp_path}/no.txt' does not exist; expected a .txt or .parquet file, a folder of "
        f"them, bundled:novels, or dataset:<name>"
    )


def test_a_wrong_suffix(tmp_path):
    (tmp_path / "a.csv").write_text("text\nx")
    assert check_complaint(CorpusSource(str(tmp_path / "a.csv"))) == (
        f"corpus.source: found '{tmp_path}/a.csv'; expected a .txt or .parquet file, or a folder of them"
    )


def test_a_folder_without_text(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    assert check_complaint(CorpusSource(str(tmp_path))) == (
        f"corpus.source: the folder '{tmp_path}' has no .txt or .parquet files"
    )


def test_a_missing_column(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", ["x"], "body")
    assert check_complaint(CorpusSource(str(file))) == (
        f"corpus.text_column: '{file}' has no column 'text'; it has id, body"
    )


@pytest.mark.parametrize(("values", "kind"), [([1, 2], pa.int64()), ([["a"]], pa.list_(pa.string()))])
def test_a_column_that_is_not_text(tmp_path, values, kind):
    file = write_parquet(tmp_path / "a.parquet", values, "text", kind)
    message = check_complaint(CorpusSource(str(file)))
    assert message.startswith(f"corpus.text_column: column 'text' of '{file}' holds ")
    assert message.endswith(", not text; it has id, text")


def test_a_file_that_is_no_parquet(tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"not parquet at all, but long enough to hold a footer")
    message = check_complaint(CorpusSource(str(file)))
    assert message.startswith(f"corpus.source: '{file}' is not a readable Parquet file: ")


def test_parquet_that_breaks_in_the_middle(tmp_path):
    file = tmp_path / "a.parquet"
    texts = [f"{number} " * 50 for number in range(2000)]
    pq.write_table(pa.table({"text": texts}), file, compression="zstd", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    file.write_bytes(content)
    assert complaint(CorpusSource(str(file))).startswith(f"corpus.source: '{file}' is damaged: ")


def test_text_that_is_not_utf8(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("Grüße".encode("latin-1"))
    message = complaint(CorpusSource(str(file)))
    assert message.startswith(f"corpus.source: '{file}' is not UTF-8 text: ")
    assert message.endswith("; convert it")


@pytest.mark.parametrize(("name", "split"), [("poems", "train"), ("novels", "test")])
def test_unknown_bundled_text(name, split):
    assert check_complaint(CorpusSource(f"bundled:{name}", split=split)) == (
        f"corpus.source: there is no bundled corpus '{name}' with split '{split}'; bundled: novels-train, "
        f"novels-validation"
    )


def test_a_data_set_that_cannot_be_reached():
    """Offline (the tests are), or no such name: nothing is looked up before it is read."""
    source = CorpusSource("dataset:nobody/no-such-data-set")
    source.check()
    message = complaint(source)
    assert message.startswith("corpus.source: the data set 'nobody/no-such-data-set' cannot be loaded: ")
    assert message.endswith("; check its name, split and the network")
