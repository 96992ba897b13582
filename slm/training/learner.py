"""The model of a training run with what changes it: one update, its state on disk, and back."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel
from safetensors.torch import load_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from codec.foundation import (
    ClippedAdamW,
    UserError,
    WeightAverage,
    optimizer_tensors,
    rank,
    restore_optimizer,
    save_training_state,
    seed_globals,
)
from slm.models.adapters import attach_adapter, load_adapter_weights, save_adapter
from slm.models.build import add_dropout, build_model, decoder_layers
from slm.models.checkpoint import MODEL_FILE, SpeechCapabilities, save_checkpoint, save_vocabulary
from slm.models.warm_start import Start, start_model
from slm.packing.blocks import Block, stack
from slm.training.config import SLMTrainingConfig
from slm.training.data import TrainingData
from slm.training.loss import PER_DOCUMENT, LossSums, PackedLanguageModel
from slm.training.sharding import fill, gathered, gradients_wait, launcher_shards, let_go, shard

_LAST_NORMS, _FEWEST_NORMS = 100, 20  # gradient norms that tell what is usual


@dataclass(frozen=True)
class Update:
    """What one update did."""

    sums: Tensor  # a `LossSums.vector` of this process's blocks
    gradient_norm: float  # of all processes together, before clipping
    was_made: bool  # otherwise the gradient was not finite or a spike, and the weights stayed as they were


class Learner:
    """A model, alone or as one process's copy or part of it, its optimizer, and the average of its weights."""

    def __init__(
        self,
        config: SLMTrainingConfig,
        data: TrainingData,
        accelerator: Accelerator,
        checkpoint: Path | None,
        state: dict[str, Tensor],
    ) -> None:
        """checkpoint: where to resume; `state`: its tensors beside the model."""
        self.config, self.data, self.accelerator = config, data, accelerator
        self.norms: list[float] = []  # the last gradients', for `skip_spikes`
        model, self.adapted = _initial_model(config, data, attention_for(config, accelerator.device))
        if checkpoint is not None:  # before sharding
            if self.adapted is not None:
                load_adapter_weights(self.adapted, checkpoint)
            else:
                _load_weights(model, checkpoint / MODEL_FILE)
        self.model = model
        if config.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        text_bytes = torch.as_tensor(data.vocabulary.text_bytes.astype("int64"))
        self.packed = PackedLanguageModel(model, text_bytes, config.logits_mib, config.z_loss)
        self.is_sharded = config.sharding == "full" or (config.sharding == "auto" and launcher_shards())
        if self.is_sharded:
            shard(self.packed, accelerator)
        self.packed.to(accelerator.device)
        self.optimizer = ClippedAdamW(
            self.packed.parameters(),
            config.optimizer,
            eps=config.optimizer.eps,
            only_matrices_decay=True,
            muon=_layer_matrices(model) if config.optimizer.muon else (),
        )
        learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.average = WeightAverage(learning, config.ema) if config.ema else None
        if checkpoint is not None:
            # of a run in another precision, perhaps; the optimizer counts its steps in a scalar of its own
            state = {
                n: t.to(model.dtype) if t.ndim and t.is_floating_point() else t for n, t in state.items()
            }
            for name, part in self.optimizer.parts.items():
                restore_optimizer(part, _under(f"{name}/", state))
            if self.average is not None:
                self._restore_average(_under("weights/", state))
        if config.compile:
            self.packed.compile_decoder()
        # Mixed precision and averaged gradients; a sharded model averages them itself.
        self.wrapped = self.packed if self.is_sharded else accelerator.prepare_model(self.packed)

    def update(self, blocks: list[Block], weight: float, step: int, learning_rate: float) -> Update:
        """One optimizer step on this process's blocks; `weight` is the loss weight of all processes' blocks.

        The host waits for the device once, for sums and gradient norm.
        """
        size = self.config.batch.blocks_per_forward
        parts = [blocks[start : start + size] for start in range(0, len(blocks), size)]
        sums = []
        # Gradients are averaged over processes, and the loss is a mean over the weights of all of them.
        scale = self.accelerator.num_processes / weight if weight else 0.0
        for number, part in enumerate(parts):
            # Dropout is a function of the step, so that a resumed run draws the same.
            seed_globals(self.config.seed, "dropout", step, number, rank())
            batch = stack(part, self.accelerator.device)
            if self.is_sharded:
                with gradients_wait(self.packed, number < len(parts) - 1):
                    with self.accelerator.autocast():
                        output = self.packed(**batch)
                    (output["loss"] * scale).backward()
            elif number < len(parts) - 1:
                with self.accelerator.no_sync(self.wrapped):
                    output = self.wrapped(**batch)
                    (output["loss"] * scale).backward()
            else:
                output = self.wrapped(**batch)
                (output["loss"] * scale).backward()
            sums.append(LossSums.vector(output, batch["loss_weights"].sum()))
        gradient_norm = self.optimizer.clip()
        # The sums go to the CPU first: not every accelerator has float64.
        together = sum((vector.double() for vector in torch.stack(sums).cpu()), torch.zeros(()).double())
        is_finite = math.isfinite(norm := gradient_norm.item())
        is_spike = is_finite and self._is_spike(norm)
        if is_spike:
            self.optimizer.drop_gradients()
        else:
            self.optimizer.update(learning_rate, is_finite, step)
        was_made = is_finite and not is_spike
        if was_made and self.average is not None:
            self.average.update(step)
        return Update(together, norm, was_made)

    def _is_spike(self, norm: float) -> bool:
        """Whether a finite gradient norm is far above the last ones. They include spikes: a lasting rise is not one."""
        if not (factor := self.config.optimizer.skip_spikes):
            return False
        is_spike = len(self.norms) >= _FEWEST_NORMS and norm > factor * statistics.median(self.norms)
        self.norms = [*self.norms, norm][-_LAST_NORMS:]
        return is_spike

    def swap_average(self) -> None:
        """Exchange weights and their average, if there is one: once to use it, once more to go on training."""
        if self.is_sharded:
            let_go(self.packed)
        if self.average is not None:
            self.average.swap()

    def snapshot(self, training_state: bool) -> "Snapshot":
        """What `Snapshot.write_model` and `write_state` need. All processes must call it together.

        A sharded model is gathered on the first process. Otherwise nothing is copied: write before the next update.
        """
        self.swap_average()
        keep = self.accelerator.is_main_process
        weights = None
        if self.is_sharded:
            # Tied weights come once, as they are saved.
            named = dict((self.adapted or self.model).named_parameters())
            weights = gathered({name: p for name, p in named.items() if p.requires_grad}, keep)
        tensors: dict[str, Tensor] = {}
        if training_state:
            for part_name, part in self.optimizer.parts.items():
                entries = optimizer_tensors(part, keep=keep)
                tensors |= {f"{part_name}/{name}": tensor for name, tensor in entries.items()}
            if self.average is not None:
                held = {
                    f"weights/{index}": tensor for index, tensor in enumerate(self.average.averages.values())
                }
                tensors |= gathered(held, keep) if self.is_sharded else held
        return Snapshot(self, weights, tensors)

    @torch.no_grad()
    def _restore_average(self, weights: dict[str, Tensor]) -> None:
        """Resume from a checkpoint's model, which holds the average, and the own `weights` by number."""
        assert self.average is not None
        for index, (name, parameter) in enumerate(self.average.parameters.items()):
            self.average.averages[name].copy_(parameter)
            fill(parameter, weights[str(index)])


