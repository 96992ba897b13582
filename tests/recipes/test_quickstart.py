"""The quickstart from end to end, on untrained models and with a moment of training."""

import json
from pathlib import Path

import pytest
import soundfile

from codec.foundation import UserError
from recipes import quickstart as steps
from recipes.cli.main import main
from slm.models.checkpoint import SpeechCapabilities
from slm.vocabulary import Vocabulary
from tests.recipes.untrained_models import save_codec, save_slm

TEXT = "The boats lay on their sides."

pytestmark = pytest.mark.skipif(
    not (steps.SAMPLE_CORPUS / "manifest.jsonl").is_file(), reason="the sample corpus is not bundled"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for what is bundled: an untrained codec, and an untrained language model over its codes."""
    folder = tmp_path_factory.mktemp("bundled models")
    capabilities = SpeechCapabilities(formats=["aligned", "asr"], seconds_per_character=[0.02, 0.03, 0.04])
    for seed, name in enumerate(("codec", "another codec")):
        codec = save_codec(folder / name, seed)
        save_slm(folder / f"slm of {name}", codec, ["flite-slt"], capabilities)
    return folder


@pytest.fixture
def in_their_place(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quickstart takes the stand-ins, and trains for a moment."""
    monkeypatch.setattr(steps, "CODEC", str(models / "codec"))
    monkeypatch.setattr(steps, "MODEL", str(models / "slm of codec"))
    monkeypatch.setattr(steps, "SPEEDS", (1.0,))
    monkeypatch.setattr(steps, "SHIFTS", 2)
    whole = steps.training_config

    def small(output: Path, seconds: float):  # type: ignore[no-untyped-def]
        config = whole(output, seconds)
        config.max_steps = 12
        return config

    monkeypatch.setattr(steps, "training_config", small)
    return models


def test_everything_is_there_at_the_end_and_nothing_is_made_twice(
    in_their_place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    output = tmp_path / "a quick start"
    assert main(["quickstart", "--output", str(output), "--text", TEXT, "--train_seconds", "600"]) == 0
    printed = capsys.readouterr().out
    assert all(f"[{n}/5]" in printed for n in range(1, 6))
    assert "40 recordings" in printed and "12 steps: a speech token cost" in printed

    assert printed.count("codec-slm demo") == 1
    for name in ("recording", "recording_through_codec", "spoken", "learnt", "continued"):
        info = soundfile.info(output / "audio" / f"{name}.wav")
        assert info.samplerate == 24_000 and info.frames > 0, name
    prompt = steps.PROMPT_SECONDS
    assert (
        prompt
        < soundfile.info(output / "audio" / "continued.wav").duration
        <= prompt + steps.CONTINUE_SECONDS + 1 / 24  # the prompt is coded in whole frames
    )
    for picture in ("spectrogram.png", "curves.png"):
        assert (output / picture).read_bytes().startswith(b"\x89PNG")
    page = (output / "report.md").read_text()
    for link in (
        "audio/recording.wav",
        "audio/spoken.wav",
        "audio/learnt.wav",
        "audio/continued.wav",
        "spectrogram.png",
        "curves.png",
    ):
        assert f"({link})" in page
    assert TEXT in page and "264 bits a second" in page and "log2(2,048) = 11 bits" in page
    assert "nan" not in page and "| flite-rms, learnt above |" in page
    html = (output / "report.html").read_text()
    assert html.count("<audio controls") == 5 and html.count("data:image/png;base64,") == 2
    voices = Vocabulary.from_pretrained(output / "trained" / "final").voices
    assert list(voices) == ["flite-slt", "flite-rms"]

    log = [json.loads(line) for line in (output / "trained" / "log.jsonl").read_text().splitlines()]
    bits = [line["train/speech/bits_per_token"] for line in log if "train/speech/bits_per_token" in line]
    assert bits[-1] < bits[0]
    assert any("validation/speech/bits_per_token" in line for line in log)

    made = {path: path.stat().st_mtime_ns for path in (output / "tokens").glob("*.parquet")}
    request.getfixturevalue("undrawn")
    weights = (output / "trained" / "final" / "model.safetensors").stat().st_mtime_ns
    assert main(["quickstart", "--output", str(output), "--text", TEXT, "--train_seconds", "600"]) == 0
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert (output / "trained" / "final" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_language_model_of_another_codec_is_refused(
    in_their_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "MODEL", str(in_their_place / "slm of another codec"))
    with pytest.raises(UserError, match="the same codes mean other sounds"):
        steps.quickstart(tmp_path, TEXT, train_seconds=600.0)
    assert not (tmp_path / "tokens").exists()  # said before anything takes time


def test_no_time_to_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train_seconds is 0"):
        steps.quickstart(tmp_path, TEXT, train_seconds=0.0)
