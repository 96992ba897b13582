"""Tokenizing in several lanes: the same bytes, failures and kills as one after the other; memory that stays."""

import hashlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codec import load_codec
from codec.foundation import UserError
from data import TokenDataset, TokenizeOptions, open_corpus, read_blocks, tokenize_corpus
from data.tokenization import BLOCK_SECONDS, BatchEncoder
from tests.codec.small_adapters import SMALL, save_small
from tests.codec.small_codecs import small_codec, speech_like
from tests.data.fake_codec import FakeCodec

OPTIONS = TokenizeOptions(shards=3, batch_seconds=3.0, long_seconds=4.0)
RATE = 44_100


@pytest.fixture
def threads() -> Iterator[None]:
    """Several, so that there are lanes."""
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)


@pytest.fixture
def corpus_path(tmp_path: Path) -> Path:
    """Short recordings, long ones between them and at the end, and a broken one of each kind."""
    path = tmp_path / "corpus"
    path.mkdir()
    random = np.random.default_rng(0)
    for number in range(16):
        seconds = 6.0 if number in (3, 9, 15) else float(random.uniform(0.1, 1.5))
        samples = (0.1 * random.standard_normal(int(seconds * RATE))).cumsum() % 1.0 - 0.5
        soundfile.write(path / f"{number:02d}.flac", 0.3 * samples, RATE)
    for name in ("05", "09"):
        content = (path / f"{name}.flac").read_bytes()
        (path / f"{name}.flac").write_bytes(content[: len(content) * 2 // 3])
    return path


def content(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.is_file()
    }


def test_the_same_bytes_in_any_number_of_lanes(
    corpus_path: Path, tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, corpus = small_codec("hh-codec-tiny"), open_corpus(corpus_path)
    torch.set_num_threads(1)
    assert tokenize_corpus(codec, corpus, tmp_path / "one", OPTIONS, workers=0).whole
    torch.set_num_threads(3)
    alone = content(tmp_path / "one")
    dataset = TokenDataset.open(tmp_path / "one")
    assert len(dataset) == 14 and dataset.metadata["failures"] == 2
    used = set()
    encode = BatchEncoder.encode

    def noting(*arguments: object) -> object:
        used.add((threading.current_thread().name, torch.get_num_threads()))
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchEncoder, "encode", noting)
    for workers in (None, 1):
        output = tmp_path / f"lanes-{workers}"
        assert tokenize_corpus(codec, corpus, output, OPTIONS, workers=workers).whole
        assert content(output) == alone
    assert len(used) > 1 and all(name.startswith("encoder") and count == 1 for name, count in used)


def test_no_trace_of_kills_in_lanes(corpus_path: Path, tmp_path: Path, threads: None) -> None:
    def start(codec: FakeCodec, output: Path) -> int | None:
        process = multiprocessing.get_context("fork").Process(
            target=lambda: tokenize_corpus(codec, open_corpus(corpus_path), output, OPTIONS)
        )
        process.start()
        process.join(60)
        return process.exitcode

    assert start(FakeCodec(), tmp_path / "undisturbed") == 0
    for call in (5, 1, 3):
        assert start(FakeCodec(kill_in_call=call), tmp_path / "killed") == -signal.SIGKILL
        with pytest.raises(UserError, match="not whole yet"):
            TokenDataset.open(tmp_path / "killed")
    assert start(FakeCodec(), tmp_path / "killed") == 0
    assert content(tmp_path / "killed") == content(tmp_path / "undisturbed")


def test_what_breaks_in_a_lane_is_raised(corpus_path: Path, tmp_path: Path, threads: None) -> None:
    class Broken(FakeCodec):
        def encode(self, *arguments: object) -> None:  # type: ignore[override]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tokenize_corpus(Broken(), open_corpus(corpus_path), tmp_path / "out", OPTIONS)


@pytest.mark.parametrize("kind", ["hybrid-codec", *sorted(SMALL)])
def test_codecs_can_be_shared_by_threads(kind: str, tmp_path: Path) -> None:
    """One model, several batches at once: nothing of a call may be kept in the model."""
    codec = load_codec(str(save_small(kind, tmp_path / kind))) if kind in SMALL else small_codec(kind)
    encoder = BatchEncoder(codec)
    rate = encoder.info.sampling_rate
    batches = [speech_like(2, rate // 2 + 777 * number, seed=number) for number in range(6)]

    def streams(batch: torch.Tensor) -> list[np.ndarray]:
        return encoder.encode(batch, [batch.shape[1], batch.shape[1] // 2]).streams()

    alone = [streams(batch) for batch in batches]
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        together = list(pool.map(streams, batches))
    for expected, found in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel does not tell")
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Ten minutes at 44.1 kHz are 101 MiB as read, 55 MiB resampled."""
    minute = 0.1 * np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32)
    for name, minutes in (("short", 1), ("long", 10)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", RATE, 1) as file:
            for _ in range(minutes):
                file.write(minute)
    encoder = BatchEncoder(small_codec("hh-codec-tiny"))

    def peak(name: str) -> int:
        """MiB."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
        codes = encoder.encode_long(read_blocks(tmp_path / f"{name}.wav", 24_000, BLOCK_SECONDS))
        assert len(codes.stream) * 1_000 == codes.samples
        (line,) = (
            entry for entry in Path("/proc/self/status").read_text().splitlines() if entry.startswith("VmHWM")
        )
        return int(line.split()[1]) // 2**10

    first, then = peak("short"), peak("long")
    assert then - first < 40, f"{first} MiB, then {then} MiB"
