"""The quickstart's report: what its steps found out, in words for a newcomer, with pictures and sounds beside it."""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codec import CodecInfo
from codec.foundation import duration, write_text
from codec.metrics import log_mel_l1
from data import TokenDataset, Utterance
from recipes.reporting.page import Block, Code, Picture, Points, Section, as_markdown
from recipes.reporting.pictures import Curve, curves_picture, spectrogram_picture, waveform_row
from recipes.reporting.tables import Field, Table, words
from slm import SpokenResult

_TRAIN, _VALIDATION = "train/speech/bits_per_token", "validation/speech/bits_per_token"


@dataclass(frozen=True)
class Tokenized:
    """The sample corpus as a token dataset."""

    dataset: TokenDataset  # its training split
    info: CodecInfo
    recordings: int
    speeds: int  # at how many each one to train on was encoded
    shifts: int  # and with how many shifts of less than a frame
    seconds: float  # of speech that was encoded
    rows: dict[str, int]  # by split
    first_row: str  # as a person reads it


@dataclass(frozen=True)
class Trained:
    """The language model of our own."""

    steps: int
    log: list[dict[str, Any]]  # of the training run


@dataclass(frozen=True)
class Spoken:
    """A sentence that the bundled language model spoke."""

    text: str
    voice: str | None
    candidates: int
    result: SpokenResult


@dataclass(frozen=True)
class Continued:
    """A recording, what the codec keeps of it, and how the bundled language model goes on from its beginning."""

    recording: Utterance
    waveform: Tensor  # (samples,)
    through_codec: Tensor  # (samples,)
    result: SpokenResult  # begins with the prompt
    prompt_seconds: float


@dataclass(frozen=True)
class Quickstart:
    """What the steps found out, for the report."""

    output: Path
    seconds: dict[str, float]  # of each step
    tokenized: Tokenized
    trained: Trained
    spoken: Spoken
    continued: Continued


def write_report(result: Quickstart) -> None:
    """Write spectrogram.png, curves.png and report.md from what the steps found out."""
    _draw_spectrograms(result)
    _draw_curves(result)
    sections = [
        Section("", _steps(result)),
        Section("1. Speech becomes tokens", _codec_part(result)),
        Section("2. A row of the token dataset", _row_part(result)),
        Section("3. A language model learns the tokens", _training_part(result)),
        Section("4. The bundled language model speaks", _speaking_part(result)),
        Section("5. What to try next", _next_part(result)),
    ]
    write_text(
        result.output / "report.md", as_markdown("Speech to tokens to a language model to speech", sections)
    )


def _steps(result: Quickstart) -> list[Block]:
    fields = [words("step", lambda row: row[0]), Field("time", lambda row: duration(row[1]))]
    return [
        "What `codec-slm quickstart` did on this machine, and what there is to hear and to see.",
        Table.of(result.seconds.items(), fields),
    ]


def _draw_spectrograms(result: Quickstart) -> None:
    rate, continued = result.tokenized.info.sampling_rate, result.continued
    rows = [
        waveform_row("recording", continued.waveform, rate),
        waveform_row("the recording through the codec", continued.through_codec, rate),
        waveform_row(f"spoken by the language model: {result.spoken.text}", result.spoken.result.audio, rate),
        waveform_row(
            f"continued by the language model after {continued.prompt_seconds:.1f} s",
            continued.result.audio,
            rate,
        ),
    ]
    # speech may have come out empty, and then has no picture
    spectrogram_picture(result.output / "spectrogram.png", [row for row in rows if len(row.mel)])


def _draw_curves(result: Quickstart) -> None:
    log = result.trained.log
    titles = {"speech: bits a token": "speech/bits_per_token", "text: bits a byte": "text/bits_per_byte"}
    panels = {}
    for title, key in titles.items():
        curves = [
            Curve(*_series(log, f"{part}/{key}"), label, markers)
            for part, label, markers in (("train", "training", False), ("validation", "held out", True))
        ]
        panels[title] = [curve for curve in curves if curve.x]
    curves_picture(result.output / "curves.png", panels, "training step")


