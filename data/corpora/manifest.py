"""A manifest: one utterance a line, as JSON lines or as CSV (or TSV) with a header.

Columns are those of `data.corpora.reading`: `audio` (or `path`, `audio_filepath`, `file_name`, ...) and, if known,
`id`, `text` (or `sentence`, `transcription`, ...), `speaker`, `language`, `split` and `words`. Words are
`[[word, start, end], ...]` or `[{"word": ..., "start": ..., "end": ...}, ...]` in seconds, with both times null for a
word whose times are not known; a CSV cell holds them as JSON. `offset` and `duration`, or `start` and `end`, say which
stretch of the recording a row is. Relative paths start from the manifest's directory, or from the `clips/` in it, one
above it, or the working directory, where the first recordings are found. An address (`s3://bucket/a.flac`) is opened by
fsspec.

Lines may be Lhotse's cuts (MonoCut, with their recording and supervisions), as Libriheavy publishes them, and files
may be compressed (`.jsonl.gz`). In the TSVs of Common Voice quotation marks are letters like others.
"""

import csv
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from codec.foundation import UserError, first_line
from data.corpora.reading import AUDIO_COLUMNS, NOT_FOR_TRAINING, Reading, bad_utterance, parse_json
from data.corpora.utterance import SPLIT_WORDS, Utterance, split_name
from data.decoding import RemoteAudio, printable

MANIFESTS = (".jsonl", ".json", ".csv", ".tsv")
_PARQUET = "metadata.parquet"  # of Hugging Face's audiofolder; other Parquet files hold audio
_FIXED_NAMES = (
    "manifest.jsonl",
    "manifest.csv",
    "metadata.jsonl",
    "metadata.csv",
    "manifest.json",
    "manifest.tsv",
    _PARQUET,
)
_FOLDERS = ("clips", "wavs", "wav", "audio")
_MOST_TABLES = 50
_TRIES = 20  # rows in which the folder of the recordings must show
_COMMON_VOICE = {"client_id", "path", "sentence"}
_CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")


def manifest_suffix(path: Path) -> str | None:
    """`.jsonl`, `.csv` and so on for the name of a manifest, compressed or not; else None."""
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    return suffix if suffix in MANIFESTS or path.name == _PARQUET else None


def manifests_in(root: Path, reading: Reading) -> list[tuple[Path, str | None, str]]:
    """The manifests of a directory, each with the split that its name says and what its ids begin with.

    They are `manifest.jsonl`, `metadata.csv` or the like; or those whose names say a split (`train_manifest.json`); or
    those of folders named by a split, as in Hugging Face's audiofolder; or the only one.
    """
    if fixed := fixed_manifest(root, reading):
        return fixed
    for base in (root, root / "data"):
        if not base.is_dir():
            continue
        entries = sorted(base.iterdir())
        tables = [entry for entry in entries if manifest_suffix(entry)]
        if len(tables) > _MOST_TABLES:  # a file an utterance
            tables = [entry for entry in tables if _split_in(entry.name)]
        listing = [entry for entry in tables if _lists_audio(entry, reading)]
        named: list[tuple[Path, str | None, str]] = [
            (file, split, "") for file in listing if (split := _split_in(file.name)) is not None
        ]
        if named:
            return named
        found: list[tuple[Path, str | None, str]] = [
            (inner, split, f"{folder.name}/")
            for folder in entries
            if folder.is_dir() and (split := split_name(folder.name)) is not None
            for inner, _, _ in fixed_manifest(folder, reading)
        ]
        if found:
            return found
        if len(listing) == 1:
            return [(listing[0], None, "")]
    return []


def fixed_manifest(folder: Path, reading: Reading) -> list[tuple[Path, str | None, str]]:
    """The first of the usual names in a folder."""
    names = [name for name in _FIXED_NAMES if _lists_audio(folder / name, reading)]
    return [(folder / name, None, "") for name in names[:1]]


def common_voice_files(root: Path) -> list[tuple[Path, str]]:
    """The TSVs of a Common Voice folder that are for training and testing, with their splits; empty if it is none."""
    for folder in (root, *sorted(entry for entry in root.iterdir() if entry.is_dir())):
        if not (folder / "clips").is_dir():
            continue
        known = (("train", "train"), ("dev", "validation"), ("test", "test"))
        files = [
            (folder / f"{name}.tsv", split) for name, split in known if (folder / f"{name}.tsv").is_file()
        ]
        if files:
            return files
        if (folder / "validated.tsv").is_file():
            return [(folder / "validated.tsv", "train")]
    return []


