"""The study: two tokenizers through it once, what is cached, what a kill leaves, and the page."""

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock

from codec import save_codec
from codec.foundation import UserError
from data import write_audio
from data.config import CorpusOptions
from recipes.cli.main import main
from recipes.evaluation.inputs import metrics_of_speech_alone
from recipes.study.cells import Cells, Stage
from recipes.study.config import KMeansBaseline, SpeakingConfig, StudyConfig
from recipes.study.material import open_material
from recipes.study.run import Study
from slm.training.loop import TrainingResult
from tests.codec.small_codecs import small_codec, speech_like

STAGES = ["tokens", "codes", "reconstruction", "language-model", "prediction", "speech"]
TEXTS = ["hello there", "it rains", "the next train", "leaves in twenty minutes", "to the city"]


class Parrot:
    """Hears everything as the same words; pocketsphinx takes its time over noise."""

    name = "parrot"
    writes_digits = False

    def transcribe(self, waveform: torch.Tensor, sampling_rate: int) -> str:
        return "hello there"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of synthetic speech and a small untrained codec."""
    folder = tmp_path_factory.mktemp("a study")
    save_codec(small_codec("hh-codec-tiny"), folder / "codec")
    waveforms = speech_like(10, 26_500)
    lines = []
    for number, waveform in enumerate(waveforms):
        write_audio(folder / f"{number}.wav", waveform[: 20_000 + 700 * number], 24_000)
        entry = {"id": f"r{number}", "audio": f"{number}.wav", "text": TEXTS[number % 5], "speaker": "slt"}
        lines.append(json.dumps(entry | {"split": "validation" if number >= 7 else "train"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def settings(folder: Path, output: Path) -> dict[str, Any]:
    """A study of that codec and a k-means baseline, in seconds."""
    return {
        "corpus": str(folder / "manifest.jsonl"),
        "output": str(output),
        "codecs": [str(folder / "codec")],
        "baselines": [{"name": "patches", "codes": 24, "vocoder": str(folder / "codec"), "iterations": 3}],
        "steps": 5,
        "validations": 2,
        "model": {"layers": 1, "hidden_size": 32, "head_dim": 16, "max_positions": 256},
        "batch": {"length": 128, "blocks": 2, "blocks_per_forward": 2},
        "reconstruction": {"utterances": 2, "metrics": ["log_mel_l1"], "stability": 1},
        "speaking": {
            "sentences": 2,
            "continuations": 1,
            "prompt_seconds": 0.3,
            "seconds": 0.5,
            "metrics": ["prosody"],
        },
        "asr": "some/parrot",
    }


def run(folder: Path, output: Path, *flags: str, **changes: Any) -> int:
    """The command as it is typed."""
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings(folder, output) | changes))
    return main(["study", "--config", str(file), *flags])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that are worked on from now on."""
    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Parrot())
    names: list[str] = []
    init = Stage.__init__

    def counted(stage: Stage, *args: Any, **kwargs: Any) -> None:
        init(stage, *args, **kwargs)
        work = stage.work
        object.__setattr__(stage, "work", lambda path: (names.append(stage.name), work(path))[1])

    monkeypatch.setattr(Stage, "__init__", counted)
    return names


