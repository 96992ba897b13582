"""Likelihood tests: of two recordings that differ in one thing, does the model find the right one likelier?

So are sWUGGY, sBLIMP (arXiv 2104.14700), spoken StoryCloze (arXiv 2305.13009) and SALMon (arXiv 2409.07437) made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codec.foundation import UserError
from codec.metrics import Interval, clustered_share
from slm.evaluation.reading import token_log_probabilities
from slm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    cluster: str | None = (
        None  # pairs that hang together have one name, such as those of a word in several voices
    )
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
        """What a model that knows everything would reach with these codes: of pairs of the same codes half."""
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


def stream_likelihoods(
    model: "PreTrainedModel", vocabulary: Vocabulary, streams: Sequence[np.ndarray]
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