def read_common_voice(root: Path, reading: Reading) -> Iterator[Utterance]:
    """train, dev and test of a Common Voice folder, or all that is validated where there is no such split."""
    files = common_voice_files(root)
    if not files:
        raise UserError(
            f"{root}: the Common Voice layout is train.tsv or validated.tsv beside clips/: not here"
        )
    read = {file.name for file, _ in files}
    for name in ("validated.tsv", *(f"{name}.tsv" for name in NOT_FOR_TRAINING)):
        other = files[0][0].parent / name
        if name not in read and other.is_file():
            reading.left_out[f"rows of {name}"] += sum(1 for _ in reading.lines(other)) - 1
    for file, split in files:
        yield from read_manifest(file, reading, split)


def read_manifest(
    path: Path, reading: Reading, split: str | None = None, prefix: str = "", by_folder: bool = False
) -> Iterator[Utterance]:
    """The utterances of a `.jsonl`, `.json`, `.csv` or `.tsv` file; a row that is wrong has a `BadRow` as audio.

    split: of rows that do not say it
    prefix: of the ids
    by_folder: whether, without a `split`, that of a row is the folder of its recording, where there are two such
    """
    folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir() and split_name(entry.name)]
    by_folder = by_folder and split is None and len(folders) > 1
    if path.name.split(".")[0] in NOT_FOR_TRAINING and manifest_suffix(path) == ".tsv":
        raise UserError(f"{path}: these texts of Common Voice are not checked or wrong, and not for training")
    base = RecordingsFolder(path.parent)
    for number, row in _rows(path, reading):
        place = f"{path}, line {number}"
        if isinstance(row, str):
            yield bad_utterance(f"{prefix}{path.stem}-line-{number}", f"{place}: {row}", split or "train")
            continue
        try:
            row, channel = _of_cut(row)
        except ValueError as error:
            reason = f"{place}: {error}"
            yield bad_utterance(str(row.get("id") or f"{path.stem}-line-{number}"), reason, split or "train")
            continue
        audio = reading.choose("audio", row, AUDIO_COLUMNS)
        if isinstance(audio, Mapping):
            audio = audio.get("path")
        named = isinstance(audio, str)
        stem = Path(audio).with_suffix("").as_posix() if named else f"{path.stem}-line-{number}"
        own = split_name(Path(stem).parts[0]) if by_folder and os.path.dirname(stem) else split
        utterance = reading.utterance(
            row, base.path(audio) if named else None, prefix + printable(stem), own, place, channel=channel
        )
        if utterance is not None:
            yield utterance


