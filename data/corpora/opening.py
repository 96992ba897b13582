"""Opening a corpus: find out its layout, and read what it lists."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

from codec.foundation import UserError, file_identity
from data.config import CorpusFormat, CorpusOptions, CorpusSource
from data.corpora.emilia import is_emilia, read_emilia
from data.corpora.folder import ARCHIVES, audio_files, read_folder
from data.corpora.huggingface import read_huggingface
from data.corpora.kaldi import kaldi_folders, read_kaldi
from data.corpora.librispeech import librispeech_subsets, read_librispeech
from data.corpora.ljspeech import ljspeech_audio, read_ljspeech
from data.corpora.manifest import (
    common_voice_files,
    fixed_manifest,
    manifest_suffix,
    manifests_in,
    read_common_voice,
    read_manifest,
)
from data.corpora.reading import Reading
from data.corpora.scanned import is_scanned, open_scanned
from data.corpora.seed_tts_eval import read_seed_tts_eval, seed_tts_lists
from data.corpora.utterance import Corpus, Utterance, checked, corpus_name, order
from data.corpora.vctk import read_vctk, vctk_root
from data.corpora.webdataset import archives_in, read_webdataset
from data.decoding import AudioPart, AudioSource, BadRow

_EXPECTED = (
    "expected metadata.csv beside wavs/ (LJSpeech layout), train-*/dev-*/test-* folders (LibriSpeech, LibriTTS), "
    "wav48_silence_trimmed/ beside txt/ (VCTK), Emilia's or WebDataset's tar files, meta.lst (Seed-TTS-eval), a "
    ".jsonl, .csv or .tsv manifest, Common Voice, Kaldi's wav.scp, a Hugging Face audio dataset, or a folder of audio "
    "files"
)
_MOST_COUNTED = 100_000  # recordings of a list that are looked for among the files beside it
Reader = Callable[[Path, Reading], Iterable[Utterance]]


class Listing:
    """A corpus whose layout is known and that is not read yet.

    Raises UserError that says what was found and what was expected.
    """

    def __init__(self, source: CorpusSource) -> None:
        self.source, self.reading = source, Reading(options=source.options)
        if source.format not in get_args(CorpusFormat):
            raise UserError(
                f"unknown corpus format {source.format!r}: choose one of {', '.join(get_args(CorpusFormat))}"
            )
        path = Path(source.path)
        if not path.exists() and source.format != "huggingface":
            raise UserError(
                f"{path}: no such file or directory (a dataset on the Hugging Face hub needs format huggingface)"
            )
        self.format = _sniff(path, self.reading) if source.format == "auto" else source.format

    def read(self) -> Iterator[Utterance]:
        """What it lists, in the order of its files. Raises UserError for columns that were asked for in vain."""
        reading, channel = self.reading, self.source.options.channel
        path, listed = Path(self.source.path), set[tuple[int, int] | None]()
        is_list = self.format in ("manifest", "kaldi") and path.is_dir()
        for utterance in _READERS[self.format](path, reading):
            if is_list and len(listed) < _MOST_COUNTED:
                listed.add(_file_of(utterance))
            if channel is not None:
                utterance = replace(utterance, path=_of_channel(utterance.path, channel))
            yield utterance
        if is_list and len(listed) < _MOST_COUNTED:
            below = {file_identity(file) for file in audio_files(path)}
            reading.left_out["recordings that no list names"] += len(below - listed)
        for name in ("text", "audio", "id", "speaker", "split"):
            asked = getattr(reading.options, f"{name}_column")
            if asked is not None and asked not in reading.used.get(name, ()):
                there = ", ".join(reading.columns) or "none"
                raise UserError(
                    f"{self.source.path}: --{name}_column {asked}: no row has anything there; its columns are: {there}"
                )

    def corpus(self, in_order: Iterable[Utterance]) -> Corpus:
        """The corpus of its utterances when they are sorted; `Corpus.utterances` is an iterator over them."""
        path, source = Path(self.source.path), self.source
        name = corpus_name(path) if path.exists() else source.path
        utterances = checked(in_order, source.path, self.format, source.speaker, source.language)
        column = source.options.audio_column
        return Corpus(name, source.path, self.format, utterances, column, self.reading)  # type: ignore[arg-type]


def open_corpus(
    path: str | os.PathLike[str],
    format: CorpusFormat = "auto",
    speaker: str | None = None,
    language: str | None = None,
    options: CorpusOptions | None = None,
) -> Corpus:
    """Read what a corpus lists: utterances sorted by id, no audio yet.

    `format` "auto" looks at what is there; a dataset on the hub needs "huggingface". `speaker` and `language` are for
    corpora that do not say them, `options` for those that say things in columns of their own. A row that cannot be
    used stays in the list; reading its audio raises AudioError, and so it is counted with the failures. A corpus that
    `codec-slm scan` has scanned stays in its files.

    Raises UserError that says what was found and what was expected.
    """
    source = CorpusSource(os.fspath(path), format, speaker, language, options or CorpusOptions())
    if is_scanned(source.path):
        return open_scanned(source)
    listing = Listing(source)
    corpus = listing.corpus(sorted(listing.read(), key=order))
    return replace(corpus, utterances=list(corpus.utterances))


def _file_of(utterance: Utterance) -> tuple[int, int] | None:
    """The identity of the file that an utterance is from; None where it is in none of its own."""
    source = utterance.path.source if isinstance(utterance.path, AudioPart) else utterance.path
    return file_identity(source) if isinstance(source, str) else None


def _of_channel(source: AudioSource, channel: int) -> AudioSource:
    if isinstance(source, BadRow):
        return source
    if isinstance(source, AudioPart):
        return source if source.channel is not None else replace(source, channel=channel)
    return AudioPart(source, channel=channel)


def _sniff(path: Path, reading: Reading) -> CorpusFormat:
    if path.is_file():
        if manifest_suffix(path) is not None:
            return "manifest"
        if path.suffix.lower() == ".lst":
            return "seed-tts-eval"
        if path.name == "wav.scp":
            return "kaldi"
        if path.suffix.lower() == ".tar":
            return "emilia" if is_emilia(path) else "webdataset"
        if path.suffix.lower() == ".parquet":
            return "huggingface"
        if path.suffix.lower() in ARCHIVES:
            raise UserError(f"{path}: a compressed archive: unpack it (tar files are read as they are)")
        raise UserError(f"{path}: is a single file, not a corpus; {_EXPECTED}")
    if (path / "metadata.json").is_file() and any(path.glob("*-of-*.parquet")):
        raise UserError(f"{path}: is a token dataset already, not a corpus of audio")
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return "huggingface"
    if fixed_manifest(path, reading):
        return "manifest"
    if (path / "metadata.csv").is_file() and ljspeech_audio(path) is not None:
        return "ljspeech"
    if librispeech_subsets(path):
        return "librispeech"
    if vctk_root(path) is not None:
        return "vctk"
    if seed_tts_lists(path):
        return "seed-tts-eval"
    if is_emilia(path):
        return "emilia"
    if common_voice_files(path):
        return "common-voice"
    if kaldi_folders(path):
        return "kaldi"
    if any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")):
        return "huggingface"
    if manifests_in(path, reading):
        return "manifest"
    if archives_in(path) and next(audio_files(path), None) is None:
        return "webdataset"
    if next(audio_files(path), None) is not None:
        return "folder"
    raise UserError(f"{path}: no corpus found: {_contents(path)}; {_EXPECTED}")


def _read_ljspeech(path: Path, reading: Reading) -> list[Utterance]:
    if not (path / "metadata.csv").exists() or ljspeech_audio(path) is None:
        missing = "wavs" if (path / "metadata.csv").exists() else "metadata.csv"
        raise UserError(f"{path}: no {missing} in it: the LJSpeech layout is metadata.csv beside wavs/")
    return read_ljspeech(path, reading)


def _read_manifests(path: Path, reading: Reading) -> Iterator[Utterance]:
    listed = manifests_in(path, reading) if path.is_dir() else [(path, None, "")]
    if not listed:
        raise UserError(f"{path}: no manifest in it: {_EXPECTED}")
    for file, split, prefix in listed:
        yield from read_manifest(file, reading, split, prefix, by_folder=path.is_dir())


def _read_huggingface(path: Path, reading: Reading) -> Iterable[Utterance]:
    # An audiofolder's metadata is a manifest; the library would decode audio with a package that may not be there.
    if path.is_dir() and not any(path.glob("**/*.parquet")) and not any(path.glob("**/*.arrow")):
        if manifests_in(path, reading):
            return _read_manifests(path, reading)
        if next(audio_files(path), None) is not None:
            return read_folder(path, reading)
    return read_huggingface(str(path), reading)


def _of_directory(read: Reader) -> Reader:
    def of_directory(path: Path, reading: Reading) -> Iterable[Utterance]:
        if not path.is_dir():
            raise UserError(f"{path}: is a file; expected a directory")
        return read(path, reading)

    return of_directory


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


_READERS: dict[str, Reader] = {
    "ljspeech": _of_directory(_read_ljspeech),
    "librispeech": _of_directory(read_librispeech),
    "vctk": _of_directory(read_vctk),
    "emilia": read_emilia,
    "seed-tts-eval": read_seed_tts_eval,
    "common-voice": _of_directory(read_common_voice),
    "kaldi": read_kaldi,
    "webdataset": read_webdataset,
    "folder": _of_directory(read_folder),
    "manifest": _read_manifests,
    "huggingface": _read_huggingface,
}
