"""train-codec and export from the command line, on a corpus of files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from codec import load_codec
from codec.foundation import UserError
from data.config import CorpusOptions
from recipes.cli import main as cli
from recipes.codec_recipe import CodecCorpus, CodecRecipe, read_as
from tests.codec.small_codecs import small_config, speech_like
from tests.codec.training_runs import forget_accelerator, log_of

STAGE = {"steps": 3, "segment_seconds": 0.25, "batch_size": 2}


@pytest.fixture(autouse=True)
def one_accelerator_a_test() -> Iterator[None]:
    forget_accelerator()
    yield
    forget_accelerator()


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose corpus has broken files in both splits."""
    directory = tmp_path_factory.mktemp("corpus")
    for split, lengths in (("train", (24_000, 9_000, 30_000)), ("dev", (12_000, 6_500))):
        (directory / "speech" / split).mkdir(parents=True)
        for samples in lengths:
            path = directory / "speech" / split / f"{samples}.wav"
            soundfile.write(path, speech_like(1, samples, seed=samples)[0].numpy(), 24_000)
        (directory / "speech" / split / "broken.wav").write_text("no audio")
    rows = [
        {"id": path.stem + path.parent.name, "audio": str(path), "fold": path.parent.name}
        for path in sorted((directory / "speech").glob("*/*.wav"))
    ]
    (directory / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small_config("hh-codec-tiny").save_pretrained(directory / "small")
    config = {
        "model": str(directory / "small"),
        "stages": [STAGE],
        "corpora": [
            {"path": str(directory / "manifest.jsonl"), "weight": 0.7, "reading": {"split_column": "fold"}}
        ]
        * 2,
        "evaluate_every": 1,
        "log_every": 1,
        "checkpoint_every": 2,
        "precision": "no",
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory / "config.yaml"


def error(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 2
    message = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert message.startswith("codec-slm: error: ")
    return message


def test_a_codec_is_trained_and_exported(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a run"
    train = ["train-codec", "--config", str(config_file), "--output", str(run), "--ema_decay", "0.5"]
    assert cli.main([*train, "--max_seconds", "1e-9"]) == 0
    captured = capsys.readouterr()
    assert "stopped after 1 of 3 steps; the same command goes on from there" in captured.out
    assert captured.err.count("1 recordings of") == 4 and "broken.wav" in captured.err
    assert cli.main(["export", str(run), "--output", str(tmp_path / "early")]) == 0
    early = load_codec(tmp_path / "early")
    assert early.config.fingerprint == load_codec(run).config.fingerprint
    assert "is not finished" in error(
        capsys, "export", run, "--output", tmp_path / "x", "--checkpoint", "final"
    )

    assert cli.main(train) == 0
    assert f"trained 3 steps: {run / 'final'}" in capsys.readouterr().out
    assert cli.main(["export", str(run), "--output", str(tmp_path / "codec"), "--dtype", "float16"]) == 0
    codec = load_codec(tmp_path / "codec")
    assert f"fingerprint {codec.config.fingerprint}" in capsys.readouterr().out
    assert codec.config.fingerprint != early.config.fingerprint
    with torch.no_grad():
        assert codec.encode(speech_like(1, 10_000)[None]).audio_codes.shape == (1, 1, 10)
    # two corpora of one name are told apart
    scores = [line for line in log_of(run) if "validation/score" in line]
    assert len(scores) == 3
    assert "validation/corpus0/mel_l1" in scores[0] and "validation/corpus0-2/mel_l1" in scores[0]
    lowest = min(scores, key=lambda line: line["validation/score"])["step"]
    assert cli.main(["export", str(run), "--output", str(tmp_path / "best"), "--checkpoint", "best"]) == 0
    kept = load_codec(run / "checkpoints" / f"step-{lowest:08d}")
    assert load_codec(tmp_path / "best").config.fingerprint == kept.config.fingerprint


def test_how_to_read_corpora_is_told_once_or_by_each(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def open_nothing(config: CodecRecipe) -> None:
        asked.extend(config.corpora)
        raise UserError("enough")

    monkeypatch.setattr("recipes.codec_data.training_data", open_nothing)
    paths = '[{"path": "a"}, {"path": "b", "reading": {"encoding": "cp1252"}}]'
    words = ["train-codec", "--corpora", paths, "--output", str(tmp_path / "x"), "--text_column", "said"]
    assert cli.main([*words, "--channel", "1"]) == 2
    assert [corpus.reading for corpus in asked] == [
        CorpusOptions(text_column="said", channel=1),
        CorpusOptions(encoding="cp1252"),
    ]
    (alone,) = read_as([CodecCorpus("a")], CorpusOptions())
    assert alone.reading is None  # as older runs have it


def test_wrong_input_is_said_in_one_line(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, output = tmp_path / "run", tmp_path / "codec"
    train = ("train-codec", "--config", config_file, "--output", run)
    assert "no corpora to train on" in error(capsys, *train, "--corpora", "[]")
    assert "no codec 'tiny' to train: give a preset" in error(capsys, *train, "--model", "tiny")
    assert "no such file or directory" in error(
        capsys, *train, "--corpora", f"[{{path: {tmp_path / 'absent'}}}]"
    )
    assert "--stages" in error(capsys, *train, "--stages", "[{step: 3}]")
    assert "initialize names 'vocodr'" in error(capsys, *train, "--initialize", "{vocodr: runs/x}")
    assert "a stage trains vocodr" in error(capsys, *train, "--stages", "[{train: [vocodr]}]")
    assert "is not there" in error(capsys, "export", tmp_path / "absent", "--output", output)
    (tmp_path / "empty").mkdir()
    assert "holds no codec" in error(capsys, "export", tmp_path / "empty", "--output", output)
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    assert "has no checkpoint yet" in error(capsys, "export", tmp_path / "begun", "--output", output)
    small_config("hh-codec-tiny").save_pretrained(tmp_path / "unlearnt")
    assert "no codec" in error(capsys, "export", tmp_path / "unlearnt", "--output", output)
    assert not run.exists() and not output.exists()


@pytest.mark.slow
def test_accelerate_launch_trains_on_two_processes(config_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    command += [
        "-m",
        "recipes",
        "train-codec",
        "--config",
        str(config_file),
        "--output",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained 3 steps") == 1
    steps = [line["step"] for line in log_of(tmp_path / "run") if "loss" in line]
    assert steps == [1, 2, 3]
    assert load_codec(tmp_path / "run").config.exported
