"""Speech of a model while it trains: progress that can be heard."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from codec.foundation import UserError, write_bytes
from data import write_audio
from slm.documents.rows import TextRows, TokenRows
from slm.generation.planning import Prompt
from slm.generation.results import SpokenResult
from slm.generation.speech_lm import SpeechLM
from slm.models.checkpoint import SpeechCapabilities
from slm.training.config import SamplesConfig
from slm.training.data import TrainingData

_MOST_WORDS = 12  # of a validation text


@dataclass(frozen=True)
class Sample:
    """One piece of speech."""

    name: str  # "read-0", "continued-1"
    text: str | None
    audio: Tensor  # (samples,) float32
    sampling_rate: int


class SampleMaker:
    """Makes the same requests every time, so that one hears the progress."""

    def __init__(self, config: SamplesConfig, data: TrainingData, capabilities: SpeechCapabilities) -> None:
        self.config, self.data, self.capabilities = config, data, capabilities
        self._speaker: SpeechLM | None = None
        self.is_able = config.count > 0 and bool(data.validation or config.texts)

    def make(self, model: PreTrainedModel) -> list[Sample]:
        """Samples of a model, which stays as it is. The seeds are fixed, and the global random state does not change.

        If the codec cannot be loaded or the model cannot speak, a message says so once, and there are no samples.
        """
        if not self.is_able:
            return []
        try:
            with _speaking(model):
                return list(self._samples(model))
        except (UserError, OSError) as error:
            self.is_able = False
            print(f"train-slm: no samples of speech: {error}", file=sys.stderr)
            return []

    def _samples(self, model: PreTrainedModel) -> Iterator[Sample]:
        if self._speaker is None:
            self._speaker = SpeechLM(model, self.data.vocabulary, self.capabilities)
        speaker, config = self._speaker, self.config
        if self.capabilities.speak_format is not None:
            for number, (text, voice) in enumerate(self._texts()):
                yield _sample(f"read-{number}", text, speaker.speak(text, voice=voice, seed=number))
        for number, prompt in enumerate(self._beginnings()):
            yield _sample(
                f"continued-{number}",
                None,
                speaker.continue_speech(prompt, seconds=config.seconds, seed=number),
            )

    def _texts(self) -> list[tuple[str, str | None]]:
        """Texts, and the voice that reads each."""
        voices = self.data.vocabulary.voices
        if self.config.texts:
            return [(text, None) for text in self.config.texts[: self.config.count]]
        found = []
        for rows, row in self._rows():
            text, speaker = rows.text(row), rows.speaker(row)
            words = (text or "").split()[:_MOST_WORDS]
            if any(map(str.isalnum, "".join(words))):
                found.append((" ".join(words), speaker if speaker in voices else None))
        return found[: self.config.count]

    def _beginnings(self) -> list[Prompt]:
        codec = self.data.vocabulary.codec
        frames = max(1, round(self.config.prompt_seconds * codec.frame_rate))
        return [
            Prompt(rows.codes(row)[: frames * codec.num_quantizers], rows.text(row))
            for rows, row in self._rows()
        ][: self.config.count]

    def _rows(self) -> Iterator[tuple[TokenRows, int]]:
        """Validation rows of all datasets in turn, spread over each."""
        sets = [
            rows for rows in self.data.validation.values() if len(rows) and not isinstance(rows, TextRows)
        ]
        for number in range(self.config.count):
            for rows in sets:
                yield rows, number * len(rows) // self.config.count


def write_samples(directory: Path, step: int, samples: list[Sample]) -> list[Path]:
    """Write each sample as `step-00001000-read-0.wav`, with its text beside it. Returns the paths of the audio."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for sample in samples:
        path = directory / f"step-{step:08d}-{sample.name}.wav"
        write_audio(path, sample.audio, sample.sampling_rate)
        if sample.text is not None:
            write_bytes(path.with_suffix(".txt"), f"{sample.text}\n".encode())
        paths.append(path)
    return paths


def _sample(name: str, text: str | None, spoken: SpokenResult) -> Sample:
    return Sample(name, text, spoken.audio, spoken.sampling_rate)


@contextmanager
def _speaking(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, and an attention with a cache; the one of training reads whole blocks."""
    was_training, attention = model.training, model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)
