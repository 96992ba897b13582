"""A Hugging Face audio dataset: saved to disk, a folder that `load_dataset` opens, or a name on the hub."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import datasets
import numpy as np
import pyarrow as pa
import soundfile
from datasets import Dataset

from codec.foundation import UserError, first_line
from data.corpora.reading import NOT_FOR_TRAINING, TEXT_COLUMNS, Reading
from data.corpora.utterance import Utterance, split_name
from data.decoding import AudioError

# The names in use on the hub, the most telling first.
_AUDIO = ("audio", "speech", "wav", "file")
_ID = ("id", "utterance_id", "segment_id", "uid", "key")
_OPENING = Lock()
_TEXT = ("text_normalized", "normalized_text", *(c for c in TEXT_COLUMNS if "normalized" not in c))


@dataclass(frozen=True)
class DatasetAudio:
    """The audio of one row. Opened, it is the encoded file; only the parts that are read are touched."""

    dataset: str  # as for `read_huggingface`
    split: str
    column: str
    row: int

    def __str__(self) -> str:
        return f"{self.dataset}, {self.split} row {self.row}"

    def open_audio(self) -> BinaryIO:
        with _OPENING:  # by one thread for all
            cells = _column(self.dataset, self.split, self.column)
        cell = cells[self.row][self.column].chunk(0)  # one row, not copied
        if pa.types.is_struct(cell.type) and cell.type.get_field_index("bytes") >= 0:
            encoded = cell.field("bytes")[0]
            if encoded.is_valid:
                return pa.BufferReader(encoded.as_buffer())
        return _encoded(cell[0].as_py(), str(self))


@lru_cache(maxsize=8)
def _column(name: str, split: str, column: str) -> Dataset:
    """The cells of a column as Arrow tables, opened once in a process."""
    splits = {str(key): dataset for key, dataset in _load(name).items()}
    return splits[split].select_columns([column]).with_format("arrow")


def read_huggingface(name: str, reading: Reading) -> Iterator[Utterance]:
    """All rows of all splits; `name` is a directory, or `owner/dataset` or `owner/dataset:config` on the hub.

    Rows without an id are numbered within their split. Raises UserError when there is no such dataset, or no audio in
    it.
    """
    _column.cache_clear()
    loaded = _load(name)
    for split, dataset in loaded.items():
        # Of Common Voice, `validated` holds train, validation and test again.
        if str(split) in NOT_FOR_TRAINING or (str(split) == "validated" and "train" in loaded):
            reading.left_out[f"rows of the split {split}, which are not for training"] += len(dataset)
            continue
        yield from _split_utterances(name, str(split), dataset, reading)


def _load(name: str) -> Mapping[Any, Dataset]:
    try:
        path = Path(name)
        if path.is_dir() and any((path / f).is_file() for f in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(name)
        elif path.is_file():
            loaded = datasets.load_dataset("parquet", data_files={split_name(path.stem) or "train": name})
        elif path.exists():
            # Its cache knows a directory with a README by name alone, wherever it lies and whatever has changed in it.
            loaded = datasets.load_dataset(name, description=_state(path))
        else:
            hub, _, config = name.partition(":")
            loaded = datasets.load_dataset(hub, config or None)
    except Exception as error:  # the library raises many kinds, among them plain OSError and HTTP errors
        first = first_line(error.__cause__ or error)  # which is told as "an error occurred"
        raise UserError(f"{name}: not a dataset that Hugging Face datasets opens ({first[:200]})") from None
    found = loaded if isinstance(loaded, Mapping) else {str(loaded.split or "train"): loaded}
    return {split: _undecoded(dataset) for split, dataset in found.items()}


def _state(path: Path) -> str:
    """What changes with the place of a directory and with its files."""
    files = sorted(
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for file in path.rglob("*.*")
        if file.is_file()
    )
    return hashlib.sha256(repr((str(path.resolve()), files)).encode()).hexdigest()[:16]


def _undecoded(dataset: Dataset) -> Dataset:
    """Audio as bytes as they are stored: libsndfile decodes them, with no further package."""
    for column, feature in dataset.features.items():
        if isinstance(feature, datasets.Audio):
            dataset = dataset.cast_column(column, datasets.Audio(decode=False))
    return dataset


def _split_utterances(name: str, split: str, dataset: Dataset, reading: Reading) -> Iterator[Utterance]:
    column = _audio_column(name, dataset, reading)
    reading.used.setdefault("audio", {})[column] = None
    sounds = [c for c, feature in dataset.features.items() if _is_audio(feature)]
    reading.columns.update(dict.fromkeys(dataset.column_names))
    wanted = reading.wanted(_TEXT, _ID)
    rest = dataset.select_columns(
        [c for c in dataset.column_names if c in wanted and c not in {column, *sounds}]
    )
    names = {c: f.names for c, f in dataset.features.items() if isinstance(f, datasets.ClassLabel)}
    rows = (
        dict(zip(batch, cells, strict=True))
        for batch in rest.iter(batch_size=1000)
        for cells in zip(*batch.values(), strict=True)
    )
    for number, row in enumerate(rows if rest.column_names else ({} for _ in range(len(dataset)))):
        for labelled, labels in names.items():
            if isinstance(row.get(labelled), int) and 0 <= row[labelled] < len(labels):
                row[labelled] = labels[row[labelled]]
        place = f"{name}, {split} row {number}"
        source, fallback = DatasetAudio(name, split, column, number), f"{split}-{number:08d}"
        utterance = reading.utterance(
            row, source, fallback, split_name(split) or "train", place, _TEXT, _ID, is_numbered=True
        )
        if utterance is not None:
            yield utterance


def _audio_column(name: str, dataset: Dataset, reading: Reading) -> str:
    """The one that was asked for, else `audio`, else the only one. Raises UserError where that is none."""
    asked = reading.options.audio_column
    if asked is not None:
        if asked not in dataset.column_names:
            raise UserError(f"{name}: no column {asked!r} among {dataset.column_names}")
        return asked
    sounds = [column for column, feature in dataset.features.items() if _is_audio(feature)]
    if _AUDIO[0] in sounds:
        return _AUDIO[0]
    if len(sounds) > 1:
        raise UserError(
            f"{name}: has several columns of audio, {', '.join(sounds)}: choose one with --audio_column"
        )
    if sounds:
        return sounds[0]
    for column in _AUDIO:
        if column in dataset.column_names:
            return column
    raise UserError(
        f"{name}: no audio column among {dataset.column_names}: expected one of {list(_AUDIO)}, or --audio_column"
    )


def _is_audio(feature: Any) -> bool:
    """Whether a column holds audio: by its type, or because its cells are encoded files or samples."""
    keys = set(feature) if isinstance(feature, Mapping) else set()
    return isinstance(feature, datasets.Audio) or "bytes" in keys or {"array", "sampling_rate"} <= keys


def _encoded(value: Any, name: str) -> BinaryIO:
    """A stream of an audio file from a row that names a path, or holds samples with their rate."""
    path = value.get("path") if isinstance(value, Mapping) else value
    if isinstance(path, str):
        try:
            return open(path, "rb")
        except OSError as error:
            raise AudioError(f"{name}: cannot open {path} ({error.strerror})") from None
    if isinstance(value, Mapping) and value.get("array") is not None and value.get("sampling_rate"):
        samples = np.asarray(value["array"], dtype=np.float32)
        stream = io.BytesIO()
        # Floats in a WAV come back bit for bit. Some rows are (channels, samples).
        soundfile.write(
            stream,
            samples.T if samples.ndim == 2 and samples.shape[0] < samples.shape[1] else samples,
            int(value["sampling_rate"]),
            format="WAV",
            subtype="FLOAT",
        )
        stream.seek(0)
        return stream
    raise AudioError(f"{name}: its audio is neither bytes nor a path nor samples with their sampling rate")
