import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from codec.foundation import UserError
from slm.documents.formats import FORMATS
from slm.generation.config import SamplingConfig, SpeechBounds
from slm.generation.decoders import growing_cache
from slm.generation.generate import generate
from slm.generation.grammar import Span, SpeakingRow, TokenSets, WritingRow, is_stuck
from slm.generation.planning import Prompt, cut_text
from slm.generation.speech_lm import SpeechLM
from slm.models.build import build_model
from slm.models.checkpoint import SpeechCapabilities, save_checkpoint
from slm.models.config import ModelConfig
from slm.models.likelihood import text_log_probability
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import codec_info, train_text_model

GREEDY = SamplingConfig(temperature=0.0)
WILD = SamplingConfig(temperature=3.0, top_p=1.0)
TEXT = "Will we ever forget it?  No."


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    model = train_text_model(tmp_path_factory.mktemp("text"), "char")
    return Vocabulary.build(model, codec_info((40,)), ["slt", "rms"])


@pytest.fixture(scope="module")
def two_quantizers(tmp_path_factory):
    model = train_text_model(tmp_path_factory.mktemp("text"), "char")
    return Vocabulary.build(model, codec_info((40, 24)))


def random_model(vocabulary, seed=0, positions=256, spread=0.3):
    config = {"initializer_range": spread, "max_position_embeddings": positions}
    shape = ModelConfig(
        layers=2, hidden_size=32, head_dim=16, rope_theta=5000.0, speech_embeddings="random", config=config
    )
    return build_model(shape, vocabulary, seed, dtype=torch.float64).eval()


class Inclined(torch.nn.Module):
    """A model that always wants the same tokens, whatever it reads."""

    def __init__(self, vocabulary, wanted: dict[int, float], positions=256):
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=positions)
        self.device = torch.device("cpu")
        self.read: list[int] = []
        self._logits = torch.full((len(vocabulary),), -9.0)
        for token, logit in wanted.items():
            self._logits[token] = logit

    def forward(self, input_ids, **_):
        self.read += input_ids[0].tolist()
        return SimpleNamespace(logits=self._logits.expand(len(input_ids), 1, -1).clone())


def prompt_of(vocabulary, text="Hi."):
    return np.array([vocabulary.text_id, *vocabulary.encode_text(text), vocabulary.speech_id])


def speak(model, vocabulary, spans, sampling=WILD, seed=0, prompt=None, stuck=0):
    row = SpeakingRow(prompt_of(vocabulary) if prompt is None else prompt, spans, vocabulary, stuck)
    generate(model, [row], TokenSets(vocabulary, torch.device("cpu")), sampling, seed)
    return row


# ---- the loop


def test_greedy_generation_equals_that_of_transformers(vocabulary):
    model, prompt = random_model(vocabulary), prompt_of(vocabulary)
    codes = list(range(vocabulary.speech_start, vocabulary.speech_end))
    expected = model.generate(
        torch.tensor(prompt)[None],
        do_sample=False,
        max_new_tokens=40,
        prefix_allowed_tokens_fn=lambda *_: codes,
    )[0, len(prompt) :].tolist()
    assert len(set(expected)) > 3  # a model that says one thing only would prove little
    row = speak(model, vocabulary, [Span(40, 40)], GREEDY)
    assert row.drawn == expected


def test_rows_do_not_depend_on_their_neighbours(vocabulary):
    model = random_model(vocabulary)
    sets = TokenSets(vocabulary, torch.device("cpu"))
    prompts = [prompt_of(vocabulary, text) for text in ("Yes.", "Not at this particular case.", "He")]

    def rows():
        spans = [Span(3, 30), Span(2, 9, vocabulary.encode_text(" more"))]
        return [SpeakingRow(prompt, spans, vocabulary, 0) for prompt in prompts]

    together = rows()
    generate(model, together, sets, GREEDY, seed=0)
    for row, alone in zip(together, rows(), strict=True):
        generate(model, [alone], sets, GREEDY, seed=0)
        assert row.drawn == alone.drawn and row.span_frames == alone.span_frames


def test_a_candidate_does_not_depend_on_how_many_there_are(vocabulary):
    model, sets = random_model(vocabulary), TokenSets(vocabulary, torch.device("cpu"))

    def candidates(count):
        rows = [SpeakingRow(prompt_of(vocabulary), [Span(2, 25)], vocabulary, 0) for _ in range(count)]
        generate(model, rows, sets, WILD, seed=7)
        return [row.drawn for row in rows]

    five = candidates(5)
    assert candidates(2) == five[:2] and candidates(1) == five[:1]
    assert len({tuple(drawn) for drawn in five}) == 5


