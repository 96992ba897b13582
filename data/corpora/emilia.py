"""Emilia as published: tar files of `<id>.mp3` and `<id>.json` pairs, or the same pairs unpacked, or older batches.

A batch of the older release is `EN/EN_B00000.jsonl` beside `EN/EN_B00000/<speaker>/mp3/<id>.mp3`.

The JSON of an utterance has `id`, `wav`, `text`, `speaker`, `language` and more. The tar files (`Emilia/EN/*.tar`,
`Emilia-YODAS/EN/*.tar`) are read as they are. Emilia has no split: all of it is training data, and its authors test
on other corpora, Seed-TTS-eval among them.
"""

import io
import itertools
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from codec.foundation import UserError
from data.corpora.reading import Reading, bad_utterance, parse_json
from data.corpora.utterance import Utterance
from data.decoding import AudioError, AudioObject, ByteRange
from data.recordings import AUDIO_EXTENSIONS

_BATCH = re.compile(r"[A-Z]{2}_B\d+")  # EN_B00000
_SHARD = re.compile(r"[A-Z]{2}[-_]B\d+")  # EN-B000000
_UTTERANCE = re.compile(r"[A-Z]{2}[-_].+_W\d+")  # EN_B00000_S00000_W000000
_THREADS = 8  # reading an archive's headers waits for the disk


def is_emilia(path: Path) -> bool:
    """Whether an entry has a name that only Emilia uses; looks at some hundred entries at most."""
    if path.is_file():
        members = itertools.islice(archived_files(path, ".json"), 10)
        return bool(_SHARD.fullmatch(path.stem)) or any(
            _UTTERANCE.fullmatch(Path(file.audio.name).stem) for file in members
        )
    seen = 0
    for _, folders, names in os.walk(path):
        folders.sort()
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension == ".tar" and _SHARD.fullmatch(stem):
                return True
            if extension == ".jsonl" and _BATCH.fullmatch(stem):
                return True
            if extension == ".json" and _UTTERANCE.fullmatch(stem):
                return True
        seen += 1 + len(names)
        if seen > 500:
            return False
    return False


def read_emilia(path: Path, reading: Reading) -> Iterator[Utterance]:
    """Every utterance below a directory, or of one tar file, with text and speaker where the files say them.

    A broken line has a `BadRow` as audio. Raises UserError for a broken archive, and when no file has Emilia's layout.
    """
    archives, batches, singles = _files(path, reading)
    if not archives + batches + singles:
        raise UserError(
            f"{path}: Emilia's layout is tar files of <id>.mp3 with <id>.json, those pairs unpacked, or "
            "EN_B00000.jsonl beside EN_B00000/: nothing of the kind is here"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(archives), _THREADS):
            some = archives[start : start + _THREADS]
            for found, lonely in pool.map(lambda archive: _read_archive(archive, reading), some):
                reading.left_out["JSON files without a recording of the same name"] += lonely
                yield from found
    for batch in batches:
        yield from _read_batch(batch, reading)
    yield from filter(None, (_single(file, reading) for file in singles))


def _files(
    path: Path, reading: Reading
) -> tuple[list[Path], list[Path], list[Path]]:  # archives, batches, single JSON files
    if path.is_file():
        return [path], [], []
    archives, batches, singles = [], [], []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name.endswith(".tar"):
                archives.append(Path(folder, name))
            elif name.endswith(".jsonl") and _BATCH.fullmatch(name.removesuffix(".jsonl")):
                batches.append(Path(folder, name))
            elif name.endswith(".json") and _UTTERANCE.fullmatch(name.removesuffix(".json")):
                singles.append(Path(folder, name))
        if told := {name.removesuffix(".json") for name in names if name.endswith(".json")}:
            sounds = {
                os.path.splitext(name)[0] for name in names if os.path.splitext(name)[1] in AUDIO_EXTENSIONS
            }
            reading.left_out["recordings without a JSON file of the same name"] += len(sounds - told)
    return archives, batches, singles


