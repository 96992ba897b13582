"""A speech language model in use: it speaks, goes on speaking, and writes down what it hears."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from codec import CodecInfo, load_codec
from codec.runs import UserError
from slm.bounds import SpeechBounds, cut_text
from slm.bundled import find_slm
from slm.checkpoint import SpeakingHabits, load_checkpoint
from slm.generation import generate
from slm.grammar import Cut, Span, SpeakingRow, TokenSets, WritingRow
from slm.rescoring import text_log_probability
from slm.sampling import SamplingConfig
from slm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codec import HHCodecModel

_SAMPLING = SamplingConfig()
_GREEDY = SamplingConfig(temperature=0.0)
_BOUNDS = SpeechBounds()
_CUT_MEANS: dict[Cut, str] = {
    "length": "it did not end within the longest time its text may take",
    "repeats": "it only repeated itself",
    "context": "the model cannot read further",
}


@dataclass(frozen=True)
class Prompt:
    """A recording to speak like, or to go on from."""

    codes: np.ndarray  # (frames * num_quantizers,) uint16, a stream
    text: str | None = None  # what is said in it


@dataclass(frozen=True)
class SpokenSpan:
    """Words of the text and when they are spoken, in seconds of the result's audio."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class SpokenResult:
    """Generated speech."""

    audio: Tensor  # (samples,) float32
    sampling_rate: int
    codes: Tensor  # (num_quantizers, frames) int64
    spans: list[SpokenSpan]  # empty where the model did not say which words it was at
    ended: bool  # whether the model itself said that it was done
    cuts: list[str]  # what was cut and why, a line each; may be there although it ended
    prompt_frames: int  # frames at the beginning that were given, not generated
    generation_seconds: float  # time it took to generate the codes of all candidates
    decoding_seconds: float
    scores: list[float] = field(
        default_factory=list
    )  # of all candidates: log p(text | speech), nats per token

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / self.sampling_rate

    @property
    def real_time_factor(self) -> float:
        """Time it took per second of new audio: below 1 is faster than real time."""
        frames = self.codes.shape[1]
        new = self.seconds * (frames - self.prompt_frames) / frames if frames else 0.0
        return (self.generation_seconds + self.decoding_seconds) / new if new else float("inf")


@dataclass(frozen=True)
class TranscribedResult:
    """What a model heard."""

    text: str
    ended: bool
    cuts: list[str]


