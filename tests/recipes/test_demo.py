"""The page's functions, and the application around them, with an untrained model and no browser."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

pytest.importorskip("gradio")

from fastapi.testclient import TestClient

from codec.foundation import UserError
from recipes.apps.config import DemoLimits
from recipes.apps.demo.actions import (
    Picture,
    SpeakingView,
    StreamRegistry,
    continue_recording,
    speak,
    view_recording,
)
from recipes.apps.demo.fragments import alignment, error_html, facts_table, figure, player, status_html
from recipes.apps.demo.page import create_app
from recipes.apps.uploads import read_upload
from recipes.apps.wav_stream import WavBroadcast
from slm import SamplingConfig, SpeechLM, SpokenSpan
from tests.recipes.untrained_models import save_speaker

RATE = 24_000
LIMITS = DemoLimits(megabytes=2.0, seconds=4.0, characters=80, continuations=3)
SAMPLING = SamplingConfig()


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As the command does: what Gradio keeps lies in a folder of its own."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> SpeechLM:
    return SpeechLM.from_pretrained(save_speaker(tmp_path_factory.mktemp("models"), prompts=True))


@pytest.fixture
def recording(tmp_path: Path) -> str:
    times = np.arange(2 * 44_100) / 44_100
    path = tmp_path / "hum <b>.wav"
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 150 * times), 44_100)
    return str(path)


def say(
    speaker: SpeechLM,
    registry: StreamRegistry,
    text: str = "Hello there, it rains.",
    prompt: str | None = None,
) -> Iterator[SpeakingView]:
    return speak(speaker, registry, LIMITS, text, "anna", prompt, "", SAMPLING, 3)


def test_a_recording_is_seen_and_heard_after_the_codec(speaker: SpeechLM, recording: str) -> None:
    waveform, remark = read_upload(recording, RATE, LIMITS)
    view = view_recording(speaker.codec, waveform)
    assert remark == "" and len(view.reconstruction) == len(waveform) == 48_000
    facts = dict(view.facts)
    assert facts["tokens"] == "48 (24 a second)" and facts["bitrate"] == "264 bit/s"
    for picture in (view.raster, view.spectrograms):
        wide, narrow = (np.asarray(Image.open(io.BytesIO(file))) for file in (picture.wide, picture.narrow))
        assert wide.shape[1] > 1_000 and narrow.shape[1] < 600
        assert wide.std() > 5 and narrow.std() > 5  # something is drawn
    other = view_recording(speaker.codec, waveform.flip(0) * 0.1)
    assert view.raster.wide != other.raster.wide


def test_bad_and_long_uploads_are_told(speaker: SpeechLM, tmp_path: Path) -> None:
    ten_minutes = tmp_path / "long.flac"
    soundfile.write(ten_minutes, np.zeros(600 * 8_000, dtype=np.int16), 8_000)
    waveform, remark = read_upload(str(ten_minutes), RATE, LIMITS)
    assert len(waveform) == 4 * RATE and remark == "Of the recording, the first 4 s were taken."
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "large.wav").write_bytes(bytes(3 * 2**20))
    for name, complaint in [
        ("text.wav", "not audio"),
        ("empty.wav", "empty"),
        ("large.wav", "larger than 2 MB"),
    ]:
        with pytest.raises(UserError, match=complaint) as told:
            read_upload(str(tmp_path / name), RATE, LIMITS)
        assert str(tmp_path) not in str(told.value)
    with pytest.raises(UserError, match="upload or record something first"):
        read_upload(None, RATE, LIMITS)


def test_speech_can_be_heard_while_it_is_made(speaker: SpeechLM) -> None:
    registry = StreamRegistry()
    views = list(say(speaker, registry))
    assert len(views) > 3 and len({view.live for view in views}) == 1
    last = views[-1]
    assert last.audio is not None and all(view.audio is None for view in views[:-1])
    assert [len(view.spans) for view in views] == sorted(len(view.spans) for view in views)
    assert "".join(span.text for span in last.spans) == "Hello there, it rains."
    said = speaker.speak("Hello there, it rains.", "anna", sampling=SAMPLING, seed=3)
    assert (last.audio - said.audio).abs().max() <= 1e-4
    assert registry.get(last.live) is not None and registry.get("../" + last.live) is None


def test_a_recording_s_voice_and_its_refusals(speaker: SpeechLM, recording: str, tmp_path: Path) -> None:
    registry = StreamRegistry()
    named, like = (list(say(speaker, registry, prompt=path))[-1].audio for path in (None, recording))
    assert len(named) != len(like) or not torch.equal(named, like)
    soundfile.write(tmp_path / "quiet.wav", np.zeros(RATE), RATE)
    with pytest.raises(UserError, match="the recording is silent"):
        next(say(speaker, registry, prompt=str(tmp_path / "quiet.wav")))
    with pytest.raises(UserError, match="longer than 80 characters"):
        next(say(speaker, registry, "a" * 81))
    with pytest.raises(UserError, match="nothing to say"):
        next(say(speaker, registry, "?"))


def test_continuations_differ_and_begin_alike(speaker: SpeechLM, recording: str) -> None:
    found = list(continue_recording(speaker, LIMITS, recording, None, 1.0, 3, SAMPLING, 0))
    codes = [result.codes for result, _ in found]
    assert all(torch.equal(row[:, :48], codes[0][:, :48]) for row in codes)
    assert len({tuple(row[0].tolist()) for row in codes}) == 3
    assert all(line.startswith("2.0 s heard") for _, line in found)
    for arguments, complaint in [((1.0, 4), "1 to 3 continuations"), ((9.0, 1), "up to 4 s")]:
        with pytest.raises(UserError, match=complaint):
            next(continue_recording(speaker, LIMITS, recording, None, *arguments, SAMPLING, 0))


def test_a_closed_tab_leaves_nobody_waiting(speaker: SpeechLM) -> None:
    registry = StreamRegistry()
    views = say(speaker, registry)
    first = next(views)
    views.close()
    with TestClient(create_app(speaker, LIMITS)) as client:
        assert client.get(f"/speech/{first.live}.wav").status_code == 404  # of another page
    live = registry.get(first.live)
    assert live is not None and live._over


def test_stopped_speech_is_what_there_was_of_it(speaker: SpeechLM) -> None:
    registry = StreamRegistry()
    whole = list(say(speaker, registry))[-1]
    views = say(speaker, registry)
    first = next(views)
    registry.stop(first.live)
    (last,) = views
    assert last.status.startswith("Stopped.") and last.audio is not None and whole.audio is not None
    assert 0 < len(last.audio) < len(whole.audio)
    assert torch.equal(last.audio, whole.audio[: len(last.audio)])
    registry.stop(None)  # nothing was said yet


def test_the_registry_forgets_the_oldest() -> None:
    registry = StreamRegistry()
    names = [registry.put(WavBroadcast(RATE)) for _ in range(40)]
    assert registry.get(names[0]) is None and registry.get(names[-1]) is not None
    assert len(set(names)) == 40


def test_what_users_write_is_text_on_the_page() -> None:
    script = "<script>alert(1)</script>"
    for html in (
        alignment([SpokenSpan(script, 0.0, 0.5)]),
        status_html([script, "a line"]),
        error_html(script),
        facts_table([(script, script)]),
        figure(Picture(b"", b""), script, f'"{script}'),
    ):
        assert "<script>" not in html and "&lt;script&gt;" in html
    assert '"' not in player('x" onerror="').split('src="speech/')[1].split('.wav"')[0]
    assert alignment([]) == "" and player(None) == ""


def test_the_page_serves_itself_and_nothing_else(speaker: SpeechLM, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a secret")
    with TestClient(create_app(speaker, LIMITS)) as client:
        page = client.get("/")
        assert page.status_code == 200 and "codec-slm" in page.text
        labels = client.get("/config").text
        for label in (
            "Recording",
            "After the codec",
            "Text",
            "Voice",
            "Temperature",
            "Continuation 3",
        ):
            assert label in labels
        here = Path(__file__).resolve()
        for path in (tmp_path / "secret.txt", here, Path("/etc/passwd")):
            for start in ("/gradio_api/file=", "/file=", "/gradio_api/file=../../../../../../.."):
                answer = client.get(f"{start}{path}")
                assert answer.status_code in (403, 404), (start, path)
                assert "a secret" not in answer.text and "root:" not in answer.text
        assert client.get("/speech/..%2f..%2fetc%2fpasswd.wav").status_code == 404
        large = {"files": ("large.wav", io.BytesIO(bytes(3 * 2**20)))}
        assert client.post("/gradio_api/upload", files=large).status_code == 413


def test_files_that_nobody_uploaded_are_not_read(speaker: SpeechLM, tmp_path: Path, recording: str) -> None:
    """What the page's own script sends, with a path of this machine in it."""

    def encode(client: TestClient, path: str) -> dict:
        data = {"path": path, "meta": {"_type": "gradio.FileData"}}
        call = {"data": [data], "fn_index": encoding, "session_hash": path.replace("/", "")}
        assert client.post("/gradio_api/queue/join", json=call).status_code == 200
        answers = client.get("/gradio_api/queue/data", params={"session_hash": call["session_hash"]})
        messages = [json.loads(line[5:]) for line in answers.text.splitlines() if line.startswith("data:")]
        return next(message for message in messages if message["msg"] == "process_completed")

    with TestClient(create_app(speaker, LIMITS)) as client:
        page = client.get("/config").json()
        (button,) = (
            part["id"] for part in page["components"] if part["props"].get("value") == "Encode and decode"
        )
        (encoding,) = (entry["id"] for entry in page["dependencies"] if [button, "click"] in entry["targets"])
        with open(recording, "rb") as file:
            (uploaded,) = client.post("/gradio_api/upload", files={"files": ("hum.wav", file)}).json()
        answer = encode(client, uploaded)
        assert answer["success"] and len(answer["output"]["data"]) == 6
        cache = Path(uploaded).parent.parent
        before = set(cache.rglob("*"))
        for path in (recording, "/etc/passwd", f"{cache}/../../../../etc/passwd", "/etc/no-such-file"):
            answer = encode(client, path)
            assert not answer["success"]
            assert "passwd" not in json.dumps(answer["output"]) and "/tmp" not in json.dumps(answer["output"])
        assert not any("passwd" in path.name for path in set(cache.rglob("*")) - before)


def test_two_users_at_once(speaker: SpeechLM) -> None:
    registry = StreamRegistry()
    heard: dict[int, torch.Tensor] = {}

    def user(number: int) -> None:
        audio = list(speak(speaker, registry, LIMITS, "It rains.", "anna", None, "", SAMPLING, number % 2))[
            -1
        ].audio
        assert audio is not None
        heard[number] = audio

    threads = [threading.Thread(target=user, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(heard[0], heard[2]) and torch.equal(heard[1], heard[3])
    assert len(heard[0]) != len(heard[1]) or not torch.equal(heard[0], heard[1])
