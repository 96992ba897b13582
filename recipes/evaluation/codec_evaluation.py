"""A codec on a corpus: what is lost between the recordings and what comes back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from codec.mel import MelConfig
from codec.metrics import CodebookUse, Column, Interval, bootstrap_ratio
from codec.runs import Progress
from data import AudioError, Utterance, audio_info, read_audio
from recipes.evaluation.reconstruction import Reconstruction, Reconstructor
from recipes.evaluation.scoring import Scorer, Scores, ScoringTask
from recipes.evaluation.speed import CodecSpeed, codec_speed

RECORDING = "recording"
VOCODER = "vocoder on true mels"
CODEC = "codec"

BEFORE_VOCODER = Column("log_mel_l1_before_vocoder", "log-mel L1 before vocoder", "lower")

_SPEED_SECONDS = 60.0  # of audio to time on
_EXAMPLES = 3  # recordings kept to be heard


@dataclass(frozen=True)
class UtteranceRow:
    """One utterance through one system."""

    utterance: Utterance
    system: str
    seconds: float
    frames: int
    scores: Scores
    mel_l1: float = float("nan")  # before the vocoder

    def value(self, key: str) -> float:
        """A metric by its column key; NaN where it was not measured."""
        if key == BEFORE_VOCODER.key:
            return self.mel_l1
        return self.scores.values.get(key, float("nan"))


@dataclass(frozen=True)
class Example:
    """A recording and what came of it, to be heard and seen."""

    id: str
    recording: Tensor  # (samples,)
    reconstruction: Reconstruction


@dataclass
class CodecEvaluation:
    """Everything measured."""

    columns: list[Column]
    mel_config: MelConfig | None  # of the mel before the vocoder; None where the codec has none
    rows: list[UtteranceRow]
    codes: CodebookUse
    frames: int
    seconds: float
    speed: CodecSpeed
    skipped: dict[str, str]  # metric -> why, and the cure
    failures: list[dict[str, str]] = field(default_factory=list)  # id, reason
    examples: list[Example] = field(default_factory=list)

    @property
    def systems(self) -> list[str]:
        """Those that have rows, in the order of the table."""
        present = {row.system for row in self.rows}
        return [system for system in (RECORDING, VOCODER, CODEC) if system in present]

    def of(self, system: str) -> list[UtteranceRow]:
        """The rows of one system."""
        return [row for row in self.rows if row.system == system]

    def mean(self, system: str, key: str) -> tuple[float, int]:
        """Mean over the utterances where the metric is defined, and how many those are."""
        values = np.array([row.value(key) for row in self.of(system)])
        values = values[~np.isnan(values)]
        return (float(values.mean()), len(values)) if len(values) else (float("nan"), 0)

    def error_rate(self, system: str, unit: str) -> Interval:
        """Corpus error rate by `unit` "words" or "characters", with its 95 % interval."""
        counts = [getattr(row.scores, unit) for row in self.of(system)]
        counts = [count for count in counts if count is not None]
        errors = np.array([count.errors for count in counts])
        return bootstrap_ratio(errors, np.array([count.length for count in counts]))


def evaluate(
    codec: Any,
    utterances: Sequence[Utterance],
    scorer: Scorer,
    gain: float = 1.0,
    device: str = "cpu",
) -> CodecEvaluation:
    """Put every utterance, times `gain`, through `codec` and score it beside its recording.

    A recording that cannot be read is a failure, named, and the others go on. Recordings and vocoder output
    are scored too: the first bounds the error rates from below, the second says what the vocoder alone costs.
    Raises AudioError when no recording at all can be read.
    """
    rate = codec.config.sampling_rate
    reconstructor = Reconstructor(codec, device)
    speed = codec_speed(reconstructor, _first_waveforms(utterances, rate, gain), rate)
    columns = [BEFORE_VOCODER] if reconstructor.mel_config is not None and scorer.columns else []
    result = CodecEvaluation(
        columns=[*columns, *scorer.columns],
        mel_config=reconstructor.mel_config,
        rows=[],
        codes=CodebookUse(codec.config.codebook_sizes),
        frames=0,
        seconds=0.0,
        speed=speed,
        skipped=scorer.skipped,
    )
    with Progress(len(utterances), unit="utterances", label="evaluating") as progress:
        for row, scores in scorer.run(_tasks(reconstructor, utterances, scorer, gain, result)):
            result.rows.append(
                UtteranceRow(row.utterance, row.system, row.seconds, row.frames, scores, row.mel_l1)
            )
            if row.system == CODEC:
                progress.update(1, f"{result.seconds:,.0f} s of audio read")
    return result


@dataclass(frozen=True)
class _Pending:
    utterance: Utterance
    system: str
    seconds: float
    frames: int
    mel_l1: float = float("nan")


def _tasks(
    reconstructor: Reconstructor,
    utterances: Sequence[Utterance],
    scorer: Scorer,
    gain: float,
    result: CodecEvaluation,
) -> Iterator[tuple[_Pending, ScoringTask]]:
    """Codes each utterance and hands out its waveforms; counts codes, frames and failures on the way."""
    rate = reconstructor.codec.config.sampling_rate
    for utterance in utterances:
        try:
            waveform = read_audio(utterance.path, rate) * gain
        except AudioError as error:
            result.failures.append({"id": utterance.id, "reason": str(error)})
            continue
        seconds = len(waveform) / rate
        result.seconds += seconds
        if not scorer.columns and scorer.asr is None:  # only the codes were asked for
            codes = reconstructor.encode(waveform)
            result.codes.update(codes)
            result.frames += codes.shape[-1]
            yield _Pending(utterance, CODEC, seconds, codes.shape[-1]), ScoringTask(waveform.numpy(), rate)
            continue
        made = reconstructor.reconstruct(waveform)
        frames = made.codes.shape[-1]
        result.codes.update(made.codes)
        result.frames += frames
        if len(result.examples) < _EXAMPLES:
            result.examples.append(Example(utterance.id, waveform, made))
        text = utterance.text if scorer.asr is not None else None
        reference = waveform.numpy()
        if text is not None:
            yield _Pending(utterance, RECORDING, seconds, frames), ScoringTask(reference, rate, text=text)
        if made.vocoded is not None:
            yield (
                _Pending(utterance, VOCODER, seconds, frames),
                ScoringTask(made.vocoded.numpy(), rate, reference, text),
            )
        mel_l1 = reconstructor.mel_l1(waveform, made.mel)
        yield (
            _Pending(utterance, CODEC, seconds, frames, mel_l1),
            ScoringTask(made.audio.numpy(), rate, reference, text),
        )


def _first_waveforms(utterances: Sequence[Utterance], rate: int, gain: float) -> list[Tensor]:
    """Enough readable recordings to time the codec on."""
    waveforms: list[Tensor] = []
    reason: AudioError | None = None
    for utterance in utterances:
        try:
            # a recording of hours is not read for this
            if waveforms and audio_info(utterance.path).seconds > _SPEED_SECONDS:
                continue
            waveforms.append(read_audio(utterance.path, rate)[: int(_SPEED_SECONDS * rate)] * gain)
        except AudioError as error:
            reason = error
            continue
        if sum(map(len, waveforms)) >= _SPEED_SECONDS * rate:
            break
    if not waveforms:
        raise reason if reason is not None else AudioError("no utterance to evaluate")
    return waveforms
