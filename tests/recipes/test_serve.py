"""The HTTP service with an untrained model: what it answers, what it refuses, and what it never tells."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from recipes.serve.app import create_app
from recipes.serve.limits import ServiceLimits
from slm.generation.speech_lm import SpeechLM
from slm.models.checkpoint import SpeakingHabits
from tests.recipes.untrained_models import save_codec, save_slm

RATE = 24_000
LIMITS = ServiceLimits(megabytes=0.5, seconds=4.0, characters=80)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> SpeechLM:
    folder = tmp_path_factory.mktemp("a secret place")
    codec = save_codec(folder / "codec")
    habits = SpeakingHabits(["aligned"], 2, False, [0.02, 0.04, 0.06])
    return SpeechLM.from_pretrained(save_slm(folder / "speaker", codec, ["anna", "bert"], habits))


@pytest.fixture(scope="module")
def client(speaker: SpeechLM) -> TestClient:
    return TestClient(create_app(speaker, LIMITS))


def encoded(waveform: np.ndarray, rate: int = RATE, format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=format)
    return file.getvalue()


def hum(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * 150 * np.arange(round(seconds * rate)) / rate)


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
    flac = client.post("/encode", content=encoded(np.stack([hum(1.0, 44_100)] * 2, 1), 44_100, "FLAC"))
    assert len(flac.json()["codes"][0]) == 24


def test_speech_is_that_of_the_model_and_comes_in_pieces(client: TestClient, speaker: SpeechLM) -> None:
    request = {"text": "Hello there, it rains.", "voice": "bert", "seed": 7, "temperature": 0.9}
    with client.stream("POST", "/speak", json=request) as answer:
        assert answer.status_code == 200 and "content-length" not in answer.headers
        content = b"".join(answer.iter_raw())
    from slm.generation.sampling import SamplingConfig

    said = speaker.speak("Hello there, it rains.", "bert", sampling=SamplingConfig(0.9, 0, 0.9), seed=7)
    audio = wav(content)
    assert len(audio) == len(said.audio)
    assert np.abs(audio - said.audio.clamp(-1, 1).numpy()).max() < 5e-3 and np.abs(audio).max() > 0


MALFORMED = [
    ("/encode", b"", 400, "empty"),
    ("/encode", b"no audio at all", 400, "not audio that libsndfile reads"),
    ("/encode", encoded(hum(1.0), format="FLAC")[:3_000], 400, "truncated"),
    ("/encode", encoded(np.zeros(0)), 400, "holds no samples"),
    ("/encode", encoded(hum(5.0, 8_000), 8_000), 413, "longer than 4 s"),
    # more than an hour of silence in some kilobytes
    ("/encode", encoded(np.zeros(4_000_000, dtype=np.int16), 1_000, "FLAC"), 413, "longer than 4 s"),
    ("/encode", b"x" * 600_000, 413, "larger than 0.5 MB"),
    ("/decode", b"", 400, "not as expected"),
    ("/decode", b"[" * 100_000, 400, "not as expected"),
    ("/decode", b'{"codes": "../../etc/passwd"}', 400, "codes"),
    ("/decode", b'{"codes": [[1, 2], [3]]}', 400, "one length"),
    ("/decode", b'{"codes": [[]]}', 400, "no codes"),
    ("/decode", b'{"codes": [[-1]]}', 400, "from 0 to 2047"),
    ("/decode", b'{"codes": [[2048]]}', 400, "from 0 to 2047"),
    ("/decode", b'{"codes": [[1.5]]}', 400, "codes"),
    ("/decode", b'{"codes": [[99999999999999999999999999]]}', 400, "2047"),
    ("/decode", json.dumps({"codes": [[0] * 97]}).encode(), 413, "more than 4 s"),
    ("/decode", b'{"codes": [[1]], "fingerprint": "0123"}', 400, "another codec"),
    ("/speak", b'{"text": "..."}', 400, "nothing to say"),
    ("/speak", json.dumps({"text": "a" * 81}).encode(), 413, "longer than 80 characters"),
    ("/speak", b'{"text": "Hi", "voice": "../anna"}', 400, "no voice"),
    ("/speak", b'{"text": "Hi", "voice": "/etc/passwd"}', 400, "no voice"),
    ("/speak", b'{"text": "Hi", "temperature": -1}', 400, "temperature"),
    ("/speak", b'{"text": "Hi", "temperature": NaN}', 400, ""),
    ("/speak", b'{"text": "Hi", "prompt": "/etc/passwd"}', 400, "prompt"),
    ("/speak", b'{"text": "\\ud800"}', 400, ""),
    ("/speak", b"\xff\xfe\x00", 400, ""),
    ("/../../etc/passwd", b"", 404, "Not Found"),
    ("/speak/../../etc/passwd", b"", 404, "Not Found"),
]


def test_malformed_requests_get_one_line_and_no_more(
    client: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    for path, content, status, words in MALFORMED:
        answer = client.post(path, content=content)
        assert (answer.status_code, path, content[:40]) == (status, path, content[:40]), answer.text
        error = answer.json()["error"]
        assert words in error and "\n" not in error and len(error) < 300
        for secret in ("/tmp", "secret place", "site-packages", "Traceback", "passwd"):
            assert secret not in error.replace("'../anna'", "").replace("'/etc/passwd'", "")
    assert client.get("/encode").status_code == 405
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert client.get("/health").status_code == 200


def test_a_body_that_does_not_say_how_long_it_is_is_cut_off(client: TestClient) -> None:
    def endless():
        for _ in range(1_000):
            yield b"x" * 10_000

    answer = client.post("/encode", content=endless())
    assert answer.status_code == 413 and "larger than" in answer.json()["error"]


def test_no_request_of_many_is_lost_and_too_many_are_told(speaker: SpeechLM) -> None:
    with TestClient(create_app(speaker, ServiceLimits(concurrent=2, waiting=30))) as client:
        alone = client.post("/speak", json={"text": "Hi.", "seed": 1}).content
        with ThreadPoolExecutor(20) as pool:
            posts = [pool.submit(client.post, "/speak", json={"text": "Hi.", "seed": 1}) for _ in range(10)]
            posts += [pool.submit(client.post, "/encode", content=encoded(hum(0.2))) for _ in range(10)]
            answers = [post.result() for post in posts]
    assert [answer.status_code for answer in answers] == [200] * 20
    assert all(answer.content == alone for answer in answers[:10])
    with TestClient(create_app(speaker, ServiceLimits(concurrent=1, waiting=0))) as client:
        with ThreadPoolExecutor(6) as pool:
            posts = [pool.submit(client.post, "/speak", json={"text": "Hello there."}) for _ in range(6)]
            codes = sorted(post.result().status_code for post in posts)
        assert codes[0] == 200 and set(codes) <= {200, 503}
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

    from recipes.cli import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    assert "pip install 'codec-slm[demo]'" in capsys.readouterr().err