def test_a_study_and_one_that_is_killed_on_its_way(
    folder: Path,
    tmp_path: Path,
    made: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(folder, whole, "--dry_run") == 0
    said = capsys.readouterr().out
    assert "s of audio to encode and 1,280 tokens to train on" in said
    assert "0 of 2 tokenizers are finished" in said
    assert made == ["text"] and not whole.exists()  # the text tokenizer, which the plan needs, was elsewhere
    made.clear()
    assert run(folder, whole) == 0
    assert made == ["text", "text", *STAGES, "fit", *STAGES]

    # what it says
    results = json.loads((whole / "results.json").read_text())
    codec, patches = results["tokenizers"].values()
    assert [t["codec"]["codebook_sizes"] for t in (codec, patches)] == [[64], [24]]
    assert patches["codes"]["nominal_bitrate"] == pytest.approx(24 * np.log2(24))
    for tokenizer in (codec, patches):
        model, predicted = tokenizer["language_model"], tokenizer["prediction"]
        # barely trained: each token costs about as much as a guess over the whole vocabulary
        guess = np.log2(model["vocabulary"])
        assert predicted["bits_per_token"] == pytest.approx(guess, rel=0.1)
        frames = sum(
            -(-(20_000 + 700 * number) // 1_000) for number in (7, 8, 9)
        )  # the last of each is filled up
        seconds = sum(20_000 + 700 * number for number in (7, 8, 9)) / 24_000
        assert predicted["seconds"] == pytest.approx(seconds)
        alone = predicted["bits_per_token"] * frames / seconds
        assert predicted["alone"]["value"] == pytest.approx(alone)
        assert predicted["alone"]["low"] < alone < predicted["alone"]["high"]
        saved = predicted["alone"]["value"] - predicted["read"]["value"]
        assert predicted["saved"]["value"] == pytest.approx(saved)
        assert len(predicted["ngrams"]) == 3 and predicted["ngrams"]["trigram"] > 0
        assert [point["step"] for point in model["curve"]] == [3, 5]
        assert tokenizer["reconstruction"]["systems"]["codec"]["word_error_rate"]["value"] > 0
        assert tokenizer["speech"]["systems"]["reference recordings"]["sentences"] == 2
    page = (whole / "report.md").read_text()
    assert (
        "the same 3 of 3 held-out recordings (" in page
        and "the same 3 recordings (" in page
        and "first 64 validation blocks" in page
    )
    assert "characters a second" in page and "repeated pairs of frames" in page and "F0 spread" in page
    assert "Not measured: UTMOS (no weights: utmos" in page
    assert "| patches |" in page and "trigram" in page and "## Stability of the codes" in page
    assert "data:image/png;base64," in (whole / "report.html").read_text()
    for line in page.splitlines():
        for link in line.split("](")[1:]:
            assert (whole / link.split(")")[0]).is_file()

    request.getfixturevalue("undrawn")  # the pages are compared by their text

    # killed at the second language model, asked to stop at its second start, gone on with at the third
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    made.clear()
    with monkeypatch.context() as patched:
        patched.setattr("recipes.study.steps.learn", dies)
        assert run(folder, killed, codecs=[]) == 130
        assert made == ["text", "text", "fit", "tokens", "codes", "reconstruction", "language-model"]
        patched.undo()
        made_before = sorted(path for path in (killed / "cells").glob("*/result.json"))
        times = [path.stat().st_mtime_ns for path in made_before]
    monkeypatch.setattr("recipes.evaluation.scoring.open_recognizer", lambda *_: Parrot())
    with monkeypatch.context() as patched:
        patched.setattr(
            "recipes.study.language_model.train_slm", lambda *_: TrainingResult(3, False, None, None)
        )
        capsys.readouterr()
        assert run(folder, killed, codecs=[]) == 0
        assert "stopped: run the same command again" in capsys.readouterr().out
    assert run(folder, killed) == 0
    assert [path.stat().st_mtime_ns for path in made_before] == times
    for name in ("report.md", "results.json"):
        assert (killed / name).read_text() == (whole / name).read_text()
    assert sum(1 for _ in (killed / "cells").iterdir()) == sum(1 for _ in (whole / "cells").iterdir()) == 14

    # what is there is not made again, by any name of the output; another setting makes what depends on it
    made.clear()
    capsys.readouterr()
    assert run(folder, whole) == 0 and not made
    assert "nothing is left to do; 2 of 2 tokenizers are finished" in capsys.readouterr().out
    moved = tmp_path / "moved"
    whole.rename(moved)
    assert run(folder, moved, speaking={"sentences": 1, "continuations": 0, "metrics": []}) == 0
    assert made == ["speech", "speech"]


@pytest.mark.slow
def test_side_by_side_is_the_same_as_one_by_one(folder: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        changes = {"processes": processes, "asr": "none"}
        assert run(folder, tmp_path / str(processes), **changes) == 0
    for name in ("report.md", "results.json"):
        assert (tmp_path / "1" / name).read_text() == (tmp_path / "2" / name).read_text()


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_others_and_nobody_else(folder: Path, tmp_path: Path) -> None:
    stranger = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    stranger.start()
    try:
        config = StudyConfig(
            corpus=str(folder / "manifest.jsonl"),
            output=str(tmp_path / "study"),
            codecs=[str(folder / "codec"), "/nowhere/at-all"],
            steps=1_000_000,  # days
            asr="none",
            processes=2,
        )
        study = Study(config, "cpu")
        with pytest.raises(UserError, match="/nowhere/at-all"):
            study._run_side_by_side(study._text_model(study.cells, study.cells))
        assert stranger.is_alive() and multiprocessing.active_children() == [stranger]
    finally:
        stranger.terminate()
        stranger.join()


@pytest.mark.usefixtures("undrawn")
def test_hours_of_speech_are_a_budget(folder: Path, tmp_path: Path, made: list[str]) -> None:
    hours = 60.0 / 3_600
    fields = settings(folder, tmp_path / "study") | {"steps": None, "audio_hours": hours, "codecs": []}
    assert run(folder, tmp_path / "study", **{k: fields[k] for k in ("steps", "audio_hours", "codecs")}) == 0
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    model = results["tokenizers"]["patches"]["language_model"]
    assert model["audio_hours"] == pytest.approx(hours, rel=0.5 / model["steps"])
    assert model["epochs"] == pytest.approx(60.0 / results["corpus"]["seconds"]["train"], rel=0.15)


def test_cells_are_found_by_what_they_are_made_from(tmp_path: Path) -> None:
    cells = Cells(tmp_path)
    calls: list[int] = []

    def work(path: Path) -> dict[str, float]:
        calls.append(len(list(path.iterdir())))
        (path / "half").touch()
        if len(calls) == 1:
            raise KeyboardInterrupt
        return {"value": float("nan")}

    stage = Stage("count", "a codec/of mine", {"x": 1}, work)
    assert cells.find(stage) is None
    with pytest.raises(KeyboardInterrupt):
        cells.make(stage)
    assert cells.find(stage) is None
    cell = cells.make(stage)
    assert cell.result == {"value": None} and calls == [0, 0]  # what the killed one left is gone
    assert cells.make(stage) == cell and len(calls) == 2
    for other in (
        Stage("count", "a codec/of mine", {"x": 2}, work),
        Stage("count", "a codec/of mine", {"x": 1}, work, version=2),
    ):
        assert cells.find(other) is None
    assert cell.path.name.startswith("count-a_codec_of_mine-")


def test_the_corpus_is_known_by_its_audio(folder: Path, tmp_path: Path) -> None:
    config = StudyConfig(**settings(folder, tmp_path) | {"baselines": []})
    material = open_material(config)
    assert len(material.training) == 7 and len(material.held_out) == 3
    assert material.seconds["train"] == pytest.approx(sum(20_000 + 700 * n for n in range(7)) / 24_000)
    original = (folder / "3.wav").read_bytes()
    try:
        (folder / "3.wav").write_bytes(original[:-1] + b"\x01")
        assert open_material(config).hash != material.hash
    finally:
        (folder / "3.wav").write_bytes(original)
    assert open_material(config).hash == material.hash
    limited = open_material(StudyConfig(**settings(folder, tmp_path) | {"baselines": [], "limit": 2}))
    assert [u.id for u in limited.training] == ["r0", "r3"] and len(limited.held_out) == 3
    renamed = (folder / "manifest.jsonl").read_text()
    for name in ("id", "audio", "text", "speaker", "split"):
        renamed = renamed.replace(f'"{name}":', f'"my {name}":')
    (folder / "renamed.jsonl").write_text(renamed, encoding="utf-16")
    columns = {f"{name}_column": f"my {name}" for name in ("id", "audio", "text", "speaker", "split")}
    as_told = replace(config, corpus=str(folder / "renamed.jsonl"))
    assert open_material(as_told, CorpusOptions(**columns, encoding="utf-16")).hash == material.hash
    lines = (folder / "manifest.jsonl").read_text().replace("validation", "train")
    (folder / "unsplit.jsonl").write_text(lines)
    config.corpus = str(folder / "unsplit.jsonl")
    with pytest.raises(UserError, match=r"it has train \(10\)"):
        open_material(config)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"codecs": []}, "at least one tokenizer"),
        ({"steps": None}, "as steps or as audio_hours"),
        ({"audio_hours": 1.0}, "as steps or as audio_hours"),
        ({"codecs": ["kmeans"], "baselines": [KMeansBaseline()]}, "two tokenizers are called kmeans"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_bad_settings(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        StudyConfig(**{"corpus": "c", "output": "o", "codecs": ["a"], "steps": 1} | changes)


def test_speech_by_itself_has_its_own_metrics(folder: Path, tmp_path: Path) -> None:
    changes = {"baselines": [], "speaking": {"metrics": ["pesq", "dnsmos"]}}
    assert run(folder, tmp_path / "study", **changes) == 2 and not (tmp_path / "study").exists()
    with pytest.raises(UserError, match="no metric pesq of speech by itself; there are prosody, dnsmos"):
        metrics_of_speech_alone(["pesq", "dnsmos"])


def test_a_launcher_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without a launcher"):
        Study(
            StudyConfig(**settings(folder, tmp_path) | {"baselines": [], "speaking": SpeakingConfig()}), "cpu"
        )


def test_one_process_at_a_time_works_on_a_study(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("of the one that runs")
    with FileLock(tmp_path / ".lock"):
        study = Study(
            StudyConfig(**settings(folder, tmp_path) | {"baselines": [], "speaking": SpeakingConfig()}), "cpu"
        )
        with pytest.raises(UserError, match="by another process"):
            study.run()
    assert (tmp_path / "config.yaml").read_text() == "of the one that runs"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", ".lock"}
