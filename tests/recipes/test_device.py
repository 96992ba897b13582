"""What is prepared for a big GPU: its time is planned, a stage that fails leaves the others theirs, it rehearses."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from codec import load_codec
from recipes.device import evidence, export, train
from recipes.device.measure import SAMPLE_CORPUS
from recipes.device.stages import Stage, run_stage
from slm import SpeechLM

ROOT = Path(__file__).parents[2]


def test_the_time_of_all_stages_fits() -> None:
    assert sum(evidence.SECONDS.values()) <= 4 * 60
    assert train.FULL.seconds <= 8.5 * 60  # what is left is for exports


def test_every_stage_of_the_evidence_is_a_command_that_exists(tmp_path: Path) -> None:
    stages = evidence.plan(tmp_path, "cpu", rehearse=False)
    assert {"codecs", "tokenize", "generation", "flips", "tests", "training-sdpa"} <= {
        one.name for one in stages
    }
    measured = [one.command for one in stages if one.command[0] == "recipes.device.measure"]
    assert len(measured) >= 7
    for command in measured:  # parsed by the module itself in the rehearsal; here the names alone
        assert command[1] in {"tokenize", "generation", "flips", *evidence.TRAININGS}


def test_a_stage_ends_in_its_time_and_takes_nothing_from_the_next(tmp_path: Path) -> None:
    """One hangs and hears no SIGTERM, one fails, one works."""
    for name, code in {
        "hangs": "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(60)",
        "fails": "raise SystemExit(3)",
        "works": "print('here')",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
    seen: list[float] = []
    started = time.monotonic()
    outcomes = [
        run_stage(
            Stage(name, 2.0 if name == "hangs" else 30.0, [name]),
            tmp_path / "logs", {"PYTHONPATH": str(tmp_path)}, lambda: seen.append(time.monotonic()),
        )
        for name in ("hangs", "fails", "works")
    ]  # fmt: skip
    assert [one.ended for one in outcomes] == ["out of time", "failed", "done"]
    assert time.monotonic() - started < 30 and seen
    assert (tmp_path / "logs" / "works.log").read_text() == "here\n"


def test_steps_fill_the_time_in_the_shares_of_the_recipe() -> None:
    recipe = train.codec_recipe(train.FULL, [Path("a")], Path("b"), [8, 8, 8])
    assert "recogniser" not in recipe and not any("recogniser" in s["losses"] for s in recipe["stages"])
    audio = [stage["batch_size"] * stage["segment_seconds"] for stage in recipe["stages"]]
    seconds = [0.1, 0.05]  # a step; the third stage was not reached, and counts as the slowest
    log: list[dict[str, Any]] = [
        {"stage": number, "audio_seconds_per_second": audio[number] / cost}
        for number, cost in enumerate(seconds)
    ]
    steps = train.paced_steps([{"step": 1}, *log], recipe, 700.0)
    assert sum(count * cost for count, cost in zip(steps, [0.1, 0.05, 0.1], strict=True)) == pytest.approx(
        700, abs=0.3
    )
    assert steps[0] / steps[1] == pytest.approx(2, rel=1e-2) and steps[0] / steps[2] == pytest.approx(
        4, rel=1e-2
    )


def test_split_weights_are_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=2
        )
    )
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(export, "LARGEST_FILE", 200_000)
    export.split_weights(tmp_path)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and max(file.stat().st_size for file in files) <= 200_000
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    export.split_weights(tmp_path)  # small enough as it is
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.slow
def test_both_commands_rehearse(tmp_path: Path) -> None:
    for name, more in (("evidence", []), ("train", ["--speech", str(SAMPLE_CORPUS)])):
        command = [
            sys.executable,
            "-m",
            f"recipes.device.{name}",
            "--rehearse",
            "--output",
            str(tmp_path / name),
            *more,
        ]
        subprocess.run(command, check=True, cwd=ROOT)
    found = json.loads((tmp_path / "evidence" / "evidence.json").read_text())
    assert all(stage["ended"] == "done" for stage in found["stages"]), found["stages"]
    assert all(found[name] for name in evidence.REHEARSAL)
    assert "tokens/s" in (tmp_path / "evidence" / "evidence.md").read_text()
    models = tmp_path / "train" / "models"
    assert max(file.stat().st_size for file in models.rglob("*") if file.is_file()) < 16 * 2**20
    codec, speaker = (
        load_codec(models / "codec"),
        SpeechLM.from_pretrained(models / "slm"),
    )
    assert speaker.vocabulary.codec.fingerprint == codec.config.fingerprint
