"""How well a speech language model speaks: error rates, endings, pace, repeats and speed over many sentences.

Repetition: in codes of one utterance, in a text, and between texts. Of texts: auto-BLEU, self-BLEU and VERT (GSLM,
arXiv 2102.01192, section 5.3), all low for varied texts. A model that babbles has a high auto-BLEU, one that always
says the same a high self-BLEU. They grow with the length of the texts, and self-BLEU also with their number: compare
only equal lengths and numbers.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from codec.metrics import EditCounts, Interval, bootstrap_mean, bootstrap_ratio, wilson_interval

ORDER = 2  # of auto-BLEU and self-BLEU, as in GSLM: up to pairs of words
NGRAM = 2  # frames: of real speech through hh-codec-tiny 0.2 % repeat, of single frames 5 %, of longer n-grams none


@dataclass(frozen=True)
class CodeRepetition:
    """Of one utterance; a frame is all its codes together."""

    # Share of the n-grams of frames that were there before in the same utterance: 1 - distinct-n (Li et al., arXiv
    # 1510.03055), which is seq-rep-n of Welleck et al. (arXiv 1908.04319). NaN below n frames.
    repeated: float
    longest_run: int  # frames in a row that are all the same; 0 of none


def code_repetition(codes: np.ndarray, order: int = NGRAM) -> CodeRepetition:
    """Repetition in the codes (num_quantizers, frames) of an utterance, in n-grams of `order` frames.

    k copies of a stretch of l different frames have a share of 1 - l / (k * l - order + 1), if the copies are longer
    than the n-grams.
    """
    frames = codes.shape[1]
    if not frames:
        return CodeRepetition(float("nan"), 0)
    _, numbers = np.unique(codes, axis=1, return_inverse=True)
    numbers = numbers.reshape(-1)  # (frames,) one number for each different frame
    changes = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
    run = int(np.diff(np.concatenate([[0], changes, [frames]])).max())
    if frames < order:
        return CodeRepetition(float("nan"), run)
    grams = np.lib.stride_tricks.sliding_window_view(numbers, order)  # (frames - order + 1, order)
    return CodeRepetition(1.0 - len(np.unique(grams, axis=0)) / len(grams), run)


def auto_bleu(words: Sequence[str], order: int = ORDER) -> float:
    """How much a text repeats itself, 0 to 1; NaN for fewer words than `order`.

    The geometric mean over n = 1 ... `order` of the share of n-grams that occur once more without overlap:
    "Auto-BLEU2-geometric" of GSLM's code.
    """
    if len(words) < order:
        return math.nan
    return _geometric_mean(_repeated_share(words, length) for length in range(1, order + 1))


def self_bleu(texts: Sequence[Sequence[str]], order: int = ORDER) -> list[float]:
    """How much each text, a list of words, repeats the others: its BLEU with all others as references, 0 to 1.

    Precisions are clipped as in BLEU, their geometric mean over n = 1 ... `order` is taken, without a brevity penalty.
    A text of fewer words than `order` gets NaN and is no reference. A single text gets NaN.
    """
    long_enough = [number for number, words in enumerate(texts) if len(words) >= order]
    scores = [math.nan] * len(texts)
    if len(long_enough) < 2:
        return scores
    precisions: dict[int, list[float]] = {number: [] for number in long_enough}
    for length in range(1, order + 1):
        counts = {number: Counter(_ngrams(texts[number], length)) for number in long_enough}
        most = _LargestCounts(counts)
        for number, own in counts.items():
            matched = sum(min(count, most.elsewhere(gram, number)) for gram, count in own.items())
            precisions[number].append(matched / own.total())
    for number in long_enough:
        scores[number] = _geometric_mean(precisions[number])
    return scores


def vert(auto: float, among: float) -> float:
    """The geometric mean of a mean auto-BLEU and a mean self-BLEU: one number for diVERsiTy, lower is more diverse."""
    return math.sqrt(auto * among)


class _LargestCounts:
    """For each n-gram its largest count in any text, and the largest count in the other texts."""

    def __init__(self, counts: dict[int, Counter[tuple[str, ...]]]):
        self._first: dict[tuple[str, ...], tuple[int, int]] = {}  # count, text
        self._second: dict[tuple[str, ...], int] = {}
        for number, own in counts.items():
            for gram, count in own.items():
                most, _ = self._first.get(gram, (0, -1))
                if count > most:
                    self._first[gram], count = (count, number), most
                self._second[gram] = max(self._second.get(gram, 0), count)

    def elsewhere(self, gram: tuple[str, ...], text: int) -> int:
        """The most that any other text has it."""
        count, holder = self._first[gram]
        return self._second[gram] if holder == text else count


def _repeated_share(words: Sequence[str], length: int) -> float:
    places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, gram in enumerate(_ngrams(words, length)):
        places[gram].append(place)
    # the occurrence farthest from one is the gram's first or its last
    repeated = sum(max(place - own[0], own[-1] - place) >= length for own in places.values() for place in own)
    return repeated / (len(words) - length + 1)


def _ngrams(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def _geometric_mean(shares: Iterable[float]) -> float:
    values = list(shares)
    return math.prod(values) ** (1.0 / len(values))


# ---- many sentences

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
