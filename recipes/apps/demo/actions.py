"""What the Speak and Continue tabs do: generators of what there is to see and to hear so far."""

import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from codec.foundation import UserError
from recipes.apps.demo.limits import DemoLimits
from recipes.apps.demo.uploads import read_upload
from recipes.apps.serve.live import LiveSpeech
from recipes.apps.wav_stream import pcm16
from slm import Prompt, SamplingConfig, SpeechLM, SpokenResult, SpokenSpan

_LEAST_SECONDS = 1.0  # of a continuation: a recording that sounds finished is gone on from all the same
_MOST_LIVE = 32  # streams that can still be listened to; older ones are forgotten


class LiveShelf:
    """Speech that is being made, by a name that nobody can guess."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, LiveSpeech] = OrderedDict()

    def put(self, live: LiveSpeech) -> str:
        """Keep it; the oldest goes when there are many."""
        name = secrets.token_urlsafe(16)
        self._streams[name] = live
        while len(self._streams) > _MOST_LIVE:
            self._streams.popitem(last=False)[1].stop()
        return name

    def stop(self, name: str | None) -> None:
        """Have it end with what there is by now."""
        live = self._streams.get(name or "")
        if live is not None:
            live.stop()

    def get(self, name: str) -> LiveSpeech | None:
        """Find it, if it is still there."""
        return self._streams.get(name)


@dataclass(frozen=True)
class SpeakingView:
    """The Speak tab at one moment."""

    status: str  # a line
    spans: list[SpokenSpan]  # so far
    live: str | None  # the name on the shelf of what can be listened to
    audio: Tensor | None = None  # (samples,), at the end
    cuts: list[str] = field(default_factory=list)


def speak(
    speaker: SpeechLM,
    shelf: LiveShelf,
    limits: DemoLimits,
    text: str,
    voice: str | None,
    prompt_path: str | None,
    prompt_text: str,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[SpeakingView]:
    """Say a text until its end or `LiveShelf.stop`, telling after every piece how far it is. Raises UserError."""
    if len(text) > limits.characters:
        raise UserError(f"the text is longer than {limits.characters} characters")
    prompt: Prompt | None = None
    if prompt_path is not None:
        rate = speaker.vocabulary.codec.sampling_rate
        waveform, _ = read_upload(prompt_path, rate, limits)
        prompt = speaker.prompt(waveform, rate, prompt_text.strip() or None)
        voice = None
    stream = speaker.stream(text, voice, prompt, sampling, seed=seed)
    live = LiveSpeech(stream.sampling_rate)
    name = shelf.put(live)
    spans: list[SpokenSpan] = []
    pieces: list[Tensor] = []
    try:
        for chunk in stream:
            live.add(pcm16(chunk.audio))
            pieces.append(chunk.audio)
            spans = spans + chunk.spans
            words = f"{chunk.progress.words} of {chunk.progress.total_words} words"
            if live.stopped:
                break
            yield SpeakingView(f"{words}, {stream.seconds:.1f} s of speech", spans, name)
    finally:
        live.close()  # also when the tab was closed: whoever listens must not wait for ever
    status = (
        f"{'Stopped. ' if live.stopped else ''}{stream.seconds:.1f} s of speech in "
        f"{stream.working_seconds:.1f} s, the first of it after {stream.first_audio_seconds:.2f} s."
    )
    yield SpeakingView(status, spans, name, torch.cat(pieces), stream.cuts)


def continue_recording(
    speaker: SpeechLM,
    limits: DemoLimits,
    path: str | None,
    voice: str | None,
    seconds: float,
    count: int,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[tuple[SpokenResult, str]]:
    """Several ways to go on from a recording, one after the other, each with a line about it. Raises UserError."""
    if not 1 <= count <= limits.continuations:
        raise UserError(f"1 to {limits.continuations} continuations")
    if not 0 < seconds <= limits.seconds:
        raise UserError(f"a continuation takes up to {limits.seconds:g} s")
    rate = speaker.vocabulary.codec.sampling_rate
    waveform, remark = read_upload(path, rate, limits)
    prompt = speaker.prompt(waveform, rate)
    for number in range(int(count)):
        result = speaker.continue_speech(
            prompt,
            seconds,
            voice=voice,
            sampling=sampling,
            seed=int(seed) + number,
            least_seconds=min(_LEAST_SECONDS, seconds),
        )
        heard = result.prompt_frames / speaker.vocabulary.codec.frame_rate
        lines = [f"{heard:.1f} s heard, {result.seconds - heard:.1f} s more spoken.", *result.cuts, remark]
        yield result, " ".join(line for line in lines if line)
