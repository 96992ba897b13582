"""Forced alignment of letters: against an obvious dynamic programme, on sounds with known times, by real models."""

import math
import shutil
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codec.foundation import UserError
from data import Utterance, Word
from data.alignment import AlignmentError
from data.alignment.ctc import (
    CTCAligner,
    Spelling,
    TransformersCTC,
    WordSpan,
    align_words,
    likeliest_prefix,
    spell,
)

BLANK, SEPARATOR = 0, 1
HOP, RATE = 320, 16_000
LETTERS = {letter: 2 + number for number, letter in enumerate("abcdefghij")}


def slow_alignment(
    log_probs: Tensor, tokens: Sequence[int], whole: bool = True
) -> tuple[float, list[list[int]]]:
    """Every path through blank, token, blank, token ..., one step at a time; all of the best ones."""
    labels = [BLANK]
    for token in tokens:
        labels += [token, BLANK]
    paths: dict[int, tuple[float, list[list[int]]]] = {
        state: (float(log_probs[0, labels[state]]), [[state]]) for state in (0, 1)[: len(labels)]
    }
    for frame in log_probs[1:]:
        following: dict[int, tuple[float, list[list[int]]]] = {}
        for state, (score, former) in paths.items():
            for step in (0, 1, 2):
                to = state + step
                if to >= len(labels):
                    continue
                if step == 2 and (labels[to] == BLANK or labels[to] == labels[state]):
                    continue
                reached = score + float(frame[labels[to]])
                best = following.get(to, (-math.inf, []))[0]
                if reached > best + 1e-9:
                    following[to] = (reached, [[*path, to] for path in former])
        paths = following
    ends = {s: p for s, p in paths.items() if not whole or s >= len(labels) - 2}
    return max(ends.values(), key=lambda found: found[0])


