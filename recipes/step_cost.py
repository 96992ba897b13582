"""What an update of a codec's recipe costs, from one update of one segment on the CPU, at full size with fresh weights.

    python -m recipes.step_cost recipes/hybrid_codec/librispeech.yaml

Floating-point operations are those of matrix products and convolutions (torch.utils.flop_counter). Memory is that of
weights, gradients, Adam's moments, the average, and what the larger of the two backward passes (of the codec, of the
discriminators) keeps, halved for bfloat16.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import HubertConfig, HubertModel, Wav2Vec2BertConfig, Wav2Vec2BertModel

from codec.losses.adversarial import Adversary
from codec.losses.discriminators import build_discriminators
from codec.training.config import CodecTrainingConfig, Stage, overridden
from codec.training.initialization import build_model
from codec.training.step import CodecTrainingStep, SemanticObjectives
from recipes.cli.arguments import build_parser
from recipes.cli.train import train_codec_command

PEAK = 989e12  # of an H100 in bfloat16
SHARE = 0.05  # of it that such networks are taken to reach (not measured)
TEACHERS: dict[str, Any] = {  # their published sizes, and the shape of their input for so many seconds
    "facebook/hubert-base-ls960": (
        HubertModel,
        HubertConfig,
        lambda s: {"input_values": (1, int(16_000 * s))},
    ),
    "facebook/w2v-bert-2.0": (
        Wav2Vec2BertModel,
        Wav2Vec2BertConfig,
        lambda s: {"input_features": (1, int(50 * s), 160)},
    ),
}


class Kept:
    """Counts the bytes that backward passes keep, weights aside; each storage once."""

    def __init__(self, *modules: nn.Module):
        self.storages = {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}
        self.bytes = 0

    def pack(self, x: Tensor) -> Tensor:
        """Note what autograd keeps."""
        storage = x.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return x


def parameters(module: nn.Module, learned: bool = False) -> int:
    """Numbers in a module's weights."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learned)


def one_update(config: CodecTrainingConfig, stage: Stage) -> tuple[float, float, float]:
    """One segment through codec, discriminators and teacher -> operations, bytes of weights, bytes kept."""
    model = build_model(config)
    model.train()
    model.freeze(set(model.PARTS) - set(stage.train))
    step = CodecTrainingStep(model, SemanticObjectives())
    adversary = Adversary(build_discriminators(stage.losses.discriminators, config.discriminators, 0))
    rate, hop = model.config.sampling_rate, model.config.hop_length
    waveform = 0.1 * torch.randn(1, round(stage.segment_seconds * rate) // hop * hop)
    frames = torch.tensor([waveform.shape[1] // hop])
    silent = overridden(stage, {"losses": {"distillation": 0}})  # the teacher is counted by itself
    kept, judged = Kept(model, adversary), Kept(model, adversary)
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda x: x):
            output = step(waveform, frames * hop, silent)
            crop = None if stage.judged_seconds is None else round(stage.judged_seconds * rate)
            pairs = output.judged(hop, crop, 0.5)
            heard = adversary.generator_losses(pairs, stage.losses.discriminators, float(frames))
        with torch.autograd.graph.saved_tensors_hooks(judged.pack, lambda x: x):
            detached = {name: pair.detached() for name, pair in pairs.items()}
            loss = adversary(detached, stage.losses.discriminators, float(frames))["loss"]
        (output.losses["loss"] + heard["loss"]).backward()
        loss.backward()
        learned = parameters(model, learned=True) + parameters(adversary)
        weights = 4 * parameters(model) + 4 * parameters(adversary) + 12 * learned + 4 * parameters(model)
        if config.teacher is not None:
            teacher_class, teacher_config, shape = TEACHERS[config.teacher]
            with torch.no_grad():
                teacher = teacher_class(teacher_config()).eval()
                ((name, size),) = shape(stage.segment_seconds).items()
                teacher(**{name: torch.randn(size)})
            weights += 4 * parameters(teacher)
    return float(counter.get_total_flops()), float(weights), max(kept.bytes, judged.bytes) / 2


def main() -> None:
    """Print a line for every stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    arguments = parser.parse_args()
    command = build_parser(train_codec_command, "train-codec")
    words = ["--config", str(arguments.recipe), "--corpora", "[{path: corpus}]", "--initialize", "{}"]
    values = command.instantiate(command.parse_args(words))
    config = CodecTrainingConfig(**{name: values[name] for name in CodecTrainingConfig.__dataclass_fields__})
    found: dict[str, tuple[float, float, float]] = {}
    for number, stage in enumerate(config.stages, start=1):
        alike = f"{stage.train} {stage.losses} {stage.segment_seconds} {stage.judged_seconds}"
        if alike not in found:
            found[alike] = one_update(config, stage)
        operations, weights, kept = found[alike]
        segments = stage.batch_size * config.accumulation_steps
        speed = PEAK * SHARE / (operations * segments)
        print(
            f"stage {number}: {operations / 1e12:.2f} TFLOP a segment, {segments} segments a step and device; "
            f"{(weights + kept * stage.batch_size) / 2**30:.0f} GiB ({weights / 2**30:.1f} of weights, "
            f"{kept / 2**30:.2f} a segment); {speed:.1f} steps/s at {SHARE:.0%} of an H100's peak, "
            f"{stage.steps / speed / 3600:,.0f} hours for {stage.steps:,} steps",
            flush=True,
        )


if __name__ == "__main__":
    main()
