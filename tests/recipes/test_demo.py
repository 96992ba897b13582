"""The page's work and the application around it, with an untrained model and no browser."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from codec import load_codec
from recipes.apps.config import DemoLimits
from recipes.apps.demo.actions import Event, TokenColors
from recipes.apps.demo.page import WaitingLine, create_app, heard_voices
from recipes.apps.uploads import read_upload
from slm import SamplingConfig, SpeechLM
from slm.models.likelihood import likeliest_voice
from tests.recipes.untrained_models import save_speaker

RATE = 24_000
LIMITS = DemoLimits(megabytes=2.0, seconds=4.0, characters=80, continuations=3)
SAMPLING = {"temperature": 0.8, "top_p": 0.9, "seed": 3}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> SpeechLM:
    return SpeechLM.from_pretrained(save_speaker(tmp_path_factory.mktemp("models"), prompts=True))


@pytest.fixture(scope="module")
def client(speaker: SpeechLM) -> Iterator[TestClient]:
    with TestClient(create_app(speaker, LIMITS)) as client:
        yield client


def hum(seconds: float = 2.0, rate: int = RATE, level: float = 0.2) -> bytes:
    file = io.BytesIO()
    times = np.arange(round(seconds * rate)) / rate
    soundfile.write(file, level * np.sin(2 * np.pi * 150 * times), rate, format="WAV")
    return file.getvalue()


def ask(client: TestClient, path: str, recording: bytes | None = None, **fields: Any) -> list[Event]:
    """The events that the page would get."""
    files = None if recording is None else {"recording": ("hum <b>.wav", recording)}
    answer = client.post(path, data=fields, files=files)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def error(client: TestClient, path: str, recording: bytes | None = None, **fields: Any) -> str:
    (event,) = ask(client, path, recording, **fields)
    return event["error"]


def heard(events: list[Event], track: str) -> np.ndarray:
    pieces = [base64.b64decode(event["audio"]) for event in events if event.get("track") == track]
    return np.frombuffer(b"".join(pieces), "<i2") / 32_767


def numbers(events: list[Event], track: str) -> list[list[int]]:
    """The tokens of each quantizer."""
    rows = [event["tokens"] for event in events if event.get("track") == track]
    return [[token for piece in pieces for token, _ in piece] for pieces in zip(*rows, strict=True)]


def test_a_recording_is_heard_and_seen_before_and_after_the_codec(
    speaker: SpeechLM, client: TestClient
) -> None:
    events = ask(client, "/codec", hum(rate=44_100))
    before, after = heard(events, "Recording"), heard(events, "Codec")
    assert len(before) == len(after) == 2 * RATE
    waveform, _ = read_upload(hum(rate=44_100), RATE, LIMITS)
    np.testing.assert_allclose(before, waveform.numpy(), atol=1e-4)
    codes = speaker.codec.encode(waveform[None, None]).audio_codes[0]
    assert numbers(events, "Codec") == numbers(events, "Recording") == codes.tolist()
    facts = dict(next(event["facts"] for event in events if "facts" in event))
    assert facts["Tokens"] == "48 (24 a second)" and facts["Bitrate"] == "264 bit/s"
    assert events[-1] == {"status": "Done: 2.0 s."}


def test_colours_are_the_two_principal_components_of_the_codebook(speaker: SpeechLM) -> None:
    book = speaker.codec.effective_codebook(0).double().numpy()
    colors = TokenColors(speaker.codec)
    (row,) = colors(torch.arange(len(book))[None])
    places = np.array([[float(number) for number in color.split()] for _, color in row])
    centred = book - book.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[:2].T
    radius = np.linalg.norm(expected, axis=1)
    within = radius < np.quantile(radius, 0.95)
    scale = 0.11 / np.quantile(radius, 0.95)
    np.testing.assert_allclose(np.abs(places[within]), np.abs(expected[within]) * scale, atol=1e-3)
    assert np.linalg.norm(places, axis=1).max() < 0.112
    (again,) = TokenColors(speaker.codec)(torch.tensor([[7, 7]]))
    assert again[0] == again[1] == row[7]


def test_bad_and_long_uploads_are_told(client: TestClient) -> None:
    *_, last = ask(client, "/codec", hum(60, 8_000))
    assert last == {"status": "Done: 4.0 s. Of the recording, the first 4 s were taken."}
    assert error(client, "/codec") == "upload or record something first"
    assert error(client, "/codec", b"") == "upload or record something first"
    assert "WAV, FLAC, OGG and MP3 files can be read" in error(client, "/codec", b"no audio")


def test_speech_comes_in_pieces_with_its_tokens_and_words(speaker: SpeechLM, client: TestClient) -> None:
    text = "Hello there, it rains."
    events = ask(client, "/speak", text=text, voice="anna", **SAMPLING)
    pieces = [event for event in events if "track" in event]
    assert len(pieces) > 3
    said = speaker.speak(text, "anna", sampling=SamplingConfig(0.8, 0, 0.9), seed=3)
    np.testing.assert_allclose(heard(events, "Speech"), said.audio.clamp(-1, 1).numpy(), atol=2e-4)
    assert numbers(events, "Speech") == said.codes.tolist()
    words = [word for piece in pieces for word in piece["words"]]
    assert " ".join(word for word, _, _ in words) == text
    assert [end for _, _, end in words] == pytest.approx([span.end for span in said.spans], abs=1e-3)
    assert "s of speech in" in events[-1]["status"]


def test_a_recording_s_voice_and_refusals(client: TestClient) -> None:
    named, like = (
        heard(ask(client, "/speak", recording, text="It rains.", voice="anna", **SAMPLING), "Speech")
        for recording in (None, hum())
    )
    assert len(named) != len(like) or not np.array_equal(named, like)
    spoken = {"voice": "anna", **SAMPLING}
    assert "the recording is silent" in error(client, "/speak", hum(level=0), text="Yes.", **spoken).lower()
    assert error(client, "/speak", text="a" * 81, **spoken) == "the text is longer than 80 characters"
    assert "nothing to say" in error(client, "/speak", text="?", **spoken).lower()


def test_continuations_differ_and_begin_alike(client: TestClient) -> None:
    ways = {"seconds": 1, "count": 3, **SAMPLING}
    events = ask(client, "/continue", hum(), voice="bert", **ways)
    rows = [numbers(events, str(number))[0] for number in (1, 2, 3)]
    assert all(row[:48] == rows[0][:48] for row in rows) and len({tuple(row) for row in rows}) == 3
    seams = [event["seam"] for event in events if "seam" in event]
    assert seams == pytest.approx([2.0] * 3)
    assert events[-1]["status"].startswith("1: new from 2.0 s on")
    guessed = ask(client, "/continue", hum(), voice="guess", **ways)
    name = next(name for name in ("anna", "bert") if f"most like {name}." in guessed[-1]["status"])
    named = ask(client, "/continue", hum(), voice=name, **ways)
    assert numbers(guessed, "1") == numbers(named, "1")
    for wrong, complaint in [
        ({"count": 4}, "count: "),
        ({"seconds": 9}, "seconds: "),
        ({"seed": "x"}, "seed: "),
    ]:
        answer = client.post("/continue", data={**ways, **wrong}, files={"recording": hum()})
        assert answer.status_code == 400 and answer.json()["error"].startswith(complaint)


def test_the_likeliest_voice_is_that_of_the_likeliest_tokens(speaker: SpeechLM) -> None:
    vocabulary = speaker.vocabulary
    for seed in range(4):
        codes = np.random.default_rng(seed).integers(0, 2_048, 20).astype(np.uint16)
        ids = vocabulary.codes_to_ids(codes)
        expected = {}
        for name, tag in vocabulary.voices.items():
            row = torch.tensor([[tag, vocabulary.speech_id, *ids.tolist()]])
            with torch.inference_mode():
                logs = speaker.model(row).logits[0].log_softmax(-1)
            expected[name] = float(logs[1:-1].gather(1, row[0, 2:, None]).sum())
        assert likeliest_voice(speaker.model, vocabulary, ids) == max(expected, key=expected.__getitem__)


def test_who_waits_is_told_the_place_and_moves_up() -> None:
    async def follow() -> None:
        line = WaitingLine(DemoLimits(concurrent=1, waiting=3))
        first = line.serve(iter([{"n": 1}, {"n": 2}]))
        assert await anext(first) == {"n": 1}
        second, third, fourth = (line.serve(iter([{"n": number}])) for number in (3, 4, 5))
        assert [await anext(row) for row in (second, third, fourth)] == [{"queue": n} for n in (1, 2, 3)]
        (refused,) = [event async for event in line.serve(iter([]))]
        assert refused["error"].startswith("too many are waiting")
        await third.aclose()  # goes away
        assert await anext(fourth) == {"queue": 2}
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        assert not waiting.done()
        await first.aclose()  # amid its work
        assert await waiting == {"n": 3}
        assert await anext(fourth) == {"queue": 1}
        assert [event async for event in second] == []
        assert [event async for event in fourth] == [{"n": 5}]

    asyncio.run(asyncio.wait_for(follow(), 10))


def test_an_error_that_nobody_foresaw_tells_nothing(
    client: TestClient, speaker: SpeechLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(speaker, "stream", fail)
    assert error(client, "/speak", text="Yes.", **SAMPLING) == "something went wrong here"


def test_the_page_serves_itself_and_nothing_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    for part in ('value="anna" checked', 'data-most="80"', "does not say whose voices", "to speak like"):
        assert part in page.text
    for path in ("/static/page.js", "/static/player.js", "/static/page.css", "/example.flac"):
        assert client.get(path).status_code == 200
    for path in ("/static/../page.py", "/static/..%2fpage.py", "/static/%2fetc%2fpasswd", "/docs"):
        assert client.get(path).status_code == 404
    answer = client.post("/codec", files={"recording": bytes(3 * 2**20)})
    assert answer.status_code == 413 and answer.json()["error"] == "the request is larger than 2 MB"


def test_what_a_model_says_of_itself_is_text_on_the_page(
    speaker: SpeechLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = "<script>alert(1)</script>"
    (tmp_path / "README.md").write_text(f"---\nvoices: {script}\n---\n# Card\n")
    monkeypatch.setattr(speaker.codec.config, "_name_or_path", str(tmp_path))
    assert heard_voices(speaker.codec) == script
    with TestClient(create_app(speaker, LIMITS)) as client:
        text = client.get("/").text
    assert script not in text and "&lt;script&gt;alert(1)" in text
    (tmp_path / "README.md").write_text("no header")
    assert heard_voices(speaker.codec) is None


@pytest.mark.parametrize("name", ["hh-codec-tiny", "hybrid-codec-tiny"])
def test_bundled_codecs_say_whose_voices_they_know(name: str) -> None:
    assert "kathleen" in str(heard_voices(load_codec(name)))


def test_the_codec_tab_may_show_another_codec(speaker: SpeechLM) -> None:
    codec = load_codec("hh-codec-any-voice")
    with TestClient(create_app(speaker, LIMITS, codec)) as client:
        text = client.get("/").text
        assert "tokens of hh-codec-any-voice" in text and "231 of them of LibriSpeech" in text
        events = ask(client, "/codec", hum(1.0, codec.config.sampling_rate))
    facts = dict(next(event["facts"] for event in events if "facts" in event))
    assert facts["Bitrate"] == "312 bit/s"  # 24 frames of 13 bits
