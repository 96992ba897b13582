"""From texts and recordings to what a model reads before it speaks: words, sentences, passages, spans, prompts."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from codec import CodecInfo
from codec.foundation import UserError
from data.audio import Resampler
from slm.generation.config import SpeechBounds
from slm.generation.grammar import Span, SpeakingRow
from slm.models.checkpoint import SpeechCapabilities
from slm.text_normalization import LANGUAGES, normalize, speakable
from slm.vocabulary import Vocabulary, split_words

_PAUSE = re.compile(r"\s*\[pause (\d+(?:\.\d+)?) ?s?\]\s*|\s*\n[^\S\n]*\n\s*", re.IGNORECASE)
_BLANK_LINE_SECONDS = 0.6
_LONGEST_PAUSE = 10.0  # seconds


@dataclass(frozen=True)
class SpokenForm:
    """A text as it is said: in spoken words, in characters that the model knows, with pauses between stretches."""

    stretches: list[str]
    pauses: list[float]  # seconds of silence before each stretch
    lost: list[str]  # characters that the model cannot say, each once

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.stretches)

    @property
    def cuts(self) -> list[str]:
        """A line about what is not said."""
        if not self.lost:
            return []
        return [f"the model cannot say {' '.join(map(repr, self.lost))}: left out"]


def spoken_form(text: str, vocabulary: Vocabulary, language: str | None) -> SpokenForm:
    """The spoken form of a text; its words stay as they are written where there are no rules for the language.

    A blank line is a pause, and `[pause 0.5]` one of so many seconds. A text without any keeps its white space.
    """
    stretches: list[str] = []
    pauses: list[float] = []
    lost: dict[str, None] = {}
    pieces = _PAUSE.split(text)  # a stretch, the seconds of a pause or None, a stretch, ...
    waited = 0.0
    for number in range(0, len(pieces), 2):
        if number:
            waited += float(pieces[number - 1] or _BLANK_LINE_SECONDS)
        said = normalize(pieces[number], language) if language in LANGUAGES else pieces[number]
        said, unsaid = speakable(said, vocabulary.knows)
        lost |= dict.fromkeys(unsaid)
        if any(map(str.isalnum, said)):
            stretches.append(said)
            pauses.append(min(waited, _LONGEST_PAUSE))
            waited = 0.0
    return SpokenForm(stretches, pauses, list(lost))


_NO_TEXT = np.zeros(0, dtype=np.int32)
# Peaks of full scale that stay as they are; codes may depend on the level, so others are brought to the middle.
_PEAKS = (0.25, 0.7)
# A recording whose loudest tenth of a second is quieter than this (full scale is 0 dB) holds noise at best.
_SILENCE_DB = -55.0
_SHORTEST_SECONDS = 0.2
_LARGEST_SHARE = 0.5  # of what the model reads, for the prompt

# The end of a sentence, with closing quotes and brackets; in scripts without spaces no space follows.
_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』）]*|\n\s*\n|\Z)\s*", re.DOTALL)
_CLAUSE = re.compile(r".+?(?:[,;:–—][\"'”’»)\]]*(?=\s)|[，、；：]|\Z)\s*", re.DOTALL)
# A full stop and a space follow these, but they do not end a sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|prof|vs|no|e\.g|i\.e|etc)|\b[A-Z])\.\s*\Z", re.IGNORECASE
)


@dataclass(frozen=True)
class Prompt:
    """A recording to speak like, or to go on from; `SpeechLM.prompt` makes one of a waveform."""

    codes: np.ndarray  # (frames * num_quantizers,) uint16, a stream
    text: str | None = None  # what is said in it
    voice: np.ndarray | None = None  # (voice_dim,) who speaks, of a codec with a voice vector


@dataclass(frozen=True)
class SpeechRequest:
    """A text to be spoken, and by whom: a voice of the model's (its first unless set), or that of a prompt."""

    text: str
    voice: str | None = None
    prompt: Prompt | None = None


