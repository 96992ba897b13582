"""The HTTP service with an untrained model, in this process: what it answers, and what it never tells."""

import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("fastapi")

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

import recipes.apps.serve.middleware
import recipes.apps.server
from recipes.apps.config import ServiceLimits
from recipes.apps.serve.app import create_app
from recipes.apps.server import PatientProtocol
from recipes.apps.wav_stream import wav_header
from recipes.cli.main import main
from slm import SamplingConfig, SpeechLM, SpeechStream
from slm.models.checkpoint import SpeechCapabilities
from tests.codec.test_voice import voiced_codec
from tests.recipes.malformed import encoded, hum
from tests.recipes.untrained_models import save_codec, save_slm, save_speaker

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
    request = {
        "text": "Hello there, it rains.",
        "voice": "bert",
        "seed": 7,
        "temperature": 0.9,
        "stream": True,
    }
    with client.stream("POST", "/speak", json=request) as answer:
        assert answer.status_code == 200 and "content-length" not in answer.headers
        content = b"".join(answer.iter_raw())
    # its header cannot know the length, so readers take all there is
    assert content[40:44] == b"\xff" * 4 and len(soundfile.read(io.BytesIO(content))[0]) == len(wav(content))
    said = speaker.speak("Hello there, it rains.", "bert", sampling=SamplingConfig(0.9, 0, 0.9), seed=7)
    audio = wav(content)
    assert len(audio) == len(said.audio)
    assert np.abs(audio - said.audio.clamp(-1, 1).numpy()).max() < 5e-3 and np.abs(audio).max() > 0
    whole = client.post("/speak", json=request | {"stream": False})
    assert int(whole.headers["content-length"]) == len(whole.content) == 44 + 2 * len(audio)
    assert soundfile.info(io.BytesIO(whole.content)).frames == len(audio)
    assert np.abs(wav(whole.content) - audio).max() <= 2 / 32_768
    faster = wav(client.post("/speak", json=request | {"speed": 2.0}).content)
    assert len(faster) == round(len(audio) / 2)


def test_openai_s_client_lists_models_and_speaks(speaker: SpeechLM) -> None:
    import openai  # takes seconds, and only here

    with TestClient(create_app(speaker, LIMITS, "tiny", api_key="a key")) as http:
        client = openai.OpenAI(
            api_key="a key", base_url="http://testserver/v1", http_client=http, max_retries=0
        )
        assert [model.id for model in client.models.list()] == ["tiny"]
        asked = {
            "model": "tiny",
            "voice": "bert",
            "input": "Hi there.",
            "extra_body": {"seed": 7},
        }
        said = speaker.speak("Hi there.", "bert", seed=7).audio.clamp(-1, 1).numpy()
        kinds = {"wav": "WAV", "flac": "FLAC", "mp3": "MP3", "opus": "OGG", "pcm": "WAV"}
        for response_format, container in kinds.items():
            answer = client.audio.speech.create(response_format=response_format, **asked)
            content = wav_header(RATE) + answer.content if response_format == "pcm" else answer.content
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                assert file.format == container and file.samplerate == RATE
                audio = file.read()
            if response_format in ("wav", "flac", "pcm"):
                assert np.abs(audio - said).max() < 5e-3
            else:
                assert len(audio) == pytest.approx(len(said), abs=3_000) and np.abs(audio).max() > 0
        with client.audio.speech.with_streaming_response.create(
            response_format="pcm", stream_format="audio", **asked
        ) as response:
            pieces = list(response.iter_bytes())
        assert np.abs(np.frombuffer(b"".join(pieces), "<i2") / 32_768 - said).max() < 5e-3
        with pytest.raises(openai.NotFoundError, match="there is no model 'tts-1' here, but 'tiny'"):
            client.audio.speech.create(**asked | {"model": "tts-1"})
        with pytest.raises(openai.BadRequestError, match="no voice 'alloy'; it has: anna, bert"):
            client.audio.speech.create(**asked | {"voice": "alloy"})
        with pytest.raises(openai.BadRequestError, match="response_format") as caught:
            client.audio.speech.create(response_format="aac", **asked)
        assert caught.value.type == "invalid_request_error"
        with pytest.raises(openai.AuthenticationError, match="this service's key"):
            client.with_options(api_key="another").models.list()
        assert http.get("/health").json()["model"] == "tiny"  # for whoever watches it, without a key


