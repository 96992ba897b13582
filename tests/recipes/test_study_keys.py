"""What a cell of a study is found by: all that decides its content."""

import sys
from pathlib import Path
from typing import Any

import pytest

from codec.loading import model_of
from recipes.study.cells import codec_hash, computed_by, file_hash, location_hash, measured_by, versions
from recipes.study.config import StudyConfig
from tests.codec.small_codecs import small_codec


def config(**changes: Any) -> StudyConfig:
    return StudyConfig(**{"corpus": "c", "output": "o", "codecs": ["a"], "steps": 1, "asr": "none"} | changes)


def test_a_metric_that_was_not_installed_is_measured_once_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    there = measured_by(config(), ["pesq", "log_mel_l1"])
    assert there["metrics"] == ["log_mel_l1", "pesq"] and set(there["versions"]) == {"pesq"}
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pesq", None)
        without = measured_by(config(), ["pesq", "log_mel_l1"])
    assert without["metrics"] == ["log_mel_l1"] and without != there
    assert measured_by(config(), ["pesq", "log_mel_l1"]) == there
    with monkeypatch.context() as patched:
        patched.setattr("recipes.reporting.provenance.version", lambda _: "0.0.1")
        assert measured_by(config(), ["pesq", "log_mel_l1"]) != there
    assert versions("no such package") == {"no such package": None}


def test_whoever_hears_is_known_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured_by(config(asr="pocketsphinx"), [])["asr"] == "pocketsphinx"
    assert measured_by(config(asr="some/recogniser"), [])["asr"] == "some/recogniser"
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "jiwer", None)
        assert measured_by(config(asr="pocketsphinx"), [])["asr"] is None
    (tmp_path / "here" / "part").mkdir(parents=True)
    weights = tmp_path / "here" / "part" / "weights"
    weights.write_bytes(b"1")
    first = measured_by(config(asr=str(tmp_path / "here")), [])
    weights.write_bytes(b"22")
    second = measured_by(config(asr=str(tmp_path / "here")), [])
    assert first["asr"] != second["asr"] and len(second["asr"]) == 16
    (tmp_path / "here").rename(tmp_path / "there")
    assert location_hash(str(tmp_path / "there")) == second["asr"]
    judged = measured_by(config(utmos=str(tmp_path / "there" / "part" / "weights")), [])
    assert judged["judges"] != measured_by(config(), [])["judges"] == []


def test_a_file_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = file_hash(file)
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
        assert file_hash(file) == first
    file.write_bytes(b"three")
    assert file_hash(file) != first


def test_threads_device_and_versions_belong_to_what_computed() -> None:
    one = computed_by(config(), "cpu", "transformers")
    assert one == computed_by(config(), "cpu", "transformers")
    assert one != computed_by(config(threads=2), "cpu", "transformers")
    assert one != computed_by(config(), "cuda:1", "transformers")
    assert computed_by(config(), "cuda:1") == computed_by(config(), "cuda:0")  # it may go on on another one
    assert one["versions"].keys() == {"torch", "transformers"} and all(one["versions"].values())


def test_a_codec_is_known_by_its_configuration_too() -> None:
    codec = small_codec("hh-codec-tiny")
    plain = codec.config.to_dict()
    assert codec_hash(codec) == codec_hash(codec)
    changed = type(codec.config)(**{**plain, "vocoder": {**plain["vocoder"], "mel_std": 2.5}})
    other = model_of(changed)
    other.load_state_dict(codec.state_dict())
    assert codec_hash(other) != codec_hash(codec)  # the same weights, another sound
    codec.config._name_or_path = "/elsewhere"
    assert codec_hash(codec) == codec_hash(small_codec("hh-codec-tiny"))
