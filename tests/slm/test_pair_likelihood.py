"""Likelihood of recordings against one-by-one sums; pairs whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from codec.foundation import UserError
from slm.documents.config import DocumentConfig
from slm.evaluation.pairs import PairAccuracy, ScoredPair, StreamLikelihood, stream_likelihoods
from slm.models.build import build_model
from slm.models.checkpoint import load_checkpoint
from slm.models.config import ModelConfig
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import MemoryRows, codec_info, train_text_model
from tests.slm.toy_training import CODEC, toy_run


def random_model(vocabulary: Vocabulary, seed: int = 0) -> PreTrainedModel:
    config = {"initializer_range": 0.3, "max_position_embeddings": 128}
    shape = ModelConfig(layers=2, hidden_size=32, head_dim=16, speech_embeddings="random", config=config)
    return build_model(shape, vocabulary, seed).eval()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    model = train_text_model(tmp_path_factory.mktemp("text"), "char")
    return Vocabulary.build(model, codec_info((40, 24)))


def test_likelihood_is_the_sum_over_tokens_read_alone(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, random = random_model(vocabulary), np.random.default_rng(0)
    streams = [
        random.integers(0, (40, 24), size=(frames, 2)).astype(np.uint16).reshape(-1)
        for frames in (3, 20, 1, 11, 0)
    ]
    monkeypatch.setattr("slm.models.likelihood._BATCH_TOKENS", 64)  # several batches, with padding
    together = stream_likelihoods(model, vocabulary, streams)
    for stream, likelihood in zip(streams, together, strict=True):
        ids = [vocabulary.speech_id, *vocabulary.codes_to_ids(stream).tolist()]
        nats = 0.0
        for place in range(1, len(ids)):
            with torch.no_grad():
                logits = model(torch.tensor([ids[:place]])).logits[0, -1]
            nats += float(logits.log_softmax(0)[ids[place]])
        assert likelihood.nats == pytest.approx(nats, abs=1e-3)
        assert likelihood.tokens == len(stream)
    assert math.isnan(together[-1].per_token)
    with pytest.raises(UserError, match="recording 2 of 2 has 140 tokens, the model reads 127"):
        stream_likelihoods(model, vocabulary, [streams[0], np.zeros(140, np.uint16)])


def test_accuracy_by_hand() -> None:
    def pair(good: tuple[float, int], bad: tuple[float, int]) -> ScoredPair:
        return ScoredPair("", "", StreamLikelihood(*good), StreamLikelihood(*bad))

    # likelier in all; likelier a token alone; in neither; the same
    pairs = [pair((-5, 5), (-6, 5)), pair((-8, 8), (-6, 5)), pair((-9, 5), (-6, 5)), pair((-6, 5), (-6, 5))]
    accuracy = PairAccuracy.of(pairs)
    assert (accuracy.normalized.value, accuracy.total.value) == (2.5 / 4, 1.5 / 4)
    assert accuracy.pairs == 4 and math.isnan(PairAccuracy.of([]).total.value)


def test_pairs_that_hang_together_count_as_one() -> None:
    """A word that is known is known in four voices: the share of 100 words is no surer for it."""
    random, held = np.random.default_rng(0), 0
    likely, unlikely = StreamLikelihood(-5.0, 5), StreamLikelihood(-6.0, 5)
    for _ in range(200):
        pairs = []
        for word, known in enumerate(random.beta(0.6, 0.6, 100)):
            for right in random.random(4) < known:
                sides = (likely, unlikely) if right else (unlikely, likely)
                pairs.append(ScoredPair(f"{word}", "", *sides, cluster=str(word)))
        found = PairAccuracy.of(pairs)
        held += found.total.low <= 0.5 <= found.total.high
    assert held / 200 > 0.9 and (found.pairs, found.clusters) == (400, 100)


def test_codes_that_are_the_same_are_a_ceiling() -> None:
    side = StreamLikelihood(-5.0, 5)
    found = PairAccuracy.of([ScoredPair("", "", side, side, same=number < 3) for number in range(10)])
    assert (found.same, found.ceiling) == (3, 0.85)


def test_an_empty_recording_is_no_side_of_a_pair() -> None:
    nothing, something = StreamLikelihood(0.0, 0), StreamLikelihood(-5.0, 5)
    for sides in ((nothing, something), (something, nothing)):
        with pytest.raises(ValueError, match="pair x: a recording without tokens"):
            ScoredPair("x", "", *sides)


def wandering(count: int, seed: int) -> list[np.ndarray]:
    """Codes that go up by one or two: what comes next can be learnt, what is where cannot."""
    random = np.random.default_rng(seed)
    return [
        ((random.integers(0, 64) + np.cumsum(random.integers(1, 3, size=60))) % 64).astype(np.uint16)
        for _ in range(count)
    ]


def accuracy(
    model: PreTrainedModel, vocabulary: Vocabulary, goods: list[np.ndarray], bads: list[np.ndarray]
) -> PairAccuracy:
    told = stream_likelihoods(model, vocabulary, [*goods, *bads])
    halves = zip(told[: len(goods)], told[len(goods) :], strict=True)
    return PairAccuracy.of([ScoredPair(str(n), "", good, bad) for n, (good, bad) in enumerate(halves)])


def test_real_against_shuffled_codes(tmp_path: Path) -> None:
    """A trained model finds the real ones; one that knows nothing finds as many as a coin does."""
    streams = wandering(64, seed=1)
    rows = MemoryRows(
        streams, [None] * 64, [None] * 64, [None] * 64, CODEC
    )  # speech alone: neither text nor speaker
    result = toy_run(
        tmp_path / "run",
        [rows],
        documents=DocumentConfig(formats={"speech": 1.0}, voice_tag_probability=0.0),
        max_steps=40,
        validate_every=100,
        checkpoint_every=100,
    )
    assert result.final is not None
    vocabulary = Vocabulary.from_pretrained(result.final)
    goods = wandering(60, seed=2)
    random = np.random.default_rng(3)
    bads = [random.permutation(stream) for stream in goods]
    trained = accuracy(load_checkpoint(result.final), vocabulary, goods, bads)
    assert trained.normalized.value > 0.95 and trained.normalized == trained.total  # lengths are the same

    # For a model without any knowledge, good and bad are of one kind: chance lies within the interval.
    untrained = accuracy(random_model(vocabulary), vocabulary, bads[:30] + goods[:30], goods[:30] + bads[:30])
    assert untrained.normalized.low < 0.5 < untrained.normalized.high