@given(st.integers(0, 10_000), st.integers(1, 3), st.booleans())
def test_alignment_equals_a_slow_dynamic_programme(seed: int, words: int, separated: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    spelt = [
        torch.randint(
            2, 5, (int(torch.randint(1, 4, (1,), generator=generator)),), generator=generator
        ).tolist()
        for _ in range(words)
    ]
    separator = SEPARATOR if separated else None
    tokens: list[int] = []
    owner: list[int] = []
    for index, word in enumerate(spelt):
        if tokens and separated:
            tokens.append(SEPARATOR)
            owner.append(-1)
        tokens += word
        owner += [index] * len(word)
    log_probs = torch.randn(26, 6, generator=generator).log_softmax(-1)
    found = align_words(log_probs, Spelling(spelt, BLANK, separator), max_frames=1000)
    _, ((*path,),) = slow_alignment(log_probs.double(), tokens)
    for index, span in enumerate(found):
        frames = [t for t, state in enumerate(path) if state % 2 and owner[state // 2] == index]
        assert span is not None and (span.start, span.end) == (frames[0], frames[-1] + 1)
        by_token = [list(group) for _, group in groupby(frames, key=lambda t: path[t])]
        means = [
            sum(float(log_probs[t, tokens[path[t] // 2]]) for t in group) / len(group) for group in by_token
        ]
        mean = sum(means) / len(means)
        assert span.score == pytest.approx(mean, abs=1e-5)


@given(st.integers(0, 10_000))
def test_the_likeliest_prefix_equals_a_slow_dynamic_programme(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(18, 5, generator=generator).log_softmax(-1)
    tokens = torch.randint(1, 5, (7,), generator=generator).tolist()
    _, ((*path,),) = slow_alignment(log_probs.double(), tokens, whole=False)
    assert likeliest_prefix(log_probs, tokens, BLANK).tolist() == path


class Tones:
    """A model that hears each letter as a sine of its own, exactly where it sounds."""

    sampling_rate, letters, blank, separator = RATE, LETTERS, BLANK, None
    heard_at_once = 0

    def log_probs(self, waveform: Tensor) -> Tensor:
        self.heard_at_once = max(self.heard_at_once, len(waveform))
        frames = waveform[: len(waveform) // HOP * HOP].reshape(-1, HOP)
        energy = torch.fft.rfft(frames).abs().square()[:, [_bin(letter) for letter in LETTERS]]
        likelihood = (
            torch.cat([torch.ones(len(frames), 1), torch.zeros(len(frames), 1), energy], dim=1) + 1e-3
        )
        return (likelihood / likelihood.sum(dim=1, keepdim=True)).log()


def _bin(letter: str) -> int:
    return 8 + 6 * list(LETTERS).index(letter)  # of 50 Hz


def speak(words: Sequence[str], pause: int = 10, first_pause: int = 25) -> tuple[Tensor, list[Word]]:
    """A waveform in which every letter lasts three frames with one of silence behind it, and its words' times."""
    parts, times, frame = [torch.zeros(first_pause * HOP)], [], first_pause
    for word in words:
        start = frame
        for letter in word:
            sine = torch.sin(2 * math.pi * _bin(letter) * torch.arange(3 * HOP) / HOP)
            parts.append(torch.cat([sine, torch.zeros(HOP)]))
            frame += 4
        times.append(Word(word, start * HOP / RATE, (frame - 1) * HOP / RATE))
        parts.append(torch.zeros(pause * HOP))
        frame += pause
    return torch.cat(parts), times


@pytest.fixture
def aligner() -> CTCAligner:
    aligner = CTCAligner("tones")
    aligner.__dict__["_model"] = Tones()
    return aligner


def in_blocks(waveform: Tensor, size: int = 50_001) -> Iterator[Tensor]:
    return iter(waveform.split(size))


def rounded(words: Sequence[Word]) -> list[tuple[str, float | None, float | None]]:
    return [(w, s and round(s, 5), e and round(e, 5)) for w, s, e in words]


def test_times_of_tones_are_exact_with_case_punctuation_and_dashes(aligner: CTCAligner) -> None:
    waveform, times = speak(["bad", "cafe", "aa", "jig"])
    found = aligner.align(Utterance("x", "-", "Bad -- Café, AA jig!"), in_blocks(waveform))
    true = [
        word._replace(word=written)
        for word, written in zip(times, ["Bad", "Café,", "AA", "jig!"], strict=True)
    ]
    assert rounded(found.words) == rounded([true[0], Word("--", None, None), *true[1:]])
    assert " ".join(word.word for word in found.words) == "Bad -- Café, AA jig!"


def test_words_without_a_spelling_get_no_times_and_take_none_from_their_neighbours(
    aligner: CTCAligner,
) -> None:
    waveform, times = speak(["bad", "hi", "fee", "cab", "jig"])
    found = aligner.align(Utterance("x", "-", "bad 42 Ж cab jig"), in_blocks(waveform))
    unplaced = [Word("42", None, None), Word("Ж", None, None)]
    assert rounded(found.words) == rounded([times[0], *unplaced, times[3], times[4]])


def test_a_word_that_is_not_said_is_not_placed(aligner: CTCAligner) -> None:
    waveform, times = speak(["bad", "cab", "jig"])
    found = aligner.align(Utterance("x", "-", "bad cab hid jig"), in_blocks(waveform))
    assert found.words[2] == Word("hid", None, None)
    for word, true in zip([*found.words[:2], found.words[3]], times, strict=True):
        # Its letters had to go somewhere, and cost the next word a frame.
        assert (word.start, word.end) == pytest.approx((true.start, true.end), abs=1.01 * HOP / RATE)
    with pytest.raises(AlignmentError, match="does not sound like its text"):
        aligner.align(Utterance("x", "-", "gee ee"), in_blocks(waveform))
    with pytest.raises(
        AlignmentError, match="no word of the transcript can be spelt in the letters of tones"
    ):
        aligner.align(Utterance("x", "-", "12 zz"), in_blocks(waveform))
    with pytest.raises(AlignmentError, match=r"letters do not fit in \d+ frames"):
        aligner.align(Utterance("x", "-", "badge " * 100), in_blocks(waveform))


def test_long_recordings_are_heard_in_windows_and_cut_at_pauses(
    aligner: CTCAligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes in windows of 30 s, aligned at most 8 s at a time: the same times as known."""
    generator = torch.Generator().manual_seed(4)
    letters = list(LETTERS)
    words = [
        "".join(letters[i] for i in torch.randint(10, (int(n),), generator=generator).tolist())
        for n in torch.randint(1, 8, (200,), generator=generator)
    ]
    waveform, times = speak(words, first_pause=900)  # 18 s before anything is said
    monkeypatch.setattr("data.alignment.ctc._MAX_FRAMES", 400)
    found = aligner.align(Utterance("x", "-", " ".join(words)), in_blocks(waveform, 480_000))
    assert len(waveform) > 110 * RATE
    assert rounded(found.words) == rounded(times)
    assert aligner._model.heard_at_once <= 34 * RATE


def test_long_silences_and_texts_without_spaces(aligner: CTCAligner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.alignment.ctc._MAX_FRAMES", 400)
    waveform, times = speak(["bad", "hi"], pause=1500)
    found = aligner.align(Utterance("x", "-", "bad hi"), in_blocks(waveform))
    assert rounded(found.words) == rounded(times)
    waveform, _ = speak(["badgecafe" * 20])
    with pytest.raises(AlignmentError, match="a text without spaces"):
        aligner.align(Utterance("x", "-", "badgecafe" * 20), in_blocks(waveform))


def test_spelling_keeps_to_the_vocabulary() -> None:
    upper = {letter: number for number, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ'")}
    assert spell("Don't", upper) == [upper[c] for c in "DON'T"]
    assert spell("“Don’t!”", upper) == [upper[c] for c in "DON'T"]
    assert spell("naïve-Straße", upper) == [upper[c] for c in "NAIVESTRASSE"]
    assert spell("--", upper) == [] == spell("'", upper)
    assert spell("B2B", upper) is None is spell("Привет", upper)
    german = {letter: number for number, letter in enumerate("aäst")}
    assert spell("Sä'T", german) == [2, 1, 3]
    hindi = {letter: number for number, letter in enumerate("नमस्ते")}
    assert spell("नमस्ते", hindi) == list(range(6))


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CTC model of `transformers` of the usual shape, with random weights."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    directory = tmp_path_factory.mktemp("ctc")
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVKXJQZ'"]
    vocabulary = directory / "tokens.json"
    vocabulary.write_text("{" + ", ".join(f'"{t}": {i}' for i, t in enumerate(tokens)) + "}")
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(directory)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(directory)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config)
    model.lm_head.weight.data *= 40  # sharp enough that the path matters
    model.save_pretrained(directory)
    return directory


def test_a_model_of_transformers(saved_model: Path) -> None:
    torch.manual_seed(1)
    waveform = torch.randn(2 * RATE)
    text = "We'll see, -- 9 Ünits"
    found = CTCAligner(str(saved_model), min_probability=0.0).align(
        Utterance("x", "-", text), in_blocks(waveform)
    )
    model = TransformersCTC(str(saved_model))
    assert (model.blank, model.separator, model.letters["E"], len(model.letters)) == (0, 4, 5, 27)
    log_probs = model.log_probs(waveform)
    heard = log_probs.clone()
    heard[:, [0, 4]] = -torch.inf
    wildcard = log_probs.shape[1]
    log_probs = torch.cat([log_probs, heard.amax(1, keepdim=True)], 1)
    ids = {**model.letters, "|": 4, "*": wildcard}
    tokens = [ids[c] for c in "WE'LL|SEE|*|UNITS"]
    _, ((*path,),) = slow_alignment(log_probs.double(), tokens)
    spans = [list(group) for state, group in groupby(range(len(path)), key=lambda t: path[t]) if state % 2]
    words = {"We'll": spans[0:5], "see,": spans[6:9], "Ünits": spans[12:17]}
    for word in found.words:
        if word.word in words:
            first, *_, last = words[word.word]
            assert (word.start, word.end) == pytest.approx((first[0] * 0.02, (last[-1] + 1) * 0.02))
        else:
            assert word.word in ("--", "9") and not word.placed
    placed = [word for word in found.words if word.placed]
    assert all(former.end <= latter.start for former, latter in pairwise(placed))


def test_models_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot load the CTC model {tmp_path}: .*pocketsphinx") as told:
        TransformersCTC(str(tmp_path))
    assert "\n" not in str(told.value)


def test_a_model_with_a_blank_of_its_own(saved_model: Path, tmp_path: Path) -> None:
    """As converted models have: the padding token is not what they write where nothing is heard."""
    model = shutil.copytree(saved_model, tmp_path / "model")
    for name in ("vocab.json", "tokens.json"):
        text = (model / name).read_text()
        (model / name).write_text(text.replace('"</s>"', '"<blank>"'))
    opened = TransformersCTC(str(model))
    assert opened.blank == 2 and "<blank>" not in opened.letters


def test_a_span_is_what_it_says() -> None:
    """Two words of one letter each in six frames that leave no doubt."""
    frames = [0, 2, 2, 0, 2, 0]
    log_probs = torch.full((6, 4), -9.0)
    log_probs[range(6), frames] = -0.1
    spans = align_words(log_probs, Spelling([[2], [], [2]], BLANK), max_frames=100)
    assert spans == [WordSpan(1, 3, pytest.approx(-0.1)), None, WordSpan(4, 5, pytest.approx(-0.1))]
