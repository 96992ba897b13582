"""Training a language model on packed documents, beside `transformers.Trainer` that pads them."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from codec.foundation import write_bytes
from codec.foundation.quiet import quiet_transformers
from data import TokenDataset
from data.tokenization import TokenRow, parquet_bytes
from recipes.benchmark.timing import Pace, Runner, Stretch, race, synchronize
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.models.build import build_model
from slm.models.checkpoint import find_slm
from slm.models.config import ModelConfig
from slm.packing.blocks import Block, StreamPosition
from slm.training.config import BatchConfig, DatasetConfig, SLMTrainingConfig
from slm.training.data import TrainingData
from slm.training.learner import Learner
from slm.training.throughput import FlopCounter, Work, peak_flops, work_of
from slm.vocabulary import Vocabulary

OURS, TRANSFORMERS = "codec-slm", "transformers.Trainer"
_BUNDLED = "slm-tiny"  # whose vocabulary is used: the dataset's codes and texts are made for it
# Lengths like those of LibriTTS: a median of 4.7 s, a mean of 5.8 s, few that are much longer.
_MEDIAN_SECONDS, _SPREAD, _SHORTEST, _LONGEST = 4.7, 0.65, 0.5, 20.0
_CHARACTERS_A_SECOND = 15.0
_STEPS = 2  # of one turn
_ROWS = 1_000  # utterances
_SEED = 0


@dataclass(frozen=True)
class TrainingTiming:
    """Tokens a second of the same model on the same documents; padding does not count."""

    parameters: int
    tokens_per_step: int  # about
    precision: str
    ours: Pace
    transformers: Pace
    fill: float  # share of the places in packed blocks that are no padding
    padded_fill: float  # the same of the batches that are padded to their longest documents

    @property
    def ratio(self) -> float:
        """How many times as fast as Trainer: the median over rounds."""
        return self.ours.faster_round_by_round(self.transformers)


def time_training(length: int, blocks: int, rounds: int, device: str) -> TrainingTiming:
    """Train a model of 4 layers, 256 wide, on `blocks` packed blocks of `length` tokens a step, and with Trainer.

    Trainer gets as many documents a step as make as many tokens, with its own collator, which pads to the longest of
    a batch; model, optimizer, its settings and precision are the same, and nothing is saved or reported.
    """
    where = torch.device(device)
    with tempfile.TemporaryDirectory() as folder:
        data = _open_data(Path(folder), length, blocks, device)
        ours = _Packed(data, _accelerator(data.config, where))
        documents = ours.documents
        tokens = length * blocks
        theirs = _Padded(documents, data, tokens, Path(folder) / "trainer", where)
        runners = [Runner(OURS, ours.turn), Runner(TRANSFORMERS, theirs.turn)]
        found = race(runners, rounds, where, "training")
    return TrainingTiming(
        parameters=sum(p.numel() for p in ours.learner.model.parameters()),
        tokens_per_step=tokens,
        precision=data.config.precision,
        ours=found[OURS],
        transformers=found[TRANSFORMERS],
        fill=ours.real / ours.places,
        padded_fill=theirs.real / theirs.places,
    )


@dataclass(frozen=True)
class PackedTiming:
    """Training steps on packed blocks alone."""

    parameters: int
    attention: str  # implementation, as transformers calls it
    pace: Pace  # in real tokens: padding does not count
    mfu: float  # share of the device's peak


def time_packed(length: int, blocks: int, rounds: int, device: str, **settings: Any) -> PackedTiming:
    """Train a model on `blocks` packed blocks of `length` tokens a step; settings are the training run's."""
    where = torch.device(device)
    with tempfile.TemporaryDirectory() as folder:
        data = _open_data(Path(folder), length, blocks, device, **settings)
        packed = _Packed(data, _accelerator(data.config, where))
        pace = race([Runner(OURS, packed.turn)], rounds, where, "training")[OURS]
    model = packed.learner.model
    operations = sum(map(FlopCounter(model, model.get_output_embeddings()), packed.work[-rounds:]))
    seconds = sum(stretch.seconds for stretch in pace.stretches)
    dtype = torch.bfloat16 if data.config.precision == "bfloat16" else torch.float32
    return PackedTiming(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        attention=model.config._attn_implementation or "",
        pace=pace,
        mfu=operations / seconds / peak_flops(where, dtype).flops,
    )


class _Packed:
    """This project's training step on its blocks, without what a run writes down."""

    def __init__(self, data: TrainingData, accelerator: Accelerator) -> None:
        self.data, self.device = data, accelerator.device
        self.learner = Learner(data.config, data, accelerator, None, {})
        self.learner.packed.train()
        stream = data.stream(0, StreamPosition(), 0, 1)
        self.documents: Documents = stream.blocks_of(0).documents
        self.steps: Iterator[list[Block]] = iter(stream)
        self.step = self.places = self.real = 0
        self.work: list[Work] = []  # turn by turn

    def turn(self) -> Stretch:
        learning_rate = self.data.config.optimizer.learning_rate
        synchronize(self.device)
        start = time.perf_counter()
        taken = []
        for _ in range(_STEPS):
            blocks = next(self.steps)
            weight = sum(float(block["loss_weights"].sum(dtype=torch.float64)) for block in blocks)
            self.learner.update(blocks, weight, self.step, learning_rate)
            self.step += 1
            taken += blocks
        synchronize(self.device)
        seconds = time.perf_counter() - start
        return Stretch(self._count(taken), seconds)

    def _count(self, blocks: list[Block]) -> int:
        """Tokens of these blocks; keeps the sums."""
        vocabulary = self.data.vocabulary
        real = sum(int((block["input_ids"] != vocabulary.pad_id).sum()) for block in blocks)
        self.real += real
        self.places += sum(block["input_ids"].numel() for block in blocks)
        self.work.append(Work.of(work_of(blocks, vocabulary.speech_start, vocabulary.speech_end)))
        return real


