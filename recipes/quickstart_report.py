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
from recipes.reporting.page import as_html, as_markdown
from recipes.reporting.pictures import Curve, curves_picture, spectrogram_picture, waveform_row
from recipes.reporting.tables import Field, Table, words
from slm import SpokenResult


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
    """The training run in which the bundled language model learnt a voice."""

    steps: int
    log: list[dict[str, Any]]  # of the training run


@dataclass(frozen=True)
class Spoken:
    """A sentence that a language model spoke."""

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
    spoken: Spoken  # by the bundled language model
    learnt: Spoken  # after the training run
    continued: Continued


def write_report(result: Quickstart) -> None:
    """Write spectrogram.png, curves.png, report.md and report.html from what the steps found out."""
    _draw_spectrograms(result)
    _draw_curves(result)
    tokenized, continued, info = result.tokenized, result.continued, result.tokenized.info
    speeds = sorted(_series(result.trained.log, "tokens_per_second")[1])
    fields = [words("step", lambda row: row[0]), Field("time", lambda row: duration(row[1]))]
    page = as_markdown(
        "quickstart",
        steps=Table.of(result.seconds.items(), fields),
        info=info,
        size=info.codebook_sizes[0],
        uniform_bits=math.log2(info.codebook_sizes[0]),
        bitrate=info.frame_rate * sum(math.log2(size) for size in info.codebook_sizes),
        tokenized=tokenized,
        frames=int(tokenized.dataset.lengths.sum()) // info.num_quantizers,
        distance=log_mel_l1(continued.waveform, continued.through_codec, info.sampling_rate),
        trained=result.trained,
        speed=speeds[len(speeds) // 2] if speeds else None,
        losses=_series(result.trained.log, "train/speech/bits_per_token")[1],
        held_out=_series(result.trained.log, "validation/speech/bits_per_token")[1],
        spoken=result.spoken,
        learnt=result.learnt,
        continued=continued,
        tokens_folder=shlex.quote(str(result.output / "tokens")),
        run_folder=shlex.quote(str(result.output / "trained")),
    )
    write_text(result.output / "report.md", page)
    write_text(result.output / "report.html", as_html(page, result.output))


def _draw_spectrograms(result: Quickstart) -> None:
    rate, continued = result.tokenized.info.sampling_rate, result.continued
    rows = [
        waveform_row("recording", continued.waveform, rate),
        waveform_row("the recording through the codec", continued.through_codec, rate),
        waveform_row(f"spoken by the language model: {result.spoken.text}", result.spoken.result.audio, rate),
        waveform_row(f"the same in the new voice, {result.learnt.voice}", result.learnt.result.audio, rate),
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
