"""One update of all weights that learn in a stage: the codec's and the discriminators'.

Both see the same audio, as in HH-Codec's code: the discriminators learn from the audio that the codec made before its
own step. So with accumulation the generator runs once a batch, and only its audio is kept.

The result does not depend on how a global batch is spread over processes and accumulation steps: all losses are sums
over frames of which the total is known before, and each side steps once, after all parts.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from codec.base import DRAWS
from codec.foundation import ClippedAdamW, Schedule, WeightAverage, generator, seed_globals
from codec.losses.adversarial import Adversary, AudioPair, Pairs
from codec.training.batches import transcripts
from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.step import CodecTrainingStep


@dataclass
class Update:
    """What one update did."""

    losses: dict[str, Tensor]  # scalars by name, of all processes together
    was_finite: bool  # otherwise the codec's or the discriminators' weights stayed as they were


class Learner:
    """One side of a stage: a module as DDP wraps it, the optimizer of its weights that learn, their learning rate."""

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        config: OptimizerConfig,
        schedule: Schedule,
        steps: int,
        name: str,
    ):
        self.config, self.schedule, self.steps = config, schedule, steps
        self.optimizer = ClippedAdamW(module.parameters(), config, name=name)
        self.wrapped: nn.Module = module
        if accelerator.num_processes > 1:
            on_gpu = accelerator.device.type == "cuda"
            self.wrapped = nn.parallel.DistributedDataParallel(
                module,
                device_ids=[accelerator.local_process_index] if on_gpu else None,
                broadcast_buffers=False,  # they are constants
            )

    def learning_rate(self, done: int) -> float:
        """The rate of the update after `done` updates of the stage."""
        return self.config.learning_rate * self.schedule.factor(done, self.steps)


class StageUpdate:
    """The updates of one stage. The parameters that learn are those that require gradients when it is made."""

    def __init__(
        self,
        accelerator: Accelerator,
        config: CodecTrainingConfig,
        stage: Stage,
        step_module: CodecTrainingStep,
        adversary: Adversary | None,
        average: WeightAverage | None,
    ):
        self.accelerator, self.config, self.stage = accelerator, config, stage
        self.step_module, self.adversary, self.average = step_module, adversary, average
        # (codes,) of the first quantizer, in this process since it was last set to 0
        self.usage: Tensor | float = 0.0
        self.bf16 = accelerator.mixed_precision == "bf16"
        self.generator = Learner(
            accelerator, step_module, stage.optimizer, stage.schedule, stage.steps, "optimizer"
        )
        self.discriminators: Learner | None = None
        if stage.losses.discriminators:
            assert adversary is not None
            self.discriminators = Learner(
                accelerator,
                adversary,
                stage.discriminator_optimizer or stage.optimizer,
                stage.discriminator_schedule or stage.schedule,
                stage.steps,
                "discriminator_optimizer",
            )

    def __call__(self, step: int, done: int, batches: Sequence[dict[str, Tensor]]) -> Update:
        """The update after `step` of the run and `done` of the stage, from this process's parts of the batch.

        The losses are global: they do not depend on the number of processes. The host waits for the device once, for
        both sides' gradient norms.
        """
        total = self._frames_a_process(batches)
        # dropout is a function of (seed, step, process): a resumed run draws what it would have drawn
        seed_globals(self.config.seed, "step", step, self.accelerator.process_index)
        place = float(generator(self.config.seed, "judged", step).random())
        losses: dict[str, Tensor] = {}
        judged = [
            self._codec_part(batch, draws, total, place, losses, last=index == len(batches) - 1)
            for index, (batch, draws) in enumerate(zip(batches, self._draws(step, batches), strict=True))
        ]
        losses["gradient_norm"] = self.generator.optimizer.clip()
        sides = [self.generator]
        if self.discriminators is not None:
            for index, pairs in enumerate(judged):
                self._discriminator_part(pairs, total, losses, last=index == len(judged) - 1)
            losses["discriminator_gradient_norm"] = self.discriminators.optimizer.clip()
            sides.append(self.discriminators)
        norms = [losses[name] for name in ("gradient_norm", "discriminator_gradient_norm") if name in losses]
        finite = torch.stack(norms).isfinite().tolist()
        for side, is_finite in zip(sides, finite, strict=True):
            side.optimizer.update(side.learning_rate(done), is_finite, step)
        if self.average is not None and finite[0]:
            self.average.update(self.average.number + 1)
        return Update(self._over_processes(losses), all(finite))

    def learning_rates(self, done: int) -> dict[str, float]:
        """The rates of the update after `done` updates of the stage, for the log."""
        rates = {"learning_rate": self.generator.learning_rate(done)}
        if self.discriminators is not None:
            rates["discriminator_learning_rate"] = self.discriminators.learning_rate(done)
        return rates

    def _codec_part(
        self,
        batch: dict[str, Tensor],
        draws: Tensor,
        total: Tensor | float,
        place: float,
        summed: dict[str, Tensor],
        last: bool,
    ) -> dict[str, AudioPair]:
        """Gradients of the codec's losses on one part; returns the discriminators' input."""
        device = self.accelerator.device
        waveform, lengths = batch["waveform"].to(device), batch["length"].to(device)
        texts = None if (found := transcripts(batch)) is None else found.to(device)
        heard = batch["heard"].to(device) if "heard" in batch else None
        reference = None
        if "reference" in batch:
            reference = batch["reference"].to(device), batch["reference_length"].to(device)
        pairs: dict[str, AudioPair] = {}
        # gradients are averaged over processes with the last part only
        with nullcontext() if last else self.accelerator.no_sync(self.generator.wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                output = self.generator.wrapped(
                    waveform, lengths, self.stage, total, texts, draws, heard, reference
                )
                losses = output.losses
                self.usage = self.usage + (0.0 if output.usage is None else output.usage)
                if self.discriminators is not None:
                    assert self.adversary is not None
                    hop = self.step_module.model.config.hop_length
                    pairs = output.judged(hop, self._cropped_samples(), place)
                    adversarial = self.adversary.generator_losses(
                        pairs, self.stage.losses.discriminators, total
                    )
                    losses = losses | adversarial | {"loss": losses["loss"] + adversarial["loss"]}
            losses["loss"].backward()
        _add(summed, losses)
        return {name: pair.detached() for name, pair in pairs.items()}

    def _discriminator_part(
        self, pairs: Pairs, total: Tensor | float, summed: dict[str, Tensor], last: bool
    ) -> None:
        """Gradients of the discriminators' losses on one part."""
        assert self.discriminators is not None
        wrapped, device = self.discriminators.wrapped, self.accelerator.device
        with nullcontext() if last else self.accelerator.no_sync(wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                losses = wrapped(pairs, sorted(self.stage.losses.discriminators), total)
            losses.pop("loss").backward()
        _add(summed, losses)

    def _draws(self, step: int, batches: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        """(rows, DRAWS) random numbers of each part of this process, by a row's place in the global batch."""
        accelerator = self.accelerator
        rows, processes = len(batches[0]["length"]), accelerator.num_processes
        drawn = generator(self.config.seed, "rows", step).random((len(batches) * processes * rows, DRAWS))
        parts = torch.from_numpy(drawn).to(accelerator.device).unflatten(0, (len(batches), processes, rows))
        return list(parts[:, accelerator.process_index])

    def _cropped_samples(self) -> int | None:
        seconds = self.stage.judged_seconds
        return None if seconds is None else round(seconds * self.step_module.model.config.sampling_rate)

    def _frames_a_process(self, batches: Iterable[Mapping[str, Tensor]]) -> Tensor | float:
        """Frames of the whole update over the number of processes.

        DDP averages gradients over processes: with losses that are sums divided by this, their mean is the gradient of
        the global mean.
        """
        hop = self.step_module.model.config.hop_length
        lengths = torch.cat([batch["length"] for batch in batches])
        frames = ((lengths + hop - 1) // hop).sum()
        if self.accelerator.num_processes == 1:
            return float(frames)
        # it stays on the device, so that the host need not wait for it
        frames = frames.to(self.accelerator.device, torch.get_default_dtype())
        return self.accelerator.reduce(frames, reduction="mean")

    def _over_processes(self, summed: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.accelerator.num_processes == 1:
            return summed
        names = sorted(summed)
        values = self.accelerator.reduce(
            torch.stack([summed[name].double() for name in names]), reduction="mean"
        )
        return dict(zip(names, values.unbind(), strict=True))


def _add(summed: dict[str, Tensor], losses: Mapping[str, Tensor]) -> None:
    for name, value in losses.items():
        summed[name] = summed.get(name, torch.zeros_like(value.detach())) + value.detach()
