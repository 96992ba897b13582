"""Speech recognisers, and word and character error rates of what they hear.

Recognisers: pocketsphinx offline, Whisper by faster-whisper, or any Hugging Face ASR model. Error counts: jiwer, under
one stated normalisation.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import pipeline
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from codec.foundation.errors import UserError, first_line
from codec.metrics.metric import require
from codec.metrics.spectral import resampled

POCKETSPHINX = "pocketsphinx"
FASTER_WHISPER = "faster-whisper:"
"""Prefix of a recogniser's name; a directory follows."""

_SHORTEST_SECONDS = 0.025  # below, wav2vec 2.0 and its like have not one frame to hear
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})
_NOT_A_WORD = re.compile(r"[^\w']|_")
_EDGE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")
_LEADING_ZERO = re.compile(r"(?<!\d)0\d+")
_HALF_OF_DAY = re.compile(r"\b([ap])\. ?m\b\.?", re.IGNORECASE)
_BETWEEN_DIGITS = re.compile(r"(?<=\d)\s?(?=\d)")


class Recognizer(Protocol):
    """What turns speech into the words that are compared."""

    name: str
    writes_digits: bool  # "21" for "twenty-one", as Whisper does

    def transcribe(self, waveform: Tensor, sampling_rate: int) -> str:
        """Words of (samples,); the empty string where nothing was heard."""
        ...


def open_recognizer(
    name: str, device: str | torch.device = "cpu", language: str | None = None, revision: str | None = None
) -> Recognizer:
    """`pocketsphinx`, `faster-whisper:DIRECTORY`, or a Hugging Face ASR model by hub id or directory.

    Args:
        language: for multilingual Whisper: a name ("german") or a code ("de"); None lets it guess.
        revision: of a hub model.

    Raises MissingDependency without pocketsphinx or faster-whisper, UserError for a model that cannot be loaded.
    """
    if name == POCKETSPHINX:
        return PocketSphinxRecognizer()
    if name.startswith(FASTER_WHISPER):
        return FasterWhisperRecognizer(name, device, language)
    return TransformersRecognizer(name, device, language, revision)


class PocketSphinxRecognizer:
    """pocketsphinx 5 with the US English acoustic and language model of its own package; on the CPU, offline.

    About 5 x real time on one core. It hears about a quarter of the words of clean read speech wrongly: read
    its rates as a ratio to those of the recordings.
    """

    name = POCKETSPHINX
    writes_digits = False
    sampling_rate = 16_000

    def __init__(self) -> None:
        package = require("pocketsphinx", "speech recognition with pocketsphinx")
        self._decoder = package.Decoder(samprate=self.sampling_rate, loglevel="FATAL")

    def transcribe(self, waveform: Tensor, sampling_rate: int) -> str:
        """Words of (samples,), whatever was heard before."""
        if not len(waveform):
            return ""
        samples = resampled(waveform, sampling_rate, self.sampling_rate).clamp(-1.0, 1.0)
        pcm = (samples * 32_767).round().to(torch.int16).numpy().astype("<i2").tobytes()
        decoder = self._decoder
        # The front end carries its noise estimate from one utterance to the next: without this, a transcript
        # depends on what was transcribed before it, and so on how many processes share the work.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""