class RecordingsFolder:
    """The folder that relative paths start from of the lists in the folder `here`."""

    def __init__(self, here: Path) -> None:
        above = list(here.resolve().parents)[:3]
        self._folders = [here, *(here / name for name in _FOLDERS), *above, Path()]
        self._found: Path | None = None
        self._tries = 0

    def path(self, audio: str) -> str | RemoteAudio:
        """Where a recording is; an address and an absolute path stay as they are."""
        if "://" in audio:
            return RemoteAudio(audio)
        if self._found is None and self._tries < _TRIES and not os.path.isabs(audio):
            self._tries += 1
            self._found = next((f for f in self._folders if _exists(f / audio)), None)
        found = (self._found or self._folders[0]) / audio
        if "\\" in audio and not _exists(found):  # as Windows writes it
            return self.path(audio.replace("\\", "/"))
        return str(found)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _split_in(name: str) -> str | None:
    words = re.split(r"[-_.]", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _lists_audio(path: Path, reading: Reading) -> bool:
    """Whether the first row of a manifest names a recording."""
    if not path.is_file():
        return False
    try:
        first = next((row for _, row in _rows(path, reading, first=True) if isinstance(row, Mapping)), {})
        first, _ = _of_cut(first)
    except (UserError, ValueError, csv.Error):
        return False
    asked = reading.options.audio_column
    if path.name == _PARQUET:
        return "file_name" in first
    return bool(set(first) & {*AUDIO_COLUMNS, *([asked] if asked else [])})


def _rows(path: Path, reading: Reading, first: bool = False) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Line number and fields of every line that holds anything, or what is wrong with it.

    first: whether the first is all that is wanted, of a file that may be anything
    """
    suffix = manifest_suffix(path)
    if suffix in (".csv", ".tsv"):
        yield from _table(path, reading, first)
        return
    if suffix == ".parquet":
        try:
            batches = pq.ParquetFile(path).iter_batches()
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)})") from None
        return
    lines = reading.lines(path, errors="replace" if first else "strict")
    start = next(((number, line) for number, line in lines if line.strip()), None)
    if start is None:
        return
    if suffix == ".json" and start[1].lstrip().startswith("["):
        try:
            rows = parse_json(reading.text(path))
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        yield from enumerate(
            (row if isinstance(row, dict) else "expected a JSON object" for row in rows), start=1
        )
        return
    for number, line in itertools.chain([start], lines):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            yield number, f"not JSON ({getattr(error, 'msg', error)})"
            continue
        yield number, row if isinstance(row, dict) else f"expected a JSON object, found {line[:40]!r}"


def _table(path: Path, reading: Reading, first: bool) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # word times of a long recording
    errors = "replace" if first else "strict"
    header_line = next((line for _, line in reading.lines(path, "", errors)), "")
    tabs = manifest_suffix(path) == ".tsv"
    delimiter = "\t" if tabs else max(",;\t|", key=header_line.count)
    header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter), [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice and not first:
        raise UserError(f"{path}: its header names {twice[0]} twice")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    if tabs and not first and (set(header) >= _COMMON_VOICE or not _is_quoted(path, reading, len(header))):
        quoting = csv.QUOTE_NONE
    text = (line for _, line in reading.lines(path, "", errors))
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting)
    next(reader, None)
    before = 1
    for cells in reader:
        number, before = before + 1, reader.line_num
        if not cells:
            continue
        if len(cells) != len(header):
            yield number, f"has {len(cells)} cells, the header {len(header)}: is a quotation mark not closed?"
        elif any(mark in cell for cell in cells for mark in ("\n", "\r")) and _swallows(
            cells, delimiter, header
        ):
            yield number, "holds other rows: is a quotation mark not closed?"
        else:
            yield reader.line_num, dict(zip(header, cells, strict=True))


def _swallows(cells: list[str], delimiter: str, header: list[str]) -> bool:
    """Whether a cell holds a line that looks like a row."""
    lines = [line for cell in cells for line in cell.splitlines()[1:]]
    return len(header) > 1 and any(line.count(delimiter) >= len(header) - 1 for line in lines)


def _is_quoted(path: Path, reading: Reading, columns: int) -> bool:
    """Whether quotation marks in a TSV enclose cells: if a cell begins with one, it ends with one, on every line."""
    for _, line in reading.lines(path):
        for cell in line.rstrip("\r\n").split("\t"):
            if cell.startswith('"') and not (len(cell) > 1 and cell.endswith('"')):
                return (
                    sum(1 for _, row in reading.lines(path) if row.count("\t") + 1 != columns and row.strip())
                    > 0
                )
    return True


def _of_cut(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], int | None]:
    """A row of ours from a Lhotse cut, and its channel of a recording with several; other rows as they are.

    Raises ValueError for cuts that are no one recording.
    """
    if row.get("type") not in _CUTS and not ("recording" in row and "supervisions" in row):
        return row, None
    try:
        return _cut_row(row), _channel(row)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a cut as Lhotse writes it ({error})") from None


def _cut_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = row.get("type")
    recording, supervisions = row.get("recording"), row.get("supervisions") or []
    if kind not in (None, "MonoCut") or not isinstance(recording, Mapping):
        raise ValueError(
            f"a cut of the kind {kind}, or without a recording: only MonoCuts with audio are read"
        )
    sources = recording.get("sources") or [{}]
    if len(sources) != 1 or sources[0].get("type") not in ("file", "url"):
        raise ValueError(f"its recording is not one file but {[source.get('type') for source in sources]}")
    supervisions = sorted(supervisions, key=lambda one: one.get("start") or 0.0)
    # Libriheavy's texts as printed, where the text itself is not given.
    custom = [((one.get("custom") or {}).get("texts") or [None])[0] for one in supervisions]
    texts = [one.get("text") or other for one, other in zip(supervisions, custom, strict=True)]
    speakers = {str(one["speaker"]) for one in supervisions if one.get("speaker")}
    languages = {str(one["language"]) for one in supervisions if one.get("language")}
    return {
        "id": row.get("id"),
        "audio": sources[0].get("source"),
        "start": row.get("start"),
        "duration": row.get("duration"),
        "text": " ".join(text for text in texts if text),
        "speaker": speakers.pop() if len(speakers) == 1 else None,
        "language": languages.pop() if len(languages) == 1 else None,
        **{name: row[name] for name in ("split", "words") if name in row},
    }


def _channel(row: Mapping[str, Any]) -> int | None:
    """Which channel of a recording with several a Lhotse cut is."""
    recording, channel = row.get("recording"), row.get("channel")
    if not isinstance(recording, Mapping) or not isinstance(channel, int):
        return None
    several = any(len(source.get("channels") or ()) > 1 for source in recording.get("sources") or ())
    return channel if several else None
