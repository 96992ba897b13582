"""Reading audio: what comes out is the file's samples, or one line that says why not."""

import io
import os
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codec.foundation import UserError
from data.audio import audio_info, read_audio, read_blocks, read_segment, write_audio
from data.containers import _frames
from data.decoding import AudioError, AudioPart, ffmpeg_program
from data.recordings import WRITTEN_FORMATS, refuse_recording
from recipes.apps.uploads import Upload


def tone(samples: int, rate: int = 24000, channels: int = 1) -> np.ndarray:
    t = np.arange(samples)[:, None] / rate
    return (0.4 * np.sin(2 * np.pi * 220 * t * (1 + np.arange(channels)))).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "subtype", "step"),
    [
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 2**-23),
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.flac", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_16", 2**-15),
        ("a.ogg", "VORBIS", 0.02),
        ("a.opus", "OPUS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_formats(tmp_path: Path, name: str, subtype: str, step: float) -> None:
    samples = tone(24000)
    soundfile.write(
        tmp_path / name, samples, 24000, subtype=subtype, format="OGG" if name.endswith("opus") else None
    )
    read = read_audio(tmp_path / name, 24000)
    assert read.dtype == torch.float32 and len(read) == audio_info(tmp_path / name).samples(24000) == 24000
    middle = slice(1000, -1000) if step > 0.01 else slice(None)  # coders with loss blur the ends
    np.testing.assert_allclose(read.numpy()[middle], samples[middle, 0], atol=step + 1e-9)


def test_channels_are_averaged_and_rates_resampled(tmp_path: Path) -> None:
    """8 channels at 192 kHz: a known outcome."""
    samples = tone(192000, 192000, channels=8)
    soundfile.write(tmp_path / "a.wav", samples, 192000, subtype="FLOAT")
    read = read_audio(tmp_path / "a.wav", 24000)
    assert len(read) == 24000 and audio_info(tmp_path / "a.wav").channels == 8
    expected = tone(24000, 24000, channels=8).mean(axis=1)
    np.testing.assert_allclose(read.numpy()[100:-100], expected[100:-100], atol=2e-3)


@pytest.mark.parametrize("rate", [24000, 44100, 16000, 44101])
@pytest.mark.parametrize(("name", "speed"), [("a.flac", 1.0), ("a.flac", 0.95), ("a.mp3", 1.0)])
def test_blocks_are_the_whole(
    tmp_path: Path, rate: int, name: str, speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 48000 if (name, rate) == ("a.mp3", 44101) else rate
    soundfile.write(tmp_path / name, tone(2 * rate + 123, rate, 2), rate)
    whole = read_audio(tmp_path / name, 24000, speed)
    assert len(whole) == audio_info(tmp_path / name).samples(24000, speed)
    monkeypatch.setattr("data.decoding._VALUES_PER_READ", 10_000)  # a file is read in many parts
    for seconds in (0.01, 0.37, 1.0, 60.0):
        blocks = list(read_blocks(tmp_path / name, 24000, seconds, speed))
        size = round(seconds * 24000)
        assert all(len(block) == size for block in blocks[:-1]) and 0 < len(blocks[-1]) <= size
        torch.testing.assert_close(torch.cat(blocks), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("rate", [24000, 16000, 44100])
def test_segments_are_slices(tmp_path: Path, name: str, rate: int) -> None:
    soundfile.write(tmp_path / name, tone(2 * rate, rate), rate)
    whole = read_audio(tmp_path / name, 24000)
    for start, count in [(0, 1), (0, 5000), (777, 4000), (len(whole) - 3000, 3000), (len(whole) - 10, 500)]:
        segment = read_segment(tmp_path / name, 24000, start, count)
        torch.testing.assert_close(segment, whole[start : start + count], rtol=0, atol=1e-6)
    assert len(read_segment(tmp_path / name, 24000, len(whole) + 5, 10)) == 0


def test_long_recordings_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 44100, 2) as file:
        for _ in range(4):
            file.write(np.zeros((60 * 44100, 2), dtype=np.int16))
    tracemalloc.start()  # sees numpy's buffers, which is where a file arrives
    samples = sum(len(block) for block in read_blocks(path, 24000, 10.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples == 240 * 24000
    assert peak < 32 * 2**20


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "missing":
        return path
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is not audio\n" * 100)
    elif kind == "no_samples":
        soundfile.write(path, np.zeros(0, np.float32), 24000)
    elif kind == "truncated":
        path = path.with_suffix(".flac")
        stream = io.BytesIO()
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 24000)
        soundfile.write(stream, noise, 24000, format="FLAC")
        path.write_bytes(stream.getvalue()[: stream.tell() // 2])
    elif kind in ("nan", "inf"):
        samples = tone(24000)
        samples[12000] = float(kind)
        soundfile.write(path, samples, 24000, subtype="FLOAT")
    elif kind == "full_scale_integers":
        soundfile.write(path, tone(24000) * 32767, 24000, subtype="FLOAT")
    elif kind == "slow":
        soundfile.write(path, tone(100), 50)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("directory", "is a directory"),
        ("empty", "is empty"),
        ("text", "not audio"),
        ("no_samples", "no samples"),
        ("truncated", "truncated"),
        ("nan", "NaN or infinite samples (the first at 0.500 s)"),
        ("inf", "NaN or infinite samples (the first at 0.500 s)"),
        ("full_scale_integers", "divide them"),
        ("slow", "50 Hz"),
    ],
)
def test_each_defect_has_its_line(tmp_path: Path, kind: str, words: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(AudioError) as error:
        read_audio(path, 24000)
    assert str(path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(AudioError):
        list(read_blocks(path, 24000, 0.1))


def test_clipped_floats_stay_as_they_are(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000) * 5, 24000, subtype="FLOAT")
    assert float(read_audio(tmp_path / "a.wav", 24000).abs().max()) > 1.5


def test_write_and_read_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UserError, match=r"pipe\.wav: is a device or a pipe"):
        write_audio(tmp_path / "pipe.wav", torch.zeros(9), 24000)
    (tmp_path / "pipe.wav").unlink()
    waveform = torch.from_numpy(tone(3000)[:, 0])
    write_audio(tmp_path / "a.wav", waveform[None, None], 24000)
    torch.testing.assert_close(read_audio(tmp_path / "a.wav", 24000), waveform, rtol=0, atol=2**-15)
    write_audio(tmp_path / "b.wav", waveform.split(700), 24000)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()
    with pytest.raises(UserError, match=r"a\.xyz: cannot be written"):
        write_audio(tmp_path / "a.xyz", waveform, 24000)
    with pytest.raises(UserError, match="no directory"):
        write_audio(tmp_path / "nowhere" / "a.wav", waveform, 24000)

    def failing() -> Iterator[torch.Tensor]:
        yield waveform
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_audio(tmp_path / "c.wav", failing(), 24000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
@pytest.mark.parametrize("mode", ["VARIABLE", "AVERAGE", "CONSTANT"])
def test_all_of_an_mp3_without_a_header(tmp_path: Path, rate: int, mode: str) -> None:
    """Its beginning is silent: libsndfile's guess from the first frames is far off."""
    samples = np.random.default_rng(1).normal(0, 0.1, 12 * rate).astype(np.float32)
    samples[: 4 * rate] *= 1e-4
    path = tmp_path / "a.mp3"
    with soundfile.SoundFile(path, "w", rate, 1, bitrate_mode=mode, compression_level=0.5) as file:
        file.write(samples)
    whole = path.read_bytes()
    with open(path, "rb") as opened:
        second = list(_frames(opened.read()))[1]
    assert read_audio(path, rate).shape == (12 * rate,)  # its header is right
    path.write_bytes(whole[second.offset :])
    read = read_audio(path, rate)
    assert len(read) == audio_info(path).frames and 12 <= len(read) / rate < 12.2
    torch.testing.assert_close(read_segment(path, rate, 5 * rate, 100), read[5 * rate : 5 * rate + 100])
    path.write_bytes(whole + whole)
    assert 24 <= len(read_audio(path, rate)) / rate < 24.5


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_all_of_a_chained_ogg(tmp_path: Path, subtype: str) -> None:
    parts = []
    for number in range(3):
        soundfile.write(tmp_path / "p.ogg", tone(24000 * (number + 1)), 24000, format="OGG", subtype=subtype)
        parts.append((tmp_path / "p.ogg").read_bytes())
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    read = read_audio(tmp_path / "a.ogg", 24000)
    assert len(read) == audio_info(tmp_path / "a.ogg").frames == 6 * 24000
    torch.testing.assert_close(
        read_segment(tmp_path / "a.ogg", 24000, 20000, 60000), read[20000:80000], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.wav", "WAV"), ("a.rf64", "RF64"), ("a.w64", "W64"), ("a.aiff", "AIFF"), ("a.au", "AU"),
     ("a.flac", "FLAC"), ("a.ogg", "OGG"), ("a.caf", "CAF")],
)  # fmt: skip
@pytest.mark.parametrize("samples", [240_000, 2_400])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, name: str, format: str, samples: int) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(samples), 24000, format=format)
    assert len(read_audio(path, 24000)) == samples
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(AudioError, match=name):
            read_audio(path, 24000)


def test_a_header_that_promises_less_than_there_is_is_named(tmp_path: Path) -> None:
    """As of 32-bit sizes that ran over. Chunks behind the samples, a tag, and zeros to a block's end are no samples."""
    path = tmp_path / "a.wav"
    for format, order in (("WAV", "little"), ("AIFF", "big")):
        soundfile.write(path, tone(24000), 24000, format=format)
        content = bytearray(path.read_bytes())
        at = content.index(b"data" if format == "WAV" else b"SSND") + 4
        for behind in (b"LIST" + bytes([0, 32, 0, 0]) + b"x" * 8192, bytes(8192), b"junk\xff" * 100):
            path.write_bytes(content + behind)
            assert len(read_audio(path, 24000)) == 24000
        content[at : at + 4] = (30_001).to_bytes(4, order)  # type: ignore[arg-type]
        path.write_bytes(content)
        with pytest.raises(AudioError, match=r"a\.wav: its header promises less than it holds"):
            read_audio(path, 24000)


def test_a_wav_of_unknown_length_is_whole(tmp_path: Path) -> None:
    """What a program writes into a pipe."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(24000), 24000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(path, 24000)) == 24000


def test_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    left = tone(24000)
    soundfile.write(path, np.concatenate([left, -left], axis=1), 24000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"channels cancel out .*--channel"):
        read_audio(path, 24000)
    with pytest.raises(AudioError, match="channels cancel out"):
        read_segment(path, 16000, 100, 5000)
    for channel, sign in ((0, 1), (1, -1)):
        read = read_audio(AudioPart(str(path), channel=channel), 24000)
        np.testing.assert_array_equal(read.numpy(), sign * left[:, 0])
    with pytest.raises(AudioError, match="has 2 channels, no channel 2"):
        read_audio(AudioPart(str(path), channel=2), 24000)


@pytest.mark.skipif(ffmpeg_program() is None, reason="needs ffmpeg")
@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.aac"])
def test_what_ffmpeg_reads(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone(48000), 24000)
    coded = tmp_path / name
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", coded], check=True)
    for source in (str(coded), Upload(coded.read_bytes())):
        read = read_audio(source, 24000)
        assert abs(len(read) - 48000) < 4800 and 0.2 < float(read.abs().max()) < 0.6
    coded.write_bytes(coded.read_bytes()[:-200])
    with pytest.raises(AudioError, match="ffmpeg cannot read all of it"):
        read_audio(coded, 24000)


def test_what_only_ffmpeg_reads_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.decoding.ffmpeg_program", lambda: None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(AudioError, match=r"a\.m4a: not audio that libsndfile reads, and ffmpeg is not inst"):
        audio_info(tmp_path / "a.m4a")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    for name in (b"caf\xe9.wav", b"n" * 251 + b".wav"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        write_audio(path, torch.zeros(100), 24000)
        assert len(read_audio(path, 24000)) == 100
    with pytest.raises(AudioError, match=r"caf\\xe8\.wav: no such file"):
        read_audio(os.fsdecode(b"caf\xe8.wav"), 24000)


def test_recordings_of_others_are_refused(tmp_path: Path) -> None:
    for suffix in WRITTEN_FORMATS:
        path = tmp_path / f"a{suffix}"
        write_audio(path, torch.zeros(24000), 24000)
        refuse_recording(path)
        format, subtype = WRITTEN_FORMATS[suffix]
        soundfile.write(path, np.zeros(24000), 24000, subtype, format=format)
        with pytest.raises(UserError, match=f"a{suffix}: is a recording, which is not overwritten"):
            refuse_recording(path)
