"""A hundred requests and more that a service has to refuse, of as many kinds as there are ways to be wrong."""

import gzip
import io
import json
import struct
from dataclasses import dataclass

import numpy as np
import soundfile


@dataclass(frozen=True)
class Malformed:
    """A request, the status of its answer, and words of the error."""

    path: str
    content: bytes
    status: int
    words: str = ""
    method: str = "POST"


def hum(seconds: float, rate: int = 24_000) -> np.ndarray:
    """A tone."""
    return 0.2 * np.sin(2 * np.pi * 150 * np.arange(round(seconds * rate)) / rate)


def encoded(
    waveform: np.ndarray, rate: int = 24_000, format: str = "WAV", subtype: str | None = None
) -> bytes:
    """An audio file."""
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=format, subtype=subtype)
    return file.getvalue()


def flac_bomb(hours: float) -> bytes:
    """Silence of so many hours: some ten bytes for each half second."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8_000, 1, format="FLAC", subtype="PCM_16") as flac:
        minute = np.zeros(60 * 8_000, dtype=np.int16)
        for _ in range(round(60 * hours)):
            flac.write(minute)
    return file.getvalue()


def _wav(
    kind: int = 1, channels: int = 1, rate: int = 24_000, bits: int = 16, data: bytes = bytes(960)
) -> bytes:
    """A WAV whose header says what it likes."""
    block = max(1, channels * bits // 8) % 2**16
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * block % 2**32, block, bits)
    body = form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WAVE") + body


def _audio() -> list[Malformed]:
    noise = np.random.default_rng(0).integers(0, 256, 3_000, dtype=np.uint8).tobytes()
    flac, ogg, mp3 = (encoded(hum(1.0), format=name) for name in ("FLAC", "OGG", "MP3"))
    floats = np.zeros(1_000, dtype=np.float32)
    floats[500] = np.nan
    infinite = np.where(np.isnan(floats), np.inf, floats)
    no_audio = {
        "words": b"no audio at all",
        "a page": b"<html><body>hello</body></html>",
        "JSON": b'{"audio": "../../etc/passwd"}',
        "a path": b"/etc/passwd",
        "gzip": gzip.compress(encoded(hum(1.0))),
        "a zip": b"PK\x03\x04" + noise,
        "a picture": b"\x89PNG\r\n\x1a\n" + noise,
        "a pickle": b"\x80\x04\x95" + noise,
        "one byte": b"R",
        "zeros": bytes(3_000),
        "RIFF alone": b"RIFF\xff\xff\xff\xffWAVE",
        "RIFX": b"RIFX" + noise,
        "FORM": b"FORM\x7f\xff\xff\xffAIFF",
        "fLaC alone": b"fLaC",
        "fLaC and noise": b"fLaC" + noise,
        "OggS and noise": b"OggS" + noise,
        ".snd": b".snd\x00\x00\x00\x18" + bytes(4),
        "caff": b"caff\x00\x01\x00\x00" + noise,
        "a FLAC's head": flac[:30],
        "an Ogg's head": ogg[:50],
        "no channels": _wav(channels=0),
        "channels without end": _wav(channels=65_535),
        "an unknown kind": _wav(kind=0x7777),
        "no bits": _wav(bits=0),
        "a thousand bits": _wav(bits=1_000),
        "multipart": b'--x\r\nContent-Disposition: form-data; filename="../../x.wav"\r\n\r\n\r\n--x--',
    }
    return [
        Malformed("/encode", b"", 400, "empty"),
        *(Malformed("/encode", content, 400, "the recording") for content in no_audio.values()),
        Malformed("/encode", _wav(rate=0), 400, "the recording"),
        Malformed("/encode", _wav(rate=100), 400, "a sampling rate of 100 Hz is outside"),
        Malformed("/encode", _wav(rate=2_000_000_000), 400, "the recording"),
        Malformed("/encode", _wav(data=b""), 400, "holds no samples"),
        Malformed("/encode", encoded(np.zeros(0)), 400, "holds no samples"),
        Malformed("/encode", flac[:3_000], 400, "truncated"),
        Malformed("/encode", flac[:-500], 400, "truncated"),
        Malformed("/encode", flac[:2_000] + noise, 400, "truncated"),
        Malformed("/encode", encoded(floats, subtype="FLOAT"), 400, "NaN or infinite"),
        Malformed("/encode", encoded(infinite, subtype="FLOAT"), 400, "NaN or infinite"),
        Malformed(
            "/encode", encoded(hum(1.0) * 1e5, subtype="FLOAT"), 400, "divide them by their full scale"
        ),
        Malformed("/encode", mp3[: len(mp3) // 50], 400, "the recording"),
        Malformed("/encode", encoded(hum(5.0, 8_000), 8_000), 413, "longer than 4 s"),
        Malformed("/encode", encoded(hum(5.0), format="MP3"), 413, "longer than 4 s"),
        Malformed("/encode", encoded(hum(5.0), format="OGG"), 413, "longer than 4 s"),
        Malformed("/encode", flac_bomb(1.0), 413, "longer than 4 s"),
        Malformed("/encode", b"x" * 600_000, 413, "larger than 0.5 MB"),
        Malformed("/encode", encoded(hum(20.0)), 413, "larger than 0.5 MB"),
    ]


_NO_JSON = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"3",
    b'"codes"',
    b"\xff\xfe\x00",
    b"codes=[[1]]",
    b"[" * 100_000,
    b"{}",
]


def _codes() -> list[Malformed]:
    kinds = {
        b'"../../etc/passwd"': "codes",
        b"null": "codes",
        b"{}": "codes",
        b"[1, 2]": "codes",
        b'[["1"]]': "codes",
        b"[[null]]": "codes",
        b"[[true]]": "codes",
        b"[[1.5]]": "codes",
        b"[[1e400]]": "",
        b"[[NaN]]": "",
        b"[[[1]]]": "codes",
        b"[]": "1 rows",
        b"[[]]": "no codes",
        b"[[1, 2], [3]]": "one length",
        b"[[1], [1]]": "1 rows",
        b"[[-1]]": "from 0 to 2047",
        b"[[2048]]": "from 0 to 2047",
        b"[[99999999999999999999999999]]": "2047",
        b"[[-99999999999999999999999999]]": "2047",
    }
    return [
        *(Malformed("/decode", content, 400, "not as expected") for content in _NO_JSON),
        *(Malformed("/decode", b'{"codes": %s}' % codes, 400, words) for codes, words in kinds.items()),
        Malformed("/decode", json.dumps({"codes": [[0] * 97]}).encode(), 413, "more than 4 s"),
        Malformed("/decode", b'{"codes": [[1]], "fingerprint": "0123"}', 400, "another codec"),
        Malformed("/decode", b'{"codes": [[1]], "fingerprint": "/etc/passwd"}', 400, "another codec"),
        Malformed("/decode", b'{"codes": [[1]], "fingerprint": 7}', 400, "fingerprint"),
        Malformed("/decode", b'{"codes": [[1]], "seconds": 1.0}', 400, "the codes are of"),
        Malformed("/decode", b'{"codes": [[1]], "seconds": NaN}', 400, "seconds"),
        Malformed("/decode", b'{"codes": [[1]], "frame_rate": 12.5}', 400, "frame_rate is 12.5"),
        Malformed("/decode", b'{"codes": [[1]], "voice": [1, 2]}', 400, "a voice is"),
        Malformed("/decode", b'{"codes": [[1]], "voice": "anna"}', 400, "voice"),
        Malformed("/decode", b'{"codes": [[1]], "path": "/etc/passwd"}', 400, "path"),
        Malformed("/decode", b'{"codes": [[1]]} and more', 400, "not as expected"),
        Malformed("/decode", b" " * 600_000, 413, "larger than 0.5 MB"),
    ]


def _texts() -> list[Malformed]:
    fields = {
        b'"text": null': "text",
        b'"text": 5': "text",
        b'"text": ["Hi"]': "text",
        b'"text": ""': "nothing to say",
        b'"text": "..."': "nothing to say",
        b'"text": "  \\n\\t "': "nothing to say",
        b'"text": "\\ud800"': "",
        b'"text": "\xff"': "",
        b'"text": "Hi", "voice": "../anna"': "no voice",
        b'"text": "Hi", "voice": "/etc/passwd"': "no voice",
        b'"text": "Hi", "voice": ""': "no voice",
        b'"text": "Hi", "voice": 1': "voice",
        b'"text": "Hi", "voice": ["anna"]': "voice",
        b'"text": "Hi", "temperature": -1': "temperature",
        b'"text": "Hi", "temperature": 1e9': "temperature",
        b'"text": "Hi", "temperature": NaN': "",
        b'"text": "Hi", "temperature": Infinity': "",
        b'"text": "Hi", "temperature": "hot"': "temperature",
        b'"text": "Hi", "top_p": 0': "top_p",
        b'"text": "Hi", "top_p": 2': "top_p",
        b'"text": "Hi", "top_k": -1': "top_k",
        b'"text": "Hi", "top_k": 1.5': "top_k",
        b'"text": "Hi", "seed": -1': "seed",
        b'"text": "Hi", "seed": 1e30': "seed",
        b'"text": "Hi", "seed": 9223372036854775808': "seed",
        b'"text": "Hi", "speed": 3': "speed",
        b'"text": "Hi", "response_format": "exe"': "response_format",
        b'"text": "Hi", "stream": 1': "stream",
        b'"text": "Hi", "prompt": "/etc/passwd"': "prompt",
        b'"text": "Hi", "__class__": "os.system"': "__class__",
    }
    return [
        *(Malformed("/speak", content, 400, "not as expected") for content in _NO_JSON),
        *(Malformed("/speak", b"{%s}" % content, 400, words) for content, words in fields.items()),
        Malformed("/speak", json.dumps({"text": "a" * 81}).encode(), 413, "longer than 80 characters"),
        Malformed("/speak", json.dumps({"text": "\u0301" * 81}).encode(), 413, "longer than 80 characters"),
    ]


def _places() -> list[Malformed]:
    nowhere = [
        "/etc/passwd",
        "/../../etc/passwd",
        "/speak/../../etc/passwd",
        "/encode/",
        "/",
    ]
    nowhere += ["/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "/speak%00", "//etc/passwd"]
    wrong = [
        ("GET", "/encode"),
        ("PUT", "/decode"),
        ("DELETE", "/speak"),
        ("PATCH", "/encode"),
        ("POST", "/health"),
    ]
    options = {
        "seconds=0": (400, "seconds"),
        "seconds=nan": (400, "seconds"),
        "seconds=5": (413, "up to 4 s"),
        "voice=../anna&seconds=1": (400, "no voice"),
        "path=/etc/passwd": (400, "path"),
        "response_format=exe": (400, "response_format"),
    }
    return [
        *(
            Malformed(f"/continue?{option}", encoded(hum(1.0)), status, words)
            for option, (status, words) in options.items()
        ),
        Malformed("/continue?seconds=1", encoded(np.zeros(24_000)), 400, "silent"),
        Malformed("/transcribe", b"", 400, "empty"),
        Malformed("/transcribe", encoded(hum(1.0)), 400, "not trained to write down"),
        *(Malformed(path, b"", 404, "Not Found") for path in nowhere),
        *(Malformed(path, b"", 405, "Method Not Allowed", method) for method, path in wrong),
    ]


MALFORMED = [*_audio(), *_codes(), *_texts(), *_places()]

# what is no HTTP, or not to its end
NO_HTTP = [
    b"",
    b"\r\n\r\n",
    b"hello\r\n\r\n",
    b"POST\r\n\r\n",
    b"POST /speak\r\n\r\n",
    b"POST /speak HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /speak HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    b"POST /speak HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
    b"POST /speak HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n{}",
    b"POST /speak HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /speak HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"POST /speak HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    b"POST /speak HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /\x00/etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"CONNECT /etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
]
