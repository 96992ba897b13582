"""speak, continue and transcribe as they are typed: what is written, what is said, and what wrong input gets."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from data import read_audio, write_audio
from recipes.cli.main import main
from slm.generation.speech_lm import SpeechLM
from slm.models.checkpoint import SpeechCapabilities
from tests.recipes.untrained_models import save_codec, save_slm

RATE = 24_000
FRAME = 1 / 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one of which follows prompts, and a recording of another rate with two channels."""
    folder = tmp_path_factory.mktemp("models and a recording")
    codec = save_codec(folder / "codec")
    pace = [0.02, 0.04, 0.06]
    save_slm(
        folder / "speaker", codec, ["anna", "bert"], SpeechCapabilities(["aligned", "asr"], 2, True, pace)
    )
    save_slm(folder / "silent", codec, [], SpeechCapabilities(["speech"]))
    times = np.arange(44_100) / 44_100
    hum = 0.2 * np.sin(2 * np.pi * 150 * times) * (1 + np.sin(2 * np.pi * 3 * times))
    soundfile.write(folder / "a recording.flac", np.stack([hum, 0.5 * hum], axis=1), 44_100)
    return folder


def run(folder: Path, command: str, *arguments: str, model: str = "speaker") -> int:
    return main([command, *arguments, "--model", str(folder / model), "--device", "cpu"])


def test_speak_writes_what_the_model_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command adds nothing to `SpeechLM.speak`, and the same seed says the same thing."""
    for name, seed in [("one.wav", "3"), ("same.wav", "3"), ("other.wav", "4")]:
        output = str(tmp_path / name)
        chosen = ["--output", output, "--voice", "bert", "--seed", seed, "--candidates", "1"]
        assert run(folder, "speak", "--text", "It rains.", *chosen) == 0
    assert "one.wav: " in capsys.readouterr().out
    one, same, other = (read_audio(tmp_path / name, RATE) for name in ("one.wav", "same.wav", "other.wav"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    said = SpeechLM.from_pretrained(folder / "speaker").speak("It rains.", voice="bert", seed=3)
    assert len(one) == len(said.audio) == 1_000 * said.codes.shape[1]
    # 16 bits in the file: one step, and what is beyond full scale is cut
    assert torch.allclose(one, said.audio.clamp(-1, 1), atol=1.01 / 32_768)


def test_a_long_text_is_said_to_its_end(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model reads 512 tokens; the speech of this text alone takes more."""
    text = "Hello there, it rains. " * 9
    assert run(folder, "speak", "--text", text, "--output", str(tmp_path / "long.wav")) == 0
    printed = capsys.readouterr().out
    assert "not said" not in printed and "cannot read further" not in printed
    # nobody says a character in less than 0.02 s x 0.6 x 0.5
    assert soundfile.info(tmp_path / "long.wav").frames / RATE >= 0.9 * len(text) * 0.02 * 0.6 * 0.5


def test_speaking_like_a_recording_differs_from_speaking_by_tag(folder: Path, tmp_path: Path) -> None:
    recording = str(folder / "a recording.flac")
    for name, voice in [
        ("tag.wav", ["--voice", "anna"]),
        ("like.wav", ["--voice", recording, "--voice_text", "Hello there."]),
    ]:
        assert run(folder, "speak", "--text", "It rains.", "--output", str(tmp_path / name), *voice) == 0
    tag, like = (read_audio(tmp_path / name, RATE) for name in ("tag.wav", "like.wav"))
    assert len(tag) != len(like) or not torch.equal(tag, like)


