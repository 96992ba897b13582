"""Running a study: tokenizer after tokenizer, or several at a time in processes of their own."""

import multiprocessing
import os
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from codec.foundation import StopSignal, UserError, plain_config, world_size, write_text
from recipes.study.cells import Cell, Cells, Stage, Stopped
from recipes.study.config import StudyConfig
from recipes.study.cost import Forecast, forecast
from recipes.study.material import Material, open_material
from recipes.study.steps import Outcome, steps, text_stage

_LOOKS_EVERY = 0.5  # seconds: whether somebody asks to stop


class Study:
    """A study at its output directory. Raises UserError for a corpus that cannot be studied."""

    def __init__(self, config: StudyConfig):
        """Looks at the corpus; writes nothing."""
        from recipes.loading import resolve_device

        if world_size() > 1:
            raise UserError("a study starts processes itself: run it without a launcher, with --processes")
        self.config = config
        self.output = Path(config.output)
        self.device = resolve_device("auto")
        self.material = open_material(config)
        self.cells = Cells(self.output / "cells")

    def forecast(self) -> Forecast:
        """What is left to do, and how long it will take. Writes nothing into the output."""
        with tempfile.TemporaryDirectory() as folder, _Threads(self.config.threads):
            text_model = self._text_model(self.cells, Cells(Path(folder)))
            return forecast(self.config, self.material, self.cells, text_model, self.device)

    def _text_model(self, cells: Cells, otherwise: Cells) -> Path:
        """The text tokenizer: as given, or from the first of these where it is there, else made in the other."""
        if self.config.text_model is not None:
            return Path(self.config.text_model)
        stage = text_stage(self.config, self.material)
        return (cells.find(stage) or otherwise.make(stage)).path / "text.model"

    def run(self) -> Path:
        """Do what is left and write the report; returns its HTML page. Raises Stopped where a signal ended it."""
        from filelock import FileLock, Timeout

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
        import yaml

        from recipes.study.report import write_report

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
        with StopSignal() as stop:
            pool = ProcessPoolExecutor(
                min(self.config.processes, len(self.config.tokenizers)),
                # not a fork: this process has threads of torch, and perhaps a GPU
                mp_context=multiprocessing.get_context("spawn"),
                # each in a process of its own, for the GPU that it sees is chosen when it starts
                max_tasks_per_child=1,
            )
            with pool:
                work = [
                    pool.submit(_work, self.config, number, self.material, text_model)
                    for number in range(len(self.config.tokenizers))
                ]
                left: set[Future[None]] = set(work)
                while left:
                    done, left = wait(left, _LOOKS_EVERY, FIRST_EXCEPTION)
                    if stop.requested or any(future.exception() for future in done):
                        # training saves a checkpoint and ends; anything else is done again next time
                        for future in left:
                            future.cancel()
                        for child in multiprocessing.active_children():
                            child.terminate()
                        wait(left)
                        left = set()
        if stop.requested:
            raise Stopped
        errors = [future.exception() for future in work if not future.cancelled()]
        # the others were stopped on account of the first one, or died with it
        for error in errors:
            if error is not None and not isinstance(error, BrokenProcessPool | Stopped):
                raise error
        if any(isinstance(error, BrokenProcessPool) for error in errors):
            raise UserError(
                "a process of the study died, probably for want of memory: try again with --processes 1"
            )
        if any(isinstance(error, Stopped) for error in errors):
            raise Stopped  # somebody stopped one of the processes


def _work(config: StudyConfig, number: int, material: Material, text_model: Path) -> None:
    """All stages of one tokenizer, in a process of its own."""
    _see_one_gpu(number)
    from recipes.loading import resolve_device

    tokenizer = config.tokenizers[number]
    torch.set_num_threads(config.threads)
    device = resolve_device("auto")
    _finished(steps(config, tokenizer, material, text_model, device), Cells(Path(config.output) / "cells"))


def _see_one_gpu(number: int) -> None:
    """Of several GPUs let this process see one; nothing has touched them yet."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices: Sequence[str] = (
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


class _Threads:
    """Within the context torch computes with so many threads: their number decides how sums are rounded."""

    def __init__(self, count: int):
        self._count = count

    def __enter__(self) -> None:
        self._former = torch.get_num_threads()
        torch.set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._former)
