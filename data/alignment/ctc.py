"""Forced alignment with CTC models (Graves et al., 2006) of letters, by torchaudio's `forced_align`.

An emission is (frames, tokens) log-probabilities. A wildcard stands for words that cannot be spelt, as in torchaudio's
multilingual aligner; here it is as likely as the likeliest token that is not blank, so that it takes what is spoken and
leaves the pauses.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import forced_align, merge_tokens
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

from codec.foundation import UserError, first_line
from data.alignment.aligner import Alignment, AlignmentError
from data.corpora.utterance import Utterance, Word

WINDOW_SECONDS = 30.0  # what a model hears at once
_CONTEXT_SECONDS = 2.0  # on either side, dropped afterwards
_MAX_FRAMES = 6000  # aligned at once: two minutes at the usual 50 a second
_APOSTROPHES = {"'": "'", "\u2019": "'", "\u02bc": "'"}


@dataclass
class CTCAligner:
    """Forced alignment by a model of letters.

    Two kinds of words get no times: those whose tokens have a lower mean probability than `min_probability`, because
    they are not said or not heard; and those that cannot be spelt in the model's letters (digits, other scripts).
    """

    model_name: str
    device: str = "cpu"
    min_probability: float = 0.02
    in_processes: bool = field(default=False, init=False)  # they would not fit on a GPU, and need not
    rejects_low_scores: bool = field(default=False, init=False)  # words are judged one by one

    @property
    def name(self) -> str:
        return f"{self.model_name}, min_probability {self.min_probability:g}"

    @property
    def sampling_rate(self) -> int:
        return self._model.sampling_rate

    @cached_property
    def _model(self) -> "TransformersCTC":
        return TransformersCTC(self.model_name, self.device)

    @cached_property
    def _hop(self) -> int:
        """Samples a frame, from the frames that two more seconds add: the first frames see more than a hop each."""
        rate = self.sampling_rate
        frames = [len(self._model.log_probs(torch.zeros(count * rate))) for count in (2, 4)]
        return round(2 * rate / (frames[1] - frames[0]))

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        """Word times by the likeliest path; the score is the words' mean log-probability."""
        written = (utterance.text or "").split()
        words = [spell(word, self._model.letters) for word in written]
        if not any(words):
            raise AlignmentError(
                f"no word of the transcript can be spelt in the letters of {self.model_name}"
            )
        heard = self._listen(blocks)
        spelling = Spelling(words, self._model.blank, self._model.separator)
        spans = align_words(heard.log_probs, spelling, max_frames=_MAX_FRAMES)
        second = self._hop / self.sampling_rate  # of a frame
        lowest = torch.tensor(self.min_probability).log().item()
        times = [
            Word(word, span.start * second, min(span.end * second, heard.seconds))
            if span is not None and span.score >= lowest
            else Word(word, None, None)
            for word, span in zip(written, spans, strict=True)
        ]
        if not any(word.placed for word in times):
            raise AlignmentError("none of the words is heard: the audio does not sound like its text")
        scores = [span.score for span in spans if span is not None]
        return Alignment(tuple(times), sum(scores) / len(scores))

    def _listen(self, blocks: Iterator[Tensor]) -> "_Heard":
        """The emission of a recording, window by window."""
        rate, hop = self.sampling_rate, self._hop
        window = max(1, round(WINDOW_SECONDS * rate / hop)) * hop
        context = round(_CONTEXT_SECONDS * rate / hop) * hop
        samples = 0
        parts: list[Tensor] = []
        for part in _windows(_of_size(blocks, window), context):
            samples += part.inside
            frames = self._model.log_probs(part.waveform)[part.before // hop :]
            parts.append(frames if part.last else frames[: part.inside // hop])
        return _Heard(torch.cat(parts), samples / rate)


@dataclass(frozen=True)
class _Heard:
    log_probs: Tensor  # (frames, tokens) float32
    seconds: float


class TransformersCTC:
    """A CTC model of characters with its feature extractor and tokenizer (Wav2Vec2, HuBERT, WavLM, w2v-BERT ...)."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        """`name` is a directory or a hub id. Raises UserError when it cannot be loaded, or knows no characters."""
        try:
            self._features: Any = AutoFeatureExtractor.from_pretrained(name)
            tokenizer: Any = AutoTokenizer.from_pretrained(name)
            model: Any = AutoModelForCTC.from_pretrained(name)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"cannot load the CTC model {name}: {reason} (give 'pocketsphinx', or the directory or hub id of "
                "a Hugging Face CTC model with its tokenizer)"
            ) from None
        self._model = model.to(device).eval()
        self._device = device
        self.sampling_rate = int(self._features.sampling_rate)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        # CTC models of transformers take their padding token for the blank; converted ones may have a blank of its own.
        pad = model.config.pad_token_id
        self.blank = vocabulary.get("<blank>", 0 if pad is None else int(pad))
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        self.separator = vocabulary.get(delimiter) if delimiter is not None else None
        kept_out = {*tokenizer.all_special_tokens, delimiter, " "}
        self.letters = {
            token: index
            for token, index in vocabulary.items()
            if len(token) == 1 and token not in kept_out and index not in (self.blank, self.separator)
        }
        if len(self.letters) < len(vocabulary) / 2:
            raise UserError(
                f"{name}: its vocabulary has {len(self.letters)} single characters among {len(vocabulary)} tokens: "
                "alignment needs a CTC model of characters"
            )

    @torch.inference_mode()
    def log_probs(self, waveform: Tensor) -> Tensor:
        """(frames, tokens) float32 on the CPU."""
        features = self._features(
            _long_enough(waveform, self.sampling_rate).numpy(),
            sampling_rate=self.sampling_rate,
            return_tensors="pt",
        )
        logits = self._model(**features.to(self._device)).logits[0]
        return logits.float().log_softmax(dim=-1).cpu()


def _long_enough(waveform: Tensor, sampling_rate: int) -> Tensor:
    """A tenth of a second at least: the first convolutions see that much."""
    return torch.nn.functional.pad(waveform, (0, max(0, sampling_rate // 10 - len(waveform))))


@dataclass(frozen=True)
class _Window:
    waveform: Tensor  # (before + inside + after,)
    before: int
    inside: int
    last: bool


def _windows(blocks: Iterator[Tensor], context: int) -> Iterator[_Window]:
    """Each block with what lies beside it."""
    before = torch.zeros(0)
    here = next(blocks)
    for after in chain(blocks, [None]):
        beside = after[:context] if after is not None else torch.zeros(0)
        yield _Window(torch.cat([before, here, beside]), len(before), len(here), after is None)
        if after is not None:
            before, here = here[len(here) - context :], after


def _of_size(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """The same samples in blocks of one size; the last one, which is always there, may be shorter."""
    pending = torch.zeros(0)
    for block in blocks:
        pending = torch.cat([pending, block])
        while len(pending) > size:
            yield pending[:size]
            pending = pending[size:]
    yield pending


@dataclass(frozen=True)
class WordSpan:
    """The frames [start, end) of a word. The score is the mean over its tokens of their mean log-probability."""

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
    """Cut a long emission at pauses.

    The likeliest path through `max_frames`, whatever word it ends in, says which words lie there. Near the end of these
    frames it is not reliable, so the cut lies earlier.
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

    Raises AlignmentError when there is none.
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
    """The likeliest path through all frames; it may end before the last token.

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


def spell(word: str, letters: Mapping[str, int]) -> list[int] | None:
    """The tokens of a word: its letters as the vocabulary writes them, whatever their case or accents.

    Punctuation is dropped; apostrophes stay where the vocabulary has them. Empty for a word of punctuation alone; None
    for a word with a letter or digit that the vocabulary cannot write.
    """
    tokens: list[int] = []
    for character in unicodedata.normalize("NFC", word):
        if not (character in _APOSTROPHES or character.isalnum() or _is_mark(character)):
            continue
        found = next(
            (form for form in _forms(character) if form and all(part in letters for part in form)), None
        )
        if found is not None:
            tokens += [letters[part] for part in found]
        elif character.isalnum():
            return None
    return tokens if any(character.isalnum() for character in word) else []


def _forms(character: str) -> Iterator[str]:
    """Ways to write a character, the most faithful first."""
    yield character
    yield character.lower()
    yield character.upper()
    plain = _APOSTROPHES.get(character) or "".join(
        part for part in unicodedata.normalize("NFKD", character.casefold()) if not _is_mark(part)
    )
    yield plain
    yield plain.upper()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
