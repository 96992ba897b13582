"""Codecs on a corpus: what is lost between the recordings and what comes back, for several codecs side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from codec.foundation import Progress
from codec.metrics import DEV_LOG_MEL, CodebookUse, Column, Interval, StabilityTrial, bootstrap_ratio
from codec.metrics.spectral import resampled
from codec.nn.mel import MelConfig
from data import AudioError, Utterance, audio_info, read_audio
from recipes.evaluation.reconstruction import CodecSpeed, Reconstruction, Reconstructor, codec_speed
from recipes.evaluation.scoring import ERROR_RATES, Scorer, Scores, ScoringTask

RECORDING = "recording"
BEFORE_VOCODER = Column("log_mel_l1_before_vocoder", "log-mel L1 before vocoder", "lower")
# All codecs are compared with one and the same recording, whatever their own rate: one that leaves out the upper half
# of the spectrum is seen to do so. The metrics are defined for 24 kHz.
SCORING_RATE = DEV_LOG_MEL.sampling_rate

_SPEED_SECONDS = 60.0  # of audio to time on, at most
_EXAMPLES = 3  # recordings kept to be heard


def vocoder_of(codec: str) -> str:
    """The row of a codec's vocoder on the recordings' own mels: what the vocoder alone costs."""
    return f"vocoder of {codec} on true mels"


@dataclass(frozen=True)
class NamedCodec:
    """A codec, and what it is called in tables; names are unique."""

    name: str
    codec: Any  # what `load_codec` gives
    is_prefix: bool = False  # the first quantizers of a codec that is measured too, whose vocoder is the same


@dataclass(frozen=True)
class UtteranceRow:
    """One utterance through one system."""

    utterance: Utterance
    system: str
    codec: str | None  # None: the recording itself
    seconds: float
    frames: int | None
    scores: Scores = field(default_factory=Scores)
    mel_l1: float = float("nan")  # before the vocoder

    def value(self, key: str) -> float:
        """A metric by its column key; NaN where it was not measured."""
        if key == BEFORE_VOCODER.key:
            return self.mel_l1
        return self.scores.values.get(key, float("nan"))


@dataclass(frozen=True)
class Example:
    """A recording and what each codec made of it, to be heard and seen."""

    id: str
    recording: Tensor  # (samples,) at the scoring rate
    reconstructions: dict[str, Reconstruction]  # by codec


@dataclass
class CodecResult:
    """What was measured of one codec by itself."""

    name: str
    sampling_rate: int
    frame_rate: float
    mel_config: MelConfig | None  # of the mel before the vocoder; None where the codec has none
    codes: CodebookUse
    speed: CodecSpeed
    stability: StabilityTrial
    frames: int = 0


@dataclass
class CodecEvaluation:
    """Everything measured."""

    columns: list[Column]
    codecs: list[CodecResult]
    skipped: dict[str, str]  # metric -> why, and the cure
    rows: list[UtteranceRow] = field(default_factory=list)
    utterances: int = 0
    seconds: float = 0.0
    failures: list[dict[str, str]] = field(default_factory=list)  # id, reason
    examples: list[Example] = field(default_factory=list)

    @property
    def systems(self) -> list[str]:
        """Those that have rows, in the order of the table: the recording, then each codec after its vocoder."""
        present = {row.system for row in self.rows}
        order = [RECORDING]
        for codec in self.codecs:
            order += [vocoder_of(codec.name), codec.name]
        return [system for system in order if system in present]

    def of(self, system: str) -> list[UtteranceRow]:
        """The rows of one system."""
        return [row for row in self.rows if row.system == system]

    def mean(self, system: str, key: str) -> tuple[float, int]:
        """Mean over the utterances where the metric is defined, and how many those are."""
        values = np.array([row.value(key) for row in self.of(system)])
        values = values[np.isfinite(values)]
        return (float(values.mean()), len(values)) if len(values) else (float("nan"), 0)

    def error_rate(self, system: str, unit: str) -> Interval:
        """Corpus error rate by `unit` "words" or "characters", with its 95 % interval."""
        counts = [getattr(row.scores, unit) for row in self.of(system)]
        counts = [count for count in counts if count is not None]
        errors = np.array([count.errors for count in counts])
        return bootstrap_ratio(errors, np.array([count.length for count in counts]))


def evaluate(
    codecs: Sequence[NamedCodec],
    utterances: Sequence[Utterance],
    scorer: Scorer,
    gain: float = 1.0,
    device: str = "cpu",
    stability_utterances: int = 0,
) -> CodecEvaluation:
    """Put every utterance, times `gain`, through each codec and score it beside its recording.

    A recording that cannot be read is a failure, named, and the others go on. Recordings and vocoder output
    are scored too: the first bounds the scores, the second says what the vocoder alone costs. Of
    `stability_utterances`, evenly spread, changed versions are coded too.
    Raises AudioError when no recording at all can be read.
    """
    contestants = []
    for named in codecs:
        rate = named.codec.config.sampling_rate
        reconstructor = Reconstructor(named.codec, device, vocodes=not named.is_prefix)
        speed = codec_speed(reconstructor, _first_waveforms(utterances, rate, gain), rate)
        contestants.append(_Contestant(reconstructor, _empty_result(named, reconstructor, speed)))
    has_mel = scorer.columns and any(entry.result.mel_config is not None for entry in contestants)
    result = CodecEvaluation(
        columns=[*([BEFORE_VOCODER] if has_mel else []), *scorer.columns],
        codecs=[entry.result for entry in contestants],
        skipped=dict(scorer.skipped),
    )
    if scorer.asr is not None and not any(utterance.text for utterance in utterances):
        result.skipped.setdefault(ERROR_RATES, "the corpus says nothing of what is said: no transcripts")
    count = min(stability_utterances, len(utterances))
    tried = {number * len(utterances) // count for number in range(count)}
    with Progress(len(utterances), unit="utterances", label="evaluating") as progress:
        last = contestants[-1].result.name
        for row, scores in scorer.run(_tasks(contestants, utterances, scorer, gain, tried, result)):
            result.rows.append(replace(row, scores=scores))
            if row.system == last:
                progress.update(1, f"{result.seconds:,.0f} s of audio read")
    return result


@dataclass
class _Contestant:
    reconstructor: Reconstructor
    result: CodecResult


class _Recording:
    """One utterance at every rate that it is asked for. Raises AudioError when it cannot be read."""

    def __init__(self, utterance: Utterance, gain: float):
        self._utterance, self._gain = utterance, gain
        self._read: dict[int, Tensor] = {}

    def at(self, rate: int) -> Tensor:
        """(samples,)."""
        if rate not in self._read:
            self._read[rate] = read_audio(self._utterance.path, rate) * self._gain
        return self._read[rate]

    @cached_property
    def reference(self) -> np.ndarray:
        """(samples,) at the scoring rate: the same array for all codecs."""
        return self.at(SCORING_RATE).numpy()


def _empty_result(named: NamedCodec, reconstructor: Reconstructor, speed: CodecSpeed) -> CodecResult:
    config = named.codec.config
    return CodecResult(
        name=named.name,
        sampling_rate=config.sampling_rate,
        frame_rate=config.sampling_rate / config.hop_length,
        mel_config=reconstructor.mel_config,
        codes=CodebookUse(config.codebook_sizes),
        speed=speed,
        stability=StabilityTrial(config.sampling_rate, config.hop_length, len(config.codebook_sizes)),
    )


def _tasks(
    contestants: Sequence[_Contestant],
    utterances: Sequence[Utterance],
    scorer: Scorer,
    gain: float,
    tried: set[int],
    result: CodecEvaluation,
) -> Iterator[tuple[UtteranceRow, ScoringTask]]:
    """Codes each utterance and hands out its waveforms; counts codes, frames and failures on the way."""
    codes_only = not scorer.columns and scorer.asr is None
    for number, utterance in enumerate(utterances):
        recording = _Recording(utterance, gain)
        try:
            reference = recording.reference
        except AudioError as error:
            result.failures.append({"id": utterance.id, "reason": str(error)})
            continue
        seconds = len(reference) / SCORING_RATE
        result.utterances += 1
        result.seconds += seconds
        text = utterance.text if scorer.asr is not None else None
        if text is not None or scorer.judges_recordings:
            yield (
                UtteranceRow(utterance, RECORDING, None, seconds, None),
                ScoringTask(reference, SCORING_RATE, text=text, language=utterance.language),
            )
        reconstructions: dict[str, Reconstruction] = {}
        for entry in contestants:
            name, reconstructor = entry.result.name, entry.reconstructor
            waveform = recording.at(entry.result.sampling_rate)
            if codes_only:
                codes = reconstructor.encode(waveform).cpu()
                task = ScoringTask(reference, SCORING_RATE)
                yield UtteranceRow(utterance, name, name, seconds, codes.shape[-1]), task
            else:
                made = reconstructor.reconstruct(waveform)
                codes = made.codes
                reconstructions[name] = made
                yield from _outputs(entry, utterance, waveform, made, reference, seconds, text)
            entry.result.codes.update(codes)
            entry.result.frames += codes.shape[-1]
            if number in tried:
                entry.result.stability.update(reconstructor.encode, waveform, codes, utterance.id)
        if reconstructions and len(result.examples) < _EXAMPLES:
            result.examples.append(Example(utterance.id, recording.at(SCORING_RATE), reconstructions))


def _outputs(
    entry: _Contestant,
    utterance: Utterance,
    waveform: Tensor,
    made: Reconstruction,
    reference: np.ndarray,
    seconds: float,
    text: str | None,
) -> Iterator[tuple[UtteranceRow, ScoringTask]]:
    """What a codec made of an utterance: its vocoder's output on the true mel, where it has one, and its own."""
    name, rate, frames = entry.result.name, entry.result.sampling_rate, made.codes.shape[-1]
    if made.vocoded is not None:
        audio = _at_scoring_rate(made.vocoded, rate, len(reference))
        yield (
            UtteranceRow(utterance, vocoder_of(name), name, seconds, frames),
            ScoringTask(audio, SCORING_RATE, reference, text, language=utterance.language),
        )
    decoded = _at_scoring_rate(made.audio, rate, len(reference))
    mel_l1 = entry.reconstructor.mel_l1(waveform, made.mel)
    yield (
        UtteranceRow(utterance, name, name, seconds, frames, mel_l1=mel_l1),
        ScoringTask(decoded, SCORING_RATE, reference, text, language=utterance.language),
    )


def _at_scoring_rate(audio: Tensor, rate: int, samples: int) -> np.ndarray:
    """(samples',) at the scoring rate, at least `samples` long: resampling may round the last sample away."""
    audio = resampled(audio, rate, SCORING_RATE)
    return F.pad(audio, (0, max(0, samples - len(audio)))).numpy()


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
