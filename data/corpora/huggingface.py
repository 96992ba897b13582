"""A Hugging Face audio dataset: saved to disk, a folder that `load_dataset` opens, or a name on the hub."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import numpy as np
import pyarrow as pa
import soundfile
from datasets import Dataset

from codec.foundation import UserError
from data.audio import AudioError
from data.corpora.manifest import parse_words
from data.corpora.utterance import Utterance, split_name

# The names in use on the hub, the most telling first.
_AUDIO = ("audio", "speech", "wav", "file")
_ID = ("id", "utterance_id", "segment_id", "uid", "key")
_TEXT = ("text_normalized", "normalized_text", "text", "sentence", "transcription", "transcript")
_SPEAKER = ("speaker", "speaker_id", "client_id", "speaker_name")
_LANGUAGE = ("language", "lang", "locale", "language_id")


@dataclass(frozen=True)
class DatasetAudio:
    """The audio of one row. Opened, it is the encoded file; only the parts that are read are touched."""

    dataset: Dataset  # the audio column alone, undecoded
    row: int
    name: str

    def __str__(self) -> str:
        return self.name

    def open_audio(self) -> BinaryIO:
        (column,) = self.dataset.column_names
        cell = self.dataset.with_format("arrow")[self.row][column].chunk(0)  # one row, not copied
        if pa.types.is_struct(cell.type) and cell.type.get_field_index("bytes") >= 0:
            encoded = cell.field("bytes")[0]
            if encoded.is_valid:
                return pa.BufferReader(encoded.as_buffer())
        return _encoded(cell[0].as_py(), self.name)


def read_huggingface(name: str) -> list[Utterance]:
    """All rows of all splits; `name` is a directory, or `owner/dataset` or `owner/dataset:config` on the hub.

    Rows without an id are numbered within their split. Raises UserError when there is no such dataset, or no audio in
    it.
    """
    utterances: list[Utterance] = []
    for split, dataset in _load(name).items():
        utterances += _split_utterances(name, str(split), dataset)
    return utterances


def _load(name: str) -> Mapping[Any, Dataset]:
    try:
        path = Path(name)
        if path.is_dir() and any((path / f).is_file() for f in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(name)
        elif path.exists():
            loaded = datasets.load_dataset(name)
        else:
            hub, _, config = name.partition(":")
            loaded = datasets.load_dataset(hub, config or None)
    except Exception as error:  # the library raises many kinds, among them plain OSError and HTTP errors
        first = str(error).strip().split("\n")[0]
        raise UserError(f"{name}: not a dataset that Hugging Face datasets opens ({first[:200]})") from None
    return loaded if isinstance(loaded, Mapping) else {str(loaded.split or "train"): loaded}


def _split_utterances(name: str, split: str, dataset: Dataset) -> Iterator[Utterance]:
    column = _audio_column(name, dataset)
    if isinstance(dataset.features[column], datasets.Audio):
        # Bytes as they are stored: libsndfile decodes them, with no further package.
        dataset = dataset.cast_column(column, datasets.Audio(decode=False))
    audio = dataset.select_columns([column])
    known = split_name(split) or "train"
    identity, text, speaker, language = (
        _named_column(dataset, names) for names in (_ID, _TEXT, _SPEAKER, _LANGUAGE)
    )
    told = [c for c in (identity, text, speaker, language) if c is not None]
    rest = dataset.select_columns(sorted({*told, *({"words"} & set(dataset.column_names))}))
    names = {c: f.names for c, f in dataset.features.items() if isinstance(f, datasets.ClassLabel)}

    def value(row: Mapping[str, Any], field: str | None) -> str | None:
        found = row.get(field) if field else None
        if found is None or found == "":
            return None
        return str(names[field][found] if field in names and isinstance(found, int) else found)

    rows = (
        dict(zip(batch, cells, strict=True))
        for batch in rest.iter(batch_size=1000)
        for cells in zip(*batch.values(), strict=True)
    )
    for number, row in enumerate(rows if rest.column_names else ({} for _ in range(len(dataset)))):
        try:
            words = parse_words(row.get("words"))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{name}, {split} row {number}: cannot read `words` ({error})") from None
        yield Utterance(
            id=value(row, identity) or f"{split}-{number:08d}",
            path=DatasetAudio(audio, number, f"{name}, {split} row {number}"),
            text=value(row, text),
            speaker=value(row, speaker),
            language=value(row, language),
            split=known,
            words=words,
        )


def _audio_column(name: str, dataset: Dataset) -> str:
    for column, feature in dataset.features.items():
        if isinstance(feature, datasets.Audio):
            return column
    for column in _AUDIO:
        if column in dataset.column_names:
            return column
    raise UserError(f"{name}: no audio column among {dataset.column_names}: expected one of {list(_AUDIO)}")


def _named_column(dataset: Dataset, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in dataset.column_names), None)


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
