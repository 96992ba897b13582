"""Forced alignment over the emissions of a CTC model (Graves et al., 2006), by torchaudio's `forced_align`.

An emission is (frames, tokens) log-probabilities. Words that cannot be spelt are stood for by a wildcard, as in
torchaudio's multilingual aligner; here it is as likely as the likeliest token that is not blank, so that it takes
what is spoken and leaves the pauses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import forced_align, merge_tokens

from data.alignment.aligner import AlignmentError


@dataclass(frozen=True)
class WordSpan:
    """The frames [start, end) of a word, and the mean over its tokens of their mean log-probability in their frames."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Spelling:
    """A transcript's words as tokens.

    words: the tokens of each; empty where nothing is spoken, None where it cannot be spelt
    separator: what the model writes between words, if it writes anything
    """

    words: Sequence[Sequence[int] | None]
    blank: int
    separator: int | None = None


@dataclass(frozen=True)
class _Target:
    """Tokens in a row, and the word that each belongs to; -1 for separators and wildcards."""

    tokens: list[int]
    word: list[int]


def align_words(log_probs: Tensor, spelling: Spelling, max_frames: int) -> list[WordSpan | None]:
    """A span for every word that has a spelling: the likeliest path through the whole transcript.

    Emissions of more than `max_frames` are cut at pauses first, so that memory and time grow with their length and
    not with its square. Raises AlignmentError when the transcript does not fit in the frames.
    """
    if any(word is None for word in spelling.words):
        heard = log_probs.clone()
        heard[:, [token for token in (spelling.blank, spelling.separator) if token is not None]] = -torch.inf
        log_probs = torch.cat([log_probs, heard.amax(dim=1, keepdim=True)], dim=1)
    spans: list[WordSpan | None] = [None] * len(spelling.words)
    for piece in _pieces(log_probs, spelling, max_frames):
        emission = log_probs[piece.start : piece.end]
        target = _target(spelling, piece.first_word, piece.end_word, wildcard=log_probs.shape[1] - 1)
        if target.tokens:
            for word, span in _align_piece(emission, target, spelling.blank).items():
                spans[word] = WordSpan(span.start + piece.start, span.end + piece.start, span.score)
    return spans


def _target(spelling: Spelling, first: int, end: int, wildcard: int) -> _Target:
    """The words [first, end) as one row of tokens; words in a row that cannot be spelt are one wildcard."""
    tokens: list[int] = []
    word: list[int] = []
    former: Sequence[int] | None = ()
    for index in range(first, end):
        spelt = spelling.words[index]
        if (spelt is not None and not spelt) or (spelt is None and former is None):
            continue
        former = spelt
        if tokens and spelling.separator is not None:
            tokens.append(spelling.separator)
            word.append(-1)
        tokens += [wildcard] if spelt is None else spelt
        word += [-1] if spelt is None else [index] * len(spelt)
    return _Target(tokens, word)


def _align_piece(emission: Tensor, target: _Target, blank: int) -> dict[int, WordSpan]:
    repeats = sum(former == latter for former, latter in pairwise(target.tokens))
    if len(target.tokens) + repeats > len(emission):
        raise AlignmentError(
            f"{len(target.tokens) + repeats} letters do not fit in {len(emission)} frames: the transcript is too long"
        )
    labels, scores = forced_align(
        emission[None], torch.tensor([target.tokens], device=emission.device), blank=blank
    )
    spans = merge_tokens(labels[0].cpu(), scores[0].cpu(), blank=blank)
    found: dict[int, WordSpan] = {}
    for word, group in groupby(zip(target.word, spans, strict=True), key=lambda pair: pair[0]):
        if word >= 0:
            tokens = [span for _, span in group]
            # A letter that is held long counts no more than another.
            score = sum(span.score for span in tokens) / len(tokens)
            found[word] = WordSpan(tokens[0].start, tokens[-1].end, score)
    return found


@dataclass(frozen=True)
class _Piece:
    """Frames [start, end) and the words [first_word, end_word) that are spoken in them."""

    start: int
    end: int
    first_word: int
    end_word: int


