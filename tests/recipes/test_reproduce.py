"""A paper's table: its columns in its order, its own rows marked, and ours from miniatures and made-up weights."""

import json
from pathlib import Path

import pytest
import torch

from codec.export import save_codec
from codec.metrics import PocketSphinxRecognizer
from data import write_audio
from recipes.cli.main import main
from recipes.evaluation.papers import folder_of
from tests.codec.small_codecs import small_codec, speech_like
from tests.codec.test_metrics_networks import ecapa_weights

RATE = 24_000
pytestmark = pytest.mark.usefixtures("undrawn")
HH, HYBRID = "small-hh-codec-tiny", "small-hybrid-codec-tiny"


def recording(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, speech_like(1, RATE, seed=seed)[0], RATE)


@pytest.fixture
def ecapa(tmp_path: Path) -> str:
    torch.save(ecapa_weights(), tmp_path / "embedding_model.ckpt")
    return str(tmp_path)


def rows_of(page: Path) -> list[list[str]]:
    """The cells of a Markdown table, heading first."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def test_a_test_set_is_found_where_archives_unpack(tmp_path: Path) -> None:
    inner = tmp_path / "LibriTTS" / "test-clean"
    inner.mkdir(parents=True)
    assert all(folder_of(str(path), "test-clean") == inner for path in (tmp_path, inner.parent, inner))
    # another test set's numbers are not its own
    assert all(folder_of(str(path), "test-other") is None for path in (tmp_path, inner.parent, inner))


def test_a_test_set_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_codec(small_codec("hh-codec-tiny", exported=False), tmp_path / "codec")
    recording(tmp_path / "LibriTTS" / "test-clean" / "61" / "70968" / "61_70968_0.wav", 0)
    command = ["reproduce", "hh-codec", "--checkpoint", str(tmp_path / "codec"), "--processes", "1"]
    command += ["--output", str(tmp_path / "out")]
    assert main([*command, "--libritts", str(tmp_path)]) == 0
    ours = [row[0] for row in rows_of(tmp_path / "out" / "table.md") if row[1] == f"{HH} (here)"]
    assert ours == ["LibriTTS test-clean"]
    assert "not measured: LibriTTS test-other: no folder test-other in" in capsys.readouterr().out
    assert main([*command, "--seed_tts", str(tmp_path)]) == 2
    assert "looked for the folders en" in capsys.readouterr().err


def test_the_table_of_hh_codec(tmp_path: Path, ecapa: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_codec(small_codec("hh-codec-tiny", exported=False), tmp_path / "codec")
    recording(tmp_path / "LibriTTS" / "test-clean" / "61" / "70968" / "61_70968_0.wav", 0)
    recording(tmp_path / "LibriTTS" / "test-other" / "61" / "70968" / "61_70968_1.wav", 1)
    command = ["reproduce", "hh-codec", "--checkpoint", str(tmp_path / "codec"), "--processes", "1"]
    corpora = ["--libritts", str(tmp_path), "--speaker-model", ecapa]
    assert main([*command, *corpora, "--output", str(tmp_path / "out")]) == 0
    heading, *rows = rows_of(tmp_path / "out" / "table.md")
    assert [title.split(" ")[0] for title in heading[2:]] == ["UTMOS", "STOI", "V/UV", "speaker"]
    systems = ("recording (the paper)", "HH-Codec (the paper)", "recording (here)", f"{HH} (here)")
    assert [row[:2] for row in rows[:4]] == [["LibriTTS test-clean", system] for system in systems]
    assert rows[1][2:] == ["3.61", "0.89", "0.90", "0.73"]
    assert rows[4][:2] == ["LibriTTS test-other", systems[0]]
    assert [row[0] for row in rows[8:]] == ["Seed-TTS-eval"] * 2  # not given: the paper's alone
    measured = json.loads((tmp_path / "out" / "libritts-test-other" / "results.json").read_text())
    own = measured["systems"][HH]
    keys = ("stoi", "voicing_f1", "speaker_similarity")
    assert measured["utterances"] == 1 and keys[2] in own
    assert rows[7][2:] == ["–", *(f"{own[key]['mean']:.2f}" if key in own else "–" for key in keys)]
    assert "not measured: UTMOS" in capsys.readouterr().out


def test_the_table_of_hybrid_codec(
    tmp_path: Path, ecapa: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pocketsphinx")
    # in the recording, of the first quantizer, through the vocoder alone, of all quantizers
    heard = iter(["he began", "", "he began", "he"])
    monkeypatch.setattr(PocketSphinxRecognizer, "__init__", lambda self: None)
    monkeypatch.setattr(PocketSphinxRecognizer, "transcribe", lambda *_: next(heard))
    save_codec(small_codec("hybrid-codec-tiny", exported=False), tmp_path / "codec")
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "61" / "70968"
    recording(chapter / "61-70968-0000.flac", 0)
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN\n")
    command = ["reproduce", "hybrid-codec", "--checkpoint", str(tmp_path / "codec"), "--processes", "1"]
    command += ["--speaker-model", ecapa, "--asr", "pocketsphinx", "--output", str(tmp_path / "out")]
    assert main([*command, "--librispeech", str(tmp_path)]) == 0
    heading, *rows = rows_of(tmp_path / "out" / "table.md")
    titles = [title.rsplit(" ", 1)[0] for title in heading[2:]]
    assert titles == ["WER RVQ-1", "WER RVQ-1:12", "SSIM", "UTMOS", "PESQ", "RTF"]
    assert rows[0][1] == "HybridCodec, 60,000 updates (the paper)"
    assert rows[0][2:] == ["15.4 %", "4.5 %", "0.58", "3.44", "2.27", "0.014"]
    ours = next(row for row in rows if row[1] == f"{HYBRID} (here)")
    measured = json.loads((tmp_path / "out" / "librispeech-test-clean" / "results.json").read_text())
    assert (ours[2], ours[3]) == ("100.0 %", "50.0 %")
    assert ours[4] == f"{measured['systems'][HYBRID]['speaker_similarity']['mean']:.2f}"
    speed = measured["codecs"][HYBRID]["speed"]["together"]
    assert float(ours[7]) == pytest.approx(1 / speed, abs=5e-4)

    capsys.readouterr()
    assert main([*command, "--libritts", str(tmp_path)]) == 2
    assert "give --common_voice, --librispeech, --seed_tts" in capsys.readouterr().err
    assert main([*command, "--libritts", str(tmp_path), "--librispeech", str(tmp_path)]) == 2
    assert "the table of hybrid-codec has no --libritts" in capsys.readouterr().err
