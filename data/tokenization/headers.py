"""The lengths of a corpus's recordings: read from their headers once, by one process, for all."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from codec.foundation import Progress, UserError, rank, write_bytes
from data.audio import AudioError, AudioInfo, audio_info
from data.corpora import Utterance

HEADERS = ".headers.safetensors"  # kept in the output directory until the dataset is whole
_READING = ".headers.reading"  # touched while they are being read
_THREADS = 16  # headers wait for the disk, or for the network, not for the processor
_AT_ONCE = 1024  # calls waiting in the pool: tens of millions would fill the memory
_PATIENCE_SECONDS = 60.0


def read_headers(
    utterances: Sequence[Utterance], output: Path, identity: dict[str, Any]
) -> list[AudioInfo | None]:
    """The header of every recording in order, None where there is none to read.

    The first process of a launch reads and shares them; the others wait for it as long as it shows signs of
    life, and else read for themselves. Who writes what was read does not matter: it is the same.
    """
    path = output / HEADERS
    if rank() != 0:
        _wait_for(path, output / _READING)
    shared = _load(path, identity)
    if shared is not None:
        return shared
    headers: list[AudioInfo | None] = []
    with (
        _alive(output / _READING) as alive,
        Progress(total=len(utterances), unit="files", label="reading headers") as progress,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for start in range(0, len(utterances), _AT_ONCE):
            found = list(pool.map(_header, utterances[start : start + _AT_ONCE]))
            headers += found
            progress.update(len(found))
            alive()
    write_bytes(path, _dump(headers, identity))
    return headers


def _header(utterance: Utterance) -> AudioInfo | None:
    try:
        return audio_info(utterance.path)
    except AudioError:
        return None  # the reason is found, and recorded, when the audio is read


@contextmanager
def _alive(path: Path) -> Iterator[Any]:
    """Yields a function that shows others, every few seconds, that this process is at work."""
    last = 0.0

    def touch() -> None:
        nonlocal last
        if time.monotonic() - last > _PATIENCE_SECONDS / 20:
            last = time.monotonic()
            path.touch()

    try:
        yield touch
    finally:
        path.unlink(missing_ok=True)


def _wait_for(path: Path, sign: Path) -> None:
    seen: float | None = None
    since = time.monotonic()
    while not path.exists() and time.monotonic() - since < _PATIENCE_SECONDS:
        try:
            # Only a change counts: clocks of machines on one file system differ.
            if (touched := sign.stat().st_mtime) != seen:
                seen, since = touched, time.monotonic()
        except FileNotFoundError:
            pass
        time.sleep(0.2)


def _dump(headers: Sequence[AudioInfo | None], identity: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    rows = [(h.frames, h.sampling_rate, h.channels) if h else (0, 0, 0) for h in headers]
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
    return save({"headers": table}, metadata={"identity": json.dumps(identity, sort_keys=True)})


def _load(path: Path, identity: dict[str, Any]) -> list[AudioInfo | None] | None:
    """What another process, or an earlier run, has read for the same dataset."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    if stored_identity(path) != identity:
        raise UserError(
            f"{path.parent}: another tokenize run has begun there meanwhile: give another --output"
        )
    with safe_open(path, framework="pt") as file:
        rows = file.get_tensor("headers").tolist()
    return [AudioInfo(*row) if row[1] else None for row in rows]


def stored_identity(path: Path) -> dict[str, Any]:
    """The identity of the run that the headers were read for."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["identity"])