def test_the_model_reads_what_an_aligned_document_says(vocabulary, monkeypatch):
    model = random_model(vocabulary, seed=1)
    read: list[int] = []
    forward = model.forward

    def spy(input_ids, **arguments):
        read.extend(input_ids[0].tolist())
        return forward(input_ids=input_ids, **arguments)

    monkeypatch.setattr(model, "forward", spy)
    pieces = cut_text(TEXT, vocabulary, words_per_span=2)
    first = np.array([vocabulary.text_id, *pieces[0].ids, vocabulary.speech_id])
    row = speak(model, vocabulary, [Span(1, 12, piece.ids) for piece in pieces], prompt=first)
    frames = np.split(np.array(row.drawn), np.cumsum(row.span_frames)[:-1])
    document = []
    for piece, speech in zip(pieces, frames, strict=True):
        document += [vocabulary.text_id, *piece.ids.tolist(), vocabulary.speech_id, *speech.tolist()]
    # All but <|eos|>, after which there is nothing to read for.
    assert read == document
    assert row.done and sum(row.span_frames) == len(row.drawn)


def test_the_growing_cache_holds_what_the_dynamic_one_does(vocabulary):
    model = random_model(vocabulary, positions=512)
    ids = torch.randint(0, len(vocabulary), (3, 300), generator=torch.Generator().manual_seed(0))

    def logits_with(cache):
        parts = []
        with torch.inference_mode():
            for start, end in ((0, 7), (7, 8), (8, 250), (250, 260), *((n, n + 1) for n in range(260, 300))):
                rows = 1 if start == 0 else 3 if start < 260 else 2
                part = ids[3 - rows :, start:end] if start else ids[:1, :7]
                parts.append(
                    model(input_ids=part, past_key_values=cache, use_cache=True).logits.flatten(0, 1)
                )
                # As candidates are copied from one prompt, and then end one by one.
                for layer in cache.layers:
                    if end == 7:
                        layer.batch_select_indices(torch.tensor([0, 0, 0]))
                    elif end == 260:
                        layer.batch_select_indices(torch.tensor([1, 2]))
        return torch.cat(parts)

    expected = logits_with(DynamicCache(config=model.config))
    torch.testing.assert_close(logits_with(growing_cache()), expected, rtol=0, atol=1e-9)


# ---- what may come next


@settings(max_examples=8)
@given(
    st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), min_size=1, max_size=4)
)
def test_nothing_but_speech_comes_out_within_its_bounds(two_quantizers, seed, bounds):
    vocabulary = two_quantizers
    model = random_model(vocabulary, seed=seed % 5)
    spans = [Span(low, low + high, vocabulary.encode_text(" it")) for low, high in bounds]
    row = speak(model, vocabulary, spans, seed=seed)
    assert row.done and len(row.span_frames) == len(spans)
    for frames, span in zip(row.span_frames, spans, strict=True):
        assert span.min_frames <= frames <= span.max_frames
    ids = np.array(row.drawn).reshape(-1, 2)
    starts, sizes = vocabulary.speech_offsets, vocabulary.codec.codebook_sizes
    assert len(ids) == sum(row.span_frames)
    assert ((ids >= starts) & (ids < starts + np.array(sizes))).all()
    for number, frames in enumerate(row.span_frames):
        assert (row.cut_spans.get(number) == "length") == (frames == spans[number].max_frames)


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_nothing_but_text_is_written(vocabulary, seed):
    row = WritingRow(
        np.array([vocabulary.speech_id, vocabulary.speech_start, vocabulary.text_id]), 30, vocabulary
    )
    generate(
        random_model(vocabulary, seed % 5), [row], TokenSets(vocabulary, torch.device("cpu")), WILD, seed
    )
    assert row.done and len(row.drawn) <= 30
    assert all(token < vocabulary.num_text and vocabulary.text_bytes[token] for token in row.drawn)


def test_speech_that_does_not_end_is_ended(vocabulary):
    codes = {vocabulary.speech_start + code: 5.0 for code in range(30)}
    row = speak(Inclined(vocabulary, codes), vocabulary, [Span(0, 50)], SamplingConfig(), stuck=24)
    assert row.done and row.cut == "length" and row.span_frames == [50]


def test_speech_that_ends_too_early_goes_on(vocabulary):
    wanted = {vocabulary.eos_id: 9.0, vocabulary.speech_start: 1.0}
    row = speak(Inclined(vocabulary, wanted), vocabulary, [Span(10, 50)], GREEDY)
    assert row.done and row.cut is None and row.span_frames == [10]