@dataclass(frozen=True)
class Snapshot:
    """A learner's state to be written, with the average as its weights; `close` puts its own weights back."""

    learner: Learner
    weights: dict[str, Tensor] | None
    tensors: dict[str, Tensor]

    def write_model(self, directory: Path, capabilities: SpeechCapabilities) -> None:
        """Write an SLM checkpoint, or an adapter."""
        learner = self.learner
        vocabulary = learner.data.vocabulary
        if learner.adapted is None:
            save_checkpoint(directory, learner.model, vocabulary, capabilities, self.weights)
        else:
            save_adapter(directory, learner.adapted, self.weights)
            save_vocabulary(directory, vocabulary, capabilities)

    def write_state(self, directory: Path, counters: dict) -> None:
        """Write what training needs beside the model to resume."""
        save_training_state(directory, self.tensors, counters)

    def close(self) -> None:
        """Give the learner its own weights back."""
        self.learner.swap_average()


def attention_for(config: SLMTrainingConfig, device: torch.device) -> str:
    """The attention implementation of a run."""
    if config.attention != "auto":
        return config.attention
    if device.type == "cpu":
        # Documents differ in length from step to step, and a compiled model would be compiled again and again.
        return "sdpa" if config.compile else PER_DOCUMENT
    halves = config.precision in ("auto", "bfloat16")
    return "flash_attention_2" if halves and is_flash_attn_2_available() else "sdpa"


def _layer_matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """Matrices inside the decoder's layers: neither embeddings nor head, which Muon is not for."""
    return [p for layer in decoder_layers(model) for p in layer.parameters() if p.ndim == 2]


def _initial_model(
    config: SLMTrainingConfig, data: TrainingData, attention: str
) -> tuple[PreTrainedModel, PeftModel | None]:
    """The model before the first update, on the CPU, and its PEFT wrapper if only a part of it learns."""
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    if config.start_from is None:
        return build_model(config.model, data.vocabulary, config.seed, data.codebooks, attention, dtype), None
    start = Start.open(config.start_from)
    model = start_model(start, config.model, data.vocabulary, config.seed, data.codebooks, attention)
    torch.nn.Module.to(model, dtype)
    longest = getattr(model.config, "max_position_embeddings", config.batch.length)
    if config.batch.length > longest:
        raise UserError(
            f"batch.length {config.batch.length} is more than the {longest} positions that "
            f"{config.start_from.model} can read: no document may be longer"
        )
    adapted = None
    if config.tuning.mode != "full":
        adapted = attach_adapter(model, config.tuning, data.vocabulary, start.location, config.seed)
    if config.model.dropout:
        add_dropout(model, config.model.dropout)
    return model, adapted


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_weights(model: PreTrainedModel, path: Path) -> None:
    load_model(model, str(path))  # strict, and knows tied weights
