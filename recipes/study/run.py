"""Running a study: tokenizer after tokenizer, or several at a time in processes of their own."""

import multiprocessing
import os
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import yaml
from filelock import FileLock, Timeout

from codec.foundation import StopSignal, UserError, plain_config, world_size, write_text
from data.config import CorpusOptions
from recipes.evaluation.inputs import metrics_of_speech_alone
from recipes.study.cells import Cell, Cells, Stage, Stopped
from recipes.study.config import StudyConfig
from recipes.study.material import Material, open_material
from recipes.study.report import write_report
from recipes.study.steps import Outcome, steps, text_stage

_LOOKS_EVERY = 0.5  # seconds: whether somebody asks to stop


class Study:
    """A study at its output directory. Raises UserError for a corpus that cannot be studied."""

    def __init__(self, config: StudyConfig, device: str, reading: CorpusOptions | None = None):
        """Looks at the corpus; writes nothing."""
        if world_size() > 1:
            raise UserError("a study starts processes itself: run it without a launcher, with --processes")
        metrics_of_speech_alone(config.speaking.metrics)
        self.config = config
        self.output = Path(config.output)
        self.device = device
        self.material = open_material(config, reading)
        self.cells = Cells(self.output / "cells")

    def plan(self) -> str:
        """A line that says what is left to do. Writes nothing into the output."""
        with tempfile.TemporaryDirectory() as folder, _Threads(self.config.threads):
            text_model = self._text_model(self.cells, Cells(Path(folder)))
            left = [
                self.config.name_of(tokenizer)
                for tokenizer in self.config.tokenizers
                if not _is_finished(
                    steps(self.config, tokenizer, self.material, text_model, self.device), self.cells
                )
            ]
        seconds = self.material.seconds
        encoded = seconds["train"] * len(self.config.speeds) * self.config.shifts + seconds["validation"]
        batch = self.config.batch
        budget = (
            f"{self.config.audio_hours:g} hours of speech"
            if self.config.steps is None
            else f"{self.config.steps * batch.blocks * batch.length:,} tokens"
        )
        done = len(self.config.tokenizers) - len(left)
        text = (
            f"to do for {', '.join(left)}: {encoded:,.0f} s of audio to encode and {budget} to train on, each"
            if left
            else "nothing is left to do"
        )
        return f"{text}; {done} of {len(self.config.tokenizers)} tokenizers are finished"

    def _text_model(self, cells: Cells, otherwise: Cells) -> Path:
        """The text tokenizer: as given, or from the first of these where it is there, else made in the other."""
        if self.config.text_model is not None:
            return Path(self.config.text_model)
        stage = text_stage(self.config, self.material)
        return (cells.find(stage) or otherwise.make(stage)).path / "text.model"

    def run(self) -> Path:
        """Do what is left and write the report; returns its HTML page. Raises Stopped where a signal ended it."""
        self.output.mkdir(parents=True, exist_ok=True)
        try:
            # the system lets go of it when this process ends, however it does
            with FileLock(self.output / ".lock", timeout=0):
                return self._run()
        except Timeout:
            raise UserError(
                f"{self.output}: this study is being worked on already, by another process"
            ) from None

    def _run(self) -> Path:
        plain = yaml.safe_dump(plain_config(self.config), sort_keys=False, allow_unicode=True)
        write_text(self.output / "config.yaml", plain)
        text_model = self._text_model(self.cells, self.cells)
        if self.config.processes > 1 and len(self.config.tokenizers) > 1:
            self._run_side_by_side(text_model)
        with _Threads(self.config.threads):
            outcomes = [
                _finished(steps(self.config, tokenizer, self.material, text_model, self.device), self.cells)
                for tokenizer in self.config.tokenizers
            ]
        return write_report(self.output, self.config, self.material, outcomes)

    def _run_side_by_side(self, text_model: Path) -> None:
        """Each tokenizer in a process of its own, for the GPU that it sees is chosen when it starts."""
        waiting = list(range(len(self.config.tokenizers)))
        workers: list[_Worker] = []
        errors: list[BaseException] = []
        with StopSignal() as stop:
            try:
                while waiting or workers:
                    while waiting and len(workers) < self.config.processes:
                        workers.append(
                            _Worker.start(self.config, waiting.pop(0), self.material, text_model, self.device)
                        )
                    wait([worker.process.sentinel for worker in workers], _LOOKS_EVERY)
                    for worker in [worker for worker in workers if not worker.process.is_alive()]:
                        workers.remove(worker)
                        if (error := worker.error()) is not None:
                            errors.append(error)
                    if stop.requested or errors:
                        break
            finally:
                for (
                    worker
                ) in workers:  # training saves a checkpoint and ends; the rest is done again next time
                    worker.process.terminate()
                for worker in workers:
                    worker.process.join()
        if stop.requested:
            raise Stopped
        if errors:
            raise errors[0]


@dataclass(frozen=True)
class _Worker:
    """A process that works on one tokenizer, and what it has to say at its end."""

    process: BaseProcess
    said: Connection

    @classmethod
    def start(
        cls, config: StudyConfig, number: int, material: Material, text_model: Path, device: str
    ) -> "_Worker":
        # not a fork: this process has threads of torch, and perhaps a GPU
        context = multiprocessing.get_context("spawn")
        said, says = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(says, config, number, material, text_model, device))
        process.start()
        says.close()  # the worker holds the other end
        return cls(process, said)

    def error(self) -> BaseException | None:
        """Why it ended before it was done; None if it was."""
        try:
            return self.said.recv()
        except EOFError:
            return UserError(
                "a process of the study died, probably for want of memory: try again with --processes 1"
            )


def _work(
    says: Connection, config: StudyConfig, number: int, material: Material, text_model: Path, device: str
) -> None:
    """All stages of one tokenizer, in a process of its own; says None at the end, or what went wrong."""
    try:
        _see_one_gpu(number)
        torch.set_num_threads(config.threads)
        own = "cuda:0" if device.startswith("cuda") else device  # it sees no other
        walk = steps(config, config.tokenizers[number], material, text_model, own)
        _finished(walk, Cells(Path(config.output) / "cells"))
    except Exception as error:
        says.send(error)
    else:
        says.send(None)


def _see_one_gpu(number: int) -> None:
    """Of several GPUs let this process see one; nothing has touched them yet."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = (
        [name for name in visible.split(",") if name]
        if visible is not None
        else [str(device) for device in range(torch.cuda.device_count())]
    )
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def _finished(walk: Generator[Stage, Cell, Outcome], cells: Cells) -> Outcome:
    """Drive a tokenizer through its stages."""
    try:
        stage = next(walk)
        while True:
            stage = walk.send(cells.make(stage))
    except StopIteration as end:
        return end.value


def _is_finished(walk: Generator[Stage, Cell, Outcome], cells: Cells) -> bool:
    """Whether all stages of a tokenizer have their cells."""
    try:
        stage = next(walk)
        while (cell := cells.find(stage)) is not None:
            stage = walk.send(cell)
    except StopIteration:
        return True
    return False


class _Threads:
    """Within the context torch computes with so many threads: their number decides how sums are rounded."""

    def __init__(self, count: int):
        self._count = count

    def __enter__(self) -> None:
        self._former = torch.get_num_threads()
        torch.set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._former)
