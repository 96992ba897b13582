"""Letting a model speak while it is being trained: progress that can be heard."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from codec.foundation import UserError, write_bytes
from slm.documents import TextRows
from slm.models.checkpoint import SpeakingHabits
from slm.training.data import TrainingData
from slm.training.samples_config import SamplesConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slm.documents import TokenRows
    from slm.generation.speech_lm import Prompt, SpeechLM, SpokenResult

_MOST_WORDS = 12  # of a validation text


@dataclass(frozen=True)
class Sample:
    """One piece of speech."""

    name: str  # "read-0", "continued-1"
    text: str | None
    audio: Tensor  # (samples,) float32
    sampling_rate: int


class SampleMaker:
    """Makes the same requests every time, so that one hears what training has changed."""

    def __init__(self, config: SamplesConfig, data: TrainingData, habits: SpeakingHabits) -> None:
        self.config, self.data, self.habits = config, data, habits
        self._speaker: SpeechLM | None = None
        self.is_able = config.count > 0 and bool(data.validation or config.texts)

    def make(self, model: "PreTrainedModel") -> list[Sample]:
        """Samples of a model as it is; it is left as it came. Randomness is that of fixed seeds, none is used up.

        Where the codec cannot be loaded or the model cannot speak, this is said once, and there are no samples.
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

    def _samples(self, model: "PreTrainedModel") -> Iterator[Sample]:
        from slm.generation.speech_lm import SpeechLM

        if self._speaker is None:
            self._speaker = SpeechLM(model, self.data.vocabulary, self.habits)
        speaker, config = self._speaker, self.config
        if self.habits.speak_format is not None:
            for number, (text, voice) in enumerate(self._texts()):
                yield _sample(f"read-{number}", text, speaker.speak(text, voice=voice, seed=number))
        for number, prompt in enumerate(self._beginnings()):
            yield _sample(
                f"continued-{number}",
                None,
                speaker.continue_speech(prompt, seconds=config.seconds, seed=number),
            )

    def _texts(self) -> list[tuple[str, str | None]]:
        """Texts and whose voice shall read them."""
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

    def _beginnings(self) -> "list[Prompt]":
        from slm.generation.speech_lm import Prompt

        codec = self.data.vocabulary.codec
        frames = max(1, round(self.config.prompt_seconds * codec.frame_rate))
        return [
            Prompt(rows.codes(row)[: frames * codec.num_quantizers], rows.text(row))
            for rows, row in self._rows()
        ][: self.config.count]

    def _rows(self) -> "Iterator[tuple[TokenRows, int]]":
        """Validation rows of all datasets in turn, spread over each."""
        sets = [
            rows for rows in self.data.validation.values() if len(rows) and not isinstance(rows, TextRows)
        ]
        for number in range(self.config.count):
            for rows in sets:
                yield rows, number * len(rows) // self.config.count


def write_samples(directory: Path, step: int, samples: list[Sample]) -> list[Path]:
    """Each sample as `step-00001000-read-0.wav`, and what was to be said beside it; the files' paths."""
    from data import write_audio

    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for sample in samples:
        path = directory / f"step-{step:08d}-{sample.name}.wav"
        write_audio(path, sample.audio, sample.sampling_rate)
        if sample.text is not None:
            write_bytes(path.with_suffix(".txt"), f"{sample.text}\n".encode())
        paths.append(path)
    return paths


def _sample(name: str, text: str | None, spoken: "SpokenResult") -> Sample:
    return Sample(name, text, spoken.audio, spoken.sampling_rate)


@contextmanager
def _speaking(model: "PreTrainedModel") -> Iterator[None]:
    """Evaluation mode, and attention that knows a cache; what training attends with reads whole blocks."""
    was_training, attention = model.training, model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)