def test_a_recording_is_continued(client: TestClient, speaker: SpeechLM) -> None:
    content = encoded(hum(1.0))
    whole = wav(client.post("/continue?seconds=2&seed=3", content=content).content)
    new = wav(client.post("/continue?seconds=2&seed=3&only_new=true", content=content).content)
    waveform = torch.from_numpy(soundfile.read(io.BytesIO(content), dtype="float32")[0])
    expected = speaker.continue_speech(speaker.prompt(waveform, RATE), 2.0, seed=3).audio.clamp(-1, 1).numpy()
    assert np.abs(whole - expected).max() < 2 / 32_768 and np.array_equal(new, whole[RATE:])


def test_a_recording_is_transcribed(tmp_path: Path) -> None:
    capabilities = SpeechCapabilities(["aligned", "asr"], 2, False, [0.02, 0.04, 0.06])
    model = save_slm(tmp_path / "listener", save_codec(tmp_path / "codec"), ["anna"], capabilities)
    speaker = SpeechLM.from_pretrained(model)
    client = TestClient(create_app(speaker, LIMITS))
    content = encoded(hum(1.0))
    waveform = torch.from_numpy(soundfile.read(io.BytesIO(content), dtype="float32")[0])
    heard = speaker.transcribe_recording(waveform, RATE)
    answer = client.post("/transcribe", content=content)
    assert answer.status_code == 200 and heard.text
    assert answer.json() == {"text": heard.text, "cuts": heard.cuts}
    assert client.post("/transcribe", content=encoded(hum(1.0, 8_000), 8_000, "FLAC")).json()["text"]


def test_the_voice_goes_through_encode_and_decode(tmp_path: Path) -> None:
    voiced_codec().save_pretrained(tmp_path / "codec")
    capabilities = SpeechCapabilities(["aligned"], 2, False, [0.02, 0.04, 0.06])
    model = save_slm(tmp_path / "speaker", tmp_path / "codec", ["anna"], capabilities)
    speaker = SpeechLM.from_pretrained(model)
    client = TestClient(create_app(speaker, LIMITS))
    found = client.post("/encode", content=encoded(hum(1.0))).json()
    waveform = torch.from_numpy(soundfile.read(io.BytesIO(encoded(hum(1.0))), dtype="float32")[0])
    coded = speaker.codec.encode(waveform[None, None])
    assert found["voice"] == coded.voice[0].tolist()
    for voice, given in ((coded.voice, found), (None, found | {"voice": None})):
        expected = (
            speaker.codec.decode(coded.audio_codes, voice=voice).audio_values[0, 0].detach().clamp(-1, 1)
        )
        assert np.abs(wav(client.post("/decode", json=given).content) - expected.numpy()).max() < 2 / 32_768


