"""Sections of a study's report, from numbers that are given: nothing of a tokenizer hides behind the first one."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from codec.foundation import UserError
from codec.metrics import Column, Interval
from data import Utterance
from recipes.evaluation.codec_evaluation import BEFORE_VOCODER
from recipes.reporting.page import as_markdown
from recipes.study import report
from recipes.study.config import StudyConfig
from recipes.study.evaluation import go_on
from recipes.study.results import Result
from slm import Prompt

STOI = Column("stoi", "STOI", "higher")
CONFIG = StudyConfig(corpus="c", output="o", codecs=["a", "b"], steps=1)


def result(name: str, reconstruction: dict[str, Any], speech: dict[str, Any] | None = None) -> Result:
    """A tokenizer of which only this is known."""
    cells: dict[str, Any] = {"codes": {}, "prediction": {}, "language_model": {}}
    cells |= {"reconstruction": reconstruction, "speech": speech}
    outcome = SimpleNamespace(
        tokenizer=SimpleNamespace(name=name, info=None),
        **{
            key: None if value is None else SimpleNamespace(result=value, path=Path("cells") / name)
            for key, value in cells.items()
        },
    )
    return Result(outcome, Path())  # type: ignore[arg-type]


def reconstruction(columns: list[Column], **changes: Any) -> dict[str, Any]:
    values = {column.key: {"mean": 0.25, "utterances": 2} for column in columns}
    found = {
        "columns": [asdict(column) for column in columns],
        "systems": {"codec": values},
        "utterances": 2,
        "seconds": 5.0,
        "asr": None,
        "skipped": {},
        "failures": [],
        "examples": ["one"],
    }
    return found | changes


def page(**sections: Any) -> str:
    return as_markdown("study", **sections)


def test_columns_notes_and_counts_of_every_codec(tmp_path: Path) -> None:
    without_mel = result("a", reconstruction([STOI]))
    failures = [{"id": "two", "reason": "broken"}]
    changes = {"utterances": 1, "failures": failures, "skipped": {"pesq": "no pesq"}}
    with_mel = result("b", reconstruction([BEFORE_VOCODER, STOI], **changes))
    text = page(reconstruction=report.reconstruction(tmp_path, [without_mel, with_mel]))
    assert "|  | log-mel L1 before vocoder ↓ | STOI ↑ |" in text
    assert "| a | – | 0.250 |" in text and "| b | 0.250 | 0.250 |" in text
    assert "a: 2 held-out recordings (5 s); b: 1 held-out recordings (5 s; 1 could not be read)" in text
    assert "Not measured: pesq (no pesq)." in text
    alike = page(
        reconstruction=report.reconstruction(tmp_path, [without_mel, result("c", reconstruction([STOI]))])
    )
    assert "\n2 held-out recordings (5 s), scored at 24 kHz.\n" in alike


def told(value: float) -> dict[str, Any]:
    return asdict(Interval(value, value / 2, 2 * value))


def spoken(continuations: dict[str, Any]) -> dict[str, Any]:
    """What `speak` returns of a model that read two sentences."""
    dnsmos = Column("dnsmos_overall", "DNSMOS overall", "higher", 2)
    numbers = {
        "sentences": 2, "word_error_rate": told(0.5), "character_error_rate": told(0.25), "ended": told(0.5),
        "at_length": told(0.4), "duration_ratio": 1.1, "speaking_rate": told(14.0), "repeated": told(0.125),
        "longest_run": 7.0, "values": {"dnsmos_overall": told(3.0)},
    }  # fmt: skip
    return {
        "systems": {"reference recordings": numbers, "model": numbers},
        "columns": [asdict(dnsmos)],
        "rows": [],
        "skipped": {"UTMOS": "no weights"},
        "failures": {"sentence r9": "it has no such letters"},
        "continuations": continuations,
    }


def test_what_is_measured_of_speech_is_shown_and_refusals_have_their_reason() -> None:
    summary = {
        "continuations": 1, "refused": 1, "seconds": 2.5, "ended": told(0.3), "repeated": told(0.2),
        "longest_run": 4, "values": {},
    }  # fmt: skip
    made = {
        "id": "one",
        "audio": "continuations/one.wav",
        "prompt_seconds": 3.0,
        "cuts": ["it only repeated itself"],
    }
    refused = {"id": "two", "audio": None, "reason": "this model can read 4 s in all"}
    models = [result("a", reconstruction([STOI]), spoken({"rows": [], "summary": {}, "columns": []}))]
    continuations = {"rows": [made, refused], "summary": summary, "columns": []}
    models.append(result("b", reconstruction([STOI], examples=[]), spoken(continuations)))
    text = page(speech=report.speech(CONFIG, models))
    assert (
        "|  | characters a second | DNSMOS overall ↑ | repeated pairs of frames | longest run, frames |"
        in text
    )
    assert "| language model on b | 14.0 | 3.00 | 12.5 % (6.2–25.0) | 7 |" in text
    assert text.count("| recordings |") == 2  # in either table once: they are the same for all
    assert "Not measured: UTMOS (no weights)." in text
    assert "a: left out: sentence r9 (it has no such letters)." in text
    assert "| language model on b | 1 | 1 | 2.50 | 30.0 % (15.0–60.0) | 20.0 % (10.0–40.0) | 4 |" in text
    assert "b: two is not gone on with: this model can read 4 s in all." in text
    heard = page(listening=report.listening(models))
    assert "| two | – | refused: this model can read 4 s in all |" in heard
    assert "3.0 s given; it only repeated itself" in heard
    assert "examples/one.codec.wav" in heard and heard.count("one.codec.wav") == 1  # b has no such example


def test_what_follows_a_prompt_is_measured_and_what_cannot_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.study.evaluation.read_audio", lambda *_: torch.ones(2_000))

    class Speaker:
        vocabulary = SimpleNamespace(
            codec=SimpleNamespace(sampling_rate=1_000, hop_length=100, frame_rate=10.0)
        )
        asked = 0

        def read(self, waveform: torch.Tensor) -> Prompt:
            assert len(waveform) == 1_000 and float(waveform[0]) == 2.0  # half of it, times the gain
            return Prompt(np.arange(10))

        def continue_speech(self, prompt: Any, **_: Any) -> Any:
            self.asked += 1
            if self.asked == 2:
                raise UserError("too long")
            codes = torch.tensor([[*range(10), 1, 1, 1, 2]])
            return SimpleNamespace(
                audio=torch.zeros(1_400),
                sampling_rate=1_000,
                prompt_frames=10,
                codes=codes,
                ended=True,
                cuts=[],
            )

    class Scorer:
        columns = (STOI,)

        def run(self, tasks: Any) -> Any:
            return [(key, SimpleNamespace(values={"stoi": float(len(task.estimate))})) for key, task in tasks]

    held_out = [Utterance(str(number), f"{number}.wav", split="validation") for number in range(3)]
    config = StudyConfig(corpus="c", output="o", codecs=["a"], steps=1, gain=2.0)
    material: Any = SimpleNamespace(held_out=held_out)
    speaker: Any = Speaker()
    scorer: Any = Scorer()
    found = go_on(config, speaker, material, scorer, tmp_path)
    assert [row["id"] for row in found["rows"]] == ["0", "2", "1"]
    assert found["rows"][2] == {"id": "1", "audio": None, "reason": "too long"}
    summary = found["summary"]
    assert (summary["continuations"], summary["refused"], summary["longest_run"]) == (2, 1, 3)
    assert summary["seconds"] == pytest.approx(0.4) and summary["ended"]["value"] == 1.0
    assert summary["values"]["stoi"]["value"] == 400.0  # what is behind the prompt, and nothing else
    assert summary["repeated"]["value"] == pytest.approx(1 / 3)  # of 11, 11 and 12


def test_a_section_of_nothing_is_left_out() -> None:
    silent = result("a", reconstruction([STOI]), None)
    assert report.speech(CONFIG, [silent]) == {} and page(speech={}).strip() == ""
