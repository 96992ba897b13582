"""A directory of word times: its files, and how a corpus gets its words from it.

DIR/alignment-00000-of-00008.parquet    a shard: id, words, score, reason (why an utterance has no words)
DIR/failures.jsonl                      id and reason of the utterances without words
DIR/metadata.json                       written last

The shards follow the order of the corpus. Word times are not written into a copy of the corpus's list, because a list
cannot point to audio in tar files or in rows of a dataset.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codec.foundation import UserError, first_line
from data.alignment.aligner import is_spoken
from data.corpora.utterance import Corpus, Utterance, Word
from data.sharded_directory import (
    FORMAT_VERSION,
    METADATA,
    WORDS_TYPE,
    Contents,
    Shard,
    ShardedDirectory,
    missing_files,
    read_json,
    words_column,
)

SPLIT = "alignment"  # in the names of shards
_IDENTITY = b"alignment"  # in a shard's schema metadata
# An utterance whose score lies this many robust deviations (median absolute deviation x 1.4826) below its corpus
# probably does not say its transcript.
_MAX_DEVIATIONS = 5.0
_DIFFERENT_TEXT = "the audio does not sound like its text"


@dataclass(frozen=True)
class AlignedRow:
    """What became of one utterance."""

    id: str
    words: Sequence[Word] | None = None
    score: float | None = None
    reason: str | None = None  # why there are no words


class AlignmentDirectory(ShardedDirectory):
    """The directory of one alignment.

    rejects_low_scores: whether utterances whose score falls out of the corpus lose their words
    """

    kind = "word alignment"
    has_notes = False

    def __init__(
        self, path: str | os.PathLike[str], identity: Mapping[str, Any], rejects_low_scores: bool
    ) -> None:
        super().__init__(path, identity)
        self._rejects_low_scores = rejects_low_scores

    def begun_identity(self) -> dict[str, Any] | None:
        if any(self.path.glob("metadata.*")):
            raise UserError(f"{self.path}: holds something else already: give another --output")
        for file in sorted(self.path.glob("*.parquet"))[:1]:
            try:
                about = (pq.read_schema(file).metadata or {}).get(_IDENTITY)
            except (pa.ArrowException, OSError):
                about = None
            if about is None:
                raise UserError(f"{file}: is not of this run; give another --output, or an empty directory")
            return json.loads(about)
        return None

    def write_rows(self, shard: Shard, rows: Sequence[AlignedRow]) -> None:
        self.write_shard(shard, _parquet_bytes(rows, self.identity))

    def contents(self, shards: Sequence[Shard]) -> Contents:
        table = _read_shards(self.path, [shard.file_name for shard in shards])
        lowest = _lowest_score(table) if self._rejects_low_scores else None
        failures = list(_failures(table, lowest))
        metadata = {
            "kind": self.kind,
            "format_version": FORMAT_VERSION,
            **self.identity,
            "shards": len(shards),
            "utterances": len(table),
            "failures": len(failures),
            "lowest_score": lowest,
            **_count_words(table, lowest),
        }
        return Contents(metadata, failures)

    @staticmethod
    def shard_names(metadata: Mapping[str, Any]) -> list[str]:
        count = metadata["shards"]
        return [Shard(SPLIT, number, count, 0, 0).file_name for number in range(count)]

    @staticmethod
    def count_tried(metadata: Mapping[str, Any]) -> int:
        return metadata["utterances"]


@dataclass(frozen=True, slots=True)
class StoredWords(Sequence[Word]):
    """Words that stay in their table until somebody reads them: a large corpus has too many to hold as objects."""

    column: pa.ChunkedArray
    row: int

    def _words(self) -> list[Word]:
        return [Word(cell["word"], cell["start"], cell["end"]) for cell in self.column[self.row].as_py()]

    def __len__(self) -> int:
        return len(self.column[self.row])

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> list[Word]: ...
    def __getitem__(self, index: int | slice) -> Word | list[Word]:
        return self._words()[index]

    def __iter__(self) -> Iterator[Word]:
        return iter(self._words())


def with_alignment(corpus: Corpus, path: str | os.PathLike[str]) -> Corpus:
    """The corpus with the words of an alignment. Utterances without words there have none here.

    Raises UserError when there is no whole alignment, or when it was made of other texts.
    """
    directory = Path(path)
    metadata = _read_metadata(directory)
    names = AlignmentDirectory.shard_names(metadata)
    if missing := missing_files(directory, names):
        raise UserError(
            f"{directory}: {len(missing)} shards are missing ({missing[0]} first): fetch or make them again"
        )
    table = _read_shards(directory, names)
    rows = {identity: row for row, identity in enumerate(table.column("id").to_pylist())}
    usable = _usable(table, metadata["lowest_score"])
    transcripts = _transcripts(table)
    column = table.column("words")
    known = 0
    utterances: list[Utterance] = []
    for utterance in corpus.utterances:
        row = rows.get(utterance.id)
        known += row is not None
        words = StoredWords(column, row) if row is not None and usable[row] else None
        if words is not None and transcripts[words.row] != " ".join((utterance.text or "").split()):
            raise UserError(
                f"{directory}: has other words for {utterance.id} than its transcript in {corpus.location}: "
                "align it again"
            )
        utterances.append(replace(utterance, words=words))
    if not known:
        raise UserError(
            f"{directory}: knows no utterance of {corpus.location}: it is the alignment of another corpus"
        )
    return replace(corpus, utterances=utterances)


def _transcripts(table: pa.Table) -> list[str | None]:
    """The words of each row joined by spaces."""
    joined: list[str | None] = []
    for chunk in table.column("words").chunks:
        words = pa.ListArray.from_arrays(chunk.offsets, chunk.values.field("word"))
        joined += pc.binary_join(words, " ").to_pylist()
    return joined


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    if not file.is_file():
        begun = path.is_dir() and any(path.glob("alignment-*.parquet"))
        cure = (
            "it is not whole yet: run its codec-slm align command again"
            if begun
            else "make one with codec-slm align"
        )
        raise UserError(f"{path}: no whole alignment (no {METADATA}): {cure}")
    metadata = read_json(file)
    if metadata.get("kind") != AlignmentDirectory.kind:
        raise UserError(f"{file}: not the metadata of a word alignment: make one with codec-slm align")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{file}: is not of an alignment of this version: make it again with codec-slm align")
    return metadata


def _schema(identity: Mapping[str, Any]) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("words", WORDS_TYPE),
            pa.field("score", pa.float32()),
            pa.field("reason", pa.string()),
        ],
        metadata={_IDENTITY: json.dumps(identity, sort_keys=True)},
    )


def _parquet_bytes(rows: Sequence[AlignedRow], identity: Mapping[str, Any]) -> bytes:
    columns = {
        "id": [row.id for row in rows],
        "words": words_column([row.words for row in rows]),
        "score": [row.score for row in rows],
        "reason": [row.reason for row in rows],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_schema(identity)), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _read_shards(directory: Path, names: Sequence[str]) -> pa.Table:
    try:
        return pa.concat_tables([pq.read_table(directory / name) for name in names])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{directory}: a shard cannot be read ({first_line(error)})") from None


def _lowest_score(table: pa.Table) -> float | None:
    """The score below which an utterance falls out of its corpus; None without scores."""
    scores = table.column("score").drop_null().to_numpy()
    if not len(scores):
        return None
    middle = np.median(scores)
    return float(middle - _MAX_DEVIATIONS * 1.4826 * np.median(np.abs(scores - middle)))


def _usable(table: pa.Table, lowest: float | None) -> np.ndarray:
    """(rows,) bool: whether a row's words are to be used."""
    there = table.column("words").is_valid().to_numpy(zero_copy_only=False)
    scores = (
        table.column("score").to_numpy(zero_copy_only=False).astype(np.float64)
    )  # NaN where there is none
    # A deviation of zero (one utterance, or all alike) leaves rounding to float32.
    return there if lowest is None else there & ~(scores < lowest - 1e-4 * abs(lowest))


def _failures(table: pa.Table, lowest: float | None) -> Iterator[dict[str, str]]:
    usable = _usable(table, lowest)
    for row in np.flatnonzero(~usable).tolist():
        reason = table.column("reason")[row].as_py()
        if reason is None:
            score = table.column("score")[row].as_py()
            reason = f"{_DIFFERENT_TEXT} (score {score:.4g}, the corpus's lowest is {lowest:.4g})"
        yield {"id": table.column("id")[row].as_py(), "reason": reason}


def _count_words(table: pa.Table, lowest: float | None) -> dict[str, int]:
    """Words of all utterances that have some: those with times, those without, and those not spoken (dashes)."""
    counts = {"words": 0, "placed": 0, "unplaced": 0, "unspoken": 0}
    usable = _usable(table, lowest)
    row = 0
    for batch in table.select(["words"]).to_batches(max_chunksize=1024):
        for words in batch.column(0).to_pylist():
            for word in words if usable[row] else ():
                counts["words"] += 1
                placed = word["start"] is not None
                counts["placed" if placed else "unplaced" if is_spoken(word["word"]) else "unspoken"] += 1
            row += 1
    return counts