class _Padded:
    """`transformers.Trainer` on the same documents, a fresh part of them each turn."""

    def __init__(
        self, documents: Documents, data: TrainingData, tokens: int, folder: Path, device: torch.device
    ) -> None:
        config = data.config
        self.device = device
        self.documents = _Examples(documents)
        self.batch = max(1, round(tokens / float(documents.lengths(0).mean())))
        self.next, self.real, self.places = 0, 0, 0
        self.collated: list[tuple[int, int]] = []  # tokens and places of the batches of a turn
        self.started = self.ended = 0.0
        optimizer = config.optimizer
        arguments = TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=self.batch,
            max_steps=_STEPS,
            learning_rate=optimizer.learning_rate,
            lr_scheduler_type="constant",
            adam_beta1=optimizer.betas[0],
            adam_beta2=optimizer.betas[1],
            adam_epsilon=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.clip_norm,
            bf16=config.precision == "bfloat16",
            use_cpu=device.type == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=device.type != "cpu",
        )
        if arguments.n_gpu > 1:  # else it would spread each batch over all GPUs of the machine
            arguments._n_gpu = 1
        owner = self

        class Clock(TrainerCallback):
            """Times the loop over the steps: building it anew is not training."""

            def on_train_begin(self, *_: Any, **__: Any) -> None:
                synchronize(device)
                owner.started = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                synchronize(device)
                owner.ended = time.perf_counter()

        model = build_model(config.model, data.vocabulary, config.seed)
        self.trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=self.documents,
            data_collator=self._collator(data.vocabulary, folder),
            callbacks=[Clock()],
        )
        self.trainer.remove_callback(PrinterCallback)

    def _collator(self, vocabulary: Vocabulary, folder: Path) -> Any:
        """`DataCollatorForSeq2Seq`, which pads ids and labels; it keeps count of what it pads."""
        vocabulary.save_pretrained(folder)
        collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder), return_tensors="pt")

        def counted(features: list[dict[str, Any]]) -> Any:
            batch = collate(features)
            mask = batch["attention_mask"]
            self.collated.append((int(mask.sum()), mask.numel()))
            return batch

        return counted

    def turn(self) -> Stretch:
        count = _STEPS * self.batch
        places = [(self.next + place) % len(self.documents) for place in range(count)]
        self.next += count
        self.trainer.train_dataset = torch.utils.data.Subset(self.documents, places)
        self.collated.clear()
        with quiet_transformers():
            self.trainer.train()
        # of the batches that were trained on; loaders read ahead
        real, padded = map(sum, zip(*self.collated[:_STEPS], strict=True))
        self.real += real
        self.places += padded
        return Stretch(real, self.ended - self.started)


class _Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """The documents of an epoch as Trainer wants them, tokenized beforehand."""

    def __init__(self, documents: Documents) -> None:
        built = [documents.build(0, index) for index in range(len(documents.lengths(0)))]
        self.examples = [
            {
                "input_ids": document.input_ids.tolist(),
                "labels": np.where(document.loss_weights > 0, document.targets, -100).tolist(),
            }
            for document in built
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.examples[index])


def _open_data(folder: Path, length: int, blocks: int, device: str, **settings: Any) -> TrainingData:
    """A token dataset of random codes and texts, written and opened as any other."""
    vocabulary = Vocabulary.from_pretrained(find_slm(_BUNDLED))
    path = folder / "tokens.parquet"
    rows = list(islice(_rows(vocabulary), _ROWS))
    write_bytes(path, parquet_bytes(rows, vocabulary.codec))
    config = SLMTrainingConfig(
        datasets=[DatasetConfig(str(path))],
        output=str(folder / "run"),
        text_model=str(find_slm(_BUNDLED)),
        documents=DocumentConfig(corruption=0.0),
        batch=BatchConfig(length=length, blocks=blocks, blocks_per_forward=blocks),
        max_steps=1_000_000,
        precision="bfloat16" if device.startswith("cuda") else "float32",
        seed=_SEED,
        **{"model": ModelConfig(size="nano", speech_embeddings="random")} | settings,
    )
    opened = TokenDataset.open(path)
    return TrainingData(config, [opened], [opened.content_hash], {}, vocabulary)


def _rows(vocabulary: Vocabulary) -> Iterator[Any]:
    """Utterances without end."""
    random = np.random.default_rng(_SEED)
    info = vocabulary.codec
    voices = list(vocabulary.voices)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    number = 0
    while True:
        seconds = float(
            np.clip(_MEDIAN_SECONDS * np.exp(_SPREAD * random.standard_normal()), _SHORTEST, _LONGEST)
        )
        frames = max(1, round(seconds * info.frame_rate))
        codes = np.stack([random.integers(0, size, frames) for size in info.codebook_sizes], axis=1)
        text = "".join(random.choice(letters, max(2, round(seconds * _CHARACTERS_A_SECOND))))
        speaker = voices[number % len(voices)] if voices else None
        yield TokenRow(f"{number:06d}", codes.reshape(-1).astype(np.uint16), seconds, text, speaker)
        number += 1


def _accelerator(config: SLMTrainingConfig, device: torch.device) -> Accelerator:
    AcceleratorState._reset_state()  # of what ran before this in the same process, at another precision
    half = config.precision == "bfloat16"
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if half else "no")
