"""Small training runs, in this process and in others."""

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import HubertConfig, HubertModel

from codec.losses.config import DiscriminatorWeights, LossWeights
from codec.training.batches import TrainingData
from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.loop import TrainingResult, train_codec
from codec.training.validation import ValidationSet
from tests.codec.small_codecs import small_config, speech_like

CODES = Stage(
    steps=6,
    segment_seconds=0.25,
    batch_size=2,
    optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.01),
)
VOCODER = Stage(
    steps=4,
    train=["vocoder"],
    vocoder_input="recording",
    losses=LossWeights(mel=0, vq=0, waveform_mel=45),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    segment_seconds=0.25,
    batch_size=2,
)
# all three discriminators of HH-Codec at shrunken widths, and a codec that learns by all losses but distillation
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "multi_period": {"periods": [2, 3], "channels": [4, 8, 8]},
    "multi_resolution": {"fft_sizes": [256, 512], "channels": 4},
    "dac": {
        "periods": [2],
        "period_channels": [4, 8],
        "rates": [1, 2],
        "scale_channels": [4, 8, 8, 8],
        "fft_sizes": [256],
        "bands": [[0.0, 0.25], [0.25, 1.0]],
        "band_channels": 4,
    },
}
JOINT = Stage(
    steps=4,
    train=["encoder", "quantizer", "decoder", "vocoder"],
    losses=LossWeights(
        waveform_mel=45,
        discriminators={
            "multi_period": DiscriminatorWeights(),
            "multi_resolution": DiscriminatorWeights(feature_matching=2.0),
            "dac": DiscriminatorWeights(),
        },
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    discriminator_optimizer=OptimizerConfig(learning_rate=5e-4, betas=(0.8, 0.99)),
    judged_seconds=0.2,
    segment_seconds=0.25,
    batch_size=2,
)


class SpeechSegments(Dataset[dict[str, Any]]):
    """Segment i is a pure function of i; some are shorter than the others.

    Those of `broken` are not numbers; reading the `deadly` one kills the process.
    """

    def __init__(self, samples: int, broken: range = range(0), deadly: int | None = None) -> None:
        self.samples, self.broken, self.deadly = samples, broken, deadly

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        waveform = speech_like(1, self.samples, seed=index)[0]
        length = (self.samples, self.samples * 2 // 3, self.samples // 2)[index % 3]
        waveform[length:] = 0.0
        return {"waveform": waveform * float("nan") if index in self.broken else waveform, "length": length}


def speech_data(
    validation: bool = False, digest: str = "speech", broken: range = range(0), deadly: int | None = None
) -> TrainingData:
    """Endless segments and, if asked for, two validation sets of unequal recordings."""
    sets = [
        ValidationSet(name, [speech_like(1, samples, seed=samples)[0] for samples in lengths])
        for name, lengths in (("low", (9_500, 24_000, 4_100)), ("high", (12_345,)))
    ]
    return TrainingData(
        segments=lambda seconds: SpeechSegments(round(seconds * 24_000), broken, deadly),
        validation=sets if validation else [],
        digest=digest,
    )


def save_teacher(path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A narrow HuBERT with random weights and the geometry of the published ones."""
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=[8] * 7,
        conv_bias=True,
        feat_extract_norm="layer",  # group norm would spread a click over the whole recording
        num_conv_pos_embeddings=2,
        num_conv_pos_embedding_groups=2,
    )
    HubertModel(config).to(dtype).save_pretrained(path)
    return path


def run_config(
    output: Path, *stages: Stage, preset: str = "hh-codec-tiny", **fields: Any
) -> CodecTrainingConfig:
    """A run of a narrow codec of a preset; its config.json goes beside the run."""
    directory = output.parent / f"small-{preset}"
    if not directory.exists():
        small_config(preset).save_pretrained(directory)
    defaults = {"model": str(directory), "precision": "no", "log_every": 1, "ema_decay": 0.9}
    return CodecTrainingConfig(output=str(output), stages=list(stages), **{**defaults, **fields})


def log_of(output: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "audio_seconds_per_second")}
        for line in lines
    ]


def tensors_at(output: Path, step: int) -> dict[str, Tensor]:
    """What the checkpoint after so many steps holds."""
    return load_file(output / "checkpoints" / f"step-{step:08d}" / "state.safetensors")


def in_process(work: Callable[[], object], environment: dict[str, str] | None = None) -> ForkProcess:
    """Start `work` in a process of its own, forked (what is imported stays imported), with accelerate's state fresh."""

    def run() -> None:
        os.environ.update(environment or {})
        forget_accelerator()
        work()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def terminate_after(step: int, config: CodecTrainingConfig, output: Path) -> int | None:
    """Train in a process, send it SIGTERM once `step` is in its log, and return how it ended.

    What it prints goes to `output`.
    """

    def work() -> None:
        with output.open("w") as file, redirect_stdout(file):
            train_codec(config, speech_data())

    process = in_process(work)
    log = Path(config.output) / "log.jsonl"
    while process.is_alive() and (not log.exists() or f'"step": {step},' not in log.read_text()):
        time.sleep(0.005)
    process.terminate()
    process.join()
    return process.exitcode


def train_on(processes: int, config: CodecTrainingConfig, validation: bool = False) -> None:
    """Train on several processes with gloo, or on one, in float64."""

    def work() -> TrainingResult:
        torch.set_default_dtype(torch.float64)
        return train_codec(config, speech_data(validation))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [
        in_process(
            work,
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            if processes > 1
            else None,
        )
        for rank in range(processes)
    ]
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * processes


def forget_accelerator() -> None:
    """Let the next Accelerator of this process start anew: accelerate keeps one state for all of them."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