def _series(log: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    points = [(float(line["step"]), float(line[name])) for line in log if line.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _codec_part(result: Quickstart) -> list[Block]:
    tokenized, continued, info = result.tokenized, result.continued, result.tokenized.info
    bits = sum(math.log2(size) for size in info.codebook_sizes)
    frames = int(tokenized.dataset.lengths.sum()) // info.num_quantizers
    distance = log_mel_l1(continued.waveform, continued.through_codec, info.sampling_rate)
    return [
        f"The codec `{info.name}` cuts speech into {info.frame_rate:g} frames a second and gives each frame one of "
        f"{info.codebook_sizes[0]:,} codes. That is {info.frame_rate * bits:.0f} bits a second; the samples of the "
        f"recording take {info.sampling_rate * 16:,}. The sample corpus has {tokenized.recordings} recordings; those "
        f"to train on were encoded {tokenized.speeds * tokenized.shifts} times, at {tokenized.speeds} speeds and "
        f"with {tokenized.shifts} shifts of less than a frame, for there is more to learn from that: "
        f"{frames:,} tokens in [tokens](tokens).",
        "Hear what the codes keep: [a recording](audio/recording.wav), and the same "
        f"[through the codec](audio/recording_through_codec.wav): “{continued.recording.text}” Their log-mel "
        f"spectrograms differ by {distance:.2f} on average (natural log; 0 would be the same).",
        Picture("spectrogram.png", "spectrograms"),
    ]


def _row_part(result: Quickstart) -> list[Block]:
    return [
        Code(result.tokenized.first_row),
        "Each word carries the time at which it is spoken, so that text and speech can be put in turn.",
    ]


def _training_part(result: Quickstart) -> list[Block]:
    size = result.tokenized.info.codebook_sizes[0]
    return [
        "To a language model, text and speech are one sequence: a few words of text, then the frames in which they "
        "are spoken, the next words, their frames. It learns to predict every token from those before it. A small one "
        f"was trained here from nothing: {result.trained.steps:,} steps{_speed(result.trained)}.",
        "The loss says how much each token surprises it, in **bits**: n bits is the surprise of one draw from 2ⁿ "
        f"equally likely things. Who knows nothing of speech pays log2({size:,}) = {math.log2(size):.0f} bits for a "
        f"speech token. {_losses(result.trained)}",
        Picture("curves.png", "training curves"),
        f"From {result.tokenized.recordings} recordings there is little to learn: where the training curve goes on "
        "falling and the curve of the recordings held out does not, the model learns them by heart. What speaks below "
        "learnt in the same way from hours of speech.",
    ]


def _losses(trained: Trained) -> str:
    (_, train), (_, held_out) = _series(trained.log, _TRAIN), _series(trained.log, _VALIDATION)
    if not train:
        return ""
    text = f"In training that cost was {train[0]:.2f} bits at first and {train[-1]:.2f} at the end"
    return f"{text}; on recordings held out from training, {held_out[-1]:.2f}." if held_out else f"{text}."


def _speed(trained: Trained) -> str:
    _, speeds = _series(trained.log, "tokens_per_second")
    return f" at {sorted(speeds)[len(speeds) // 2]:,.0f} tokens a second" if speeds else ""


def _speaking_part(result: Quickstart) -> list[Block]:
    spoken, continued = result.spoken, result.continued
    speech, more = spoken.result, continued.result
    took = speech.generation_seconds + speech.decoding_seconds
    voice = f" in the voice {spoken.voice}" if spoken.voice else ""
    best = (
        f" It spoke {spoken.candidates} times at once and kept what it heard best."
        if spoken.candidates > 1
        else ""
    )
    return [
        f"[“{spoken.text}”](audio/spoken.wav){voice}: {speech.seconds:.1f} s of speech, {speech.codes.shape[1]} "
        f"frames, in {took:.1f} s.{best}",
        *(["Not all of it ended by itself:", Points(speech.cuts)] if speech.cuts else []),
        f"[A recording continued](audio/continued.wav): it hears {continued.prompt_seconds:.1f} s and goes on by "
        f"itself for {more.seconds - continued.prompt_seconds:.1f} s. Nothing tells it what to say: expect the "
        "sound of speech, not its sense.",
    ]


def _next_part(result: Quickstart) -> list[Block]:
    tokens = shlex.quote(str(result.output / "tokens"))
    trained = shlex.quote(str(result.output / "trained"))
    return [
        Code(
            "\n".join(
                [
                    'codec-slm speak --text "Say something of your own." --output mine.wav',
                    f"codec-slm inspect {tokens} --row 3 --audio row.wav",
                    f"tensorboard --logdir {trained}",
                    "codec-slm tokenize my_recordings --output my_tokens",
                    "codec-slm evaluate-codec my_recordings --split train --codec hh-codec-tiny --output how_good",
                    "codec-slm train-slm --help",
                ]
            ),
            "sh",
        ),
        "`my_recordings` may be a folder of audio files, a corpus in the layout of LJSpeech or LibriSpeech, or a "
        ".jsonl or .csv manifest. `recipes/` holds the settings with which the bundled models were trained.",
    ]
