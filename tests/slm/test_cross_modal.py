"""What text tells of speech and speech of text: against a loop, and on data whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.metrics import clustered_share, wilson_interval
from slm.documents.config import DocumentConfig
from slm.evaluation.cross_modal import CrossModalBits, cross_modal_rows, formats_of, unfamiliar_views
from slm.evaluation.retrieval import (
    RetrievalAccuracy,
    RetrievalTrial,
    found,
    gains,
    retrieval_groups,
    retrieve,
)
from slm.generation.speech_lm import SpeechLM
from slm.models.build import build_model
from slm.models.checkpoint import SpeechCapabilities
from slm.models.config import ModelConfig
from slm.training.config import BatchConfig, OptimizerConfig
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import MemoryRows, speech_rows, train_text_model
from tests.slm.toy_training import CODEC, toy_run

TOPICS = [letter * 3 for letter in "abcdefghilmn"]
CODES = 5  # of each topic: 60 of 64
FRAMES = 8


def topical(count: int, seed: int) -> MemoryRows:
    """The text is one of twelve, and says which five codes the speech is made of."""
    random = np.random.default_rng(seed)
    topics = random.permutation(np.arange(count) % len(TOPICS))
    streams = [(CODES * topic + random.integers(0, CODES, FRAMES)).astype(np.uint16) for topic in topics]
    nobody: list[str | None] = [None] * count
    return MemoryRows(streams, [TOPICS[topic] for topic in topics], nobody, [None] * count, CODEC)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return Vocabulary.build(train_text_model(tmp_path_factory.mktemp("text"), "char"), CODEC, ["slt", "rms"])


def untrained(vocabulary: Vocabulary, formats: list[str], seed: int = 0) -> SpeechLM:
    shape = ModelConfig(layers=2, hidden_size=32, head_dim=16, max_positions=512, speech_embeddings="random")
    return SpeechLM(build_model(shape, vocabulary, seed=seed), vocabulary, SpeechCapabilities(formats))


def accuracies(trials: list[RetrievalTrial], candidates: int) -> dict[tuple[str, str], RetrievalAccuracy]:
    kinds = dict.fromkeys((trial.reader, trial.direction) for trial in trials)
    return {
        kind: RetrievalAccuracy.of([t for t in trials if (t.reader, t.direction) == kind], candidates)
        for kind in kinds
    }


def test_bits_are_those_of_every_token_by_itself(vocabulary: Vocabulary) -> None:
    rows = speech_rows(4, codec=CODEC)
    rows.texts[2] = None  # nothing to connect
    for formats in (["tts", "asr"], ["aligned", "asr", "text"]):
        language_model = untrained(vocabulary, formats)
        read = cross_modal_rows(language_model, rows, range(4))
        assert [row.index for row in read] == [0, 1, 3]
        for row in read:
            text, speech = rows.texts[row.index] or "", rows.streams[row.index]
            tag = [vocabulary.voices[str(rows.speakers[row.index])]]
            words, spoken = vocabulary.encode_text(text).tolist(), vocabulary.codes_to_ids(speech).tolist()
            layouts = {
                "speech alone": ([*tag, vocabulary.speech_id], spoken),
                "speech after its text": (
                    [*tag, vocabulary.text_id, *words, vocabulary.speech_id],
                    spoken,
                ),
                "text alone": ([vocabulary.text_id], words),
                "text after its speech": ([vocabulary.speech_id, *spoken, vocabulary.text_id], words),
            }
            if "aligned" in formats:
                del layouts["speech after its text"]
            assert (row.speech_tokens, row.characters) == (len(speech), len(text))
            for view, (given, told) in layouts.items():
                with torch.no_grad():
                    logits = language_model.model(torch.tensor([[*given, *told]])).logits[0].log_softmax(-1)
                nats = -sum(float(logits[len(given) - 1 + n, token]) for n, token in enumerate(told))
                assert row.nats[view] == pytest.approx(nats, rel=1e-5)  # type: ignore[index]
    bits = CrossModalBits.of(read)
    total = sum(row.nats["speech alone"] for row in read) / sum(row.speech_tokens for row in read)
    assert bits.bits["speech alone"].value == pytest.approx(total / math.log(2))
    saved = bits.bits["text alone"].value - bits.bits["text after its speech"].value
    assert bits.text_saved.value == pytest.approx(saved)


def test_views_are_those_that_a_model_was_trained_on(vocabulary: Vocabulary) -> None:
    speech_alone = untrained(vocabulary, ["speech"])
    assert set(formats_of(speech_alone)) == {"speech alone", "text alone"}
    assert unfamiliar_views(speech_alone) == ["text alone"]
    assert not retrieve(speech_alone, speech_rows(6, codec=CODEC), range(6), 3)
    bits = CrossModalBits.of(cross_modal_rows(speech_alone, speech_rows(3, codec=CODEC), range(3)))
    assert math.isnan(bits.speech_saved.value) and not math.isnan(bits.bits["speech alone"].value)
    aligned = untrained(vocabulary, ["aligned", "asr"])
    assert formats_of(aligned)["speech after its text"] == "aligned"
    assert unfamiliar_views(untrained(vocabulary, ["tts", "asr"])) == []


def test_groups_are_of_one_length_and_of_different_texts() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(10, 200, 57).tolist()
    texts = [f"text number {random.integers(30)}" for _ in lengths]
    groups = retrieval_groups(lengths, texts, 5, lambda place, other: lengths[place] < 190)
    assert all(len(group) == 5 and len({texts[place] for place in group}) == 5 for group in groups)
    places = [place for group in groups for place in group]
    assert len(set(places)) == len(places) and len(places) >= 40
    assert max(lengths[place] for place in places) < 190
    spans = [max(lengths[p] for p in group) - min(lengths[p] for p in group) for group in groups]
    assert np.mean(spans) < 40  # of 190


def test_what_is_likely_anyway_is_not_found_for_everything() -> None:
    random = np.random.default_rng(0)
    told = random.normal(size=(6, 6))
    slow = np.empty((6, 6))
    for thing in range(6):
        for given in range(6):
            others = [told[thing, other] for other in range(6) if other not in (given, thing)]
            slow[thing, given] = told[thing, given] - np.mean(others)
    assert np.allclose(gains(told), slow)
    # the first thing is likely after everything: all would find it
    popular = np.eye(6) + 100.0 * (np.arange(6) == 0)[:, None]
    assert found(popular.T).sum() == 1 and found(gains(popular).T).sum() == 6
    assert found(np.zeros((4, 4))).tolist() == [0.25] * 4
    # numbers without meaning find what chance finds
    tries = [found(gains(random.normal(size=(5, 5))).T).mean() for _ in range(2_000)]
    assert np.mean(tries) == pytest.approx(0.2, abs=0.01)


def test_a_trained_model_finds_what_belongs_together(tmp_path: Path) -> None:
    """Text says which codes come, and codes which text: nearly all is found; an untrained model is left to chance."""
    result = toy_run(
        tmp_path / "run",
        [topical(240, seed=1)],
        documents=DocumentConfig(
            formats={"tts": 1, "asr": 1, "speech": 1, "text": 1},
            voice_tag_probability=0.0,
            text_loss_weight=1.0,
            corruption=0.0,
        ),
        model=ModelConfig(
            layers=2, hidden_size=32, head_dim=16, max_positions=512, speech_embeddings="random"
        ),
        batch=BatchConfig(length=256, blocks=2, blocks_per_forward=2),
        optimizer=OptimizerConfig(learning_rate=2e-2),
        max_steps=70,
        validate_every=100,
        checkpoint_every=100,
    )
    assert result.final is not None
    trained, held_out = SpeechLM.from_pretrained(result.final), topical(60, seed=2)
    rows = cross_modal_rows(trained, held_out, range(60))
    bits = CrossModalBits.of(rows)
    assert len(rows) == 60 and bits.speech_saved.low > 0 and bits.text_saved.low > 0
    # a code is one of five once the text is known, and which five, or which text, is log2(12) bits once an utterance
    assert bits.bits["speech after its text"].value == pytest.approx(math.log2(CODES), abs=0.3)
    assert bits.speech_saved.value == pytest.approx(math.log2(len(TOPICS)) / FRAMES, abs=0.15)
    assert bits.text_saved.value == pytest.approx(math.log2(len(TOPICS)) / 3, abs=0.25)
    told = accuracies(retrieve(trained, held_out, range(60), 6), 6)
    assert len(told) == 4
    for accuracy in told.values():
        assert accuracy.trials >= 48 and accuracy.accuracy.value > 0.9 and accuracy.chance == 1 / 6

    guessed = retrieve(untrained(trained.vocabulary, ["tts", "asr"]), held_out, range(60), 6)
    # the four kinds of trials of a model that knows nothing are one large sample
    chance = RetrievalAccuracy.of(guessed, 6)
    assert chance.accuracy.low < 1 / 6 < chance.accuracy.high


def test_trials_of_a_group_hang_together() -> None:
    trials = [
        RetrievalTrial(number, number // 10, "speech after text", "text for speech", float(number < 50))
        for number in range(100)
    ]
    found = RetrievalAccuracy.of(trials, 10)
    assert found.accuracy.value == 0.5
    assert found.accuracy == clustered_share(np.repeat([10.0, 0.0], 5), np.full(10, 10.0))
    assert found.accuracy.low < wilson_interval(50, 100).low - 0.1
    assert not RetrievalAccuracy.of(trials[:10], 10).accuracy.bounded  # one group


def test_aligned_documents_are_told_apart_without_word_times(vocabulary: Vocabulary) -> None:
    """The text of every candidate is spread over the speech by its letters: the right one has no advantage."""
    rows = speech_rows(12, codec=CODEC)
    rows.texts = [f"{text} {TOPICS[number]}" for number, text in enumerate(rows.texts)]
    language_model = untrained(vocabulary, ["aligned"])
    trials = retrieve(language_model, rows, range(12), 4)
    assert {trial.reader for trial in trials} == {"speech after text"} and len(trials) == 24
    assert {trial.group for trial in trials} == {0, 1, 2}
