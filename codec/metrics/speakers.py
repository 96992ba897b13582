"""Speaker similarity: the cosine of two speaker embeddings, by Resemblyzer, ECAPA-TDNN or a Hugging Face model."""

import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

from codec.foundation.errors import UserError, first_line
from codec.foundation.quiet import quiet_transformers
from codec.metrics.ecapa import ECAPA_WEIGHTS, ECAPAEmbedder
from codec.metrics.metric import Column, MissingDependency, require
from codec.metrics.spectral import check_pair, resampled

RESEMBLYZER = "resemblyzer"
SHORTEST_SECONDS = 0.5  # below, there is less than the frames that such models look at together


class SpeakerEmbedder(Protocol):
    """What tells speakers apart."""

    name: str
    sampling_rate: int

    def embed(self, waveform: Tensor, sampling_rate: int) -> Tensor | None:
        """(samples,) -> (dim,) of length 1, on the CPU; None for less than half a second."""
        ...


def open_embedder(name: str, device: str | torch.device = "cpu") -> SpeakerEmbedder:
    """`resemblyzer`, SpeechBrain's ECAPA-TDNN, or a speaker verification model of Hugging Face; by hub id or directory.

    Raises MissingDependency without resemblyzer, UserError for a model that cannot be loaded.
    """
    if name == RESEMBLYZER:
        return ResemblyzerEmbedder(device)
    if name.startswith("speechbrain/") or (Path(name) / ECAPA_WEIGHTS).is_file():
        return ECAPAEmbedder(name, device)
    return TransformersEmbedder(name, device)


class ResemblyzerEmbedder:
    """A small LSTM over mel frames (Wan et al., arXiv 1710.10467; the package resemblyzer has the weights).

    Its own preprocessing shortens silences and raises low levels. Raises MissingDependency without resemblyzer.
    """

    name = RESEMBLYZER
    sampling_rate = 16_000

    def __init__(self, device: str | torch.device = "cpu"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated names in its imports
                self._package: Any = require("resemblyzer", "speaker similarity by Resemblyzer")
        except MissingDependency as missing:
            raise MissingDependency(f"{missing} && pip install --no-deps resemblyzer") from missing
        self._encoder = self._package.VoiceEncoder(torch.device(device), verbose=False)

    @torch.inference_mode()
    def embed(self, waveform: Tensor, sampling_rate: int) -> Tensor | None:
        """(samples,) -> (256,) of length 1, on the CPU; None for less than half a second of speech."""
        samples = resampled(waveform, sampling_rate, self.sampling_rate)
        shortest = SHORTEST_SECONDS * self.sampling_rate
        if len(samples) < shortest or not samples.any():
            return None
        speech = self._package.preprocess_wav(samples.numpy())
        if len(speech) < shortest:
            return None
        return F.normalize(torch.from_numpy(self._encoder.embed_utterance(speech)).float(), dim=0)


class TransformersEmbedder:
    """A speaker verification model (`AutoModelForAudioXVector`, such as microsoft/wavlm-base-plus-sv).

    Args:
        name: hub id or directory.

    Raises UserError for what is no such model.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        self.name = name
        self.device = torch.device(device)
        try:
            with quiet_transformers():
                self._features: Any = AutoFeatureExtractor.from_pretrained(name)
                model, report = AutoModelForAudioXVector.from_pretrained(
                    name, dtype=torch.float32, output_loading_info=True
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"cannot load the speaker model {name}: {reason} (give the hub id or directory of a Hugging Face "
                "speaker verification model, such as microsoft/wavlm-base-plus-sv)"
            ) from error
        # The loss's own weights are left out of some checkpoints. Anything else that is missing would be random.
        if missing := sorted(key for key in report["missing_keys"] if not key.startswith("objective.")):
            raise UserError(f"{name} is no speaker model: it lacks {missing[0]}")
        self._model: Any = model.eval().to(self.device)
        self.sampling_rate = int(self._features.sampling_rate)

    @torch.inference_mode()
    def embed(self, waveform: Tensor, sampling_rate: int) -> Tensor | None:
        """(samples,) -> (dim,) of length 1, on the CPU; None for less than half a second."""
        samples = resampled(waveform, sampling_rate, self.sampling_rate)
        if len(samples) < SHORTEST_SECONDS * self.sampling_rate:
            return None
        inputs = self._features(samples.numpy(), sampling_rate=self.sampling_rate, return_tensors="pt")
        embedding = self._model(**inputs.to(self.device)).embeddings[0]
        return F.normalize(embedding.float(), dim=0).cpu()


class SpeakerSimilarity:
    """Cosine similarity of two recordings' speakers, -1 to 1; a recording's embedding is kept for the next call."""

    column = Column("speaker_similarity", "speaker similarity", "higher")
    needs_reference = True

    def __init__(self, embedder: SpeakerEmbedder):
        self._embedder = embedder
        self._last: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, reference: Tensor | None, estimate: Tensor, sampling_rate: int) -> float:
        """Both (samples,); what the estimate has beyond the reference is cut. NaN for less than half a second."""
        if reference is None:
            raise ValueError("similar to whom? a reference is needed")
        check_pair(reference, estimate)
        target = self._of_reference(reference, sampling_rate)
        drawn = self._embedder.embed(estimate[: len(reference)], sampling_rate)
        return float(target @ drawn) if target is not None and drawn is not None else float("nan")

    def _of_reference(self, reference: Tensor, sampling_rate: int) -> Tensor | None:
        # several codecs are compared with one recording, one after the other
        if self._last is None or not (
            self._last[0].data_ptr() == reference.data_ptr() and len(self._last[0]) == len(reference)
        ):
            self._last = (reference, self._embedder.embed(reference, sampling_rate))
        return self._last[1]
