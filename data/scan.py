"""Scanning a corpus: one process lists what is there, all read the headers of the recordings.

So it goes on any number of processes, which need not know of each other, and after a kill.
"""

import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from codec.foundation import Progress, UserError, local_path, rank
from data.alignment.stored import WordTimes, with_alignment
from data.audio import audio_info
from data.config import CorpusSource
from data.corpora.opening import Listing
from data.corpora.scanned import (
    Manifest,
    ScannedCorpus,
    is_scanned,
    listed_source,
    open_scanned,
    sorted_in_runs,
    write_listing,
)
from data.corpora.utterance import Corpus, Utterance
from data.decoding import AudioError
from data.sharded_directory import own_shards

_LISTING = ".listing"  # touched while the corpus is being listed
_THREADS = 16  # headers wait for the disk or for the network, not for the processor
_PATIENCE_SECONDS = 60.0


def scan_corpus(source: CorpusSource, output: str | os.PathLike[str]) -> ScannedCorpus:
    """List a corpus into the directory `output`, and read the headers of all recordings (see `data.corpora.scanned`).

    Raises UserError as `open_corpus`, and when `output` holds something else.
    """
    if os.path.exists(source.path):  # its directory may be used from another working directory
        source = replace(source, path=os.path.abspath(source.path))
    output, about = local_path(output), json.loads(json.dumps(asdict(source)))
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; the output must be a directory")
    there = listed_source(output)
    visible = output.glob("[!.]*") if output.is_dir() else ()
    if there is None and not all(entry.name.startswith("utterances-") for entry in visible):
        raise UserError(f"{output}: holds something else already: give another --output")
    if there is not None and there != about:
        raise UserError(f"{output}: another corpus is scanned there ({there['path']}): give another --output")
    corpus = _by_one(output, about, lambda: _in_order(source, output))
    read_headers(corpus.manifest)
    return corpus


def listed_below(folder: Path, source: CorpusSource, alignment: str | None = None) -> ScannedCorpus:
    """A corpus listed into a hidden directory in `folder`, if it is not scanned already; with words of an alignment.

    What was listed there stays, until somebody removes it.
    """
    if is_scanned(source.path):
        corpus = open_scanned(source)
        return corpus if alignment is None else with_alignment(corpus, alignment)
    about = asdict(source) | {"alignment": alignment}
    path = _hidden(folder, about)
    return _by_one(path, about, lambda: _in_order(source, path, alignment))


def stored_below(folder: Path, corpus: Corpus) -> ScannedCorpus:
    """A corpus of the memory, listed as by `listed_below`."""
    if isinstance(corpus, ScannedCorpus):
        return corpus
    about = {**corpus.identity(), "path": corpus.location}
    return _by_one(_hidden(folder, about), about, lambda: corpus)


def _hidden(folder: Path, about: dict[str, Any]) -> Path:
    """Where the listing of a corpus lies; another one lies elsewhere."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return folder / f".manifest-{digest[:16]}"


def _in_order(source: CorpusSource, folder: Path, alignment: str | None = None) -> Corpus:
    """A corpus of an iterator, which uses files in `folder`."""
    listing = Listing(source)
    corpus = listing.corpus(sorted_in_runs(listing.read(), folder))
    if alignment is None:
        return corpus
    times = WordTimes(alignment, source.path)
    return replace(corpus, utterances=times.join_all(corpus.utterances))  # type: ignore[arg-type]


def _by_one(path: Path, about: dict[str, Any], corpus: Callable[[], Corpus]) -> ScannedCorpus:
    """The listing at `path`, which the first process of a launch writes if it is not there.

    The others wait while it shows signs of life; otherwise they write it themselves. All write the same.
    """
    if rank() != 0:
        _wait_for(lambda: listed_source(path) is not None, path / _LISTING)
    if listed_source(path) is None:
        new = next((place for place in (path.parent, path) if not place.exists()), None)
        path.mkdir(parents=True, exist_ok=True)
        try:
            with _alive(path / _LISTING):
                write_listing(path, corpus(), about)
        except UserError:  # leaves nothing
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)
            raise
    return open_scanned(CorpusSource(str(path)))


def read_headers(manifest: Manifest) -> None:
    """Read the header of every recording, a shard at a time: process r of w its shards r, r + w, ... first.

    Then each waits for the others while new shards appear, and helps when none does.
    """
    shards = range(len(manifest.splits))

    def missing() -> list[int]:
        return [number for number in shards if not manifest.headers_file(number).exists()]

    done = len(manifest) - sum(sum(manifest.splits[number].values()) for number in missing())
    with (
        Progress(len(manifest), unit="files", label="reading headers", done_before=done) as progress,
        ThreadPoolExecutor(_THREADS) as pool,
    ):

        def read(number: int) -> None:
            if not manifest.headers_file(number).exists():
                utterances = manifest.shard(number)
                manifest.write_headers(number, list(pool.map(_header, utterances)))
                progress.update(len(utterances))

        for number in own_shards(shards):
            read(number)
        former, since, patient = missing(), time.monotonic(), True
        while left := missing():
            if left != former:
                former, since = left, time.monotonic()
            patient = patient and time.monotonic() - since < _PATIENCE_SECONDS
            if patient:
                time.sleep(0.2)
            else:
                read(random.choice(left))


def _header(utterance: Utterance) -> tuple[int, int] | None:
    try:
        info = audio_info(utterance.path)
    except AudioError:
        return None  # reading the audio finds and records the reason
    return info.frames, info.sampling_rate


@contextmanager
def _alive(path: Path) -> Iterator[None]:
    """Show others, every few seconds, that this process is at work."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(_PATIENCE_SECONDS / 20):
            with suppress(OSError):
                path.touch()

    path.touch()
    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _wait_for(ready: Callable[[], bool], sign: Path) -> None:
    seen: float | None = None
    since = time.monotonic()
    while not ready() and time.monotonic() - since < _PATIENCE_SECONDS:
        try:
            # Only a change counts: clocks of machines on one file system differ.
            if (touched := sign.stat().st_mtime) != seen:
                seen, since = touched, time.monotonic()
        except FileNotFoundError:
            pass
        time.sleep(0.2)