class FasterWhisperRecognizer:
    """Whisper in CTranslate2's form: beam 5, no timestamps, 8 bits, each 30 s by itself.

    Args:
        name: "faster-whisper:" and a directory with model.bin, config.json and tokenizer.json.
        language: a name ("german") or a code ("de"); None lets a multilingual model guess.

    Raises MissingDependency without faster-whisper, UserError for a directory without such a model.
    """

    writes_digits = True
    sampling_rate = 16_000

    def __init__(self, name: str, device: str | torch.device = "cpu", language: str | None = None):
        package = require("faster_whisper", "speech recognition with faster-whisper")
        self.name = name
        directory = Path(name.removeprefix(FASTER_WHISPER)).expanduser()
        if not (directory / "model.bin").is_file():
            raise UserError(f"{directory} holds no Whisper in CTranslate2's form: there is no model.bin")
        device = torch.device(device)
        try:
            self._model: Any = package.WhisperModel(
                str(directory),
                device=device.type,
                device_index=device.index or 0,
                compute_type="int8",
                cpu_threads=torch.get_num_threads(),
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"cannot load the speech recogniser {directory}: {first_line(error)}") from error
        self._language = None if language is None else _language_code(language)
        if self._language is not None and self._language not in self._model.supported_languages:
            raise UserError(f"the speech recogniser {directory} does not know the language {language}")

    def transcribe(self, waveform: Tensor, sampling_rate: int) -> str:
        """Words of (samples,) of any length; none of less than 25 ms."""
        samples = resampled(waveform, sampling_rate, self.sampling_rate).numpy()
        if len(samples) < _SHORTEST_SECONDS * self.sampling_rate:
            return ""
        segments, _ = self._model.transcribe(
            samples,
            language=self._language,
            beam_size=5,
            without_timestamps=True,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()


class TransformersRecognizer:
    """Any speech recognition model of `transformers` (Whisper, CTC, transducers), one utterance at a time.

    Not batched: many CTC models were trained without an attention mask, and their transcripts change with the
    padding of a batch.
    """

    chunk_seconds = 30.0  # CTC and transducer models hear longer audio in overlapping windows

    def __init__(
        self,
        name: str,
        device: str | torch.device = "cpu",
        language: str | None = None,
        revision: str | None = None,
    ):
        self.name = name
        try:
            self._pipeline: Any = pipeline(
                "automatic-speech-recognition", model=name, revision=revision, device=torch.device(device)
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"cannot load the speech recogniser {name}: {reason} "
                "(give 'pocketsphinx', or the directory or hub id of a Hugging Face ASR model)"
            ) from error
        self.sampling_rate = int(self._pipeline.feature_extractor.sampling_rate)  # type: ignore[union-attr]
        self.writes_digits = self._pipeline.model.config.model_type == "whisper"
        generation = getattr(self._pipeline.model, "generation_config", None)  # CTC models have none
        multilingual = bool(getattr(generation, "is_multilingual", False))
        if language is not None and not (self.writes_digits and multilingual):
            raise UserError(f"the speech recogniser {name} takes no language: leave it out")
        self._generate: dict[str, Any] = {}
        if self.writes_digits and multilingual:
            self._generate["task"] = "transcribe"
            if language is not None:
                self._generate["language"] = language

    def transcribe(self, waveform: Tensor, sampling_rate: int) -> str:
        """Words of (samples,) of any length; none of less than 25 ms."""
        samples: np.ndarray = resampled(waveform, sampling_rate, self.sampling_rate).numpy()
        if len(samples) < _SHORTEST_SECONDS * self.sampling_rate:
            return ""
        options: dict[str, Any] = {"generate_kwargs": self._generate} if self._generate else {}
        if len(samples) > self.chunk_seconds * self.sampling_rate:
            if self.writes_digits:
                options["return_timestamps"] = True  # Whisper's own sequential decoding of long audio
            else:
                options["chunk_length_s"] = self.chunk_seconds
        heard = self._pipeline({"raw": samples, "sampling_rate": self.sampling_rate}, **options)
        return str(heard["text"]).strip()


def is_english(language: str | None) -> bool:
    """Whether a name or code means English, as None does."""
    return language is None or _language_code(language) == "en"


def _language_code(language: str) -> str:
    """Whisper's code: "de" for "german", "de" and "de-DE"."""
    short = language.lower().replace("_", "-").split("-")[0]
    return TO_LANGUAGE_CODE.get(short, short)


def normalize_transcript(text: str) -> str:
    """What is compared: NFKC, lower case, words of letters and digits with inner apostrophes, single spaces.

    Every other sign separates words ("twenty-one" is two). Numerals and abbreviations are not spelled out, so
    write references the way they are read.
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    text = _EDGE_APOSTROPHE.sub(" ", _NOT_A_WORD.sub(" ", text))
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _english_normalizer() -> EnglishTextNormalizer:
    return EnglishTextNormalizer({})  # transformers has no list of British spellings


def normalize_english(text: str) -> str:
    """What is compared for recognisers that write digits: Whisper's English normaliser, then `normalize_transcript`.

    Numbers, money, contractions, titles and fillers get one spelling. Digits are compared one by one, because writers
    group them differently ("555-3142", "555 3142").
    """
    text = _HALF_OF_DAY.sub(r"\1m", text.translate(_APOSTROPHES))
    text = _LEADING_ZERO.sub(lambda zeros: " ".join(zeros[0]), text)  # the normaliser takes 05 for 5
    return normalize_transcript(_BETWEEN_DIGITS.sub(" ", _english_normalizer()(text)))


@dataclass(frozen=True)
class EditCounts:
    """Edits between a reference and a hypothesis; add them up over utterances for a corpus's rate."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0  # of the reference, in words or characters

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors a reference unit; can exceed 1; NaN without a reference."""
        return self.errors / self.length if self.length else float("nan")

    def __add__(self, other: "EditCounts") -> "EditCounts":
        return EditCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


def word_errors(
    reference: str, hypothesis: str, normalize: Callable[[str], str] = normalize_transcript
) -> EditCounts:
    """Word edits of one utterance after normalisation. Raises MissingDependency without jiwer."""
    jiwer = require("jiwer", "the word error rate")
    output = jiwer.process_words(normalize(reference), normalize(hypothesis))
    return _counts(output)


def character_errors(
    reference: str, hypothesis: str, normalize: Callable[[str], str] = normalize_transcript
) -> EditCounts:
    """Character edits of one utterance after normalisation; the space between words counts as a character."""
    jiwer = require("jiwer", "the character error rate")
    output = jiwer.process_characters(normalize(reference), normalize(hypothesis))
    return _counts(output)


def _counts(output) -> EditCounts:  # type: ignore[no-untyped-def]  # a jiwer.WordOutput or CharacterOutput
    return EditCounts(
        output.substitutions,
        output.deletions,
        output.insertions,
        output.hits + output.substitutions + output.deletions,
    )