def test_endless_silence_is_cut_and_the_next_words_follow(vocabulary):
    model = Inclined(vocabulary, {vocabulary.speech_start + 3: 9.0})
    spans = [Span(0, 500), Span(0, 500, vocabulary.encode_text(" more"))]
    row = speak(model, vocabulary, spans, GREEDY, stuck=24)
    assert row.done and row.cut_spans == {0: "repeats", 1: "repeats"} and row.cut == "repeats"
    assert row.span_frames == [6, 6] and len(row.drawn) == 12  # of each silence a quarter is left
    more = [vocabulary.text_id, *vocabulary.encode_text(" more"), vocabulary.speech_id]
    assert "".join(map(chr, more)) in "".join(map(chr, model.read))


def test_generation_ends_where_the_model_can_read_no_further(vocabulary):
    row = speak(random_model(vocabulary, positions=40), vocabulary, [Span(100, 200)])
    assert row.done and row.cut == "context" and len(prompt_of(vocabulary)) + len(row.drawn) <= 41
    with pytest.raises(UserError, match="the prompt has 47 tokens, the model reads 40"):
        speak(random_model(vocabulary, positions=40), vocabulary, [Span(0, 9)], prompt=np.ones(47, dtype=int))


def test_silence_and_loops_are_noticed_and_speech_is_not():
    random = np.random.default_rng(0)
    assert is_stuck(np.array([5] * 48)) and is_stuck(np.array([5, 9] * 24))
    for period in range(1, 17):
        assert is_stuck(np.resize(random.permutation(40)[:period], 48))
    assert not is_stuck(np.resize(random.permutation(40)[:17], 48))
    for _ in range(200):
        assert not is_stuck(random.integers(0, 8, 48))


# ---- the facade


class HoppingCodec(torch.nn.Module):
    """Each frame sounds as 10 samples of its code."""

    config = SimpleNamespace(hop_length=10, streams=False)
    device = torch.device("cpu")

    def decode(self, audio_codes, frame_mask=None, voice=None):
        return SimpleNamespace(audio_values=audio_codes.float().repeat_interleave(10, dim=2) / 100)


def speech_lm(vocabulary, formats=("aligned", "asr"), prompts=False, seed=0, positions=512) -> SpeechLM:
    capabilities = SpeechCapabilities(list(formats), 2, prompts, [0.05, 0.08, 0.1])
    model = SpeechLM(random_model(vocabulary, seed, positions), vocabulary, capabilities)
    model.__dict__["codec"] = HoppingCodec()
    return model


@pytest.mark.parametrize("format", ["aligned", "tts"])
def test_speaking_says_all_of_a_text(vocabulary, format):
    result = speech_lm(vocabulary, (format, "asr")).speak(TEXT, voice="rms", sampling=WILD, candidates=3)
    assert result.codes.shape[0] == 1 and len(result.audio) == 10 * result.codes.shape[1]
    assert result.audio[::10].tolist() == pytest.approx((result.codes[0] / 100).tolist())
    assert len(result.scores) == 3 and result.prompt_frames == 0
    if format == "aligned":
        assert "".join(span.text for span in result.spans) == TEXT
        edges = [span.start for span in result.spans] + [result.spans[-1].end]
        assert edges[0] == 0 and edges == sorted(edges)
        assert edges[-1] == pytest.approx(result.codes.shape[1] / 24)
    bounds = SpeechBounds()
    longest = len(TEXT) * 0.1 * bounds.slowest + bounds.pause_seconds * max(1, len(result.spans))
    assert len(TEXT) * 0.05 * bounds.fastest * 0.4 <= result.codes.shape[1] / 24 <= longest + 0.1
    assert result.ended == (not any("speech was cut" in line or TEXT[-3:] in line for line in result.cuts))


