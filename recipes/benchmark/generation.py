"""A speech language model speaking: beside `transformers`' generate, as a multiple of real time, and as a stream."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from codec.foundation import Progress, UserError
from codec.foundation.quiet import quiet_transformers
from recipes.benchmark.timing import Case, Timing, take_turns
from slm import SpeechLM
from slm.generation.config import SamplingConfig, SpeechBounds
from slm.generation.generate import generate
from slm.generation.grammar import Span, SpeakingRow
from slm.generation.planning import Planner
from slm.models.checkpoint import find_slm, load_checkpoint
from slm.vocabulary import Vocabulary

_SENTENCES = (
    "The tide was low, and the boats lay on their sides.",
    "She opened the window and listened to the rain.",
    "The next train to the city leaves in twenty minutes.",
)
OURS, TRANSFORMERS = "codec-slm", "transformers"


@dataclass(frozen=True)
class GreedyTiming:
    """Greedy decoding, one prompt after the other, by this project and by `transformers`' generate."""

    tokens: int  # of one turn, all prompts together
    ours: Timing
    transformers: Timing
    same: float  # share of the tokens that are equal, each prompt's up to the first that is not

    @property
    def ratio(self) -> float:
        """How many times as fast as `transformers`: the median over rounds."""
        return self.ours.faster_round_by_round(self.transformers)


@dataclass(frozen=True)
class StreamRound:
    """One text spoken as a stream once, when everything is loaded; all in seconds."""

    first_audio: float  # from the request to the first chunk of audio
    smallest_lead: float  # of what has left over a listener, at the worst moment; below 0 there was a gap
    seconds: float  # of audio
    working: float


@dataclass(frozen=True)
class StreamTiming:
    """One text spoken as a stream, round by round."""

    rounds: tuple[StreamRound, ...]

    @property
    def first_audio(self) -> float:
        """The median over rounds, seconds."""
        return statistics.median(found.first_audio for found in self.rounds)

    @property
    def smallest_lead(self) -> float:
        """The median over rounds, seconds."""
        return statistics.median(found.smallest_lead for found in self.rounds)


@dataclass(frozen=True)
class GenerationTiming:
    """How fast a model speaks, its codec included, and how fast it draws tokens."""

    model: str
    parameters: int
    rounds: tuple[float, ...]  # multiples of real time, all sentences of a round together
    streams: tuple[StreamTiming, ...]  # a text each
    greedy: GreedyTiming

    @property
    def real_time(self) -> float:
        """The median over rounds."""
        return statistics.median(self.rounds)

    @property
    def first_audio(self) -> float:
        """Of the text that is slowest."""
        return max(stream.first_audio for stream in self.streams)

    @property
    def smallest_lead(self) -> float:
        """Of the text that is worst."""
        return min(stream.smallest_lead for stream in self.streams)


def time_generation(model: str, tokens: int, rounds: int, device: str) -> GenerationTiming:
    """Let a model say some sentences, whole and as streams, and draw `tokens` speech tokens after each.

    All of it `rounds` times. Raises UserError for a model that was not trained to speak, or says nothing.
    """
    speaker = SpeechLM.from_pretrained(model, device=device)
    speaker.warm_up()
    texts = [*_SENTENCES, " ".join(_SENTENCES)]
    spoken: list[_Spoken] = []
    streams: list[list[StreamRound]] = [[] for _ in texts]
    with Progress(rounds, unit="rounds", label="speaking") as progress:
        for _ in range(rounds):
            spoken.append(_say(speaker))
            for number, text in enumerate(texts):
                streams[number].append(_stream(speaker, text, number))
            progress.update(1)
    silent = not all(result.whole for result in spoken)
    if silent or not all(found.seconds for of_text in streams for found in of_text):
        raise UserError(f"{model} has nothing to say to some sentences: name one that speaks with --model")
    return GenerationTiming(
        model,
        sum(parameter.numel() for parameter in speaker.model.parameters()),
        tuple(result.seconds / result.computing for result in spoken),
        tuple(StreamTiming(tuple(found)) for found in streams),
        _time_greedy(speaker, model, tokens, rounds),
    )