@pytest.mark.parametrize("text", [[], ["--text", "It rains.", "--transcript", "Hello there."]])
def test_continue_keeps_the_recording_and_its_bounds(
    folder: Path, tmp_path: Path, text: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "continued.wav"
    arguments = ["--output", str(output), "--seconds", "0.5", *text]
    assert run(folder, "continue", str(folder / "a recording.flac"), *arguments) == 0
    assert ("new from 1.00 s on (0.50 s)" if not text else "new from 1.00 s on") in capsys.readouterr().out
    continued = read_audio(output, RATE)
    longest = 1.0 + (0.5 if not text else 10 * 0.06 * 4 + 2)
    assert len(continued) >= 24_000 and len(continued) / RATE <= longest + FRAME
    # the decoder looks two frames ahead, so the end of the prompt may hear what follows it
    speaker = SpeechLM.from_pretrained(folder / "speaker")
    codes = speaker.encode(read_audio(folder / "a recording.flac", RATE))
    prompt = speaker.codec.decode(torch.from_numpy(codes.astype(np.int64))[None, None]).audio_values[0, 0]
    settled = 16_000
    assert torch.allclose(continued[:settled], prompt[:settled].clamp(-1, 1), atol=1.5 / 32_768)


def test_transcribe_names_the_files_when_there_are_several(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = str(folder / "a recording.flac"), str(tmp_path / "quiet.wav")
    write_audio(second, torch.full((RATE // 2,), 1e-2), RATE)
    assert run(folder, "transcribe", first) == 0
    alone = capsys.readouterr().out.splitlines()
    assert run(folder, "transcribe", first, second) == 0
    both = capsys.readouterr().out.splitlines()
    assert both[0] == f"{first}: {alone[0]}" and any(line.startswith(f"{second}: ") for line in both)


def test_what_was_heard_of_a_folder_survives_a_bad_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hum = read_audio(folder / "a recording.flac", RATE)
    write_audio(tmp_path / "b.wav", hum, RATE)
    (tmp_path / "a.wav").write_bytes(b"no audio")
    assert run(folder, "transcribe", str(tmp_path), "--json") == 1
    captured = capsys.readouterr()
    (line,) = map(json.loads, captured.out.splitlines())
    assert line["name"] == str(tmp_path / "b.wav") and isinstance(line["text"], str)
    assert "a.wav" in captured.err and "skipped" in captured.err


def test_a_continuation_alone_and_several_of_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on for 2 s at least, each sample with a seed of its own; the recording may come through a pipe."""
    recording = folder / "a recording.flac"
    output = ["--output", str(tmp_path / "more.wav"), "--seconds", "3"]
    assert run(folder, "continue", str(recording), *output, "--samples", "2", "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first, second = (read_audio(tmp_path / f"more-{number}.wav", RATE) for number in (1, 2))
    assert len(first) != len(second) or not torch.equal(first, second)
    for entry in told:
        assert entry["begins"] == 1.0 and (2.0 <= entry["new_seconds"] <= 3.0 or entry["cuts"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(recording.read_bytes())))
    assert run(folder, "continue", "-", *output, "--only_new") == 0
    assert torch.equal(read_audio(tmp_path / "more.wav", RATE), first[RATE:])


def test_a_text_is_put_into_spoken_words_unless_told_otherwise(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "said.wav"), "--candidates", "1"]
    assert run(folder, "speak", "--text", "At 3 it rains.", "--verbose", *output) == 0
    assert "t three it rains." in capsys.readouterr().err
    said = read_audio(tmp_path / "said.wav", RATE)
    assert run(folder, "speak", "--text", "At three it rains.", *output) == 0
    assert torch.equal(said, read_audio(tmp_path / "said.wav", RATE))
    capsys.readouterr()
    assert run(folder, "speak", "--text", "At 3 it rains.", "--normalize", "false", *output) == 0
    assert "the model cannot say '3': left out" in capsys.readouterr().out
    assert run(folder, "speak", "--text", "At three it rains.", "--speed", "1.25", *output) == 0
    assert len(read_audio(tmp_path / "said.wav", RATE)) == round(len(said) / 1.25)


def test_texts_may_be_plain_lines_from_a_pipe(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("It rains.\n...\n\nHello there.\n"))
    arguments = ["--texts", "-", "--output", str(tmp_path / "said"), "--candidates", "1"]
    assert run(folder, "speak", *arguments) == 1
    captured = capsys.readouterr()
    assert "-, line 2: there is nothing to say in the text '...'; skipped" in captured.err
    assert "2 texts, " in captured.out
    assert sorted(path.name for path in (tmp_path / "said").iterdir()) == ["1.wav", "4.wav", "speech.jsonl"]


def test_what_can_be_known_before_loading_is_said_before(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model is loaded for a request that cannot be met."""
    monkeypatch.setattr(SpeechLM, "from_pretrained", None)
    recording = str(folder / "a recording.flac")
    for arguments, complaint in [
        (["speak", "--text", "Hi.", "--output", str(tmp_path / "no" / "x.wav")], "no directory"),
        (
            ["speak", "--text", "Hi.", "--output", "x.txt"],
            "x.txt: cannot be written as audio: end the name in .wav",
        ),
        (["speak", "--text", "Hi.", "--voice", "carol"], "one of the model's voices (anna, bert)"),
        (["speak", "--text", "Hi.", "--speed", "3"], "--speed is 3"),
        (["continue", recording, "--output", "x"], "cannot be written as audio: end the name in"),
        (["continue", str(tmp_path / "none.wav")], "none.wav: no such recording"),
        (["transcribe", str(tmp_path)], "no audio files in it"),
    ]:
        assert run(folder, *arguments) == 2, arguments
        assert complaint in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["speak", "--text", "Hi.", "--model", "slm-tinny"]) == 2
    assert "did you mean slm-tiny?" in capsys.readouterr().err


def test_what_cannot_be_done_is_said_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, output = str(folder / "a recording.flac"), ["--output", str(tmp_path / "out.wav")]
    (tmp_path / "empty.wav").write_bytes(b"")
    write_audio(tmp_path / "quiet.wav", torch.zeros(RATE), RATE)
    write_audio(tmp_path / "long.wav", 0.1 * torch.randn(11 * RATE), RATE)
    complaints = [
        (["speak", "--text", "..."], "speaker", "nothing to say in the text '...'"),
        (
            ["speak", "--text", "Hello.", "--voice", "carol"],
            "speaker",
            "one of the model's voices (anna, bert)",
        ),
        (
            ["speak", "--text", "Hello.", "--voice", "anna", "--voice_text", "Hi."],
            "speaker",
            "give the recording",
        ),
        (["speak", "--text", "Hello."], "silent", "not trained to speak texts"),
        (
            ["speak", "--text", "Hello.", "--voice", recording],
            "silent",
            "not trained to follow a recording's voice",
        ),
        (["speak", "--text", "Hello.", "--candidates", "0"], "speaker", "candidates must be 1 or more"),
        (["speak"], "speaker", "give --text, or a file of --texts"),
        (["speak", "--text", "Hello.", "--texts", "x.jsonl"], "speaker", "give --text, or a file of --texts"),
        (["speak", "--text", "Hello.", "--stream", "--candidates", "2"], "speaker", "no --candidates"),
        (["speak", "--text", "Hello.", "--voice", str(tmp_path / "quiet.wav")], "speaker", "is silent"),
        (
            ["speak", "--text", "Hello.", "--voice", str(tmp_path / "long.wav")],
            "speaker",
            "is too long: 11.0 s",
        ),
        (["continue", recording, "--seconds", "0"], "speaker", "seconds is 0"),
        (["continue", str(tmp_path / "empty.wav")], "speaker", "empty.wav"),
        (["continue", str(tmp_path / "missing.wav")], "speaker", "missing.wav"),
        (["continue", recording, "--text", "Hello."], "silent", "not trained to"),
    ]
    for arguments, model, complaint in complaints:
        code = run(folder, *arguments, *output, model=model)
        error = capsys.readouterr().err
        assert code == 2 and complaint in error, (arguments, error)
        assert error.count("\n") == 1 and not (tmp_path / "out.wav").exists()
    assert run(folder, "transcribe", recording, model="silent") == 2
    assert "not trained to write down speech" in capsys.readouterr().err
    assert main(["speak", "--text", "Hello.", "--model", str(tmp_path / "no model"), *output]) == 2
    assert "no model" in capsys.readouterr().err


def test_a_stream_is_written_as_it_comes_and_timed(
    folder: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The file and the pipe have the audio that speak makes at once; both say how soon it came."""
    text = ["--text", "It rains. The next train to the city leaves.", "--seed", "3"]
    whole, streamed = tmp_path / "whole.wav", tmp_path / "streamed.wav"
    assert run(folder, "speak", *text, "--output", str(whole), "--candidates", "1") == 0
    capfdbinary.readouterr()
    assert run(folder, "speak", *text, "--stream", "--output", str(streamed)) == 0
    printed = capfdbinary.readouterr().out.decode()
    assert "first audio after " in printed and "real-time factor " in printed
    assert (
        "ahead of the listener" in printed or "late at the worst" in printed
    )  # as fast as this machine is now
    expected = read_audio(whole, RATE)
    assert torch.allclose(read_audio(streamed, RATE), expected, atol=2.01 / 32_768)
    for arguments in (["--stream"], ["--candidates", "1"]):
        assert run(folder, "speak", *text, *arguments, "--output", "-") == 0
        piped = capfdbinary.readouterr()
        assert piped.out[:4] == b"RIFF" and piped.out[8:16] == b"WAVEfmt "
        samples = np.frombuffer(piped.out[44:], "<i2") / 32_768
        assert len(samples) == len(expected)
        assert np.abs(samples - expected.numpy()).max() <= 2.01 / 32_768
        assert b" s, " in piped.err


def test_many_texts_become_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"text": "It rains."},
        {"text": "Hello there.", "id": "greeting", "voice": "bert"},
        {"text": "The next train.", "voice": str(folder / "a recording.flac"), "voice_text": "Hello."},
    ]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    output = tmp_path / "spoken"
    assert run(folder, "speak", "--texts", str(texts), "--output", str(output), "--batch_size", "2") == 0
    assert "3 texts, " in capsys.readouterr().out
    lines = [json.loads(line) for line in (output / "speech.jsonl").read_text().splitlines()]
    assert [line["audio"] for line in lines] == ["1.wav", "greeting.wav", "3.wav"]
    for line in lines:
        audio = read_audio(output / line["audio"], RATE)
        assert len(audio) / RATE == pytest.approx(line["seconds"])
    alone = tmp_path / "alone.wav"
    assert run(folder, "speak", "--text", "Hello there.", "--voice", "bert", "--output", str(alone)) == 0
    assert torch.equal(read_audio(alone, RATE), read_audio(output / "greeting.wav", RATE))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "Hi", "id": "../outside"}', "the id '../outside' names a file"),
        ('{"text": "Hi", "id": 1, "voice": "carol"}', "one of the model's voices"),
        ('{"text": 5}', 'line 1: expected an object with a "text"'),
        ("hello", "line 1: not JSON"),
        ('{"text": "Hi", "speed": 2}', "unknown field 'speed'"),
        ('{"text": "..."}', "nothing to say"),
        ("", "holds no texts"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(line)
    assert run(folder, "speak", "--texts", str(texts), "--output", str(tmp_path / "spoken")) == 2
    assert complaint in capsys.readouterr().err and not (tmp_path / "spoken").exists()