@dataclass(frozen=True)
class Passage:
    """A stretch of text that a model says in one go."""

    text: str
    ids: np.ndarray  # (tokens,) what is read first, up to the <|speech|> of the first span
    spans: list[Span]
    texts: list[str]  # of the spans; they join to the text
    pause_frames: int = 0  # of silence before it

    def row(self, vocabulary: Vocabulary, stuck_frames: int) -> SpeakingRow:
        """A fresh row to generate."""
        return SpeakingRow(self.ids, self.spans, vocabulary, stuck_frames)

    def most_tokens(self, num_quantizers: int) -> int:
        """Tokens if every span is as long as it may be."""
        # between two spans the model reads <|text|>, the text, <|speech|>
        fed = sum(2 + len(span.text_ids) for span in self.spans[1:])
        return len(self.ids) + fed + num_quantizers * sum(span.max_frames for span in self.spans) + 1


@dataclass(frozen=True)
class Plan:
    """A text as a model is to say it."""

    passages: list[Passage]
    start: list[int]  # what says whose voice it is: a voice tag, a prompt document, or nothing
    voice: np.ndarray | None  # (voice_dim,) for the codec, if it has voice vectors; None: its default
    cuts: list[str]  # what the model cannot say, a line

    @property
    def words(self) -> int:
        """Words that are spoken."""
        return sum(len(text.split()) for passage in self.passages for text in passage.texts)