@dataclass(frozen=True)
class _Spoken:
    """All sentences of one round; seconds of audio, and of computing it."""

    seconds: float
    computing: float
    whole: bool  # whether something was said to each


def _say(speaker: SpeechLM) -> _Spoken:
    results = [speaker.speak(sentence, seed=number) for number, sentence in enumerate(_SENTENCES)]
    return _Spoken(
        sum(result.seconds for result in results),
        sum(result.generation_seconds + result.decoding_seconds for result in results),
        all(result.seconds for result in results),
    )


def _stream(speaker: SpeechLM, text: str, seed: int) -> StreamRound:
    stream = speaker.stream(text, seed=seed)
    for _ in stream:
        pass
    return StreamRound(
        stream.first_audio_seconds, stream.smallest_lead, stream.seconds, stream.working_seconds
    )


def _time_greedy(speaker: SpeechLM, name: str, tokens: int, rounds: int) -> GreedyTiming:
    """Both on the same weights, but not on the same tensors: our decoder lays them out anew."""
    device = speaker.model.device
    theirs = load_checkpoint(find_slm(name), device, torch.float32)
    prompts = _prompts(speaker)
    frames = max(1, tokens // speaker.vocabulary.num_quantizers)
    count = frames * speaker.vocabulary.num_quantizers
    with quiet_transformers():
        # As it comes: it draws whatever it likes best, so nothing of its time goes into keeping it to speech.
        timings = take_turns(
            [
                Case(OURS, lambda: [draw(speaker, prompt, frames) for prompt in prompts]),
                Case(TRANSFORMERS, lambda: [_generate(theirs, prompt, count) for prompt in prompts]),
            ],
            rounds,
            device,
            "generating",
        )
        # For the comparison of the tokens both have to keep to speech.
        same = 0
        for prompt in prompts:
            allowed = _SpeechOnly(speaker.vocabulary, len(prompt))
            expected = _generate(theirs, prompt, count, prefix_allowed_tokens_fn=allowed)
            same += agreement(draw(speaker, prompt, frames), expected)
    total = count * len(prompts)
    return GreedyTiming(total, timings[OURS], timings[TRANSFORMERS], same / total)


def draw(speaker: SpeechLM, prompt: Sequence[int], frames: int) -> list[int]:
    """The likeliest speech tokens after a prompt, `frames` times as many as there are quantizers."""
    row = SpeakingRow(np.array(prompt), [Span(frames, frames)], speaker.vocabulary, stuck_frames=0)
    generate(speaker.decoder, [row], speaker.sets, SamplingConfig(temperature=0.0), seed=0)
    return row.drawn


def _generate(model: PreTrainedModel, prompt: Sequence[int], count: int, **options: Any) -> list[int]:
    ids = torch.tensor([prompt], device=model.device)
    generator: Any = model
    output = generator.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=count,
        max_new_tokens=count,
        **options,
    )
    return output[0, len(prompt) :].tolist()


def _prompts(speaker: SpeechLM) -> list[list[int]]:
    """What the model reads before it speaks each sentence, in its first voice."""
    vocabulary = speaker.vocabulary
    planner = Planner(vocabulary, speaker.capabilities, SpeechBounds(), speaker.decoder.longest)
    start = list(vocabulary.voices.values())[:1]
    return [planner.passages(sentence, start)[0].ids.tolist() for sentence in _SENTENCES]


class _SpeechOnly:
    """Which tokens may come next, as `generate` asks it: the codes of the quantizer whose turn it is."""

    def __init__(self, vocabulary: Vocabulary, prompt: int) -> None:
        sizes = vocabulary.codec.codebook_sizes[: vocabulary.num_quantizers]
        starts = vocabulary.speech_offsets.tolist()
        self.prompt = prompt
        self.codes = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]

    def __call__(self, row: int, ids: Tensor) -> list[int]:
        return self.codes[(len(ids) - self.prompt) % len(self.codes)]


def agreement(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share from their beginning: after one that differs all may differ."""
    pairs = enumerate(zip(first, second, strict=True))
    return next((place for place, (a, b) in pairs if a != b), len(first))