def _read_archive(path: Path, reading: Reading) -> tuple[list[Utterance], int]:
    """The pairs of one tar file, which need not lie beside each other; and how many JSON files have no recording."""
    audio: dict[str, ArchivedAudio] = {}
    about: dict[str, bytes] = {}
    twice: set[str] = set()
    for file in archived_files(path, read_suffix=".json"):
        stem, extension = os.path.splitext(file.audio.name)
        if extension.lower() in AUDIO_EXTENSIONS:
            if audio.setdefault(stem, file.audio) is not file.audio:
                twice.add(stem)
        elif file.content is not None and about.setdefault(stem, file.content) is not file.content:
            twice.add(stem)
    found: list[Utterance | None] = []
    for stem, source in audio.items():
        name = os.path.basename(stem)
        try:
            if stem in twice:
                raise UserError(f"{path}, {stem}: the archive holds several files of this name")
            place = f"{path}, {stem}.json"
            found.append(_utterance(_parsed(about.get(stem, b"{}"), place), source, name, place, reading))
        except UserError as error:
            found.append(bad_utterance(name, str(error)))
    return [one for one in found if one is not None], len(about.keys() - audio.keys())


def _read_batch(path: Path, reading: Reading) -> Iterator[Utterance]:
    for number, line in reading.lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = _parsed(line, place)
            if not isinstance(row.get("wav"), str):
                raise UserError(f"{place}: no `wav`, which says where the recording is")
        except UserError as error:
            yield bad_utterance(f"{path.stem}-line-{number}", str(error))
            continue
        source = str(path.parent / row["wav"])
        if utterance := _utterance(row, source, Path(row["wav"]).stem, place, reading):
            yield utterance


def _single(path: Path, reading: Reading) -> Utterance | None:
    try:
        row = _parsed(path.read_bytes(), str(path))
    except UserError as error:
        return bad_utterance(path.stem, str(error))
    beside: Iterable[Path] = (path.with_suffix(suffix) for suffix in (".mp3", ".wav", ".flac", ".ogg"))
    # A text without a recording keeps its place: reading it is a failure that gets counted.
    audio = next((file for file in beside if file.is_file()), path.with_suffix(".mp3"))
    return _utterance(row, str(audio), path.stem, str(path), reading)


def _parsed(content: str | bytes, place: str) -> Mapping[str, Any]:
    try:
        row = parse_json(content)
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error})") from None
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: expected a JSON object with text, speaker, language")
    return row


def _utterance(
    row: Mapping[str, Any], audio: str | AudioObject, name: str, place: str, reading: Reading
) -> Utterance | None:
    if isinstance(row.get("text"), str):
        row = {**row, "text": row["text"].strip()}
    # The id is in the speaker's name and the file's as well; releases differ in which fields they fill.
    return reading.utterance(row, audio, name, None, place, ("text",))


@dataclass(frozen=True, slots=True)
class ArchivedAudio:
    """An audio file in an uncompressed tar file, read where it lies: nothing is unpacked."""

    archive: str
    name: str
    offset: int  # bytes, of the file's content in the archive
    size: int  # bytes

    def __str__(self) -> str:
        return f"{self.archive}, {self.name}"

    def open_audio(self) -> BinaryIO:
        try:
            file = open(self.archive, "rb", buffering=0)  # noqa: SIM115  (closed with the stream that is returned)
        except OSError as error:
            raise AudioError(f"{self}: cannot be opened ({error.strerror})") from None
        return io.BufferedReader(ByteRange(file, self.offset, self.size))


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file in a tar file, with its content if that was asked for."""

    audio: ArchivedAudio
    content: bytes | None


def archived_files(path: Path, read_suffix: str | tuple[str, ...]) -> Iterator[ArchivedFile]:
    """The regular files of a tar file, in its order; those whose names end in `read_suffix` come with their content.

    Only the headers of the others are read. Raises UserError for a compressed tar file, in which nothing can be found
    without unpacking it, for a broken one, and for any other file.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                content = None
                if member.name.endswith(read_suffix):
                    file = archive.extractfile(member)
                    content = file.read() if file is not None else None
                yield ArchivedFile(
                    ArchivedAudio(str(path), member.name, member.offset_data, member.size), content
                )
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all otherwise
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path}: not an uncompressed tar file, or a broken one ({error}): unpack it, or fetch it again"
        ) from None
