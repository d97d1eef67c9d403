"""Build the bundled text: excerpts of public-domain novels, as Parquet files for the quickstart.

Not part of the package. The sources are Parquet files of whole novels (columns author, title, year, text); give the
folder that holds ``train.parquet``, ``validation.parquet`` and ``test.parquet``, and the folder to write to::

    python tests/trainers/build_bundled_novels.py SOURCE_FOLDER trainers/corpora

The same sources give the same rows, always: nothing is drawn at random.
"""

from __future__ import annotations

import argparse
import re
import string
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, groupby, zip_longest
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# A few novels in the sources were decoded with the wrong code page; a paragraph with any other character is left out.
SOUND_CHARACTERS = frozenset(string.printable) | frozenset("àâäæçèéêëîïñôöùûüœÀÇÈÉÊÆ£")
SCHEMA = pa.schema([("author", pa.string()), ("title", pa.string()), ("year", pa.int32()), ("text", pa.string())])
SHORT_LAST_LINE = re.compile(r"""^(.{1,50}[.!?"'])\n""", re.MULTILINE)
FRONT_MATTER_SHARE = 0.05
PASSAGE_CHARACTERS = 20_000


@dataclass(frozen=True)
class Novel:
    """One novel to take an excerpt from.

    Attributes:
        source: Author and title as the source files abbreviate them.
        author: The author's full name.
        title: The full title.
        year: Year of first publication in book form.
        has_blank_lines: Whether the source sets paragraphs apart by blank lines; where not, a short line ends one.
    """

    source: tuple[str, str]
    author: str
    title: str
    year: int
    has_blank_lines: bool = True


@dataclass(frozen=True)
class Selection:
    """Which excerpts make one bundled file.

    Attributes:
        name: File name without suffix.
        source_files: Names of the source files the novels are in.
        excerpt_characters: Characters taken from each novel, at least; an excerpt ends with its paragraph.
        novels: The novels, in the order in which their passages take turns.
    """

    name: str
    source_files: tuple[str, ...]
    excerpt_characters: int
    novels: tuple[Novel, ...]


TRAIN = Selection(
    name="novels-train",
    source_files=("train.parquet",),
    excerpt_characters=260_000,
    novels=(
        Novel(("Wcollins", "Basil"), "Wilkie Collins", "Basil", 1852),
        Novel(("Trollope", "Warden"), "Anthony Trollope", "The Warden", 1855),
        Novel(("Braddon", "Audley"), "Mary Elizabeth Braddon", "Lady Audley's Secret", 1862),
        Novel(("Gaskell", "Wives"), "Elizabeth Gaskell", "Wives and Daughters", 1866),
        Novel(("Eliot", "Felix"), "George Eliot", "Felix Holt, the Radical", 1866),
        Novel(("Lytton", "Kenelm"), "Edward Bulwer-Lytton", "Kenelm Chillingly", 1873),
        Novel(("Ward", "Milly"), "Mary Augusta Ward", "Milly and Olly", 1881),
        Novel(("Corelli", "Romance"), "Marie Corelli", "A Romance of Two Worlds", 1886),
        Novel(("Morris", "Roots"), "William Morris", "The Roots of the Mountains", 1889),
        Novel(("Doyle", "Hound"), "Arthur Conan Doyle", "The Hound of the Baskervilles", 1902),
        Novel(("Burnett", "Princess"), "Frances Hodgson Burnett", "A Little Princess", 1905),
        Novel(("Gissing", "Warburton"), "George Gissing", "Will Warburton", 1905),
        Novel(("Chesterton", "Thursday"), "G. K. Chesterton", "The Man Who Was Thursday", 1908),
        Novel(("Bennet", "Helen"), "Arnold Bennett", "Helen with the High Hand", 1910),
        Novel(("Barclay", "Ladies"), "Florence L. Barclay", "The White Ladies of Worcester", 1917),
        Novel(("Woolf", "Night"), "Virginia Woolf", "Night and Day", 1919),
    ),
)
VALIDATION = Selection(
    name="novels-validation",
    source_files=("validation.parquet", "test.parquet"),
    excerpt_characters=150_000,
    novels=(
        Novel(("Lee", "Albany"), "Vernon Lee", "The Countess of Albany", 1884),
        Novel(("Conrad", "Almayer"), "Joseph Conrad", "Almayer's Folly", 1895, has_blank_lines=False),
    ),
)


