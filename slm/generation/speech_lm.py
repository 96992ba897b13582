"""A speech language model in use: it speaks, goes on speaking, and writes down what it hears."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from codec import Codec, CodecInfo, load_codec
from codec.foundation import UserError
from codec.streaming_codec import stream_decoder
from slm.generation.config import SamplingConfig, SpeechBounds
from slm.generation.decoders import Decoder, TransformersDecoder, decoder_for
from slm.generation.generate import generate, generation_steps
from slm.generation.grammar import Span, SpeakingRow, TokenSets, WritingRow
from slm.generation.planning import (
    Passage,
    Plan,
    Planner,
    Prompt,
    SpeechRequest,
    SpokenForm,
    check_text,
    cut_at_pauses,
    prompt_from,
    spoken_form,
)
from slm.generation.results import (
    CHUNK_FRAMES,
    CUT_MEANS,
    ProgressCounter,
    SpeechPiece,
    SpeechStream,
    SpokenResult,
    SpokenSpan,
    TranscribedResult,
    Watcher,
    said_cuts,
    spans_of,
)
from slm.models.checkpoint import SpeechCapabilities, find_slm, load_checkpoint
from slm.models.likelihood import text_log_probability
from slm.vocabulary import Vocabulary

_SAMPLING = SamplingConfig()
_GREEDY = SamplingConfig(temperature=0.0)
_BOUNDS = SpeechBounds()
_LEAST_SECONDS = 2.0  # of a continuation: a recording that sounds finished is gone on from all the same
_HEARD_SECONDS = 12.0  # about as much as models hear in one go while they are trained
_BATCHES_AHEAD = (
    4  # requests of so many batches are sorted together, so that texts of one length share a batch
)


class SpeechLM:
    """A causal language model over text and speech tokens, with the vocabulary and the codec that go with it.

    Attributes:
        language: texts are put into spoken words by the rules of this language (`slm.text_normalization`); None: they
            are said as they are written.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        capabilities: SpeechCapabilities,
        decoder: Decoder | None = None,
    ) -> None:
        """`decoder`: what generates with the model; its own forward pass unless set."""
        self.model = model.eval()
        self.decoder = decoder or TransformersDecoder(model)
        self.vocabulary = vocabulary
        self.capabilities = capabilities
        self.language: str | None = capabilities.language
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
        model = load_checkpoint(directory, device, dtype)
        return cls(model, vocabulary, SpeechCapabilities.read(directory), decoder_for(model))

    @cached_property
    def codec(self) -> Codec:
        """The codec whose codes this model speaks; loaded when first needed.

        Raises UserError if the codec at that place has changed.
        """
        codec = load_codec(
            self.vocabulary.codec_location,
            device=str(self.model.device),
            num_quantizers=self.vocabulary.codec.num_quantizers,
        )
        CodecInfo.of(codec).check_same(self.vocabulary.codec, what="the language model")
        return codec

    @cached_property
    def silence(self) -> np.ndarray:
        """Token ids of a frame of silence, (num_quantizers,): the middle one of a silent second."""
        size, second = self.vocabulary.num_quantizers, torch.zeros(self.vocabulary.codec.sampling_rate)
        ids = self.vocabulary.codes_to_ids(self.encode(second)).reshape(-1, size)
        return ids[len(ids) // 2]

    # ---- what it does

    def spoken_form(self, text: str) -> SpokenForm:
        """A text in the words and characters in which this model says it. What is in this form keeps it."""
        return spoken_form(text, self.vocabulary, self.language)

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
        on_progress: Watcher | None = None,
    ) -> SpokenResult:
        """Text to speech, of any length.

        The voice is one that the model has a tag for (`vocabulary.voices`; the first unless set), or that of a prompt.
        A long text is said in passages of whole sentences, in the same voice. The best of several candidates is the one
        in which the model itself recognises the text best. `on_progress` is called after every step.

        Raises UserError for a model that was not trained to speak, an unknown voice, and a prompt too long for it.
        """
        request = SpeechRequest(text, voice, prompt)
        results = self.speak_all(
            [request], candidates, sampling, bounds, words_per_span, seed, on_progress=on_progress
        )
        return next(results)

    def speak_all(
        self,
        requests: Sequence[SpeechRequest],
        candidates: int = 1,
        sampling: SamplingConfig = _SAMPLING,
        bounds: SpeechBounds = _BOUNDS,
        words_per_span: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
        on_progress: Watcher | None = None,
    ) -> Iterator[SpokenResult]:
        """Many texts to speech, in their order. Up to `batch_size` passages are generated together.

        The result for a text does not depend on the other texts (but for rounding in matrix products). Raises UserError
        as `speak` does, before anything is generated.
        """
        if candidates < 1:
            raise UserError("candidates must be 1 or more")
        if batch_size < 1:
            raise UserError("batch_size must be 1 or more")
        if candidates > 1:
            self.check_hears()
        planner = self._planner(bounds, words_per_span)
        _ = self.codec  # loaded now, or its loading would count as decoding
        jobs = [_Job(planner.plan(request)) for request in requests]
        words = sum(job.plan.words for job in jobs)
        tokens_a_second = self.vocabulary.codec.frame_rate * self.vocabulary.num_quantizers
        watch = ProgressCounter(words, tokens_a_second, on_progress)
        waiting = iter(jobs)
        return self._in_order(waiting, planner, candidates, sampling, bounds, seed, batch_size, watch)

    def stream(
        self,
        text: str,
        voice: str | None = None,
        prompt: Prompt | None = None,
        sampling: SamplingConfig = _SAMPLING,
        bounds: SpeechBounds = _BOUNDS,
        words_per_span: int | None = None,
        seed: int = 0,
        chunk_frames: Sequence[int] = CHUNK_FRAMES,
    ) -> SpeechStream:
        """As `speak` with one candidate, but iterate over the result for audio while it is being made.

        It is the audio of `speak` (to 1e-4), except that repeats which were already handed out stay. If the codec
        cannot stream, it decodes in chunks (`codec.streaming_codec`). chunk_frames: frames that are decoded together;
        the last number holds for all further chunks. Raises UserError as `speak` does.
        """
        requested = time.perf_counter()
        planner = self._planner(bounds, words_per_span)
        plan = planner.plan(SpeechRequest(text, voice, prompt))
        said: list[tuple[Passage, SpeakingRow]] = []

        def start_row(passage: Passage) -> SpeakingRow:
            number = len(said)
            if said and not plan.start:
                passage = planner.after(*said[-1], passage)
            row = passage.row(self.vocabulary, bounds.stuck_frames(planner.frame_rate))
            row.draws, row.seed = _draws(0, number), seed
            said.append((passage, row))
            return row

        return SpeechStream(
            plan,
            self.silence if any(passage.pause_frames for passage in plan.passages) else None,
            start_row,
            self.speak_on,
            stream_decoder(self.codec, voice=self._vectors(plan.voice)),
            self.vocabulary,
            sampling,
            chunk_frames,
            requested,
        )

    def speak_on(self, streams: Sequence[SpeechStream]) -> Iterator[list[tuple[SpeechStream, SpeechPiece]]]:
        """Go on with several streams of the same sampling by a passage each, generated together.

        Yields after every step what is then ready. What a stream says does not depend on the others (but for rounding
        in matrix products). Raises ValueError for streams whose tokens are drawn in different ways.
        """
        if len({stream.sampling for stream in streams}) != 1:
            raise ValueError("streams that are generated together have the same sampling")
        rows = [stream.begin() for stream in streams]
        steps = generation_steps(self.decoder, rows, self.sets, streams[0].sampling, seed=0)
        for _ in chain((None,), steps):  # a pause is ready before the first step
            yield [
                (stream, piece)
                for stream, row in zip(streams, rows, strict=True)
                if stream.row is row and (piece := stream.take()) is not None
            ]

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
        least_seconds: float | None = None,
    ) -> SpokenResult:
        """Go on from a recording: freely for `least_seconds` (2 unless set) to `seconds`, or saying `text`.

        To say a text the model needs the text of the recording (`recording.text`), and transcribes it if it is not
        given. Without a text the model hears as much of the recording's end as it can read. The audio of the result
        holds both, the recording as the codec decodes it; its first `prompt_frames` are the recording's.

        Raises UserError for a text with a recording too long for it, and for what the model was not trained to do.
        """
        vocabulary, frame_rate = self.vocabulary, self.vocabulary.codec.frame_rate
        size, stuck = vocabulary.num_quantizers, bounds.stuck_frames(vocabulary.codec.frame_rate)
        given = vocabulary.codes_to_ids(recording.codes)
        planner = self._planner(bounds, None)
        start = planner.start(voice or None)
        if candidates < 1:
            raise UserError("candidates must be 1 or more")
        if candidates > 1 and text is None:
            raise UserError(
                "candidates are compared by how well they say a text: give a text, or take one candidate"
            )
        cuts: list[str] = []
        if text is None:
            least_seconds = min(_LEAST_SECONDS, seconds) if least_seconds is None else least_seconds
            if seconds <= 0:
                raise UserError(f"seconds is {seconds}: how long may the recording go on?")
            if not 0 <= least_seconds <= seconds:
                raise UserError(f"least_seconds is {least_seconds}: from 0 to seconds, {seconds:g}")
            frames = max(1, round(seconds * frame_rate))
            room = self.decoder.longest - 2 - len(start) - frames * size
            if room < size:
                most = (self.decoder.longest - 2 - len(start)) / size / frame_rate
                raise UserError(
                    f"this model can read {most:.0f} s in all: let it go on for less than {seconds:g} s"
                )
            heard = given[-(room // size) * size :]
            ids = np.array([*start, vocabulary.speech_id, *heard.tolist()])
            passage = Passage("", ids, [Span(round(least_seconds * frame_rate), frames)], [""])
        else:
            form = self.spoken_form(text)
            check_text(form.text, text)
            text, cuts = form.text, form.cuts
            before = recording.text or self.transcribe(recording.codes).text
            joint = "" if before.endswith(" ") or text.startswith(" ") or not before else " "
            passage = planner.document(joint + text, start, Prompt(recording.codes, before))
            if passage.most_tokens(size) >= self.decoder.longest:
                spare = self.decoder.longest - (passage.most_tokens(size) - len(given))
                raise UserError(
                    f"the recording of {len(given) / size / frame_rate:.1f} s and the text do not fit into what this "
                    f"model reads: with this text, give the last {max(0.0, spare / size / frame_rate):.1f} s of it, "
                    "or a shorter text"
                )
            if candidates > 1:
                self.check_hears()
        _ = self.codec
        rows = [passage.row(vocabulary, stuck) for _ in range(candidates)]
        started = time.perf_counter()
        generate(self.decoder, rows, self.sets, sampling, seed)
        best, scores = self._best(rows, text or "")
        seconds_taken = time.perf_counter() - started
        heard_voice = self.vocabulary.voice_vector(voice) if recording.voice is None else recording.voice
        return self._result([(passage, best)], given, scores, seconds_taken, cuts, heard_voice)

    def warm_up(self) -> None:
        """Load the codec, and speak and listen once, so that the first request does not wait for libraries."""
        codes = self.encode(torch.zeros(self.vocabulary.codec.sampling_rate))
        self.continue_speech(Prompt(codes), seconds=0.5)
        if self.capabilities.speak_format is not None:
            for _ in self.stream("a"):
                pass

    def transcribe(self, codes: np.ndarray) -> TranscribedResult:
        """Speech to text, by the likeliest token at each step.

        codes: (frames * num_quantizers,) uint16, a stream. Raises UserError for a model that was not trained for
        it and a recording too long for it.
        """
        self.check_hears()
        vocabulary = self.vocabulary
        ids = np.array([vocabulary.speech_id, *vocabulary.codes_to_ids(codes).tolist(), vocabulary.text_id])
        seconds = len(codes) / (vocabulary.codec.num_quantizers * vocabulary.codec.frame_rate)
        fastest, _, _ = self.capabilities.pace
        row = WritingRow(ids, max_tokens=20 + round(2 * seconds / fastest), vocabulary=vocabulary)
        generate(self.decoder, [row], self.sets, _GREEDY, seed=0)
        cuts = [] if row.cut is None else [f"the transcript was cut: {CUT_MEANS[row.cut]}"]
        return TranscribedResult(vocabulary.decode_text(row.drawn), row.cut is None, cuts)

    def transcribe_recording(
        self, waveform: Tensor, sampling_rate: int, name: str = "the recording"
    ) -> TranscribedResult:
        """What a recording (samples,) of any rate and length says: heard in windows that end where it is quiet.

        name: what errors call it. Raises UserError as `prompt` and `transcribe` do.
        """
        audio = prompt_from(waveform, sampling_rate, self.vocabulary.codec, name)
        windows = cut_at_pauses(audio, self.vocabulary.codec.sampling_rate, _HEARD_SECONDS)
        heard = [self.transcribe(self.encode(window)) for window in windows]
        return TranscribedResult(
            " ".join(result.text.strip() for result in heard if result.text.strip()),
            all(result.ended for result in heard),
            [cut for result in heard for cut in result.cuts],
        )

    def prompt(
        self, waveform: Tensor, sampling_rate: int, text: str | None = None, name: str = "the recording"
    ) -> Prompt:
        """A recording (samples,) of any rate as a prompt; `text` is what is said in it, `name` what errors call it.

        Raises UserError for one that is silent, empty or not finite.
        """
        return self.read(prompt_from(waveform, sampling_rate, self.vocabulary.codec, name), text)

    def read(self, waveform: Tensor, text: str | None = None) -> Prompt:
        """A recording (samples,) float32 at the codec's sampling rate as codes and, if the codec has it, a voice."""
        encoded = self.codec.encode_blocks([waveform.to(self.model.device)])
        stream = encoded.audio_codes[0].T.reshape(-1).cpu().numpy().astype(np.uint16)
        return Prompt(stream, text, None if encoded.voice is None else encoded.voice[0].cpu().numpy())

    def encode(self, waveform: Tensor) -> np.ndarray:
        """A recording as a stream of codes, (frames * num_quantizers,) uint16.

        waveform: (samples,) float32 at the codec's sampling rate.
        """
        return self.read(waveform).codes

    def decode(
        self, speech_ids: Sequence[int] | np.ndarray, voice: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes, (num_quantizers, frames) int64, and audio, (samples,) float32, of speech token ids.

        `voice` (voice_dim,) says who speaks, for a codec with voice vectors.
        """
        vocabulary = self.vocabulary
        stream = vocabulary.ids_to_codes(np.asarray(speech_ids)).astype(np.int64)
        codes = torch.from_numpy(stream.reshape(-1, vocabulary.num_quantizers).T.copy())
        if not codes.shape[1]:
            return codes, torch.zeros(0)
        with torch.inference_mode():
            audio = self.codec.decode(  # (1, 1, samples)
                codes[None].to(self.model.device), voice=self._vectors(voice)
            ).audio_values
        assert audio is not None
        return codes, audio[0, 0].float().cpu()

    # ---- how

    def _vectors(self, voice: np.ndarray | None) -> Tensor | None:
        """(voice_dim,) -> (1, voice_dim) on the model's device."""
        return None if voice is None else torch.from_numpy(voice).float()[None].to(self.model.device)

    def _planner(self, bounds: SpeechBounds, words_per_span: int | None) -> Planner:
        longest = self.decoder.longest
        return Planner(self.vocabulary, self.capabilities, bounds, longest, words_per_span, self.language)

    def _in_order(
        self,
        waiting: Iterator["_Job"],
        planner: Planner,
        candidates: int,
        sampling: SamplingConfig,
        bounds: SpeechBounds,
        seed: int,
        batch_size: int,
        watch: ProgressCounter,
    ) -> Iterator[SpokenResult]:
        stuck = bounds.stuck_frames(planner.frame_rate)

        def speak(places: "list[tuple[_Job, int]]") -> None:
            """Generate some passages together and keep the best candidate of each."""
            passages = [job.passage(number, planner) for job, number in places]
            rows = [passage.row(self.vocabulary, stuck) for passage in passages for _ in range(candidates)]
            for index, row in enumerate(rows):
                row.draws = _draws(index % candidates, places[index // candidates][1])
            started = time.perf_counter()
            for _ in generation_steps(self.decoder, rows, self.sets, sampling, seed):
                watch.step(rows[::candidates], passages)
            chosen = []
            for index, passage in enumerate(passages):
                own = rows[index * candidates : (index + 1) * candidates]
                chosen.append((passage, *self._best(own, passage.text)))
            taken = time.perf_counter() - started
            frames = sum(1 + len(row.drawn) for row in rows)
            for index, ((job, number), (passage, best, scores)) in enumerate(
                zip(places, chosen, strict=True)
            ):
                own = rows[index * candidates : (index + 1) * candidates]
                share = taken * sum(1 + len(row.drawn) for row in own) / frames
                job.spoken[number] = (passage, best)
                job.scores += scores
                job.seconds += share
            watch.done([best for _, best, _ in chosen], passages)

        while group := list(islice(waiting, _BATCHES_AHEAD * batch_size)):
            together = [
                (job, number) for job in group if job.plan.start for number in range(len(job.plan.passages))
            ]
            together += [(job, 0) for job in group if not job.plan.start]
            together.sort(key=lambda place: -len(place[0].plan.passages[place[1]].text))
            for first in range(0, len(together), batch_size):
                speak(together[first : first + batch_size])
            for job in group:
                # a voice without a name is kept by going on from what was said before
                for number in range(1, len(job.plan.passages)) if not job.plan.start else ():
                    speak([(job, number)])
                spoken = [job.spoken[number] for number in range(len(job.plan.passages))]
                nothing = np.zeros(0, dtype=np.int32)
                yield self._result(spoken, nothing, job.scores, job.seconds, job.plan.cuts, job.plan.voice)

    def _best(self, rows: list[SpeakingRow], text: str) -> tuple[SpeakingRow, list[float]]:
        """The row in which the model hears the text best, and how well it hears it in each."""
        if len(rows) == 1:
            return rows[0], []
        heard = [np.array(row.drawn, dtype=np.int32) for row in rows]
        scores = text_log_probability(self.model, self.vocabulary, heard, text)
        # What ended by itself comes before what was cut, however well the rest is understood.
        pairs = zip(rows, scores, strict=True)
        return max(pairs, key=lambda pair: (not pair[0].cut_spans, pair[1]))[0], scores

    def _result(
        self,
        spoken: list[tuple[Passage, SpeakingRow]],
        given: np.ndarray,
        scores: list[float],
        generation_seconds: float,
        cuts: list[str],
        voice: np.ndarray | None,
    ) -> SpokenResult:
        """Decode what was given and what was spoken, as one, with the pauses between the passages."""
        started = time.perf_counter()
        ids = given.tolist()
        for passage, row in spoken:
            ids += [
                *(self.silence.tolist() * passage.pause_frames if passage.pause_frames else ()),
                *row.drawn,
            ]
        codes, audio = self.decode(ids, voice)
        decoding_seconds = time.perf_counter() - started
        info, size = self.vocabulary.codec, self.vocabulary.num_quantizers
        spans: list[SpokenSpan] = []
        frames = given_frames = len(given) // size
        for passage, row in spoken:
            frames += passage.pause_frames
            spans += spans_of(row, passage.texts, frames / info.frame_rate, info.frame_rate)
            frames += len(row.drawn) // size
        return SpokenResult(
            audio=audio,
            sampling_rate=info.sampling_rate,
            codes=codes,
            spans=spans if len(spans) > 1 else [],
            ended=all(row.cut is None for _, row in spoken),
            cuts=[*cuts, *(line for passage, row in spoken for line in said_cuts(row, passage.texts))],
            prompt_frames=given_frames,
            generation_seconds=generation_seconds,
            decoding_seconds=decoding_seconds,
            scores=scores,
        )

    @property
    def hears(self) -> bool:
        """Whether it was trained to write down speech, and so can judge how well a text was said."""
        return "asr" in self.capabilities.formats

    def check_hears(self) -> None:
        """Raises UserError for a model that was not trained to write down speech."""
        if not self.hears:
            raise UserError("this model was not trained to write down speech: it has seen no asr documents")


def _draws(candidate: int, passage: int) -> tuple[int, ...]:
    """The number of a candidate and passage for `Row.draws`. The first passage draws as a text of one passage does."""
    return (candidate, passage) if passage else (candidate,)


class _Job:
    """A text on its way to speech."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.spoken: dict[int, tuple[Passage, SpeakingRow]] = {}
        self.scores: list[float] = []
        self.seconds = 0.0  # of generation

    def passage(self, number: int, planner: Planner) -> Passage:
        """A passage as the model is to read it."""
        passage = self.plan.passages[number]
        if self.plan.start or number == 0:
            return passage
        return planner.after(*self.spoken[number - 1], passage)
