"""`tokenize` from files to shards beside its encoder alone, and the memory that an hours-long recording takes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from codec.foundation import seed_globals
from data import TokenizeOptions, open_corpus, tokenize_corpus
from data.config import CorpusSource
from data.scan import scan_corpus
from data.tokenization import BatchEncoder
from data.tokenization.pipeline import BatchReader
from data.tokenization.plan import Plan
from recipes.benchmark.codecs import preset_or_bundled, speech_like
from recipes.benchmark.timing import Case, Timing, take_turns

_RATE = 44_100  # of the files: reading includes resampling
_UTTERANCE_SECONDS = 8.0

# Runs a command and prints the most memory that it took. A small process between: Linux counts as a process's peak
# also what its parent had taken when it began.
_PEAK_OF_CHILD = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


@dataclass(frozen=True)
class TokenizeTiming:
    """The same audio from files to shards, and through the encoder alone out of memory."""

    codec: str
    audio_seconds: float
    whole: Timing
    encoder: Timing

    @property
    def share(self) -> float:
        """Of the encoder's speed that is left end to end: the median over rounds."""
        return self.whole.faster_round_by_round(self.encoder)


def time_tokenize(codec: str, seconds: float, rounds: int, device: str) -> TokenizeTiming:
    """Time a codec, or a preset with random weights, on FLAC files of 44.1 kHz, made for this and removed."""
    seed_globals(0)
    model = preset_or_bundled(codec, device)
    options = TokenizeOptions()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_corpus(root / "corpus", seconds)
        corpus = open_corpus(root / "corpus")
        encoder = BatchEncoder(model)
        scanned = scan_corpus(CorpusSource(str(root / "corpus")), root / "scanned")
        plan = Plan(scanned.manifest, list(scanned.splits), encoder.info, options)
        reader = BatchReader(encoder.info.sampling_rate)
        batches = [reader[request] for shard in plan.shards for request in plan.rows(shard).requests(plan)]
        outputs = iter(range(1_000))

        def whole() -> None:
            tokenize_corpus(model, corpus, root / f"tokens-{next(outputs)}", options)

        def bare() -> None:
            for batch in batches:
                assert batch.waveforms is not None
                encoder.encode(batch.waveforms, batch.lengths).streams()

        timings = take_turns(
            [Case("tokenize", whole), Case("encoder", bare)], rounds, torch.device(device), "tokenizing"
        )
    return TokenizeTiming(codec, seconds, timings["tokenize"], timings["encoder"])


@dataclass(frozen=True)
class TokenizeMemory:
    """The most memory that the process of `tokenize` held for one recording."""

    codec: str
    seconds: float  # of the recording
    peak_bytes: int


def measure_tokenize_memory(codec: str, seconds: float, device: str, threads: int) -> TokenizeMemory:
    """Run `codec-slm tokenize` on one recording of that length, in a process of its own.

    Raises RuntimeError with what it said when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "corpus").mkdir()
        _write_long(root / "corpus" / "long.flac", seconds)
        command = [sys.executable, "-m", "recipes", "tokenize", str(root / "corpus"), "--codec", codec]
        command += ["--output", str(root / "tokens"), "--device", device]
        command = [sys.executable, "-c", _PEAK_OF_CHILD, *command]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with open(root / "log", "wb") as log:
            process = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=log, cwd=Path(__file__).parents[2], env=environment
            )
        if process.returncode:
            raise RuntimeError(f"tokenize failed:\n{(root / 'log').read_text()[-2_000:]}")
    unit = 1 if sys.platform == "darwin" else 1_024
    return TokenizeMemory(codec, seconds, int(process.stdout) * unit)


def _write_corpus(directory: Path, seconds: float) -> None:
    directory.mkdir()
    samples = speech_like(_RATE, _UTTERANCE_SECONDS)[0, 0].numpy()
    random = np.random.default_rng(0)
    left = seconds
    number = 0
    while left > 0:
        length = min(left, float(random.uniform(0.25, 1.0)) * _UTTERANCE_SECONDS)
        soundfile.write(directory / f"{number:05d}.flac", samples[: int(length * _RATE) or 1], _RATE)
        left -= length
        number += 1


def _write_long(path: Path, seconds: float) -> None:
    with soundfile.SoundFile(path, "w", _RATE, 1) as file:
        for block in _blocks(seconds):
            file.write(block)


def _blocks(seconds: float) -> Iterator[np.ndarray]:
    minute = speech_like(_RATE, 60.0)[0, 0].numpy()
    left = round(seconds * _RATE)
    while left > 0:
        yield minute[:left]
        left -= len(minute)
