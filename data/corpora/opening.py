"""Opening a corpus: find out its layout, and read what it lists."""

import csv
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from codec.foundation import UserError
from data.config import CorpusFormat
from data.corpora.emilia import is_emilia, read_emilia
from data.corpora.folder import audio_files, read_folder
from data.corpora.huggingface import read_huggingface
from data.corpora.librispeech import librispeech_subsets, read_librispeech
from data.corpora.ljspeech import read_ljspeech
from data.corpora.manifest import AUDIO_FIELDS, read_manifest
from data.corpora.seed_tts_eval import read_seed_tts_eval, seed_tts_lists
from data.corpora.utterance import Corpus, Utterance, corpus_name, make_corpus
from data.corpora.vctk import read_vctk, vctk_root

_EXPECTED = (
    "expected metadata.csv beside wavs/ (LJSpeech layout), train-*/dev-*/test-* folders (LibriSpeech, LibriTTS), "
    "wav48_silence_trimmed/ beside txt/ (VCTK), Emilia's tar files, meta.lst (Seed-TTS-eval), a .jsonl, .csv or "
    ".tsv manifest, a Hugging Face audio dataset, or a folder of audio files"
)
_MANIFESTS = (".jsonl", ".json", ".csv", ".tsv")


def open_corpus(
    path: str | os.PathLike[str],
    format: CorpusFormat = "auto",
    speaker: str | None = None,
    language: str | None = None,
) -> Corpus:
    """Read what a corpus lists: utterances sorted by id, no audio yet.

    `format` "auto" looks at what is there; a dataset on the hub needs "huggingface". `speaker` and `language` are for
    corpora that do not say them.

    Raises UserError that says what was found and what was expected.
    """
    if format not in get_args(CorpusFormat):
        raise UserError(
            f"unknown corpus format {format!r}: choose one of {', '.join(get_args(CorpusFormat))}"
        )
    location = Path(path)
    if format == "huggingface":
        utterances = read_huggingface(str(path))
    elif not location.exists():
        raise UserError(
            f"{path}: no such file or directory (a dataset on the Hugging Face hub needs format huggingface)"
        )
    else:
        if format == "auto":
            format = _sniff(location)
        utterances = _reader(format)(location)
    name = corpus_name(location) if location.exists() else str(path)
    return make_corpus(name, str(path), format, utterances, speaker, language)


def _reader(format: CorpusFormat) -> Callable[[Path], list[Utterance]]:
    readers: dict[str, Callable[[Path], list[Utterance]]] = {
        "ljspeech": _read_ljspeech,
        "librispeech": _of_directory(read_librispeech),
        "vctk": _of_directory(read_vctk),
        "emilia": read_emilia,
        "seed-tts-eval": read_seed_tts_eval,
        "folder": _of_directory(read_folder),
        "manifest": lambda path: read_manifest(_manifest_in(path) or path),
        "huggingface": lambda path: read_huggingface(str(path)),
    }
    return readers[format]


def _sniff(path: Path) -> CorpusFormat:
    if path.is_file():
        if path.suffix.lower() in _MANIFESTS:
            return "manifest"
        if path.suffix.lower() == ".lst":
            return "seed-tts-eval"
        if path.suffix.lower() == ".tar":
            return "emilia"
        raise UserError(f"{path}: is a single file, not a corpus; {_EXPECTED}")
    if (path / "metadata.json").is_file() and any(path.glob("*-of-*.parquet")):
        raise UserError(f"{path}: is a token dataset already, not a corpus of audio")
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return "huggingface"
    if _manifest_in(path) is not None:
        return "manifest"
    if (path / "metadata.csv").is_file() and (path / "wavs").is_dir():
        return "ljspeech"
    if librispeech_subsets(path):
        return "librispeech"
    if vctk_root(path) is not None:
        return "vctk"
    if seed_tts_lists(path):
        return "seed-tts-eval"
    if is_emilia(path):
        return "emilia"
    if any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")):
        return "huggingface"
    if next(audio_files(path), None) is not None:
        return "folder"
    raise UserError(f"{path}: no corpus found: {_contents(path)}; {_EXPECTED}")


def _manifest_in(path: Path) -> Path | None:
    """A directory's own manifest: `manifest.jsonl`, or Hugging Face's `metadata.jsonl` / `metadata.csv`."""
    if not path.is_dir():
        return None
    for name in ("manifest.jsonl", "manifest.csv", "metadata.jsonl"):
        if (path / name).is_file():
            return path / name
    table = path / "metadata.csv"
    if table.is_file():
        with open(table, encoding="utf-8-sig", errors="replace", newline="") as file:
            # LJSpeech's file of the same name has no header and another delimiter.
            header = next(csv.reader([file.readline()]), [])
        if set(header) & set(AUDIO_FIELDS):
            return table
    return None


def _read_ljspeech(path: Path) -> list[Utterance]:
    for needed in ("metadata.csv", "wavs"):
        if not (path / needed).exists():
            raise UserError(f"{path}: no {needed} in it: the LJSpeech layout is metadata.csv beside wavs/")
    return read_ljspeech(path)


def _of_directory(read: Callable[[Path], list[Utterance]]) -> Callable[[Path], list[Utterance]]:
    def checked(path: Path) -> list[Utterance]:
        if not path.is_dir():
            raise UserError(f"{path}: is a file; expected a directory")
        return read(path)

    return checked


def _contents(path: Path) -> str:
    """What a directory holds, by extension, for the error message."""
    counts: Counter[str] = Counter()
    for _, _, names in os.walk(path):
        counts.update(os.path.splitext(name)[1].lower() or "(no extension)" for name in names)
        if counts.total() > 10_000:
            break
    if not counts:
        return "it is empty"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "it holds " + ", ".join(f"{count} {extension}" for extension, count in ordered[:5])
