"""The HTTP service with an untrained model, in this process: what it answers, and what it never tells."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from recipes.apps.config import ServiceLimits
from recipes.apps.serve.app import create_app
from slm import SamplingConfig, SpeechLM
from tests.recipes.malformed import encoded, hum
from tests.recipes.untrained_models import save_speaker

RATE = 24_000
LIMITS = ServiceLimits(megabytes=0.5, seconds=4.0, characters=80)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> SpeechLM:
    return SpeechLM.from_pretrained(save_speaker(tmp_path_factory.mktemp("a secret place")))


@pytest.fixture(scope="module")
def client(speaker: SpeechLM) -> TestClient:
    return TestClient(create_app(speaker, LIMITS))


def wav(content: bytes) -> np.ndarray:
    assert content[:4] == b"RIFF"
    return np.frombuffer(content[44:], "<i2") / 32_768


def test_encode_and_decode_are_the_codec_s(client: TestClient, speaker: SpeechLM) -> None:
    answer = client.post("/encode", content=encoded(hum(1.01)))
    assert answer.status_code == 200
    found = answer.json()
    waveform = torch.from_numpy(soundfile.read(io.BytesIO(encoded(hum(1.01))), dtype="float32")[0])
    codes = speaker.codec.encode(waveform[None, None]).audio_codes[0]
    assert found["codes"] == codes.tolist() and found["seconds"] == pytest.approx(1.01)
    assert found["fingerprint"] == client.get("/health").json()["codec"]["fingerprint"]
    answer = client.post("/decode", json={"codes": found["codes"], "fingerprint": found["fingerprint"]})
    assert answer.headers["content-type"] == "audio/wav"
    expected = speaker.codec.decode(codes[None]).audio_values[0, 0].detach().clamp(-1, 1).numpy()
    assert np.abs(wav(answer.content) - expected).max() < 2 / 32_768
    answer = client.post("/decode", json=found)  # all of it: audio as long as the recording
    assert np.abs(wav(answer.content) - expected[: round(1.01 * RATE)]).max() < 2 / 32_768
    flac = client.post("/encode", content=encoded(np.stack([hum(1.0, 44_100)] * 2, 1), 44_100, "FLAC"))
    assert len(flac.json()["codes"][0]) == 24


def test_speech_is_that_of_the_model_and_comes_in_pieces(client: TestClient, speaker: SpeechLM) -> None:
    request = {"text": "Hello there, it rains.", "voice": "bert", "seed": 7, "temperature": 0.9}
    with client.stream("POST", "/speak", json=request) as answer:
        assert answer.status_code == 200 and "content-length" not in answer.headers
        content = b"".join(answer.iter_raw())
    said = speaker.speak("Hello there, it rains.", "bert", sampling=SamplingConfig(0.9, 0, 0.9), seed=7)
    audio = wav(content)
    assert len(audio) == len(said.audio)
    assert np.abs(audio - said.audio.clamp(-1, 1).numpy()).max() < 5e-3 and np.abs(audio).max() > 0


def test_too_many_are_told_to_come_again(speaker: SpeechLM) -> None:
    with TestClient(create_app(speaker, ServiceLimits(concurrent=1, waiting=0))) as client:
        with ThreadPoolExecutor(6) as pool:
            posts = [pool.submit(client.post, "/speak", json={"text": "Hello there."}) for _ in range(6)]
            answers = [post.result() for post in posts]
        assert 200 in {answer.status_code for answer in answers} <= {200, 503}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
        assert client.post("/speak", json={"text": "Hi."}).status_code == 200  # every place is free again


def test_what_nobody_foresaw_tells_nothing(
    speaker: SpeechLM, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/tmp/secret place/weights")

    client = TestClient(create_app(speaker, LIMITS))
    monkeypatch.setattr(speaker, "stream", broken)
    for _ in range(3):  # no place is lost
        answer = client.post("/speak", json={"text": "Hi."})
        assert answer.status_code == 500 and answer.json() == {"error": "something went wrong here"}
    printed = capfd.readouterr().err
    assert "RuntimeError" in printed and "secret" not in printed and "Traceback" not in printed


def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import sys

    from recipes.cli.main import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    assert "pip install 'codec-slm[demo]'" in capsys.readouterr().err
