"""Training in processes of its own: killed, and two at once."""

import json
import random
import signal
import socket
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from codec.foundation import Schedule
from slm.models.config import StartConfig, TuningConfig
from slm.training.config import OptimizerConfig
from tests.codec.training_runs import in_process
from tests.slm.text_lm import save_text_lm
from tests.slm.toy_training import toy_config, toy_data, toy_run


@dataclass(frozen=True)
class Started:
    """A run in a process of its own, and where its output goes."""

    process: ForkProcess
    output: Path

    def wait(self) -> str:
        """What it said, once it has ended well."""
        self.process.join()
        said = self.output.read_text()
        assert self.process.exitcode == 0, said
        return said


def start(run: Path, changes: dict, rank: int = 0, **environment: str) -> Started:
    """Train in a fork: what is imported stays imported."""
    output = run.parent / f"{run.name}-{rank}.txt"

    def work() -> None:
        with output.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            toy_run(run, **changes)

    return Started(in_process(work, {"CUDA_VISIBLE_DEVICES": ""} | environment), output)


def losses_of(run: Path) -> list[dict[str, float]]:
    return [
        {name: v for name, v in json.loads(line).items() if name.startswith(("train/", "validation/"))}
        for line in (run / "log.jsonl").read_text().splitlines()
        if '"changed"' not in line
    ]


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_file(run / "final" / "model.safetensors") for run in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kill_at(run: Path, step: int, delay: float, started: Started) -> bool:
    """SIGKILL some time after a step was logged; whether the process still ran."""
    log, process = run / "log.jsonl", started.process
    while process.is_alive() and not (log.exists() and f'"step": {step},' in log.read_text()):
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def test_a_killed_run_ends_with_the_weights_it_would_have_had(tmp_path):
    changes = {"max_steps": 12, "ema": 0.8}
    toy_run(tmp_path / "whole", **changes)
    run = tmp_path / "killed"
    assert kill_at(run, step=7, delay=0.0, started=start(run, changes))
    assert "going on from step 6" in start(run, changes).wait()
    assert same_weights(run, tmp_path / "whole")
    assert losses_of(run) == losses_of(tmp_path / "whole")
    assert not [path for path in run.rglob(".*")], "a killed run's leftovers are cleared away"


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path):
    changes = {"max_steps": 30, "checkpoint_every": 2}
    toy_run(tmp_path / "whole", **changes)
    run = tmp_path / "killed"
    # The moments fall into updates, into validation, and into the writing of checkpoints.
    draw = random.Random(0)
    killed = [
        kill_at(run, step, draw.uniform(0.0, 0.1), start(run, changes))
        for step in sorted(draw.sample(range(1, 28), 10))
    ]
    assert sum(killed) == 10
    start(run, changes).wait()
    assert same_weights(run, tmp_path / "whole")
    assert losses_of(run) == losses_of(tmp_path / "whole")


def train_together(run: Path, changes: dict, count: int) -> str:
    """A run on several processes; returns what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    toy_data(toy_config(run, **changes))  # makes the text model, once for all
    together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        start(run, changes, rank, RANK=str(rank), LOCAL_RANK=str(rank), **together) for rank in range(count)
    ]
    return "".join(one.wait() for one in started)


MODEL = toy_config(Path("run")).model
EXACT = {
    "max_steps": 8,
    "precision": "float64",
    "checkpoint_every": 8,
    "model": replace(MODEL, dropout=0.0),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The losses of a run on one process, in float64 and without dropout."""
    run = tmp_path_factory.mktemp("alone") / "run"
    toy_run(run, **EXACT)
    losses = losses_of(run)
    assert len(losses) > 8
    return losses


def same_losses(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first == pytest.approx(second, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_learn_what_one_does(alone, tmp_path, count):
    train_together(tmp_path / "run", EXACT, count)
    same_losses(alone, losses_of(tmp_path / "run"))


def test_sharded_processes_go_on_as_one_would_have(tmp_path):
    """FSDP2 on gloo takes over from one process, and one process from FSDP2: the same losses, the same files."""
    # Averages are swapped in for each validation, four of them while the run is sharded.
    settings = EXACT | {
        "ema": 0.5,
        "checkpoint_every": 4,
        "validate_every": 1,
        "schedule": Schedule(warmup_steps=3, kind="constant"),
    }
    run, plain = tmp_path / "run", tmp_path / "plain"
    toy_run(run, **(settings | {"max_steps": 4}))
    said = train_together(run, settings | {"sharding": "full"}, 2)
    assert "sharded over the processes, going on from step 4" in said
    toy_run(plain, **settings)
    one, other = (load_file(path / "final" / "model.safetensors") for path in (plain, run))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-9)
    states = [load_file(path / "checkpoints/step-00000008/state.safetensors") for path in (plain, run)]
    assert states[0].keys() == states[1].keys() and any(name.startswith("weights/") for name in states[0])
    AutoModelForCausalLM.from_pretrained(run / "final")
    for path in (run, plain):
        assert toy_run(path, **(settings | {"max_steps": 10})).steps == 10
    same_losses(losses_of(plain), losses_of(run))


@pytest.mark.slow
def test_sharded_adapters_are_those_of_one_process(tmp_path):
    base = save_text_lm(tmp_path / "base", tied=True, steps=3)
    settings = {
        "max_steps": 4,
        "precision": "float64",
        "text_model": None,
        "start_from": StartConfig(model=str(base), speech_embeddings="mean"),
        "tuning": TuningConfig(mode="lora", rank=4),
        "model": replace(MODEL, layers=6, hidden_size=None, head_dim=64, max_positions=2048, dropout=0.0),
    }
    halfway = {"max_steps": 2, "checkpoint_every": 2}
    for changes in (settings | halfway, settings):
        train_together(tmp_path / "run", changes | {"sharding": "full"}, 2)
        toy_run(tmp_path / "plain", **changes)
    one, other = (load_file(tmp_path / n / "final" / "adapter_model.safetensors") for n in ("plain", "run"))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-7)
    # What the text model knew before is the first thing in the log.
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[1])
    assert first["step"] == 0 and "validation/text/bits_per_byte" in first


@pytest.mark.slow
def test_a_sharded_run_from_the_first_step_on(alone, tmp_path):
    train_together(tmp_path / "run", EXACT | {"sharding": "full"}, 2)
    same_losses(alone, losses_of(tmp_path / "run"))


@pytest.mark.slow
def test_muon_on_sharded_matrices_is_muon(tmp_path):
    """It multiplies in bfloat16, so the weights agree to its rounding."""
    settings = EXACT | {"optimizer": OptimizerConfig(learning_rate=3e-3, muon=True), "checkpoint_every": 4}
    toy_run(tmp_path / "plain", **settings)
    train_together(tmp_path / "run", settings | {"sharding": "full", "max_steps": 4}, 2)
    train_together(tmp_path / "run", settings | {"sharding": "full"}, 2)
    folders = ("plain/checkpoints/step-00000004", "plain/final", "run/final")
    halfway, one, other = (load_file(tmp_path / folder / "model.safetensors") for folder in folders)
    for name in one:
        assert (one[name] - other[name]).norm() < 0.1 * (one[name] - halfway[name]).norm()