class Planner:
    """Cuts texts into passages that the model can say to their ends, however slowly it speaks.

    Args:
        longest: tokens that the model reads.
        words_per_span: of `aligned` documents; as in training unless set.
        language: texts are put into spoken words by its rules; None: they stay as they are written.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        capabilities: SpeechCapabilities,
        bounds: SpeechBounds,
        longest: int,
        words_per_span: int | None = None,
        language: str | None = None,
    ) -> None:
        self.vocabulary, self.capabilities, self.bounds, self.longest = (
            vocabulary,
            capabilities,
            bounds,
            longest,
        )
        self.words_per_span = words_per_span or capabilities.words_per_span
        self.frame_rate = vocabulary.codec.frame_rate
        self.language = language

    def plan(self, request: SpeechRequest) -> Plan:
        """The passages of a text. Without a voice and a prompt the model's first voice speaks.

        A model that was not trained with prompts speaks as its first voice does, and a codec with a voice vector makes
        that sound like the prompt. Raises UserError for a text without a word, an unknown voice, and a prompt that
        leaves no room for a word.
        """
        form = spoken_form(request.text, self.vocabulary, self.language)
        check_text(form.text, request.text)
        voice, prompt = request.voice, request.prompt
        vector = None if prompt is None else prompt.voice
        if vector is not None and not self.capabilities.prompts:
            prompt = None
        if voice is None and prompt is None:
            voice = next(iter(self.vocabulary.voices), None)
        start = self.start(voice, prompt)
        if vector is None:
            vector = self.vocabulary.voice_vector(voice)
        passages: list[Passage] = []
        for text, seconds in zip(form.stretches, form.pauses, strict=True):
            first, *others = self.passages(text, start)
            passages += [replace(first, pause_frames=round(seconds * self.frame_rate)), *others]
        return Plan(passages, start, vector, form.cuts)

    def start(self, voice: str | None, prompt: Prompt | None = None) -> list[int]:
        """What stands before a document: a voice tag, and a whole document of a prompt by the same speaker."""
        vocabulary = self.vocabulary
        start: list[int] = []
        if voice is not None:
            if voice not in vocabulary.voices:
                known = ", ".join(vocabulary.voices) or "none; give a recording as a prompt"
                raise UserError(f"this model has no voice {voice!r}; it has: {known}")
            start.append(vocabulary.voices[voice])
        if prompt is not None:
            if not self.capabilities.prompts:
                raise UserError(
                    "this model was not trained to follow a recording's voice, it does not clone strangers: choose one "
                    f"of its voices ({', '.join(vocabulary.voices) or 'it has none'})"
                )
            _check_prompt(prompt, vocabulary, self.longest)
            if prompt.text:
                start += [vocabulary.text_id, *vocabulary.encode_text(prompt.text).tolist()]
            start += [
                vocabulary.speech_id,
                *vocabulary.codes_to_ids(prompt.codes).tolist(),
                vocabulary.eos_id,
            ]
        return start

    def passages(self, text: str, start: Sequence[int]) -> list[Passage]:
        """A text as passages, each after the same start.

        Without a start room is left to begin each passage with the one before, which keeps the voice. Raises UserError
        when the start leaves no room for a word.
        """
        room = self.longest if start else self.longest // 2
        _, usual, _ = self.capabilities.pace
        most_seconds = self.bounds.passage_seconds or float("inf")

        def fits(piece: str) -> bool:
            if len(piece) * usual > most_seconds:
                return False
            return self.document(piece, start).most_tokens(self.vocabulary.num_quantizers) < room

        found = [self.document(piece, start) for piece in cut_passages(text, fits)]
        if max(passage.most_tokens(self.vocabulary.num_quantizers) for passage in found) >= self.longest:
            raise UserError(
                f"the prompt takes {len(start)} tokens of the {self.longest} that the model reads, which leaves no "
                "room for speech: give a shorter recording"
            )
        return found

    def document(self, text: str, start: Sequence[int], before: Prompt | None = None) -> Passage:
        """One passage.

        before: a prompt with its text that stands in the same document; the passage goes on from it. Raises UserError
        for a model that was not trained to speak.
        """
        vocabulary = self.vocabulary
        if self.capabilities.speak_format is None:
            raise UserError(
                "this model was not trained to speak texts: it has seen neither tts nor aligned documents; "
                "it can only go on from a recording, without a text"
            )
        if self.capabilities.speak_format == "aligned":
            pieces = cut_text(text, vocabulary, self.words_per_span)
            is_part = before is not None or len(pieces) > 1
            spans = [self._span(len(piece.text), piece.ids, is_part) for piece in pieces]
            opening: list[int] = []
            if before is not None:  # one long span; the new words follow as spans of their own
                opening = [
                    vocabulary.text_id,
                    *vocabulary.encode_text(before.text or "").tolist(),
                    vocabulary.speech_id,
                    *vocabulary.codes_to_ids(before.codes).tolist(),
                ]
            ids = [*start, *opening, vocabulary.text_id, *pieces[0].ids.tolist(), vocabulary.speech_id]
            return Passage(text, np.array(ids), spans, [piece.text for piece in pieces])
        said = "" if before is None else before.text or ""
        given = [] if before is None else vocabulary.codes_to_ids(before.codes).tolist()
        words = vocabulary.encode_text(said + text).tolist()
        ids = [*start, vocabulary.text_id, *words, vocabulary.speech_id, *given]
        return Passage(text, np.array(ids), [self._span(len(text), _NO_TEXT)], [text])

    def _span(self, characters: int, text_ids: np.ndarray, is_part: bool = False) -> Span:
        """The limits of the speech for so many characters; a part of a sentence may be faster than a whole one."""
        fast, _, slow = self.capabilities.pace
        least = self.bounds.fastest * (0.5 if is_part else 1.0) * fast * characters
        most = self.bounds.slowest * slow * characters + self.bounds.pause_seconds
        return Span(int(least * self.frame_rate), max(1, round(most * self.frame_rate)), text_ids)

    def after(self, passage: Passage, row: SpeakingRow, then: Passage) -> Passage:
        """The passage `then` as it goes on from one that was spoken: how a voice without a name is kept."""
        codes = self.vocabulary.ids_to_codes(np.asarray(row.drawn))
        return replace(
            self.document(then.text, [], Prompt(codes, passage.text)), pause_frames=then.pause_frames
        )


@dataclass(frozen=True)
class TextSpan:
    """A few words of a text."""

    text: str
    ids: np.ndarray  # (tokens,) int32


def cut_text(text: str, vocabulary: Vocabulary, words_per_span: int) -> list[TextSpan]:
    """A text as spans of `words_per_span` words, which join to it. Marks without letters stay with the word before."""
    units: list[list[int]] = []
    pieces = split_words(text)
    for index, piece in enumerate(pieces):
        if not units or any(map(str.isalnum, piece)):
            # Leading marks wait for the first word.
            if len(units) == 1 and not any(str.isalnum(c) for i in units[0] for c in pieces[i]):
                units[0].append(index)
            else:
                units.append([index])
        else:
            units[-1].append(index)
    ids = vocabulary.encode_words(text)
    spans = []
    for start in range(0, len(units), words_per_span):
        members = [index for unit in units[start : start + words_per_span] for index in unit]
        spans.append(
            TextSpan(
                "".join(pieces[index] for index in members), np.concatenate([ids[index] for index in members])
            )
        )
    return spans


def split_sentences(text: str) -> list[str]:
    """A text as sentences, white space behind them included: they join to the text exactly."""
    sentences: list[str] = []
    for piece in _SENTENCE.findall(text):
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += piece
        else:
            sentences.append(piece)
    return sentences


def cut_passages(text: str, fits: Callable[[str], bool]) -> list[str]:
    """A text as few passages that fit; they join to it exactly.

    Passages are whole sentences. A sentence that does not fit is cut after a comma or the like, then between words, and
    at worst inside a word. A piece without a letter or digit stays with its neighbour. A single character always
    passes.
    """
    passages: list[str] = []
    for piece in _fitting(text, fits, 0):
        joined = passages[-1] + piece if passages else piece
        silent = passages and not (_sounds(piece) and _sounds(passages[-1]))
        if passages and (silent or fits(joined)):
            passages[-1] = joined
        else:
            passages.append(piece)
    return passages


_CUTS: tuple[Callable[[str], list[str]], ...] = (split_sentences, _CLAUSE.findall, split_words, list)


def _fitting(text: str, fits: Callable[[str], bool], level: int) -> Iterator[str]:
    """The pieces of a text that fit, cut as coarsely as each allows."""
    for piece in _CUTS[level](text):
        if level + 1 == len(_CUTS) or fits(piece):
            yield piece
        else:
            yield from _fitting(piece, fits, level + 1)


def _sounds(text: str) -> bool:
    return any(map(str.isalnum, text))


def prompt_from(waveform: Tensor, sampling_rate: int, codec: CodecInfo, name: str) -> Tensor:
    """A recording (samples,) of any rate, resampled to the codec's, as loud as what codecs are trained on.

    Raises UserError, naming the recording, if it is empty, too short, silent or not finite.
    """
    if not len(waveform) or not bool(torch.isfinite(waveform).all()):
        raise UserError(f"{name} holds {'NaN or infinite samples' if len(waveform) else 'no samples'}")
    seconds = len(waveform) / sampling_rate
    if seconds < _SHORTEST_SECONDS:
        raise UserError(f"{name} is {seconds:.2f} s long: give some seconds of speech")
    window = max(1, sampling_rate // 10)
    power = waveform.float().square()[: max(1, len(waveform) // window) * window]
    loudest = power.reshape(-1, min(window, len(power))).mean(1).max()
    level = 10 * torch.log10(loudest.clamp_min(1e-12)).item()
    if level < _SILENCE_DB:
        raise UserError(
            f"{name} is silent ({level:.0f} dB at its loudest): give a recording in which somebody speaks"
        )
    peak = waveform.abs().max().item()
    gain = 1.0 if _PEAKS[0] <= peak <= _PEAKS[1] else sum(_PEAKS) / 2 / peak
    resampler = Resampler(sampling_rate, codec.sampling_rate)
    return torch.cat([resampler.push(waveform.float() * gain), resampler.finish()])


def cut_at_pauses(waveform: Tensor, sampling_rate: int, most_seconds: float) -> list[Tensor]:
    """A recording (samples,) in pieces of at most so many seconds, cut where their last thirds are quietest."""
    window, most = sampling_rate // 10, round(most_seconds * sampling_rate)
    pieces: list[Tensor] = []
    while len(waveform) > most:
        late = waveform[most * 2 // 3 : most]
        power = late[: len(late) // window * window].reshape(-1, window).square().mean(1)
        cut = most * 2 // 3 + int(power.argmin()) * window + window // 2
        pieces.append(waveform[:cut])
        waveform = waveform[cut:]
    return [*pieces, waveform]


def _check_prompt(prompt: Prompt, vocabulary: Vocabulary, longest: int) -> None:
    """Raise UserError for a prompt that takes more than its share of the `longest` tokens that a model reads."""
    text = 0 if prompt.text is None else len(vocabulary.encode_text(prompt.text))
    speech = len(vocabulary.codes_to_ids(prompt.codes))
    room = int(longest * _LARGEST_SHARE)
    if text + speech <= room:
        return
    rate = vocabulary.codec.frame_rate * vocabulary.num_quantizers
    raise UserError(
        f"the prompt is too long: {speech / rate:.1f} s, and this model follows up to "
        f"{max(0, room - text) / rate:.1f} s{' with this text' if text else ''}; give a part of it"
    )


def check_text(said: str, written: str) -> None:
    """Raise UserError for a text without a letter or digit that can be said."""
    if not any(map(str.isalnum, said)):
        raise UserError(f"there is nothing to say in the text {written!r}")
