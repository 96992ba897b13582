"""Training in processes of its own: killed, and two at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.slm.toy_training import toy_config, toy_run

ROOT = Path(__file__).parents[2]


def start(output: Path, changes: dict, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.slm.toy_training", str(output), json.dumps(changes)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def losses_of(run: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in json.loads(line).items() if "/" in name}
        for line in (run / "log.jsonl").read_text().splitlines()
    ]


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_file(run / "final" / "model.safetensors") for run in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kill_at(run: Path, step: int, delay: float, process: subprocess.Popen) -> bool:
    """SIGKILL some time after a step was logged; whether the process still ran."""
    while process.poll() is None:
        if (run / "log.jsonl").exists() and f'"step": {step},' in (run / "log.jsonl").read_text():
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_a_killed_run_ends_with_the_weights_it_would_have_had(tmp_path):
    changes = {"max_steps": 12, "ema": 0.8}
    toy_run(tmp_path / "whole", **changes)
    run = tmp_path / "killed"
    assert kill_at(run, step=7, delay=0.0, process=start(run, changes))
    last = start(run, changes)
    output, _ = last.communicate()
    assert last.returncode == 0 and "going on from step 6" in output, output
    assert same_weights(run, tmp_path / "whole")
    assert losses_of(run) == losses_of(tmp_path / "whole")
    assert not [path for path in run.rglob(".*")], "a killed run's leftovers are cleared away"


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path):
    changes = {"max_steps": 30, "checkpoint_every": 2}
    toy_run(tmp_path / "whole", **changes)
    run = tmp_path / "killed"
    # The delays fall into updates, into validation, and into the writing of checkpoints.
    for step, delay in ((2, 0.0), (4, 0.02), (8, 0.05), (12, 0.01), (16, 0.1), (22, 0.03)):
        kill_at(run, step, delay, start(run, changes))
    last = start(run, changes)
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert same_weights(run, tmp_path / "whole")
    assert losses_of(run) == losses_of(tmp_path / "whole")


def test_two_processes_learn_what_one_does(tmp_path):
    changes = {"max_steps": 20, "precision": "float64", "checkpoint_every": 20, "model": {"dropout": 0.0}}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pair = [
        start(
            tmp_path / "two", changes, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    toy_run(tmp_path / "one", **(changes | {"model": replace(toy_config(tmp_path).model, dropout=0.0)}))
    for process in pair:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert len(one) == len(two) > 20
    for first, second in zip(one, two, strict=True):
        assert first == pytest.approx(second, abs=1e-6)