def paragraphs_of(text: str, *, has_blank_lines: bool) -> list[str]:
    """Split a novel into paragraphs without hard line breaks, italics marks and wrongly decoded characters.

    Args:
        text: The whole novel.
        has_blank_lines: Whether blank lines separate the paragraphs; where not, a short line that ends a sentence does.

    Returns:
        The paragraphs in reading order, each on one line; those with a character that is not sound are left out.
    """
    separated = text if has_blank_lines else SHORT_LAST_LINE.sub(r"\1\n\n", text)
    paragraphs = (" ".join(paragraph.replace("_", "").split()) for paragraph in re.split(r"\n\s*\n", separated))
    return [paragraph for paragraph in paragraphs if paragraph and SOUND_CHARACTERS.issuperset(paragraph)]


def excerpt_of(paragraphs: list[str], characters: int) -> list[str]:
    """Take contiguous paragraphs after the front matter.

    Args:
        paragraphs: The whole novel.
        characters: Length of the excerpt; the last paragraph is kept whole.

    Returns:
        The paragraphs of the excerpt.
    """
    ends = list(accumulate(map(len, paragraphs)))
    start = bisect_left(ends, FRONT_MATTER_SHARE * ends[-1]) + 1
    stop = bisect_left(ends, ends[start - 1] + characters) + 1
    return paragraphs[start:stop]


def passages_of(paragraphs: list[str]) -> list[str]:
    """Group paragraphs into passages of about equal length, a blank line between two paragraphs."""
    ends = accumulate(map(len, paragraphs), initial=0)
    numbered = zip((end // PASSAGE_CHARACTERS for end in ends), paragraphs, strict=False)
    return ["\n\n".join(text for _, text in group) for _, group in groupby(numbered, key=itemgetter(0))]


def build_table(selection: Selection, source_folder: Path) -> pa.Table:
    """Read the sources and lay the novels' passages in turns, so that any prefix of the rows is a mix of all authors.

    Args:
        selection: What to take.
        source_folder: Folder with the Parquet files of whole novels.

    Returns:
        A table with the columns author, title, year, text; one row a passage.
    """
    rows = [row for name in selection.source_files for row in pq.read_table(source_folder / name).to_pylist()]
    texts = {(row["author"], row["title"]): row["text"] for row in rows}
    passages_by_novel = [
        [
            {"author": novel.author, "title": novel.title, "year": novel.year, "text": passage}
            for passage in passages_of(excerpt_of(paragraphs, selection.excerpt_characters))
        ]
        for novel in selection.novels
        for paragraphs in [paragraphs_of(texts[novel.source], has_blank_lines=novel.has_blank_lines)]
    ]
    in_turns = [passage for turn in zip_longest(*passages_by_novel) for passage in turn if passage is not None]
    return pa.Table.from_pylist(in_turns, schema=SCHEMA)


def main() -> None:
    """Write both files and print what is in them."""
    parser = argparse.ArgumentParser(description="Build the bundled novels.")
    parser.add_argument("source_folder", type=Path)
    parser.add_argument("target_folder", type=Path)
    arguments = parser.parse_args()
    for selection in (TRAIN, VALIDATION):
        table = build_table(selection, arguments.source_folder)
        path = arguments.target_folder / f"{selection.name}.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=19, data_page_size=8 << 20)
        characters = sum(map(len, table["text"].to_pylist()))
        print(f"{path.name}: {table.num_rows} passages, {characters:,} characters, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
