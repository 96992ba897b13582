"""How well a speech language model speaks: error rates, endings, pace, repeats and speed over many sentences."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from codec.metrics import EditCounts, Interval, bootstrap_mean, bootstrap_ratio, wilson_interval
from slm.evaluation.repetition import CodeRepetition

# Speech shorter or longer than the reference by these factors has skipped words or babbled on.
PLAUSIBLE_DURATION = (0.5, 2.0)


@dataclass(frozen=True)
class SpokenSentence:
    """One sentence as a model spoke it."""

    seconds: float  # of audio
    ended: bool  # the model itself came to the end; False where a guard cut it off
    computing_seconds: float  # text in to waveform out
    reference_seconds: float | None = None  # what the same sentence takes elsewhere, such as a synthesiser
    words: EditCounts | None = None  # between the sentence and what a recogniser heard
    characters: EditCounts | None = None
    text_characters: int | None = None  # of the sentence, normalised as for the error rate
    sounding_seconds: float | None = None  # of audio without the silence around it
    repetition: CodeRepetition | None = None  # of its codes
    values: dict[str, float] = field(default_factory=dict)  # of the audio, by key of a metric's column

    @property
    def duration_ratio(self) -> float:
        """Seconds over the reference's; NaN without a reference."""
        return self.seconds / self.reference_seconds if self.reference_seconds else float("nan")

    @property
    def plausible(self) -> bool:
        """Whether it ended by itself at a plausible length; always False without a reference."""
        low, high = PLAUSIBLE_DURATION
        return self.ended and low <= self.duration_ratio <= high


@dataclass(frozen=True)
class SpeechSummary:
    """All sentences of one voice or system together; NaN where nothing was measured."""

    sentences: int
    seconds: float
    word_error_rate: Interval
    character_error_rate: Interval
    ended: Interval  # share that ended by itself
    plausible: float  # share that ended by itself within half to twice the reference's length
    at_length: Interval  # the same share of those with a reference, with its interval
    duration_ratio: float  # median over sentences
    longest_ratio: float
    shortest_ratio: float
    real_time: float  # seconds of audio a second of computing
    speaking_rate: Interval  # characters a second, silence around the sentence left out
    repeated: Interval  # mean share of n-grams of frames that were there before (`CodeRepetition`)
    longest_run: float  # frames in a row that are all the same, in the worst sentence
    values: dict[str, Interval] = field(default_factory=dict)  # means over sentences, by key of a column


def summarize_speech(sentences: Sequence[SpokenSentence]) -> SpeechSummary:
    """Corpus error rates with bootstrap intervals over sentences, and what else can be said of them together."""
    ratios = [sentence.duration_ratio for sentence in sentences if not math.isnan(sentence.duration_ratio)]
    plausible = sum(sentence.plausible for sentence in sentences)
    seconds = sum(sentence.seconds for sentence in sentences)
    computing = sum(sentence.computing_seconds for sentence in sentences)
    nothing = float("nan")
    timed = [s for s in sentences if s.sounding_seconds and s.text_characters]
    repetitions = [sentence.repetition for sentence in sentences if sentence.repetition is not None]
    keys = dict.fromkeys(key for sentence in sentences for key in sentence.values)
    return SpeechSummary(
        sentences=len(sentences),
        seconds=seconds,
        word_error_rate=_error_rate([sentence.words for sentence in sentences]),
        character_error_rate=_error_rate([sentence.characters for sentence in sentences]),
        ended=wilson_interval(sum(sentence.ended for sentence in sentences), len(sentences)),
        plausible=plausible / len(ratios) if ratios else nothing,
        at_length=wilson_interval(plausible, len(ratios)),
        duration_ratio=median(ratios) if ratios else nothing,
        longest_ratio=max(ratios, default=nothing),
        shortest_ratio=min(ratios, default=nothing),
        real_time=seconds / computing if computing else nothing,
        speaking_rate=bootstrap_ratio(
            np.array([sentence.text_characters for sentence in timed], float),
            np.array([sentence.sounding_seconds for sentence in timed], float),
        ),
        repeated=mean_of((repetition.repeated for repetition in repetitions), at_most=1.0),
        longest_run=float(max((r.longest_run for r in repetitions), default=nothing)),
        values={key: mean_of(s.values.get(key, nothing) for s in sentences) for key in keys},
    )


def mean_of(values: Iterable[float], at_most: float = math.inf) -> Interval:
    """Mean of the values that are not NaN, with its bootstrap interval, which ends at `at_most`; NaN of none."""
    there = np.array(list(values), float)
    return bootstrap_mean(there[~np.isnan(there)], at_most=at_most)


def _error_rate(counts: Sequence[EditCounts | None]) -> Interval:
    measured = [count for count in counts if count is not None]
    errors = np.array([count.errors for count in measured], float)
    return bootstrap_ratio(errors, np.array([count.length for count in measured], float))