class SpeechLM:
    """A causal language model over text and speech tokens, with the vocabulary and the codec that go with it."""

    def __init__(self, model: "PreTrainedModel", vocabulary: Vocabulary, habits: SpeakingHabits) -> None:
        self.model = model.eval()
        self.vocabulary = vocabulary
        self.habits = habits
        self.sets = TokenSets(vocabulary, model.device)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Self:
        """Load a bundled model by name, one from a directory (a run's too), or from the hub.

        Raises UserError when there is no such model.
        """
        directory = find_slm(name_or_path)
        vocabulary = Vocabulary.from_pretrained(directory)
        return cls(load_checkpoint(directory, device, dtype), vocabulary, SpeakingHabits.read(directory))

    @cached_property
    def codec(self) -> "HHCodecModel":
        """The codec whose codes this model speaks; loaded when first needed.

        Raises UserError when it is another one by now.
        """
        codec = load_codec(self.vocabulary.codec_location, device=str(self.model.device))
        CodecInfo.of(codec).check_same(self.vocabulary.codec, what="the language model")
        return codec

    # ---- what it does

    def speak(
        self,
        text: str,
        voice: str | None = None,
        prompt: Prompt | None = None,
        candidates: int = 1,
        sampling: SamplingConfig = _SAMPLING,
        bounds: SpeechBounds = _BOUNDS,
        words_per_span: int | None = None,
        seed: int = 0,
    ) -> SpokenResult:
        """Text to speech.

        The voice is one that the model has a tag for (`vocabulary.voices`; the first unless set), or that of a
        prompt. Of several candidates the one is taken in which the model hears the text best.

        Raises UserError for a model that was not trained to speak, an unknown voice, and a text or prompt too long
        for it.
        """
        self._check_text(text)
        vocabulary, frame_rate = self.vocabulary, self.vocabulary.codec.frame_rate
        if voice is None and prompt is None:
            voice = next(iter(vocabulary.voices), None)
        start = [*self._voice(voice), *self._prompt_document(prompt)]
        if self.habits.speak_format == "aligned":
            pieces = cut_text(text, vocabulary, words_per_span or self.habits.words_per_span)
            spans = [
                bounds.span(len(piece.text), self.habits, frame_rate, piece.ids, is_part=len(pieces) > 1)
                for piece in pieces
            ]
            texts = [piece.text for piece in pieces]
            first = pieces[0].ids
        elif self.habits.speak_format == "tts":
            spans, texts = [bounds.span(len(text), self.habits, frame_rate)], [text]
            first = vocabulary.encode_text(text)
        else:
            raise UserError(
                "this model was not trained to speak texts: it has seen neither tts nor aligned documents"
            )
        ids = np.array([*start, vocabulary.text_id, *first.tolist(), vocabulary.speech_id])
        rows = [
            SpeakingRow(ids, spans, vocabulary, bounds.stuck_frames(frame_rate)) for _ in range(candidates)
        ]
        return self._best(rows, text, texts, sampling, seed, np.zeros(0, dtype=np.int32))

    def continue_speech(
        self,
        recording: Prompt,
        seconds: float = 10.0,
        text: str | None = None,
        voice: str | None = None,
        candidates: int = 1,
        sampling: SamplingConfig = _SAMPLING,
        bounds: SpeechBounds = _BOUNDS,
        seed: int = 0,
    ) -> SpokenResult:
        """Go on from a recording: for `seconds` at most as the model likes, or saying `text`.

        For a text to be said, what the recording says has to be known (`recording.text`); if it is not, the model
        writes it down first. The audio of the result has both, the recording as the codec hears it; its first
        `prompt_frames` are the recording's.
        """
        vocabulary, frame_rate = self.vocabulary, self.vocabulary.codec.frame_rate
        given = vocabulary.codes_to_ids(recording.codes)
        start = self._voice(voice) if voice else []
        if text is None:
            if seconds <= 0:
                raise UserError(f"seconds is {seconds}: how long may the recording go on?")
            ids = np.array([*start, vocabulary.speech_id, *given.tolist()])
            spans, texts = [Span(0, max(1, round(seconds * frame_rate)))], [""]
        else:
            self._check_text(text)
            before = recording.text or self.transcribe(recording.codes).text
            joint = "" if before.endswith(" ") or text.startswith(" ") or not before else " "
            if self.habits.speak_format == "aligned":
                # The recording is one long span; the new words follow as spans of their own.
                pieces = cut_text(joint + text, vocabulary, self.habits.words_per_span)
                first = [vocabulary.text_id, *pieces[0].ids.tolist(), vocabulary.speech_id]
                ids = np.array(
                    [
                        *start, vocabulary.text_id, *vocabulary.encode_text(before).tolist(), vocabulary.speech_id,
                        *given.tolist(), *first,
                    ]
                )  # fmt: skip
                spans = [
                    bounds.span(len(piece.text), self.habits, frame_rate, piece.ids, is_part=True)
                    for piece in pieces
                ]
                texts = [piece.text for piece in pieces]
            elif self.habits.speak_format == "tts":
                whole = vocabulary.encode_text(before + joint + text).tolist()
                ids = np.array([*start, vocabulary.text_id, *whole, vocabulary.speech_id, *given.tolist()])
                spans, texts = [bounds.span(len(text), self.habits, frame_rate)], [text]
            else:
                raise UserError(
                    "this model was not trained to speak texts: let it go on as it likes, without a text"
                )
        rows = [
            SpeakingRow(ids, spans, vocabulary, bounds.stuck_frames(frame_rate)) for _ in range(candidates)
        ]
        return self._best(rows, text, texts, sampling, seed, given)

    def transcribe(self, codes: np.ndarray) -> TranscribedResult:
        """Speech to text, by the likeliest token at each step.

        codes: (frames * num_quantizers,) uint16, a stream. Raises UserError for a model that was not trained for
        it and a recording too long for it.
        """
        self._check_hears()
        vocabulary = self.vocabulary
        ids = np.array([vocabulary.speech_id, *vocabulary.codes_to_ids(codes).tolist(), vocabulary.text_id])
        seconds = len(codes) / (vocabulary.codec.num_quantizers * vocabulary.codec.frame_rate)
        fastest = (self.habits.seconds_per_character or [0.045])[0]
        row = WritingRow(ids, max_tokens=20 + round(2 * seconds / fastest), vocabulary=vocabulary)
        generate(self.model, [row], self.sets, _GREEDY, seed=0)
        cuts = [] if row.cut is None else [f"the transcript was cut: {_CUT_MEANS[row.cut]}"]
        return TranscribedResult(vocabulary.decode_text(row.drawn), row.cut is None, cuts)

    def encode(self, waveform: Tensor) -> np.ndarray:
        """A recording as a stream of codes, (frames * num_quantizers,) uint16.

        waveform: (samples,) float32 at the codec's sampling rate.
        """
        codes = self.codec.encode_blocks([waveform.to(self.model.device)])  # (quantizers, frames)
        return codes.T.reshape(-1).cpu().numpy().astype(np.uint16)

    def decode(self, speech_ids: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Codes, (num_quantizers, frames) int64, and audio, (samples,) float32, of speech token ids."""
        vocabulary = self.vocabulary
        stream = vocabulary.ids_to_codes(np.asarray(speech_ids)).astype(np.int64)
        codes = torch.from_numpy(stream.reshape(-1, vocabulary.num_quantizers).T.copy())
        if not codes.shape[1]:
            return codes, torch.zeros(0)
        with torch.inference_mode():
            audio = self.codec.decode(codes[None].to(self.model.device)).audio_values  # (1, 1, samples)
        assert audio is not None
        return codes, audio[0, 0].float().cpu()

    # ---- how

    def _best(
        self,
        rows: list[SpeakingRow],
        text: str | None,
        texts: list[str],
        sampling: SamplingConfig,
        seed: int,
        given: np.ndarray,
    ) -> SpokenResult:
        """Generate, choose, decode."""
        if not rows:
            raise UserError("candidates must be 1 or more")
        if len(rows) > 1:
            if text is None:
                raise UserError(
                    "candidates are compared by how well they say a text: give a text, or take one candidate"
                )
            self._check_hears()
        _ = self.codec  # loaded now, or its loading would count as decoding
        started = time.perf_counter()
        generate(self.model, rows, self.sets, sampling, seed)
        scores: list[float] = []
        best = rows[0]
        if len(rows) > 1 and text is not None:
            heard = [np.array(row.drawn, dtype=np.int32) for row in rows]
            scores = text_log_probability(self.model, self.vocabulary, heard, text)
            # What ended by itself comes before what was cut, however well the rest is understood.
            best = max(zip(rows, scores, strict=True), key=lambda pair: (not pair[0].cut_spans, pair[1]))[0]
        generated = time.perf_counter()
        codes, audio = self.decode([*given.tolist(), *best.drawn])
        decoded = time.perf_counter()
        info = self.vocabulary.codec
        given_frames = len(given) // self.vocabulary.num_quantizers
        edges = (given_frames + np.cumsum([0, *best.span_frames])) / info.frame_rate
        spans = [
            SpokenSpan(span, float(start), float(end))
            for span, start, end in zip(texts, edges[:-1], edges[1:], strict=False)
            if len(texts) > 1
        ]
        return SpokenResult(
            audio=audio,
            sampling_rate=info.sampling_rate,
            codes=codes,
            spans=spans,
            ended=best.cut is None,
            cuts=_said_cuts(best, texts),
            prompt_frames=given_frames,
            generation_seconds=generated - started,
            decoding_seconds=decoded - generated,
            scores=scores,
        )

    def _voice(self, name: str | None) -> list[int]:
        voices = self.vocabulary.voices
        if name is None:
            return []
        if name not in voices:
            known = ", ".join(voices) or "none; give a recording as a prompt"
            raise UserError(f"this model has no voice {name!r}; it has: {known}")
        return [voices[name]]

    def _prompt_document(self, prompt: Prompt | None) -> list[int]:
        """An utterance of the same speaker, as a whole document before the one that is asked for."""
        if prompt is None:
            return []
        if not self.habits.prompts:
            raise UserError(
                "this model was not trained to follow a recording's voice: choose one of its voices "
                f"({', '.join(self.vocabulary.voices) or 'it has none'})"
            )
        vocabulary = self.vocabulary
        text = [vocabulary.text_id, *vocabulary.encode_text(prompt.text).tolist()] if prompt.text else []
        return [
            *text,
            vocabulary.speech_id,
            *vocabulary.codes_to_ids(prompt.codes).tolist(),
            vocabulary.eos_id,
        ]

    def _check_text(self, text: str) -> None:
        if not any(map(str.isalnum, text)):
            raise UserError(f"there is nothing to say in the text {text!r}")

    def _check_hears(self) -> None:
        if "asr" not in self.habits.formats:
            raise UserError("this model was not trained to write down speech: it has seen no asr documents")


def _said_cuts(row: SpeakingRow, texts: list[str]) -> list[str]:
    lines = []
    for number, cut in row.cut_spans.items():
        what = f"the speech of {texts[number].strip()!r}" if texts[number] else "the speech"
        lines.append(f"{what} was cut: {_CUT_MEANS[cut]}")
    if row.cut == "context":
        left = "".join(texts[len(row.span_frames) :]).strip()
        lines.append(
            f"the speech was cut: {_CUT_MEANS['context']}" + (f"; not said: {left!r}" if left else "")
        )
    return lines