def test_documentation_needs_no_network_and_tells_all(client: TestClient) -> None:
    spec = client.get("/openapi.json").json()
    page = client.get("/docs").text
    assert "http:" not in page and "https:" not in page and "<script" not in page
    routes = {"/v1/audio/speech", "/v1/models", "/speak", "/continue", "/transcribe", "/encode", "/decode"}
    assert routes | {"/health", "/metrics"} == spec["paths"].keys()
    for path, methods in spec["paths"].items():
        ((method, route),) = methods.items()
        assert f"{method.upper()} {path}" in page and route["responses"]["200"]["content"]
        assert (method == "post") == ("requestBody" in route)
    speech = spec["paths"]["/v1/audio/speech"]["post"]
    kinds = speech["responses"]["200"]["content"].keys()
    assert kinds == {"audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/pcm"}
    schema = speech["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["model", "input"] and "<code>top_p</code>" in page


def test_metrics_count_requests_audio_and_latency(speaker: SpeechLM) -> None:
    client = TestClient(create_app(speaker, LIMITS))
    client.post("/encode", content=encoded(hum(1.5)))
    client.post("/encode", content=b"")
    client.get("/nowhere/at/all")
    seconds = len(wav(client.post("/speak", json={"text": "Hi."}).content)) / RATE
    found = {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert found["codec_slm_requests_total /encode 200"] == found["codec_slm_requests_total /encode 400"] == 1
    assert found["codec_slm_requests_total none 404"] == 1 == found["codec_slm_first_audio_seconds_count"]
    assert found["codec_slm_audio_seconds_total /encode"] == 1.5 and found["codec_slm_waiting_requests"] == 0
    assert found["codec_slm_audio_seconds_total /speak"] == pytest.approx(seconds)
    assert 0 < found["codec_slm_first_audio_seconds_sum"] < 60


def test_pages_of_named_origins_may_ask(speaker: SpeechLM) -> None:
    client = TestClient(create_app(speaker, LIMITS, api_key="k", cors=["https://a.example"]))
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
        before = client.options("/speak", headers=ask | {"origin": origin})  # a browser asks without the key
        refused = client.post("/speak", headers={"origin": origin})
        for answer in (before, refused):
            assert answer.headers.get("access-control-allow-origin") == allowed
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"


def test_too_many_are_told_to_come_again(speaker: SpeechLM) -> None:
    with TestClient(create_app(speaker, ServiceLimits(concurrent=1, waiting=0))) as client:
        with ThreadPoolExecutor(6) as pool:
            posts = [pool.submit(client.post, "/speak", json={"text": "Hello there."}) for _ in range(6)]
            answers = [post.result() for post in posts]
        assert 200 in {answer.status_code for answer in answers} <= {200, 503}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
        assert client.post("/speak", json={"text": "Hi."}).status_code == 200  # every place is free again


@contextmanager
def serving(app: FastAPI) -> Iterator[int]:
    """The application on a port of this machine, as `run_application` serves it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=PatientProtocol, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def test_stalled_clients_are_hung_up_on_and_leave_no_error(
    speaker: SpeechLM, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipes.apps.server, "_HEADER_SECONDS", 0.5)
    monkeypatch.setattr(recipes.apps.serve.middleware, "_BODY_SECONDS", 0.5)
    head = b"POST /speak HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"
    with serving(create_app(speaker, LIMITS)) as port:

        def connected() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), timeout=30)

        for sent, answer in ((b"", b""), (head[:20], b""), (head + b"{", b"HTTP/1.1 408")):
            with connected() as client:
                client.sendall(sent)
                began = time.perf_counter()
                assert client.recv(4_096)[:12] == answer
                assert 0.3 < time.perf_counter() - began < 10
        with (
            connected() as client
        ):  # who is slow between requests is not stalled, nor who waits for an answer
            for _ in range(2):
                client.sendall(head + b'{"text": "Hi"}')
                assert client.recv(4_096).startswith(b"HTTP/1.1 200")
                time.sleep(0.7)
                while len(client.recv(65_536)) == 65_536:
                    pass
        for left in (head + b"{", head + b'{"text": "Hi"}'):
            with connected() as client:
                client.sendall(left)
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    assert capfd.readouterr().err == ""


def test_texts_that_wait_at_the_same_time_are_said_together(
    speaker: SpeechLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as it is said alone, some streamed, some of several passages, some left by who asked."""
    asked = [
        {"text": "Hi. [pause 0.2] Oh."[: 3 + 16 * (number % 2)], "seed": number, "stream": number > 2}
        for number in range(6)
    ]
    app = create_app(speaker, LIMITS)
    sizes: list[int] = []
    speak_on = speaker.speak_on

    def counted(streams: list[SpeechStream]) -> Iterator[Any]:
        sizes.append(len(streams))
        return speak_on(streams)

    with serving(app) as port, ThreadPoolExecutor(6) as pool:

        def ask(body: dict[str, Any]) -> np.ndarray:
            return wav(httpx.post(f"http://127.0.0.1:{port}/speak", json=body, timeout=60).content)

        alone = [ask(body) for body in asked]
        monkeypatch.setattr(speaker, "speak_on", counted)
        for audio, expected in zip(pool.map(ask, asked), alone, strict=True):
            assert len(audio) == len(expected) and np.abs(audio - expected).max() < 5e-3
    assert sum(sizes) >= 6 and max(sizes) >= 3


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--model", "/nowhere", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"port {port} (Address already in use): choose another --port" in said and said.count("\n") == 1


def test_what_nobody_foresaw_tells_nothing(
    speaker: SpeechLM, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/tmp/secret place/weights")

    client = TestClient(create_app(speaker, LIMITS))
    for step in ("stream", "speak_on"):  # before it has its turn, and while it is said
        with monkeypatch.context() as patch:
            patch.setattr(speaker, step, broken)
            for _ in range(3):  # no place is lost
                answer = client.post("/speak", json={"text": "Hi."})
                assert answer.status_code == 500 and answer.json() == {"error": "something went wrong here"}
    assert client.post("/speak", json={"text": "Hi."}).status_code == 200
    printed = capfd.readouterr().err
    assert "RuntimeError" in printed and "secret" not in printed and "Traceback" not in printed


def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    assert "pip install 'codec-slm[serve]'" in capsys.readouterr().err
