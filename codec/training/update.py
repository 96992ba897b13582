"""One update of all weights that learn in a stage: the codec's, then the discriminators'.

Both see the same audio, as in HH-Codec's code: the codec takes its step, then the discriminators learn from what it had
said before that step. So with accumulation the generator runs once a batch, and only its audio is kept.

The result does not depend on how a global batch is spread over processes and accumulation steps: all losses are sums
over frames of which the total is known before, and each side steps once, after all parts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from codec.base import DRAWS
from codec.foundation import Schedule, UserError, generator, seed_globals
from codec.training.adversary import Adversary, Judged, judged_stretch
from codec.training.batches import transcripts
from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.ema import WeightAverage
from codec.training.step import CodecTrainingStep

_MOST_SKIPPED_UPDATES = 20


class Learner:
    """One side of a stage: the module's weights that learn, their optimizer and its learning rate."""

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        config: OptimizerConfig,
        schedule: Schedule,
        steps: int,
        name: str,
    ):
        self.config, self.schedule, self.steps, self.name = config, schedule, steps, name
        self.skipped = 0  # updates in a row whose gradient was not finite
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.wrapped: nn.Module = module
        if accelerator.num_processes > 1:
            on_gpu = accelerator.device.type == "cuda"
            self.wrapped = nn.parallel.DistributedDataParallel(
                module,
                device_ids=[accelerator.local_process_index] if on_gpu else None,
                broadcast_buffers=False,  # they are constants
            )

    def learning_rate(self, done: int) -> float:
        """That of the update after `done` updates of the stage."""
        return self.config.learning_rate * self.schedule.factor(done, self.steps)

    def apply(self, done: int) -> Tensor:
        """Move the weights by the gradients there are, unless these are not finite; returns their norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(done)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        if math.isfinite(norm):
            self.optimizer.step()
            self.skipped = 0
        else:
            self.skipped += 1
            if self.skipped == _MOST_SKIPPED_UPDATES:
                raise UserError(
                    f"the gradient has not been finite for {_MOST_SKIPPED_UPDATES} steps, the last of them step "
                    f"{done} of its stage: lower {self.name}.learning_rate"
                )
        self.optimizer.zero_grad(set_to_none=True)
        return norm


class StageUpdate:
    """What moves weights in one stage. Which parameters learn is settled before: those that ask for gradients."""

    def __init__(
        self,
        accelerator: Accelerator,
        config: CodecTrainingConfig,
        stage: Stage,
        step_module: CodecTrainingStep,
        adversary: Adversary | None,
        average: WeightAverage | None,
        bf16: bool,
    ):
        self.accelerator, self.config, self.stage = accelerator, config, stage
        self.step_module, self.adversary, self.average = step_module, adversary, average
        self.bf16 = bf16
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

    def __call__(self, step: int, done: int, batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The update after `step` of the run and `done` of the stage, from this process's parts of the batch.

        Returns the global losses; none of them depends on the number of processes.
        """
        total = self._frames_a_process(batches)
        # dropout is a function of (seed, step, process): a resumed run draws what it would have drawn
        seed_globals(self.config.seed, "step", step, self.accelerator.process_index)
        place = float(generator(self.config.seed, "judged", step).random())
        summed: dict[str, Tensor] = {}
        judged = [
            self._codec_part(batch, draws, total, place, summed, last=index == len(batches) - 1)
            for index, (batch, draws) in enumerate(zip(batches, self._draws(step, batches), strict=True))
        ]
        summed["gradient_norm"] = norm = self.generator.apply(done)
        if self.average is not None and math.isfinite(norm):
            self.average.update(self.step_module)
        if self.discriminators is not None:
            for index, part in enumerate(judged):
                assert part is not None
                self._discriminator_part(part, total, summed, last=index == len(judged) - 1)
            summed["discriminator_gradient_norm"] = self.discriminators.apply(done)
        return self._over_processes(summed)

    def learning_rates(self, done: int) -> dict[str, float]:
        """Those of the update after `done` updates of the stage, for the log."""
        rates = {"learning_rate": self.generator.learning_rate(done)}
        if self.discriminators is not None:
            rates["discriminator_learning_rate"] = self.discriminators.learning_rate(done)
        return rates

    def _codec_part(
        self,
        batch: dict[str, Tensor],
        draws: Tensor,
        total: float,
        place: float,
        summed: dict[str, Tensor],
        last: bool,
    ) -> Judged | None:
        """Gradients of the codec's losses on one part; what the discriminators saw of it."""
        device = self.accelerator.device
        waveform, lengths = batch["waveform"].to(device), batch["length"].to(device)
        said = None if (found := transcripts(batch)) is None else found.to(device)
        judged = None
        # gradients go around with the last part only
        with nullcontext() if last else self.accelerator.no_sync(self.generator.wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                output = self.generator.wrapped(waveform, lengths, self.stage, total, said, draws)
                losses = output.losses
                if self.discriminators is not None:
                    assert self.adversary is not None
                    judged = judged_stretch(
                        output.recording,
                        output.audio.to(waveform.dtype),
                        output.frames,
                        self.step_module.model.config.hop_length,
                        self._judged_samples(),
                        place,
                    )
                    judgement = self.adversary.generator_losses(
                        judged, self.stage.losses.discriminators, total
                    )
                    losses = losses | judgement | {"loss": losses["loss"] + judgement["loss"]}
            losses["loss"].backward()
        _add(summed, losses)
        return None if judged is None else judged.detached()

    def _discriminator_part(
        self, judged: Judged, total: float, summed: dict[str, Tensor], last: bool
    ) -> None:
        """Gradients of the discriminators' losses on one part."""
        assert self.discriminators is not None
        wrapped, device = self.discriminators.wrapped, self.accelerator.device
        with nullcontext() if last else self.accelerator.no_sync(wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                losses = wrapped(judged, sorted(self.stage.losses.discriminators), total)
            losses.pop("loss").backward()
        _add(summed, losses)

    def _draws(self, step: int, batches: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        """(rows, DRAWS) of each part of this process: what a row draws depends on its place in the global batch."""
        accelerator = self.accelerator
        rows, processes = len(batches[0]["length"]), accelerator.num_processes
        drawn = generator(self.config.seed, "rows", step).random((len(batches) * processes * rows, DRAWS))
        parts = torch.from_numpy(drawn).to(accelerator.device).unflatten(0, (len(batches), processes, rows))
        return list(parts[:, accelerator.process_index])

    def _judged_samples(self) -> int | None:
        seconds = self.stage.judged_seconds
        return None if seconds is None else round(seconds * self.step_module.model.config.sampling_rate)

    def _frames_a_process(self, batches: Iterable[Mapping[str, Tensor]]) -> float:
        """Frames of the whole step over the number of processes.

        DDP averages gradients over processes: with losses that are sums divided by this, their mean is the gradient of
        the global mean.
        """
        hop = self.step_module.model.config.hop_length
        lengths = torch.cat([batch["length"] for batch in batches])
        frames = ((lengths + hop - 1) // hop).sum().to(self.accelerator.device, torch.float64)
        if self.accelerator.num_processes > 1:
            frames = self.accelerator.reduce(frames, reduction="mean")
        return float(frames)

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
