"""Training a language model on token datasets, on one process or many."""

import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch.utils.tensorboard import SummaryWriter

from codec.foundation import (
    Progress,
    RunDirectory,
    StopSignal,
    Stopwatch,
    UserError,
    load_training_state,
    make_accelerator,
    rank,
    remove_directory,
    sum_over_processes,
    whole_directory,
)
from slm.packing.blocks import Block, BlockStream, StreamPosition
from slm.training.config import SLMTrainingConfig
from slm.training.data import TrainingData, dataset_name, open_training_data, speech_capabilities
from slm.training.learner import Learner
from slm.training.loss import LossSums
from slm.training.report import TENSORBOARD, check_trackers, finish_trackers, start_trackers, track
from slm.training.samples import SampleMaker, write_samples
from slm.training.throughput import (
    FlopCounter,
    PeakFlops,
    Work,
    peak_flops,
    peak_memory_gib,
    report_throughput,
    work_of,
)
from slm.training.validation import DivergenceWatch, validate

# Fields that a resumed run may change. What it has learnt and read remains: these decide how long and how fast it goes
# on learning, with what arithmetic, and what is watched. A dataset is known by its content, wherever it lies.
_MAY_CHANGE = (
    "output", "max_steps", "max_tokens", "max_seconds", "batch.blocks_per_forward", "workers", "log_every",
    "validate_every", "validation", "validation_blocks", "checkpoint_every", "keep_last", "sharding",
    "activation_checkpointing", "logits_mib", "trackers", "tracker_options", "peak_tflops", "samples",
    "optimizer.learning_rate", "optimizer.betas", "optimizer.weight_decay", "optimizer.clip_norm", "optimizer.eps",
    "optimizer.skip_spikes", "z_loss", "schedule", "attention", "precision", "compile", "datasets.*.path",
    "texts.*.path", "skip_data",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingResult:
    """How a call of `train_slm` ended."""

    steps: int  # of the whole run
    finished: bool  # False: stopped by a signal; the same call resumes
    final: Path | None  # the SLM checkpoint, once finished
    validation_loss: float | None  # the last one, nats per unit of loss weight


@dataclass
class _Counters:
    """Progress of a run: what a checkpoint holds beside weights and optimizer."""

    step: int = 0
    phase: int = 0  # 1: in the decay, if it has a mixture of its own
    epoch: int = 0
    block: int = 0
    seconds: float = 0.0  # of training, validation and saving
    tokens: int = 0
    skipped: int = 0  # updates in a row whose gradient was not finite
    norms: list[float] = field(default_factory=list)  # the last gradients', where spikes are skipped


def train_slm(config: SLMTrainingConfig, data: TrainingData | None = None) -> TrainingResult:
    """Train a speech language model; run under `accelerate launch` or torchrun for many processes.

    Writes the run directory `config.output`; a run that is there resumes from its last checkpoint. The result is
    `final/`, a plain transformers checkpoint with its tokenizer and `speech.json`. `data` is by default
    `open_training_data(config)`.

    Raises UserError for bad configs and data, and when the directory holds another run.
    """
    accelerator = make_accelerator(
        config.precision,
        log_with=check_trackers(config.trackers) or None,
        project_dir=config.output,
        # The model's one buffer is a constant: it need not be sent at every step.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    run = RunDirectory(
        config.output, config.keep_last, SummaryWriter if TENSORBOARD in config.trackers else None
    )
    with StopSignal() as stop:
        try:
            run.lock()
            checkpoint, changed = run.reopen(config, _MAY_CHANGE)  # before anything that takes long
            data = data or open_training_data(config)
            trainer = _Trainer(config, accelerator, run, data, stop, checkpoint, changed)
            start_trackers(accelerator, config, config.tracker_options)
            return trainer.train()
        finally:
            finish_trackers(accelerator)
            run.close()


class _Trainer:
    def __init__(
        self,
        config: SLMTrainingConfig,
        accelerator: Accelerator,
        run: RunDirectory,
        data: TrainingData,
        stop: StopSignal,
        checkpoint: Path | None,
        changed: dict[str, str],
    ) -> None:
        """`checkpoint` to go on from, and the fields that have `changed` since: see `RunDirectory.reopen`."""
        self.config, self.accelerator, self.run, self.data, self.stop = config, accelerator, run, data, stop
        self.counters = _Counters()
        tensors: dict[str, torch.Tensor] = {}
        is_new_qwen = checkpoint is None and config.start_from is None and config.model.family == "qwen3"
        if is_new_qwen and data.vocabulary.is_sentencepiece:
            raise UserError(
                "llama.cpp cannot convert a Qwen3 model with a SentencePiece text model: set model.family to llama, or "
                "text_model to a pretrained byte-level tokenizer"
            )
        if checkpoint is not None:
            state = load_training_state(checkpoint, "cpu")
            saved = dict(state.counters)
            _check_datasets(saved.pop("datasets"), data, checkpoint)
            self.counters, tensors = _Counters(**saved), state.tensors
        self.learner = Learner(config, data, accelerator, checkpoint, tensors)
        self.learner.optimizer.skipped, self.learner.norms = self.counters.skipped, self.counters.norms
        # Nothing before this line has changed a file, and nothing after it may refuse the config.
        accelerator.wait_for_everyone()
        run.go_on("train-slm", self.counters.step, config, _MAY_CHANGE, changed)
        accelerator.wait_for_everyone()
        self.length = config.run_length
        if accelerator.is_main_process and run.final.exists() and not self._is_over():
            remove_directory(run.final)  # the result of the shorter run
        self.capabilities = speech_capabilities(data)
        self.validation_sets = data.validation_blocks()
        self.validation_loss: float | None = None
        log = run.read_log()
        names = [dataset_name(path) for path in self.validation_sets]
        self.watch = DivergenceWatch.of_log(log, *names[:1])
        self.samples = SampleMaker(config.samples, data, self.capabilities)
        # Of the last logging steps.
        self.train_loss: float | None = next(
            (line["train/loss"] for line in reversed(log) if "train/loss" in line), None
        )
        self._flops = FlopCounter(self.learner.model, self.learner.model.get_output_embeddings())
        self._peak: PeakFlops | None = None
        self._validated_step = -1
        self._saved_step = self.counters.step

    # ---- the loop

    def train(self) -> TrainingResult:
        config, counters = self.config, self.counters
        self._say_what_trains()
        stream = self._open_stream()
        self._report_data(stream)
        if config.start_from is not None and counters.step == 0:
            self._validate()  # the pretrained model's losses, on text above all
        steps = iter(stream)
        sums = torch.zeros(LossSums.SIZE, dtype=torch.float64)
        work = torch.zeros(Work.SIZE, dtype=torch.float64)
        gradient_norm = math.nan  # of the last update that was made
        skipped = 0  # updates since the last log line
        watch = Stopwatch()
        started = time.monotonic() - counters.seconds
        known_steps = self.length.known_steps
        progress = Progress(
            known_steps or config.max_seconds,
            unit="steps" if known_steps else "s",
            label="train-slm",
            done_before=counters.step if known_steps else counters.seconds,
        )
        self.learner.packed.train()
        stopped = False
        while not stopped and not self._is_over():
            total = self._total_steps()
            if counters.phase == 0 and self._decay_begins(total):
                counters.phase, counters.epoch, counters.block = 1, 0, 0
                stream = self._open_stream()
                self._report_data(stream)
                steps = iter(stream)
            if (skip := config.skip_data.get(counters.step, 0)) > 0:
                # A function of the step alone: whoever resumes here skips the same.
                position = stream.after(stream.position, skip)
                counters.epoch, counters.block = position.epoch, position.block
                stream = self._open_stream()
                steps = iter(stream)
            blocks = next(steps)
            weight, stopped, seconds = self._agree(blocks, time.monotonic() - started)
            learning_rate = config.optimizer.learning_rate * config.schedule.factor(counters.step, total)
            update = self.learner.update(blocks, weight, counters.step, learning_rate)
            if update.was_made:
                sums += update.sums
                gradient_norm = update.gradient_norm
            else:
                skipped += 1
            counters.skipped = self.learner.optimizer.skipped
            counters.norms = self.learner.norms
            work += work_of(blocks, self.data.vocabulary.speech_start, self.data.vocabulary.speech_end)
            before = counters.seconds
            counters.step += 1
            counters.epoch, counters.block = stream.position.epoch, stream.position.block
            counters.seconds = seconds
            counters.tokens += config.batch.blocks * config.batch.length

            if counters.step % config.log_every == 0:
                together = sum_over_processes(torch.cat([sums, work]), self.accelerator)
                losses = LossSums.of(together[: LossSums.SIZE])
                if losses.weight:
                    self.train_loss = losses.loss
                speed = self._speed(Work.of(together[LossSums.SIZE :]), watch.lap())
                report = {f"train/{name}": value for name, value in self._report(losses).items()}
                report |= {"learning_rate": learning_rate, "gradient_norm": gradient_norm} | speed
                report["tokens"] = counters.tokens
                report["epoch"] = counters.epoch
                report["seconds"] = counters.seconds
                if skipped:
                    report["skipped_updates"] = skipped
                self._log(report)
                progress.update(0, f"loss {losses.loss:.3f}, {speed['tokens_per_second']:,.0f} tokens/s")
                sums.zero_()
                work.zero_()
                skipped = 0
            with watch.paused():
                if counters.step % config.validate_every == 0:
                    self._validate()
                if counters.step % config.checkpoint_every == 0 or stopped:
                    self._save()
            progress.update(1 if known_steps else counters.seconds - before)
        progress.close()
        if stopped and not self._is_over():
            if rank() == 0:
                print(
                    f"train-slm: stopped after step {counters.step}; the same command goes on from there",
                    file=sys.stderr,
                )
            return TrainingResult(counters.step, False, None, self.validation_loss)
        return self._finish()

    def _agree(self, blocks: list[Block], seconds: float) -> tuple[float, bool, float]:
        """Values on which all processes agree: the loss weight of the step, whether to stop, the first one's clock."""
        weight = sum(float(block["loss_weights"].sum(dtype=torch.float64)) for block in blocks)
        own = [weight, float(self.stop.requested), seconds if self.accelerator.is_main_process else 0.0]
        agreed = sum_over_processes(torch.tensor(own, dtype=torch.float64), self.accelerator).tolist()
        return agreed[0], agreed[1] > 0, agreed[2]

    # ---- how long

    def _is_over(self) -> bool:
        return self.length.is_over(self.counters.step, self.counters.seconds)

    def _total_steps(self) -> int:
        """Steps of the whole run; with a time limit, estimated from the pace so far."""
        return self.length.total_steps(self.counters.step, self.counters.seconds)

    def _decay_begins(self, total: int) -> bool:
        schedule, step = self.config.schedule, self.counters.step
        return (
            self.config.decay_changes_data
            and step >= schedule.warmup_steps
            and schedule.factor(step, total) < 1
        )

    def _open_stream(self) -> BlockStream:
        counters, accelerator = self.counters, self.accelerator
        position = StreamPosition(counters.epoch, counters.block)
        return self.data.stream(
            counters.phase, position, accelerator.process_index, accelerator.num_processes
        )

    # ---- what is reported and saved

    def _report(self, losses: LossSums) -> dict[str, float]:
        vocabulary = self.data.vocabulary
        return losses.report(vocabulary.codec.frame_rate, vocabulary.num_quantizers)

    def _report_data(self, stream: BlockStream) -> None:
        """Say what is trained on; log it where a phase begins."""
        counters = self.counters
        if self._is_over():
            return
        lines, values = self.data.report(counters.phase, stream.epoch_blocks())
        if (counters.epoch, counters.block) == (0, 0):
            self._log(values)
        if self.accelerator.is_main_process:
            for line in lines:
                print(f"train-slm: {line}", file=sys.stderr)

    def _speed(self, work: Work, seconds: float) -> dict[str, float]:
        accelerator, vocabulary = self.accelerator, self.data.vocabulary
        if self._peak is None and accelerator.is_main_process:
            dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else self.learner.model.dtype
            self._peak = peak_flops(accelerator.device, dtype, self.config.peak_tflops)
            print(
                f"train-slm: MFU is of {self._peak.flops / 1e12:.3g} TFLOP/s a device, {self._peak.source}",
                file=sys.stderr,
            )
        frames = vocabulary.codec.frame_rate * vocabulary.num_quantizers
        report = report_throughput(work, seconds, frames, self._flops, self._peak, accelerator.num_processes)
        return report | {"peak_memory_gib": peak_memory_gib(accelerator.device)}

    def _log(self, report: dict[str, float]) -> None:
        self.run.log(self.counters.step, report)
        track(self.accelerator, self.counters.step, report)

    def _validate(self) -> None:
        if not self.validation_sets:
            return
        learner = self.learner
        learner.swap_average()
        sums = validate(
            learner.packed,
            self.validation_sets,
            self.accelerator,
            self.config.batch.blocks_per_forward,
            self.config.validation_blocks,
            in_step=learner.is_sharded,
        )
        self._make_samples()
        learner.swap_average()
        together = LossSums.together(sums.values())
        report = {f"validation/{name}": value for name, value in self._report(together).items()}
        if len(sums) > 1:
            for path, part in sums.items():
                report |= {f"validation/{dataset_name(path)}/{k}": v for k, v in self._report(part).items()}
        if self.train_loss is not None:
            report["validation/above_train"] = together.loss - self.train_loss
            losses = {dataset_name(path): part.loss for path, part in sums.items()}
            for warning in self.watch.update(self.train_loss, losses):
                if self.accelerator.is_main_process:
                    print(f"train-slm: {warning}", file=sys.stderr)
        self._log(report)
        self.validation_loss, self._validated_step = together.loss, self.counters.step

    def _make_samples(self) -> None:
        """Samples of speech, on the first process; a sharded model would need all of them for every token."""
        if not self.accelerator.is_main_process or self.learner.is_sharded:
            return
        step = self.counters.step
        samples = self.samples.make(self.learner.model)
        if not samples:
            return
        write_samples(self.run.path / "samples", step, samples)
        if (board := self.run.tensorboard) is not None:
            for sample in samples:
                audio = sample.audio.clamp(-1, 1)[None]
                board.add_audio(f"samples/{sample.name}", audio, step, sample.sampling_rate)
                if sample.text is not None:
                    board.add_text(f"samples/{sample.name}", sample.text, step)

    def _save(self) -> None:
        step = self.counters.step
        score = self.validation_loss if self._validated_step == step else None
        snapshot = self.learner.snapshot(training_state=True)
        counters = asdict(self.counters) | {"datasets": self.data.hashes}

        def write(directory: Path) -> None:
            snapshot.write_model(directory, self.capabilities)
            snapshot.write_state(directory, counters)

        self.run.save(step, write, score)
        snapshot.close()
        self._saved_step = step
        self.accelerator.wait_for_everyone()

    def _finish(self) -> TrainingResult:
        if self._saved_step != self.counters.step:
            if self._validated_step != self.counters.step:
                self._validate()
            self._save()
        # All processes must agree on whether there is a result already: they gather a sharded model together.
        is_missing = torch.tensor(float(self.accelerator.is_main_process and not self.run.final.exists()))
        if sum_over_processes(is_missing.double(), self.accelerator).item():
            snapshot = self.learner.snapshot(training_state=False)
            if self.accelerator.is_main_process:
                with whole_directory(self.run.final) as directory:
                    snapshot.write_model(directory, self.capabilities)
            snapshot.close()
        self.accelerator.wait_for_everyone()
        return TrainingResult(self.counters.step, True, self.run.final, self.validation_loss)

    def _say_what_trains(self) -> None:
        config, learner = self.config, self.learner
        if not self.accelerator.is_main_process:
            return
        parameters = [(p.numel(), p.requires_grad) for p in learner.model.parameters()]
        learning = sum(count for count, learns in parameters if learns)
        total = sum(count for count, _ in parameters)
        print(
            f"train-slm: {learner.model.config.model_type}, {total / 1e6:.1f} M parameters"
            + (f", of which {learning / 1e6:.1f} M learn" if learning < total else "")
            + f", {len(self.data.vocabulary)} tokens, {config.batch.blocks} x {config.batch.length} tokens a step, "
            f"{self.accelerator.mixed_precision if config.precision != 'float64' else 'float64'}, "
            f"{learner.model.config._attn_implementation} attention on {self.accelerator.device}"
            + (", sharded over the processes" if learner.is_sharded else "")
            + (f", going on from step {self.counters.step}" if self.counters.step else ""),
            file=sys.stderr,
        )
        if learner.is_sharded and config.samples.count and self.validation_sets:
            print(
                "train-slm: a sharded model makes no samples while it trains; codec-slm speak --model takes any of its "
                "checkpoints",
                file=sys.stderr,
            )
        if not self.validation_sets:
            print("train-slm: no dataset has a validation split, so nothing is validated", file=sys.stderr)


def _check_datasets(hashes: list[str], data: TrainingData, checkpoint: Path) -> None:
    for entry, trained_on, here in zip(data.config.sources, hashes, data.hashes, strict=True):
        if trained_on != here:
            raise UserError(
                f"{entry.path} has changed since {checkpoint} was trained on it ({trained_on[:16]} then, {here[:16]} "
                "now): bring it back, or start a new run in another output directory"
            )
