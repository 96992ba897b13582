"""A directory of word times: its files, and how a corpus gets its words from it.

DIR/alignment-00000-of-00008.parquet    a shard: id, words, score, reason (why an utterance has no words)
DIR/failures.jsonl                      id and reason of the utterances without words
DIR/metadata.json                       written last

The shards follow the order of the corpus. Word times are not written into a copy of the corpus's list, because a list
cannot point to audio in tar files or in rows of a dataset.
"""

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codec.foundation import UserError, first_line
from data.alignment.aligner import is_spoken
from data.corpora.scanned import ScannedCorpus
from data.corpora.utterance import Corpus, StoredWords, Utterance, Word, words_column
from data.sharded_directory import (
    FORMAT_VERSION,
    METADATA,
    WORDS_TYPE,
    Contents,
    Shard,
    ShardedDirectory,
    missing_files,
    read_json,
)

SPLIT = "alignment"  # in the names of shards
_IDENTITY = b"alignment"  # in a shard's schema metadata
# An utterance whose score lies this many robust deviations (median absolute deviation x 1.4826) below its corpus
# probably does not say its transcript.
_MAX_DEVIATIONS = 5.0
_SHARDS_KEPT = 4
C = TypeVar("C", bound=Corpus)
_TRIED = 1000  # utterances of a scanned corpus, of which one must be known
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
    temporary = (".manifest-*",)

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
        names = [shard.file_name for shard in shards]
        lowest = _lowest_score(self.path, names) if self._rejects_low_scores else None
        failures: list[dict[str, str]] = []
        counts = Counter({"words": 0, "placed": 0, "unplaced": 0, "unspoken": 0})
        utterances = 0
        for name in names:
            table = _read_shards(self.path, [name])
            utterances += len(table)
            failures += _failures(table, lowest)
            counts.update(_count_words(table, lowest))
        metadata = {
            "kind": self.kind,
            "format_version": FORMAT_VERSION,
            **self.identity,
            "shards": len(shards),
            "utterances": utterances,
            "failures": len(failures),
            "lowest_score": lowest,
            **counts,
        }
        return Contents(metadata, failures)

    @staticmethod
    def shard_names(metadata: Mapping[str, Any]) -> list[str]:
        count = metadata["shards"]
        return [Shard(SPLIT, number, count, 0, 0).file_name for number in range(count)]

    @staticmethod
    def count_tried(metadata: Mapping[str, Any]) -> int:
        return metadata["utterances"]


def with_alignment(corpus: C, path: str | os.PathLike[str]) -> C:
    """The corpus with the words of an alignment. Utterances without words there have none here.

    Raises UserError when there is no whole alignment, or when it was made of other texts: of a scanned corpus, when
    the utterance is read.
    """
    times = WordTimes(path, corpus.location)
    if isinstance(corpus, ScannedCorpus):
        for _ in times.join_all(corpus.utterances[:_TRIED]):
            pass
        return replace(corpus, utterances=corpus.manifest.joined(times.join), words=times.hash)
    return replace(corpus, utterances=list(times.join_all(corpus.utterances)))


class WordTimes:
    """The words of an alignment, by the ids of utterances; the shards that were asked for last stay in memory.

    location: of the corpus that they are for

    Raises UserError when there is no whole alignment.
    """

    def __init__(self, path: str | os.PathLike[str], location: str) -> None:
        self._path, self._location = Path(path), location
        metadata = _read_metadata(self._path)
        self._lowest = metadata["lowest_score"]
        names = AlignmentDirectory.shard_names(metadata)
        if missing := missing_files(self._path, names):
            raise UserError(
                f"{path}: {len(missing)} shards are missing ({missing[0]} first): fetch or make them again"
            )
        self._spans = [(_first_and_last_id(self._path / name), name) for name in names]
        self._shard = lru_cache(_SHARDS_KEPT)(self._read)
        self._last = names[0]
        self._known = False

    @property
    def hash(self) -> str:
        """16 hex digits that name them."""
        return hashlib.sha256((self._path / METADATA).read_bytes()).hexdigest()[:16]

    def join(self, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
        """The utterances with their words. Raises UserError for one whose transcript has other words."""
        for utterance in utterances:
            words, transcript = self._find(utterance.id) or (None, None)
            if words is not None and transcript != " ".join((utterance.text or "").split()):
                raise UserError(
                    f"{self._path}: has other words for {utterance.id} than its transcript in {self._location}: "
                    "align it again"
                )
            yield replace(utterance, words=words)

    def join_all(self, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
        """The same of a whole corpus. Raises UserError when none of its utterances is known here."""
        yield from self.join(utterances)
        if not self._known:
            raise UserError(
                f"{self._path}: knows no utterance of {self._location}: it is the alignment of another corpus"
            )

    def _find(self, identity: str) -> tuple[StoredWords | None, str | None] | None:
        """Words and transcript; no words where they are not to be used, and None for an unknown utterance."""
        names = (name for (first, last), name in self._spans if first <= identity <= last)
        for name in itertools.chain([self._last], names):
            found = self._shard(name).get(identity)
            if found is not None:
                self._last, self._known = name, True
                return found
        return None

    def _read(self, name: str) -> dict[str, tuple[StoredWords | None, str | None]]:
        table = _read_shards(self._path, [name])
        column = table.column("words")
        words = [
            StoredWords(column, row) if usable else None
            for row, usable in enumerate(_usable(table, self._lowest))
        ]
        found = zip(words, _transcripts(table), strict=True)
        return dict(zip(table.column("id").to_pylist(), found, strict=True))


def _first_and_last_id(file: Path) -> tuple[str, str]:
    """Of a shard, in the order of Unicode."""
    found = pc.min_max(_read_shards(file.parent, [file.name], ["id"]).column("id")).as_py()
    return found["min"] or "", found["max"] or ""


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


def _read_shards(directory: Path, names: Sequence[str], columns: list[str] | None = None) -> pa.Table:
    try:
        return pa.concat_tables([pq.read_table(directory / name, columns=columns) for name in names])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{directory}: a shard cannot be read ({first_line(error)})") from None


def _lowest_score(directory: Path, names: Sequence[str]) -> float | None:
    """The score below which an utterance falls out of its corpus; None without scores."""
    scores = _read_shards(directory, names, ["score"]).column("score").drop_null().to_numpy()
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


def _count_words(table: pa.Table, lowest: float | None) -> Counter[str]:
    """Words of all utterances that have some: those with times, those without, and those not spoken (dashes)."""
    counts: Counter[str] = Counter()
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
