"""A run directory: one config, a log without gaps or doubles, checkpoints that are whole."""

import json
import multiprocessing
import os
import random
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.utils.tensorboard import SummaryWriter

from codec.foundation import RunDirectory, UserError, checkpoint_step


@dataclass
class _Optimizer:
    learning_rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass
class _Config:
    output: Path = Path("runs/x")
    steps: int = 100
    note: str | None = None
    optimizer: _Optimizer = field(default_factory=_Optimizer)


# ---- config


def test_the_config_reads_back_as_it_was(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").write_config(_Config())
    read = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert read == {
        "output": "runs/x",
        "steps": 100,
        "note": None,
        "optimizer": {"learning_rate": 1e-5, "betas": [0.9, 0.95]},
    }
    RunDirectory(tmp_path / "run").write_config(read)  # the file fed back is the same config
    RunDirectory(tmp_path / "run").write_config(_Config())


def test_another_config_is_refused_by_the_names_of_its_fields(tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_config(_Config())
    _save(RunDirectory(tmp_path), 1)
    other = _Config(steps=200, optimizer=_Optimizer(learning_rate=3e-4))
    with pytest.raises(UserError) as error:
        RunDirectory(tmp_path).write_config(other)
    message = str(error.value)
    assert str(tmp_path) in message and "\n" not in message
    assert "steps was 100, is now 200" in message
    assert "optimizer.learning_rate was 1e-05, is now 0.0003" in message
    assert "betas" not in message and "output was" not in message
    with pytest.raises(UserError, match=r"learning_rate") as error:
        RunDirectory(tmp_path).write_config(other, may_change=["steps"])
    assert "steps" not in str(error.value)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["steps"] == 100

    RunDirectory(tmp_path).write_config(other, may_change=["steps", "optimizer"])
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["steps"] == 200


def test_fields_that_came_or_went_are_named(tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_config({"codec": "tiny", "old": 1, "part": {"a": 1}})
    _save(RunDirectory(tmp_path), 1)
    with pytest.raises(
        UserError, match=r"old was 1, is now null; part.a was 1.*; new was null, is now \[2\]"
    ):
        RunDirectory(tmp_path).write_config({"codec": "tiny", "part": {}, "new": [2]})


def test_what_may_change_is_reported_and_a_star_is_any_part(tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_config({"sets": [{"path": "a", "weight": 1}, {"path": "b", "weight": 1}]})
    _save(RunDirectory(tmp_path), 1)
    moved = {"sets": [{"path": "a", "weight": 1}, {"path": "c", "weight": 1}], "skip": {"5": 2}}
    changed = RunDirectory(tmp_path).changed_fields(moved, ["sets.*.path", "skip"])
    assert changed == {
        "sets.1.path": 'sets.1.path was "b", is now "c"', "skip.5": "skip.5 was null, is now 2",
    }  # fmt: skip
    with pytest.raises(UserError, match=r"sets\.1\.weight was 1, is now 2"):
        moved["sets"][1]["weight"] = 2
        RunDirectory(tmp_path).changed_fields(moved, ["sets.*.path", "skip"])


def test_a_run_without_a_checkpoint_binds_nobody(tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_config(_Config(steps=1))
    RunDirectory(tmp_path).log(1, {"loss": 1.0})
    assert RunDirectory(tmp_path).write_config(_Config(steps=2)) == {}
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["steps"] == 2
    (tmp_path / "final").mkdir()
    with pytest.raises(UserError, match="steps was 2, is now 3"):
        RunDirectory(tmp_path).write_config(_Config(steps=3))


# ---- lock

_HOLD = """
import sys, time
from codec.foundation import RunDirectory
run = RunDirectory(sys.argv[1])
run.lock()
print("locked", flush=True)
time.sleep(60)
"""


def test_one_process_at_a_time_has_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    try:
        with pytest.raises(UserError, match=rf"process {holder.pid} on {re.escape(socket.gethostname())}"):
            RunDirectory(path).lock()
    finally:
        holder.kill()
        holder.communicate()
    assert (path / ".lock").exists()  # the process died, and its file keeps nobody out
    run = RunDirectory(path)
    run.lock()
    assert (path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    run.close()
    assert not path.exists()  # nothing was written, so nothing is left


def test_a_config_of_something_else_is_a_programming_error(tmp_path: Path) -> None:
    for wrong in ([1], {"device": torch.device("cpu")}):
        with pytest.raises(TypeError):
            RunDirectory(tmp_path).write_config(wrong)


# ---- log


def test_on_resume_later_lines_and_the_half_line_are_dropped(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.resume(0)
    for step in range(10, 60, 10):
        run.log(step, {"loss": step / 2})
    run.close()
    with run.log_path.open("ab") as log:
        log.write(b'{"step": 60, "lo')  # killed inside a write
    assert [line["step"] for line in run.read_log()] == [10, 20, 30, 40, 50]

    resumed = RunDirectory(tmp_path)
    resumed.resume(30)
    for step in (40, 50, 60):
        resumed.log(step, {"loss": -step})
    assert [(line["step"], line["loss"]) for line in resumed.read_log()] == [
        (10, 5), (20, 10), (30, 15), (40, -40), (50, -50), (60, -60),
    ]  # fmt: skip


def test_a_half_line_never_joins_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n{"step"')
    run = RunDirectory(tmp_path)
    run.log(2, {})
    assert run.read_log() == [{"step": 1}, {"step": 2}]


def test_the_log_is_strict_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    values = {
        "loss": torch.tensor(0.5),
        "rate": np.float32(0.25),
        "nan": float("nan"),
        "inf": np.inf,
        "text": "ä",
    }
    run.log(3, values)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads(run.log_path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert line == {"step": 3, "loss": 0.5, "rate": 0.25, "nan": None, "inf": None, "text": "ä"}


def test_numbers_reach_tensorboard_once_in_spite_of_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, end, sign in ((0, 4, 1), (2, 5, -1)):
        run = RunDirectory(tmp_path, tensorboard=SummaryWriter)
        run.resume(start)
        for step in range(start + 1, end + 1):
            run.log(step, {"train/loss": sign * step, "text": "not a number"})
        run.close()
        time.sleep(1.1)  # event files are read in the order of their names, in which times are whole seconds
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["train/loss"]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 1), (2, 2), (3, -3), (4, -4), (5, -5),
    ]  # fmt: skip


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = RunDirectory(tmp_path, tensorboard=SummaryWriter)
    run.write_config(_Config())
    run.resume(0)
    run.log(1, {"loss": 1.0})
    run.save(1, lambda directory: pytest.fail("called"))
    assert run.tensorboard is None and os.listdir(tmp_path) == []
    (tmp_path / "config.yaml").write_text("steps: 1\n")
    (tmp_path / "final").mkdir()
    with pytest.raises(UserError):  # but every process refuses, so that none waits for the others
        run.write_config(_Config())


# ---- checkpoints


def _save(run: RunDirectory, step: int, score: float | None = None) -> None:
    def write(directory: Path) -> None:
        (directory / "weights").write_text(str(step))

    run.save(step, write, score)


def test_the_last_k_and_the_best_are_kept(tmp_path: Path) -> None:
    """Against the obvious rule, over runs with random scores."""
    for seed in range(5):
        draw = random.Random(seed)
        keep_last = draw.randint(1, 3)
        run = RunDirectory(tmp_path / str(seed), keep_last)
        scores: dict[int, float] = {}
        for step in range(1, 15):
            score = draw.choice([None, float("nan"), draw.random()])
            if score is not None and score == score:
                scores[step] = score
            _save(run, step * 500, score)
            expected = set(range(1, step + 1)[-keep_last:])
            if scores:
                best = min(scores, key=lambda s: scores[s])
                expected.add(best)
                assert (found := run.best()) is not None and checkpoint_step(found) == best * 500
            else:
                assert run.best() is None
            assert {int(name[5:]) // 500 for name in os.listdir(run.checkpoints)} == expected
        latest = RunDirectory(tmp_path / str(seed)).latest()  # in a new process
        assert (
            latest is not None
            and latest.name == "step-00007000"
            and (latest / "weights").read_text() == "7000"
        )


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, keep_last=3)
    for step in (99_999_999, 100_000_000, 100_000_001):
        _save(run, step)
    latest = run.latest()
    assert latest is not None and checkpoint_step(latest) == 100_000_001


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    _save(run, 10, 1.0)
    run.save(10, lambda directory: (directory / "other").touch())
    assert os.listdir(run.checkpoints / "step-00000010") == ["other"]


def test_a_failed_save_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, keep_last=1)
    _save(run, 10)

    def fail(directory: Path) -> None:
        (directory / "weights").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.save(20, fail)
    assert os.listdir(run.checkpoints) == ["step-00000010"]


def _train(path: Path) -> None:
    run = RunDirectory(path, keep_last=2)
    latest = run.latest()
    start = checkpoint_step(latest) if latest else 0
    value = int((latest / "weights").read_text().split()[0]) if latest else 1

    def write(directory: Path) -> None:
        (directory / "weights").write_text(f"{value}\n" * 2000)

    run.resume(start)
    for step in range(start + 1, 301):
        value = value * 48271 % (2**31 - 1)
        run.log(step, {"value": value})
        if step % 10 == 0:
            run.save(step, write, score=abs(step - 20))
    run.close()


def test_a_run_killed_at_random_moments_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    _train(tmp_path / "undisturbed")
    delays = random.Random(1)
    fork = multiprocessing.get_context("fork")
    for _ in range(4):
        process = fork.Process(target=_train, args=(tmp_path / "killed",))
        process.start()
        process.join(timeout=0.1 + delays.random() * 0.2)
        process.kill()
        process.join()
    _train(tmp_path / "killed")
    kept = ["step-00000020", "step-00000290", "step-00000300"]
    assert sorted(os.listdir(tmp_path / "killed" / "checkpoints")) == kept
    for name in ("log.jsonl", *(f"checkpoints/{checkpoint}/weights" for checkpoint in kept)):
        assert (tmp_path / "undisturbed" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_a_run_that_goes_back_loses_what_came_later(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, keep_last=5)
    for step in (2, 4, 6):
        run.log(step, {"loss": 1.0})
        _save(run, step)
    assert run.latest(5) == run.checkpoints / "step-00000004" and run.latest(1) is None
    removed = RunDirectory(tmp_path).resume(4)
    assert [path.name for path in removed] == ["step-00000006"]
    assert checkpoint_step(run.latest()) == 4 and [line["step"] for line in run.read_log()] == [2, 4]
