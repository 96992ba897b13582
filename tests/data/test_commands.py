"""The data commands, as typed: what they write, and how they end."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import TokenDataset, read_audio
from data.audio import _Output
from recipes.cli.main import main
from tests.data.fake_codec import HOP, FakeCodec


@pytest.fixture(autouse=True)
def fake_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--codec NAME` is a fake codec whose fingerprint is its name."""
    monkeypatch.setattr(
        "recipes.loading.load_codec",
        lambda name, device, num_quantizers=None: FakeCodec(name, num_quantizers=2),
        raising=False,
    )


def test_encode_decode_and_reconstruct_agree(corpus_path: Path, tmp_path: Path) -> None:
    wavs = corpus_path / "wavs"
    one, two = str(wavs / "utt001.flac"), str(wavs / "utt002.flac")
    codes, decoded, rebuilt = (str(tmp_path / name) for name in ("out/codes.parquet", "decoded", "rebuilt"))
    assert main(["encode", one, two, "--output", codes, "--codec", "a"]) == 0
    assert main(["decode", codes, "--output", decoded, "--codec", "a"]) == 0
    assert main(["reconstruct", one, two, "--output", rebuilt, "--codec", "a"]) == 0
    dataset = TokenDataset.open(codes)
    for row, name in enumerate(["utt001", "utt002"]):
        samples = read_audio(wavs / f"{name}.flac", 24000)
        alone = FakeCodec("a", num_quantizers=2).encode(samples[None, None]).audio_codes[0]
        assert (dataset.codes(row) == alone.numpy().T.reshape(-1)).all()
        levels = alone[0].repeat_interleave(HOP).numpy()[: len(samples)] / 2048
        for folder in (decoded, rebuilt):
            written = read_audio(Path(folder, f"{name}.wav"), 24000)
            np.testing.assert_allclose(written.numpy(), levels, atol=2**-15)


def test_the_file_says_what_codec_to_decode_with(corpus_path: Path, tmp_path: Path) -> None:
    recording = str(corpus_path / "wavs/utt001.flac")
    codes, audio = str(tmp_path / "codes.parquet"), str(tmp_path / "row.wav")
    for codec, status in (("fake-codec", 0), ("a", 2)):  # of both, the name in the file is fake-codec
        assert main(["encode", recording, "--output", codes, "--codec", codec]) == 0
        assert main(["decode", codes, "--output", str(tmp_path / codec)]) == status
        assert main(["inspect", codes, "--audio", audio]) == status


def test_tokenize_inspect_and_train_tokenizer(
    corpus_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, audio = str(tmp_path / "tokens"), str(tmp_path / "row.wav")
    command = ["tokenize", str(corpus_path), "--output", output, "--codec", "a", "--speaker", "anna"]
    assert main([*command, "--workers", "0", "--licence", "cc0-1.0"]) == 0
    assert "28 rows (24 train, 4 validation)" in capsys.readouterr().out
    assert "license: cc0-1.0" in Path(output, "README.md").read_text()
    row = ["inspect", output, "--row", "2", "--split", "validation", "--audio", audio, "--codec"]
    assert main([*row, "a"]) == 0
    shown = capsys.readouterr().out
    assert "utt026" in shown and "Number utt026, ü." in shown and "anna" in shown
    assert len(read_audio(audio, 24000)) == len(read_audio(corpus_path / "wavs" / "utt026.flac", 24000))
    assert main([*row, "b"]) == 2
    error = capsys.readouterr().err
    assert "(a)" in error and "(b)" in error and error.count("\n") == 1
    models = [tmp_path / name for name in ("tokens.model", "corpus.model")]
    for source, model in zip((output, str(corpus_path)), models, strict=True):
        assert main(["train-tokenizer", source, "--output", str(model)]) == 0
    assert models[0].read_bytes() == models[1].read_bytes()


def test_failures_decide_the_exit_status(
    corpus_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus_path / "wavs" / "utt004.flac").write_text("not audio")
    command = [
        "tokenize",
        str(corpus_path),
        "--output",
        str(tmp_path / "t"),
        "--codec",
        "a",
        "--workers",
        "0",
    ]
    assert main(command) == 1
    assert "failures.jsonl says why" in capsys.readouterr().err
    assert main([*command, "--max_failures", "0.1"]) == 0
    assert "27 rows (23 train, 4 validation)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encode", "missing.wav", "--output", "x.parquet"], "missing.wav: no such recording"),
        (["encode", "text.wav", "--output", "x.parquet"], "text.wav: not audio that libsndfile reads"),
        (["encode", "empty", "--output", "x.parquet"], "empty: no audio files in it"),
        (["encode", "a.wav", "a.wav", "--output", "x.parquet"], "give each once"),
        (["decode", "text.wav", "--output", "d"], "text.wav: not a Parquet file"),
        (["tokenize", "empty", "--output", "t"], "empty: no corpus found: it is empty"),
        (["tokenize", "missing", "--output", "t"], "missing: no such file or directory"),
        (["tokenize", "empty", "--output", "t", "--max_failures", "7"], "a share from 0 to 1"),
        (["inspect", "empty"], "empty: not a token dataset"),
        (["train-tokenizer", "empty", "--output", "t.model"], "empty: no corpus found"),
        (["encode", "a.wav", "--output", "x.parquet", "--device", "cuda:99"], "no device cuda:99"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 24000)
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("codec-slm: error: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_ids_stay_below_the_output(corpus_path: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    audio = str(corpus_path / "wavs" / "utt000.flac")
    manifest.write_text(
        "".join(f'{{"id": "{name}", "audio": "{audio}"}}\n' for name in ("../../x", "/y/z", "a/b"))
    )
    assert (
        main(["tokenize", str(manifest), "--output", str(tmp_path / "t"), "--codec", "a", "--workers", "0"])
        == 0
    )
    assert main(["decode", str(tmp_path / "t"), "--output", str(tmp_path / "d" / "e"), "--codec", "a"]) == 0
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.wav"))
    assert written == ["d/e/a/b.wav", "d/e/x.wav", "d/e/y/z.wav"]


def test_no_input_and_no_recording_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        soundfile.write(f"{number}.wav", np.zeros(2400), 24000)
    Path("t.txt").write_text("a line\n")
    Path("link.txt").symlink_to("t.txt")
    before = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    for words, said in [
        (["reconstruct", "0.wav", "1.wav", "--output", ".", "--codec", "a"], "0.wav: is a recording"),
        (["encode", "0.wav", "--output", "2.wav", "--codec", "a"], "2.wav: is a recording"),
        (["train-tokenizer", "t.txt", "--output", "link.txt"], "link.txt: is an input of this command"),
        (["tokenize", ".", "--output", str(tmp_path), "--codec", "a"], "is an input of this command"),
        (
            ["tokenize", ".", "--output", "s3://bucket/t"],
            "s3://bucket/t: an address: give a path on this machine",
        ),
        (["encode", "0.wav", "--output", "x/" + 300 * "n"], "File name too long"),
    ]:
        assert main(words) in (1, 2)
        told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("encoding: ")]
        assert len(told) == 1 and said in told[0]
    Path("x").rmdir()
    assert {path: path.read_bytes() for path in sorted(tmp_path.iterdir())} == before
    for _ in range(2):  # what it has made itself it makes again
        assert main(["reconstruct", "0.wav", "--output", "made", "--codec", "a"]) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "full.wav").symlink_to("/dev/full")
    with _Output(tmp_path / "full.wav", Path("a.wav")) as output:
        output.write(b"x" * 10_000)
        with pytest.raises(OSError, match=r"No space left on device: 'a\.wav'"):
            output.check()