def test_the_same_seed_says_it_the_same_way(vocabulary):
    model = speech_lm(vocabulary)
    first, same, other = (model.speak(TEXT, seed=seed).codes for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_a_recording_is_continued(vocabulary):
    model = speech_lm(vocabulary)
    recording = Prompt(np.arange(30, dtype=np.uint16), "Well then")
    free = model.continue_speech(recording, seconds=1.5, sampling=WILD)
    assert free.prompt_frames == 30 and free.codes[0, :30].tolist() == list(range(30))
    assert 30 <= free.codes.shape[1] <= 30 + 36
    for format in ("aligned", "tts"):
        told = speech_lm(vocabulary, (format, "asr")).continue_speech(recording, text="I see.", sampling=WILD)
        assert told.codes[0, :30].tolist() == list(range(30)) and told.codes.shape[1] > 30
        assert told.real_time_factor > 0


def test_a_prompt_stands_before_the_text_as_its_own_document(vocabulary):
    model = Inclined(vocabulary, {vocabulary.eos_id: 5.0, vocabulary.speech_start: 1.0}, positions=512)
    capabilities = SpeechCapabilities(["tts"], 2, True, None)
    facade = SpeechLM(model, vocabulary, capabilities)
    facade.__dict__["codec"] = HoppingCodec()
    facade.speak("Hi.", prompt=Prompt(np.array([4, 5], dtype=np.uint16), "Yes."))
    speech = [
        vocabulary.speech_id,
        vocabulary.speech_start + 4,
        vocabulary.speech_start + 5,
        vocabulary.eos_id,
    ]
    prompt = [vocabulary.text_id, *vocabulary.encode_text("Yes.").tolist(), *speech]
    assert model.read[: len(prompt)] == prompt
    body = [vocabulary.text_id, *vocabulary.encode_text("Hi.").tolist(), vocabulary.speech_id]
    assert model.read[len(prompt) : len(prompt) + len(body)] == body
    assert {"tts", "aligned"} <= {name for name, format in FORMATS.items() if format.prompted}


def test_what_it_cannot_do_is_said_in_one_line(vocabulary):
    model = speech_lm(vocabulary, ("speech",))
    for message, call in {
        "was not trained to speak": lambda: model.speak(TEXT),
        "was not trained to write down": lambda: model.transcribe(np.zeros(4, dtype=np.uint16)),
        "no voice 'nobody'; it has: slt, rms": lambda: speech_lm(vocabulary).speak(TEXT, voice="nobody"),
        "nothing to say": lambda: speech_lm(vocabulary).speak(" ... "),
        "not trained to follow a recording": lambda: speech_lm(vocabulary).speak(
            TEXT, prompt=Prompt(np.zeros(4, dtype=np.uint16))
        ),
        "candidates must be 1": lambda: speech_lm(vocabulary).speak(TEXT, candidates=0),
    }.items():
        with pytest.raises(UserError, match=message):
            call()


def test_transcripts_are_bounded(vocabulary):
    codes = np.zeros(24, dtype=np.uint16)
    model = Inclined(vocabulary, {int(vocabulary.encode_text("a")[0]): 5.0}, positions=4096)
    result = SpeechLM(
        model, vocabulary, SpeechCapabilities(["asr"], 2, False, [0.05, 0.06, 0.07])
    ).transcribe(codes)
    assert result.text == "a" * 60 and not result.ended and "cut" in result.cuts[0]


def test_how_well_a_text_is_heard_equals_one_token_at_a_time(vocabulary):
    model = random_model(vocabulary)
    random = np.random.default_rng(0)
    speech = [vocabulary.codes_to_ids(random.integers(0, 40, n).astype(np.uint16)) for n in (30, 7, 18)]
    scores = text_log_probability(model, vocabulary, speech, TEXT)
    for score, ids in zip(scores, speech, strict=True):
        context = [vocabulary.speech_id, *ids.tolist(), vocabulary.text_id]
        total, targets = 0.0, [*vocabulary.encode_text(TEXT).tolist(), vocabulary.eos_id]
        for target in targets:
            logits = model(torch.tensor([context]), use_cache=False).logits[0, -1]
            total += F.log_softmax(logits, 0)[target].item()
            context.append(target)
        assert score == pytest.approx(total / len(targets), abs=1e-5)


def test_spans_join_to_the_text(vocabulary):
    for text in (TEXT, '  "Oh" - well, -- (so) it   is ', "- Start", "one"):
        for words in (1, 2, 5):
            spans = cut_text(text, vocabulary, words)
            assert "".join(span.text for span in spans) == text
            assert (
                np.concatenate([span.ids for span in spans]).tolist() == vocabulary.encode_text(text).tolist()
            )
            assert all(any(map(str.isalnum, span.text)) for span in spans)


def test_a_checkpoint_gives_the_same_speech(vocabulary, tmp_path):
    model = speech_lm(vocabulary)
    model.model.float()
    save_checkpoint(tmp_path, model.model, vocabulary, model.capabilities)
    loaded = SpeechLM.from_pretrained(tmp_path)
    loaded.__dict__["codec"] = HoppingCodec()
    assert loaded.capabilities == model.capabilities
    # Where version 4 of transformers looks for it.
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 5000.0
    assert torch.equal(loaded.speak(TEXT).codes, model.speak(TEXT).codes)
    with pytest.raises(UserError, match="no language model nowhere: expected a bundled one"):
        SpeechLM.from_pretrained("nowhere")
    with pytest.raises(UserError, match="holds no language model"):
        SpeechLM.from_pretrained(tmp_path.parent)