def _pieces(log_probs: Tensor, spelling: Spelling, max_frames: int) -> Iterator[_Piece]:
    """Cuts a long emission at pauses: the likeliest path through `max_frames`, however many words it gets through,
    says which words lie there; what it says near the end of those frames is not trusted.
    """
    start, first_word, words = 0, 0, len(spelling.words)
    while len(log_probs) - start > max_frames:
        window = log_probs[start : start + max_frames]
        # No speech is faster than a letter every other frame.
        end_word, letters = first_word, 0
        while end_word < words and letters < max_frames // 2:
            letters += len(spelling.words[end_word] or (0,)) + 1
            end_word += 1
        target = _target(spelling, first_word, end_word, wildcard=log_probs.shape[1] - 1)
        cut = _cut(likeliest_prefix(window, target.tokens, spelling.blank), target, max_frames)
        next_word = first_word if cut.word is None else cut.word + 1
        yield _Piece(start, start + cut.frame, first_word, next_word)
        start, first_word = start + cut.frame, next_word
    yield _Piece(start, len(log_probs), first_word, words)


@dataclass(frozen=True)
class _Cut:
    """A frame in a pause, and the last word that ends before it, if any does."""

    frame: int
    word: int | None


def _cut(states: np.ndarray, target: _Target, max_frames: int) -> _Cut:
    """The middle of the longest pause between words in the third quarter of the frames, or before it.

    Raises AlignmentError where there is none to be had.
    """
    frames: dict[int, list[int]] = {}  # first and last frame of each word
    for frame in np.flatnonzero(states % 2):
        word = target.word[states[frame] // 2]
        if word >= 0:
            frames.setdefault(word, [int(frame), int(frame)])[1] = int(frame)
    spans = list(frames.items())
    pauses = [
        (latter[1][0] - former[1][1], (former[1][1] + 1 + latter[1][0]) // 2, former[0])
        for former, latter in pairwise(spans)
        if latter[1][0] < max_frames * 3 // 4
    ]
    late = [pause for pause in pauses if pause[1] >= max_frames // 2] or pauses[-1:]
    if late:
        _, middle, before = max(late)
        return _Cut(middle, before)
    if not spans:  # minutes without a word
        return _Cut(max_frames // 2, None)
    word, (first, last) = spans[0]
    upcoming = states[-1] // 2  # the token that comes next, if the path ends in a blank
    if states[-1] % 2 == 0 and (upcoming == len(target.word) or target.word[upcoming] != word):
        return _Cut(min((last + 1 + max_frames) // 2, max(last + 1, max_frames * 3 // 4)), word)
    if first < max_frames // 4:
        raise AlignmentError(
            f"a word that lasts more than {max_frames - first} frames, or a text without spaces"
        )
    return _Cut(first // 2, None)


def likeliest_prefix(log_probs: Tensor, tokens: Sequence[int], blank: int) -> np.ndarray:
    """The likeliest path through all frames that need not get to the end of the tokens.

    Returns:
        (frames,) int64 states: 2 i + 1 for token i, 2 i for a blank before it.
    """
    emission = log_probs.cpu().double().numpy()
    labels = np.full(2 * len(tokens) + 1, blank)
    labels[1::2] = tokens
    # From a token to the next without a blank, unless they are the same.
    skips = np.zeros(len(labels), dtype=bool)
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    best = np.full(len(labels), -np.inf)
    best[:2] = emission[0, labels[:2]]
    steps = np.zeros((len(emission), len(labels)), dtype=np.int8)
    for frame in range(1, len(emission)):
        candidates = np.full((3, len(labels)), -np.inf)
        candidates[0] = best
        candidates[1, 1:] = best[:-1]
        candidates[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        steps[frame] = candidates.argmax(axis=0)
        best = candidates.max(axis=0) + emission[frame, labels]
    states = np.zeros(len(emission), dtype=np.int64)
    states[-1] = best.argmax()
    for frame in range(len(emission) - 1, 0, -1):
        states[frame - 1] = states[frame] - steps[frame, states[frame]]
    return states
