"""`inspect`, as typed: a row, and the training document that it becomes."""

import re
from pathlib import Path

import numpy as np
import pytest

from codec import CodecInfo
from data import read_audio
from data.tokenization import TokenRow, parquet_bytes
from recipes.cli.main import main
from tests.data.fake_codec import HOP, FakeCodec
from tests.slm.token_rows import train_text_model

WORDS = [("well", 0.5, 0.75), ("i", 1.0, 1.25), ("see", None, None), ("you", 2.0, 2.25), ("now", 2.5, 2.75)]
TEXT = "Well, I see you now."


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A row of 72 frames with five words, of which one has no place."""
    monkeypatch.setattr(
        "recipes.loading.load_codec",
        lambda name, device="cpu", num_quantizers=None: FakeCodec(),
        raising=False,
    )
    info = CodecInfo.of(FakeCodec())
    row = TokenRow("a row", np.arange(72, dtype=np.uint16), 3.0, TEXT, "slt", "en", WORDS)
    path = tmp_path / "tokens.parquet"
    path.write_bytes(parquet_bytes([row], info))
    train_text_model(tmp_path, "char")
    return path


def shown(tokens: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    model = str(tokens.parent / "char.model")
    assert main(["inspect", str(tokens), "--text_model", model, *flags]) == 0
    return capsys.readouterr().out


def test_an_interleaved_row_is_shown_and_heard(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = tokens.parent / "row.wav"
    heard = 0
    for seed in range(4):
        out = shown(
            tokens, capsys, "--format", "interleaved", "--seed", str(seed), "--audio", str(audio),
            "--documents.interleaved.span_words", "1", "--documents.interleaved.span_lengths", "fixed",
        )  # fmt: skip
        assert "unplaced" in out and f"interleaved, seed {seed}, epoch 0" in out
        spans = re.findall(r"^  (text|speech)  (.*?) +'(.*)'$", out, flags=re.MULTILINE)
        assert "".join(text for _, _, text in spans) == TEXT
        assert [kind for kind, _, text in spans if "see" in text] == ["text"]
        frames = [
            tuple(map(int, re.findall(r"frames (\d+) to (\d+)", at)[0]))
            for kind, at, _ in spans
            if kind == "speech"
        ]
        expected = {"Well,": (0, 23), " I": (24, 29), " you": (48, 59), " now.": (60, 71)}
        assert frames == [expected[text] for kind, _, text in spans if kind == "speech"]
        # A word's frames, then the next one's after 0.3 s.
        samples = sum(last - first + 1 for first, last in frames) * HOP + (len(frames) - 1) * 7200
        assert len(read_audio(audio, 24000)) == samples
        heard += len(frames)
    assert heard >= 8


def test_other_formats_and_the_plain_row(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = shown(tokens, capsys)
    assert "document" not in plain and TEXT in plain
    tts = shown(tokens, capsys, "--format", "tts")
    assert tts.startswith(plain) and f"text    {TEXT!r}" in tts and "speech  72 frames" in tts
    assert main(["inspect", str(tokens), "--format", "song"]) == 2
    assert "no document format is called 'song'" in capsys.readouterr().err
    model = str(tokens.parent / "char.model")
    silent = ["inspect", str(tokens), "--format", "text", "--text_model", model, "--audio", "x.wav"]
    assert main(silent) == 2
    assert "the document has no speech" in capsys.readouterr().err
