"""A scanned corpus: what it lists, in Parquet shards in the order of its ids, and the headers of its recordings.

DIR/utterances-00000.parquet ...    16,384 utterances a file
DIR/headers-00000.parquet ...       length and rate of their recordings; null where none can be read
DIR/metadata.json                   of the whole; written when all is listed

The listing is sorted in runs that are put aside and merged, so that memory does not grow with the corpus. It is written
once and never changes. A shard of headers is the work of one process, and appears by rename: after a kill only what is
missing is read again. Who works on the corpus opens the shards of its own work, a shard at a time: a plan needs
nothing but the headers, which it passes through, and an utterance's words stay in their table until they are asked
for. The order, the hash and with them the plans of datasets are those of the same corpus in memory.
"""

import heapq
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codec.foundation import UserError, write_bytes, write_json
from data.config import CorpusSource
from data.corpora.emilia import ArchivedAudio
from data.corpora.huggingface import DatasetAudio
from data.corpora.utterance import (
    Corpus,
    Noticed,
    Prompt,
    StoredWords,
    Tally,
    Utterance,
    in_usual_order,
    order,
    words_column,
    words_type,
)
from data.decoding import AudioPart, AudioSource, BadRow, RemoteAudio

_SHARD = 16_384  # utterances
_RUN = 65_536  # utterances that are sorted in memory
_BATCH = 128  # of a run that are in memory while it is merged with others
_KIND, _VERSION = "scanned corpus", 1
_METADATA = "metadata.json"
_AUDIO = pa.struct(
    [
        ("path", pa.string()),
        ("object", pa.string()),  # JSON of what is no file of its own
        ("start", pa.float64()),
        ("seconds", pa.float64()),
        ("channel", pa.int32()),
    ]
)
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("language", pa.string()),
        ("audio", _AUDIO),
        ("words", words_type(pa.float64())),
        ("prompt", pa.struct([("audio", _AUDIO), ("text", pa.string())])),
    ]
)
_HEADERS = pa.schema([("split", pa.string()), ("frames", pa.int64()), ("sampling_rate", pa.int64())])
_OBJECTS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (ArchivedAudio, DatasetAudio, RemoteAudio, BadRow)
}
Join = Callable[[Iterable[Utterance]], Iterable[Utterance]]
T = TypeVar("T")


