"""Likelihood tests: of two recordings that differ in one thing, does the model find the right one likelier?

sWUGGY and sBLIMP (arXiv 2104.14700), spoken StoryCloze (arXiv 2305.13009) and SALMon (arXiv 2409.07437) are such tests.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from codec.foundation import Progress, UserError
from codec.metrics import Interval, clustered_share
from data import AudioError, read_audio
from slm.generation.speech_lm import SpeechLM
from slm.models.likelihood import token_log_probabilities
from slm.vocabulary import Vocabulary

_LAYOUTS = (
    "expected a .jsonl file with `good` and `bad` in every line, a directory with gold.csv (sWUGGY and sBLIMP as the "
    "ZeroSpeech challenge gives them), directories of sample_<n>_<k>.wav (SALMon), or of <name>_correct.wav and "
    "<name>_incorrect.wav (spoken StoryCloze)"
)
_AUDIO = (".wav", ".flac", ".ogg", ".mp3")
_PAIRS_AT_ONCE = 64
_SAMPLE = re.compile(r"sample_(\d+)_")
# Both kinds of spoken StoryCloze, as published, number every file: <number>_<story>_correct.wav.
_STORY = re.compile(r"(?:\d+_(?=.))?(.+)_(correct|incorrect|mutual)")


@dataclass(frozen=True)
class Pair:
    """Two recordings, each a file or its codes as a stream (frames * num_quantizers,) uint16."""

    id: str
    category: str
    good: Path | np.ndarray
    bad: Path | np.ndarray
    opening: Path | None = None  # a recording of what both begin with, where it is a file of its own
    cluster: str | None = None  # what it hangs together with: the same word in another voice, the same story

    @property
    def files(self) -> list[Path]:
        """What has to be read."""
        return [path for path in (self.opening, self.good, self.bad) if isinstance(path, Path)]


@dataclass(frozen=True)
class PairTest:
    """The pairs of one source."""

    name: str
    pairs: list[Pair]


@dataclass(frozen=True)
class StreamLikelihood:
    """How likely a model finds a recording."""

    nats: float  # log p(codes | it is speech): all its speech tokens together, the end not counted
    tokens: int

    @property
    def per_token(self) -> float:
        """Normalised by length; NaN for an empty recording."""
        return self.nats / self.tokens if self.tokens else math.nan


@dataclass(frozen=True)
class ScoredPair:
    """A pair as a model sees it. Raises ValueError for an empty recording, which nothing can be said of."""

    id: str
    category: str
    good: StreamLikelihood
    bad: StreamLikelihood
    cluster: str | None = None  # dependent pairs share a name, such as those of a word in several voices
    same: bool = False  # both have the same codes: no model can tell them apart

    def __post_init__(self) -> None:
        if not (self.good.tokens and self.bad.tokens):
            raise ValueError(f"pair {self.id}: a recording without tokens is neither likely nor unlikely")

    def score(self, normalized: bool) -> float:
        """1 where the good one is likelier, 0 where the bad one is, 0.5 where the model cannot tell."""
        good, bad = (
            (self.good.per_token, self.bad.per_token) if normalized else (self.good.nats, self.bad.nats)
        )
        return 0.5 if good == bad else float(good > bad)


@dataclass(frozen=True)
class PairAccuracy:
    """Share of the pairs in which the good recording is the likelier one; chance is 0.5."""

    pairs: int
    normalized: Interval  # by log-likelihood a token: recordings differ in length
    total: Interval  # by log-likelihood
    clusters: int = 0  # what intervals are over: pairs that do not hang together
    same: int = 0  # pairs of the same codes twice

    @property
    def ceiling(self) -> float:
        """The best accuracy with these codes: pairs with the same codes twice count half."""
        return 1.0 - 0.5 * self.same / self.pairs if self.pairs else math.nan

    @classmethod
    def of(cls, pairs: Sequence[ScoredPair]) -> "PairAccuracy":
        """Over all of them, with intervals over their clusters; NaN for none."""
        clusters: dict[tuple[bool, str], list[ScoredPair]] = {}
        for number, pair in enumerate(pairs):
            alone = pair.cluster is None
            clusters.setdefault((alone, str(number) if pair.cluster is None else pair.cluster), []).append(
                pair
            )
        trials = np.array([len(own) for own in clusters.values()], float)

        def share(normalized: bool) -> Interval:
            scores = [sum(pair.score(normalized) for pair in own) for own in clusters.values()]
            return clustered_share(np.array(scores, float), trials)

        return cls(len(pairs), share(True), share(False), len(clusters), sum(pair.same for pair in pairs))


@dataclass(frozen=True)
class PairResult:
    """What a model made of one test."""

    name: str
    pairs: list[ScoredPair]
    failures: dict[str, str] = field(default_factory=dict)  # id of a pair -> why it was left out

    @property
    def accuracy(self) -> PairAccuracy:
        """Over all pairs."""
        return PairAccuracy.of(self.pairs)

    def by_category(self) -> dict[str, PairAccuracy]:
        """In the order of the names; empty where there is but one."""
        names = sorted({pair.category for pair in self.pairs})
        if len(names) < 2:
            return {}
        return {
            name: PairAccuracy.of([pair for pair in self.pairs if pair.category == name]) for name in names
        }


def open_pairs(path: Path) -> PairTest:
    """The pairs of a test in one of four layouts.

    `.jsonl`: objects with `good` and `bad` (a path relative to the file, or a list of codes in frame-major order), and
    optionally `id`, `category`, and `cluster`, one name for pairs that depend on each other.

    A directory with `gold.csv`: two rows for one `id` and `voice`; `correct` is 1 for one and 0 for the other. Pairs of
    one `id` form a cluster.

    Directories of `sample_<n>_<k>.wav`: of the two files of a number, the first in alphabetical order is the right one.

    Directories of `<name>_correct.wav` and `<name>_incorrect.wav`. A `<name>_mutual.wav` stands before both. A number
    before the name, as in spoken StoryCloze, is ignored. Pairs of one name form a cluster.

    Raises UserError for anything else, and for an incomplete pair.
    """
    if path.suffix == ".jsonl" and path.is_file():
        pairs = list(_from_json(path))
    elif (path / "gold.csv").is_file():
        pairs = list(_from_gold(path))
    elif path.is_dir():
        pairs = [pair for part in _parts(path) for pair in (*_from_samples(part), *_from_stories(part, path))]
    else:
        raise UserError(f"{path}: {'not a test of pairs' if path.exists() else 'no such file'}; {_LAYOUTS}")
    if not pairs:
        raise UserError(f"{path}: holds no pair; {_LAYOUTS}")
    return PairTest(path.stem if path.is_file() else path.resolve().name, pairs)


def check_pairs(language_model: SpeechLM, test: PairTest) -> None:
    """Raise UserError if no pair of a test can be compared, without reading a recording."""
    reason = ""
    for pair in test.pairs:
        try:
            if missing := [path for path in pair.files if not path.is_file()]:
                raise UserError(f"pair {pair.id}: {missing[0]}: no such file")
            for side in (pair.good, pair.bad):
                if not isinstance(side, Path):
                    _check_codes(language_model, pair, side)
            return
        except UserError as error:
            reason = reason or str(error)
    raise UserError(f"{test.name}: no pair can be compared; {reason}")


def evaluate_pairs(language_model: SpeechLM, test: PairTest, gain: float = 1.0) -> PairResult:
    """Encode recordings, times `gain`, and compare likelihoods.

    A pair fails if a recording cannot be read, is empty, is longer than the model reads, or has codes that the model
    does not have. Failures are listed in the result. Raises UserError when no pair is left.
    """
    scored: list[ScoredPair] = []
    failures: dict[str, str] = {}
    with Progress(len(test.pairs), unit="pairs", label=test.name) as progress:
        for start in range(0, len(test.pairs), _PAIRS_AT_ONCE):
            pairs = test.pairs[start : start + _PAIRS_AT_ONCE]
            read: list[_Coded] = []
            for pair in pairs:
                try:
                    sides = (_stream(language_model, pair, side, gain) for side in (pair.good, pair.bad))
                    read.append(_Coded(pair, *sides))
                except (AudioError, UserError) as error:
                    failures[pair.id] = str(error)
            scored += _scored(language_model, read)
            progress.update(len(pairs))
    if not scored:
        raise UserError(f"no pair can be compared: {next(iter(failures.values()), 'there are none')}")
    return PairResult(test.name, scored, failures)


@dataclass(frozen=True)
class _Coded:
    """A pair with both its sides as streams, (frames * num_quantizers,) uint16."""

    pair: Pair
    good: np.ndarray
    bad: np.ndarray


def _scored(language_model: SpeechLM, pairs: Sequence[_Coded]) -> Iterator[ScoredPair]:
    streams = [stream for coded in pairs for stream in (coded.good, coded.bad)]
    told: list[StreamLikelihood] = []
    if streams:
        told = stream_likelihoods(language_model.model, language_model.vocabulary, streams)
    for coded, good, bad in zip(pairs, told[::2], told[1::2], strict=True):
        same, pair = np.array_equal(coded.good, coded.bad), coded.pair
        yield ScoredPair(pair.id, pair.category, good, bad, pair.cluster, same)


def _stream(language_model: SpeechLM, pair: Pair, side: Path | np.ndarray, gain: float) -> np.ndarray:
    """(frames * num_quantizers,) uint16; raises AudioError and UserError for what cannot be compared."""
    codec = language_model.vocabulary.codec
    if isinstance(side, Path):
        recordings = [
            read_audio(path, codec.sampling_rate) * gain for path in (pair.opening, side) if path is not None
        ]
        if not len(recordings[-1]):
            raise UserError(f"pair {pair.id}: {side} is empty")
        codes = language_model.encode(torch.cat(recordings))
    else:
        codes = _check_codes(language_model, pair, side)
    longest = language_model.model.config.max_position_embeddings
    if len(codes) + 1 > longest:
        raise UserError(f"pair {pair.id}: {len(codes)} tokens, the model reads {longest - 1}")
    return codes


def _check_codes(language_model: SpeechLM, pair: Pair, side: np.ndarray) -> np.ndarray:
    codec = language_model.vocabulary.codec
    if not len(side):
        raise UserError(f"pair {pair.id}: a list of codes is empty")
    quantizers = language_model.vocabulary.num_quantizers
    sizes = np.array(codec.codebook_sizes[:quantizers])
    if len(side) % quantizers or (side.reshape(-1, quantizers) >= sizes).any():
        raise UserError(
            f"pair {pair.id}: its codes are not those of {codec.name}, {quantizers} a frame, below {sizes.tolist()}"
        )
    return side


def _from_json(path: Path) -> Iterator[Pair]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
            yield Pair(
                str(fields.get("id", number)),
                str(fields.get("category", "")),
                _side(fields["good"], path.parent),
                _side(fields["bad"], path.parent),
                cluster=None if fields.get("cluster") is None else str(fields["cluster"]),
            )
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise UserError(
                f"{where}: expected an object with `good` and `bad`, each a path or a list of codes"
            ) from None


def _side(value: Any, folder: Path) -> Path | np.ndarray:
    if isinstance(value, str):
        return folder / value
    codes = np.asarray(value)
    if (
        codes.ndim != 1
        or codes.dtype.kind != "i"
        or codes.min(initial=0) < 0
        or codes.max(initial=0) > 65_535
    ):
        raise ValueError(value)
    return codes.astype(np.uint16)


def _from_gold(folder: Path) -> Iterator[Pair]:
    """sWUGGY and sBLIMP: two rows a pair and voice, wherever in the file they are."""
    rows: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    with open(folder / "gold.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                key = (row["id"], row.get("voice") or "")
                rows.setdefault(key, {})[row["correct"]] = (row["filename"], row.get("type") or "")
            except KeyError as error:
                raise UserError(
                    f"{folder / 'gold.csv'}: there is no column {error.args[0]}; {_LAYOUTS}"
                ) from None
    for (number, voice), sides in rows.items():
        name = f"{number} {voice}".strip()
        if set(sides) != {"0", "1"}:
            raise UserError(f"{folder / 'gold.csv'}: {name} is not one right and one wrong recording")
        good, bad = _audio(folder, sides["1"][0]), _audio(folder, sides["0"][0])
        yield Pair(name, sides["1"][1], good, bad, cluster=number)


def _audio(folder: Path, name: str) -> Path:
    """The file of this name, whose ending gold.csv leaves out."""
    for ending in ("", *_AUDIO):
        if (path := folder / f"{name}{ending}").is_file():
            return path
    raise UserError(f"{folder / name}: no such recording (.wav, .flac, ...); gold.csv asks for it")


def _parts(folder: Path) -> list[Path]:
    """A directory and those in it: a test may have several parts, or lie in a directory of its own."""
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def _from_samples(part: Path) -> Iterator[Pair]:
    """SALMon: a directory a part."""
    numbered: dict[int, list[Path]] = {}
    for path in sorted(part.iterdir()):
        if (match := _SAMPLE.match(path.name)) and path.suffix in _AUDIO:
            numbered.setdefault(int(match[1]), []).append(path)
    for number, files in sorted(numbered.items()):
        if len(files) != 2:
            raise UserError(f"{part}: sample {number} has {len(files)} recordings, a pair has two")
        yield Pair(f"{part.name}/{number}", part.name, files[0], files[1])


def _from_stories(part: Path, folder: Path) -> Iterator[Pair]:
    """sStoryCloze and tStoryCloze: the right and the wrong end of a story, each with the story before it."""
    stories: dict[str, dict[str, Path]] = {}
    for path in sorted(part.iterdir()):
        if (match := _STORY.fullmatch(path.stem)) and path.suffix in _AUDIO:
            sides = stories.setdefault(match[1], {})
            if match[2] in sides:
                raise UserError(f"{part}: {path.name} and {sides[match[2]].name} are of one story and side")
            sides[match[2]] = path
    category = "" if part == folder else part.name
    for name, sides in stories.items():
        if missing := [side for side in ("correct", "incorrect") if side not in sides]:
            raise UserError(f"{part}: {name} has no {missing[0]} recording, a pair has two")
        identity = f"{category}/{name}" if category else name
        yield Pair(
            identity, category, sides["correct"], sides["incorrect"], sides.get("mutual"), cluster=name
        )


def stream_likelihoods(
    model: PreTrainedModel, vocabulary: Vocabulary, streams: Sequence[np.ndarray]
) -> list[StreamLikelihood]:
    """Log-likelihood of recordings as `speech` documents, each by itself.

    streams: codes, (frames * num_quantizers,) uint16 each. Every token has a share of the whole vocabulary's
    probability, as in training. Raises UserError for a recording that is longer than the model reads.
    """
    longest = model.config.max_position_embeddings
    documents = [
        np.concatenate([[vocabulary.speech_id], vocabulary.codes_to_ids(stream)]).astype(np.int64)
        for stream in streams
    ]
    for number, ids in enumerate(documents):
        if len(ids) > longest:
            raise UserError(
                f"recording {number + 1} of {len(documents)} has {len(ids) - 1} tokens, the model reads "
                f"{longest - 1}: leave it out, or take a model with more positions"
            )
    told = token_log_probabilities(model, documents, vocabulary.pad_id)
    return [StreamLikelihood(float(nats.sum()), len(nats)) for nats in told]


def pair_rows(results: Sequence[PairResult]) -> list[dict[str, Any]]:
    """One flat row a pair, for a table file."""
    return [
        {
            "test": result.name,
            "id": pair.id,
            "category": pair.category,
            "cluster": pair.cluster,
            "good_nats": pair.good.nats,
            "good_tokens": pair.good.tokens,
            "bad_nats": pair.bad.nats,
            "bad_tokens": pair.bad.tokens,
            "same_codes": pair.same,
        }
        for result in results
        for pair in result.pairs
    ]
