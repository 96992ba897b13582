"""Speech recognisers, and word and character error rates of what they hear.

Recognisers: pocketsphinx offline, or any Hugging Face ASR model. Error counts: jiwer, under one stated normalisation.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import pipeline

from codec.foundation.errors import UserError, first_line
from codec.metrics.metric import require
from codec.metrics.spectral import resampled

POCKETSPHINX = "pocketsphinx"
_SHORTEST_SECONDS = 0.025  # below, wav2vec 2.0 and its like have not one frame to hear
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})
_NOT_A_WORD = re.compile(r"[^\w']|_")
_EDGE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")


class Recognizer(Protocol):
    """What turns speech into the words that are compared."""

    name: str

    def transcribe(self, waveform: Tensor, sampling_rate: int) -> str:
        """Words of (samples,); the empty string where nothing was heard."""
        ...


def open_recognizer(
    name: str, device: str | torch.device = "cpu", language: str | None = None, revision: str | None = None
) -> Recognizer:
    """`pocketsphinx`, or a Hugging Face ASR model by hub id or directory.

    Args:
        language: for multilingual Whisper: a name ("german") or a code ("de"); None lets it guess.
        revision: of a hub model.

    Raises MissingDependency without pocketsphinx, UserError for a model that cannot be loaded.
    """
    if name == POCKETSPHINX:
        return PocketSphinxRecognizer()
    return TransformersRecognizer(name, device, language, revision)


class PocketSphinxRecognizer:
    """pocketsphinx 5 with the US English acoustic and language model of its own package; on the CPU, offline.

    About 5 x real time on one core. It hears about a quarter of the words of clean read speech wrongly: read
    its rates as a ratio to those of the recordings.
    """

    name = POCKETSPHINX
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
        self._whisper = self._pipeline.model.config.model_type == "whisper"
        generation = getattr(self._pipeline.model, "generation_config", None)  # CTC models have none
        multilingual = bool(getattr(generation, "is_multilingual", False))
        if language is not None and not (self._whisper and multilingual):
            raise UserError(f"the speech recogniser {name} takes no language: leave it out")
        self._generate: dict[str, Any] = {}
        if self._whisper and multilingual:
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
            if self._whisper:
                options["return_timestamps"] = True  # Whisper's own sequential decoding of long audio
            else:
                options["chunk_length_s"] = self.chunk_seconds
        heard = self._pipeline({"raw": samples, "sampling_rate": self.sampling_rate}, **options)
        return str(heard["text"]).strip()


def normalize_transcript(text: str) -> str:
    """What is compared: NFKC, lower case, words of letters and digits with inner apostrophes, single spaces.

    Every other sign separates words ("twenty-one" is two). Numerals and abbreviations are not spelled out, so
    write references the way they are read.
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    text = _EDGE_APOSTROPHE.sub(" ", _NOT_A_WORD.sub(" ", text))
    return " ".join(text.split())


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


def word_errors(reference: str, hypothesis: str) -> EditCounts:
    """Word edits of one utterance after normalisation. Raises MissingDependency without jiwer."""
    jiwer = require("jiwer", "the word error rate")
    output = jiwer.process_words(normalize_transcript(reference), normalize_transcript(hypothesis))
    return _counts(output)


def character_errors(reference: str, hypothesis: str) -> EditCounts:
    """Character edits of one utterance after normalisation; the space between words counts as a character."""
    jiwer = require("jiwer", "the character error rate")
    output = jiwer.process_characters(normalize_transcript(reference), normalize_transcript(hypothesis))
    return _counts(output)


def _counts(output) -> EditCounts:  # type: ignore[no-untyped-def]  # a jiwer.WordOutput or CharacterOutput
    return EditCounts(
        output.substitutions,
        output.deletions,
        output.insertions,
        output.hits + output.substitutions + output.deletions,
    )