class Manifest(Sequence[Utterance]):
    """The utterances of a scanned corpus; those of the last shard that was asked for are in memory.

    join: changes what is known about utterances when they are read

    Raises UserError where there is no whole listing.
    """

    def __init__(self, path: str | os.PathLike[str], join: Join | None = None) -> None:
        self.path, self._join = Path(path), join
        self.metadata = _metadata(self.path)
        if self.metadata.get("kind") != _KIND or self.metadata.get("format_version") != _VERSION:
            raise UserError(f"{self.path}: is not a corpus that this version's codec-slm scan has listed")
        self.splits: list[dict[str, int]] = self.metadata["shards"]  # utterances of each shard by split
        self._first = np.cumsum([0, *(sum(splits.values()) for splits in self.splits)])
        self._read: tuple[tuple[int, str | None], list[Utterance]] | None = None

    def joined(self, join: Join) -> "Manifest":
        return Manifest(self.path, join)

    def __len__(self) -> int:
        return int(self._first[-1])

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, int):
            place = range(len(self))[index]
            return self[place : place + 1][0]
        start, stop, step = index.indices(len(self))
        found: list[Utterance] = []
        for number in range(len(self.splits)):
            first, end = int(self._first[number]), int(self._first[number + 1])
            if first < stop and start < end:
                found += self.shard(number)[max(start, first) - first : stop - first]
        return found[::step]

    def __iter__(self) -> Iterator[Utterance]:
        for number in range(len(self.splits)):
            yield from self.shard(number)

    def shard(self, number: int, split: str | None = None) -> list[Utterance]:
        """Those of a split in a shard, or all of it."""
        if self._read is None or self._read[0] != (number, split):
            self._read = None  # two at a time are one too many
            filters = None if split is None else [("split", "==", split)]
            found = _from_table(pq.read_table(self.file(number), filters=filters))
            self._read = (number, split), found if self._join is None else list(self._join(found))
        return self._read[1]

    def file(self, number: int) -> Path:
        return self.path / f"utterances-{number:05d}.parquet"

    def headers_file(self, number: int) -> Path:
        return self.path / f"headers-{number:05d}.parquet"

    def headers(self, number: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Frames and sampling rates (utterances,) int64 of each split in a shard; 0 where a header says nothing."""
        # Several times as fast as `read_table`: a plan passes through all of these files.
        file = pq.ParquetFile(self.headers_file(number), read_dictionary=["split"])
        names, frames, rates = file.read(use_threads=False).combine_chunks().columns
        frames, rates = frames.fill_null(0).to_numpy(), rates.fill_null(0).to_numpy()
        of_split = {
            split: names.chunk(0).indices.to_numpy() == place
            for place, split in enumerate(names.chunk(0).dictionary.to_pylist())
        }
        return {split: (frames[wanted], rates[wanted]) for split, wanted in of_split.items()}

    def seconds(self) -> Counter[str]:
        """Of audio in each split, as its headers say."""
        total: Counter[str] = Counter()
        for number in range(len(self.splits)):
            for split, (frames, rates) in self.headers(number).items():
                total[split] += float((frames / np.maximum(rates, 1)).sum())  # type: ignore[assignment]
        return total

    def write_headers(self, number: int, headers: Sequence[tuple[int, int] | None]) -> None:
        """Frames and sampling rate of each recording of a shard."""
        columns = [
            [utterance.split for utterance in self.shard(number)],
            [header and header[0] for header in headers],
            [header and header[1] for header in headers],
        ]
        _write(self.headers_file(number), pa.table(columns, schema=_HEADERS))


@dataclass(frozen=True)
class ScannedCorpus(Corpus):
    """A corpus whose utterances are in a `Manifest`; what can be counted of them was counted when it was listed.

    words: names the word times that were joined to the utterances since
    """

    words: str | None = None

    @property
    def manifest(self) -> Manifest:
        assert isinstance(self.utterances, Manifest)
        return self.utterances

    @property
    def splits(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for splits in self.manifest.splits:
            counts.update(splits)
        return in_usual_order(counts)

    def split(self, name: str) -> list[Utterance]:
        there = [number for number, splits in enumerate(self.manifest.splits) if splits.get(name)]
        return [utterance for number in there for utterance in self.manifest.shard(number, name)]

    def tally(self) -> Tally:
        about = self.manifest.metadata
        return Tally(Counter(self.splits), about["texts"], about["bare"], about["beside"])

    def content_hash(self) -> str:
        return self.manifest.metadata["hash"]

    def identity(self) -> dict[str, str | int]:
        return super().identity() | ({"words": self.words} if self.words else {})


def is_scanned(path: str | os.PathLike[str]) -> bool:
    """Whether a scanned corpus is there."""
    return _metadata(Path(path)).get("kind") == _KIND


def open_scanned(source: CorpusSource) -> ScannedCorpus:
    """A scanned corpus. Raises UserError where it is to be read in another way than it was listed."""
    if source != CorpusSource(source.path):
        raise UserError(f"{source.path}: is scanned already: say how to read a corpus to codec-slm scan")
    manifest = Manifest(source.path)
    about = manifest.metadata
    noticed = about["noticed"]
    return ScannedCorpus(
        about["name"],
        about["location"],
        about["format"],
        manifest,
        about["audio_column"],
        Noticed(
            {kind: dict.fromkeys(columns) for kind, columns in noticed["used"].items()},
            dict.fromkeys(noticed["columns"]),
            Counter(noticed["left_out"]),
            Counter(noticed["text_files"]),
        ),
    )


def write_listing(path: Path, corpus: Corpus, source: Mapping[str, Any]) -> None:
    """List a corpus, which may come as an iterator over sorted utterances. `source`: how it was asked for."""
    tally, shards = Tally(), []
    for number, part in enumerate(_parts(tally.count(corpus.utterances), _SHARD)):
        _write(path / f"utterances-{number:05d}.parquet", _to_table(part))
        shards.append(dict(Counter(utterance.split for utterance in part)))
    noticed = corpus.noticed
    about = {
        "kind": _KIND,
        "format_version": _VERSION,
        "source": source,
        "name": corpus.name,
        "location": corpus.location,
        "format": corpus.format,
        "audio_column": corpus.audio_column,
        "utterances": sum(tally.splits.values()),
        "hash": tally.hash,
        "texts": tally.texts,
        "bare": tally.bare,
        "beside": tally.beside,
        "noticed": {
            "used": {kind: list(columns) for kind, columns in noticed.used.items()},
            "columns": list(noticed.columns),
            "left_out": noticed.left_out,
            "text_files": noticed.text_files,
        },
        "shards": shards,
    }
    write_json(path / _METADATA, about)


def listed_source(path: Path) -> dict[str, Any] | None:
    """How the corpus that is listed there was asked for; None where no whole listing is."""
    return _metadata(path).get("source")


def sorted_in_runs(utterances: Iterable[Utterance], folder: Path) -> Iterator[Utterance]:
    """Utterances by id; of more than a run of them, the runs are kept in files in `folder` meanwhile."""
    with tempfile.TemporaryDirectory(prefix=".runs-", dir=folder) as aside:
        runs: list[Iterable[Utterance]] = []
        for run in _parts(utterances, _RUN):
            run.sort(key=order)
            runs.append(run if len(run) < _RUN else _aside(run, Path(aside, str(len(runs)))))
        yield from heapq.merge(*runs, key=order)


def _aside(utterances: Sequence[Utterance], file: Path) -> Iterator[Utterance]:
    table = _to_table(utterances)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=_BATCH)

    def read() -> Iterator[Utterance]:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                yield from _from_table(pa.Table.from_batches([batch]))

    return read()


def _parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _write(file: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(file, sink.getvalue().to_pybytes())


def _metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / _METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _to_table(utterances: Sequence[Utterance]) -> pa.Table:
    columns = {name: [getattr(u, name) for u in utterances] for name in _SCHEMA.names[:5]}
    columns["audio"] = [_cell(u.path) for u in utterances]
    columns["words"] = words_column([u.words for u in utterances])
    columns["prompt"] = [
        None if u.prompt is None else {"audio": _cell(u.prompt.path), "text": u.prompt.text}
        for u in utterances
    ]
    return pa.table(columns, schema=_SCHEMA)


def _from_table(table: pa.Table) -> list[Utterance]:
    plain = zip(*(table.column(name).to_pylist() for name in _SCHEMA.names[:6]), strict=True)
    words, prompts = table.column("words"), table.column("prompt").to_pylist()
    has_words = words.is_valid().to_pylist()
    return [
        Utterance(
            identity,
            _source(audio),
            text,
            speaker,
            language,
            split,
            StoredWords(words, row) if has_words[row] else None,
            None if prompts[row] is None else Prompt(_source(prompts[row]["audio"]), prompts[row]["text"]),
        )
        for row, (identity, split, text, speaker, language, audio) in enumerate(plain)
    ]


def _cell(source: AudioSource) -> dict[str, Any]:
    part = source if isinstance(source, AudioPart) else AudioPart(source)
    times = {"start": part.start, "seconds": part.seconds, "channel": part.channel}
    if not isinstance(part.source, str | os.PathLike):
        kind = type(part.source).__name__
        return {"object": json.dumps([kind, *astuple(part.source)]), **times}  # type: ignore[call-overload]
    path = os.fspath(part.source)
    try:
        path.encode()
    except UnicodeEncodeError:  # JSON writes what is not Unicode, Arrow does not
        return {"object": json.dumps([path]), **times}
    return {"path": path, **times}


def _source(cell: Mapping[str, Any]) -> AudioSource:
    source = cell["path"]
    if source is None:
        kind, *fields = json.loads(cell["object"])
        source = _OBJECTS[kind](*fields) if fields else kind
    part = AudioPart(source, cell["start"], cell["seconds"], cell["channel"])
    return source if part == AudioPart(source) else part
