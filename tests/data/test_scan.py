"""Scanning: the corpus in files is the corpus in memory, processes share the headers, a kill costs a shard."""

import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from codec import CodecInfo
from codec.foundation import UserError
from data import (
    AudioInfo,
    CorpusOptions,
    TokenDataset,
    Utterance,
    align_corpus,
    open_corpus,
    tokenize_corpus,
    with_alignment,
)
from data import scan as scanning
from data.config import CorpusSource
from data.corpora import scanned as stored
from data.decoding import BadRow
from data.scan import listed_below, read_headers, scan_corpus, stored_below
from recipes.cli.main import main
from tests.data.conftest import write_ljspeech
from tests.data.fake_codec import FakeCodec
from tests.data.test_align_corpus import EvenAligner
from tests.data.test_tokenize import OPTIONS, content


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few utterances make several shards, and several runs that are merged."""
    for name, value in (("_SHARD", 5), ("_RUN", 7), ("_BATCH", 2)):
        monkeypatch.setattr(stored, name, value)


def plain(utterances: Iterator[Utterance] | list[Utterance]) -> list[Utterance]:
    return [replace(u, words=u.words and tuple(u.words)) for u in utterances]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Rows of every kind, in no order: stretches, channels, words, broken rows, ids that come twice."""
    random = np.random.default_rng(0)
    rows = []
    for number in random.permutation(40).tolist():
        row = {
            "id": f"u{number % 37:02d}",
            "audio": f"{number}.wav",
            "split": ("train", "dev")[number % 5 == 0],
        }
        row |= {"text": f"Nr. {number}, ü."} if number % 3 else {}
        row |= {"offset": 0.1, "duration": number / 7} if number % 4 == 1 else {}
        row |= {"words": [["a", 0.1, 1 / 3], ["b", None, None]]} if number % 6 == 2 else {}
        rows.append(json.dumps(row) if number % 11 else "{")
    (tmp_path / "m.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return tmp_path / "m.jsonl"


@pytest.mark.parametrize("options", [{}, {"channel": 1}])
def test_the_corpus_in_files_is_the_corpus_in_memory(
    manifest: Path, tmp_path: Path, options: dict[str, int]
) -> None:
    corpus = open_corpus(manifest, speaker="s", options=CorpusOptions(**options))  # type: ignore[arg-type]
    source = CorpusSource(str(manifest), speaker="s", options=CorpusOptions(**options))  # type: ignore[arg-type]
    scan_corpus(source, tmp_path / "scanned")
    scanned = open_corpus(tmp_path / "scanned")
    assert len(list((tmp_path / "scanned").glob("utterances-*.parquet"))) == 8
    assert plain(list(scanned.utterances)) == plain(list(corpus.utterances))
    assert scanned.identity() == corpus.identity() and scanned.splits == corpus.splits
    assert scanned.noticed == corpus.noticed or vars(scanned.noticed).items() <= vars(corpus.noticed).items()
    for name in (*corpus.splits, "nowhere"):
        assert plain(scanned.split(name)) == plain(corpus.split(name))
    assert plain(list(scanned.utterances[3:17])) == plain(list(corpus.utterances[3:17]))
    assert plain([scanned.utterances[-2]]) == plain([corpus.utterances[-2]])
    some = scanned.part(scanned.utterances[3:17])
    assert some.identity() == corpus.part(corpus.utterances[3:17]).identity() != corpus.identity()
    counted, expected = scanned.tally(), corpus.tally()
    assert (counted.texts, counted.bare, counted.beside) == (expected.texts, expected.bare, expected.beside)


def test_sources_of_every_kind_come_back(tmp_path: Path) -> None:
    """A name that is not UTF-8, a member of a tar file, a prompt, a row of a dataset, a bad row."""
    import datasets

    audio = write_ljspeech(tmp_path / "lj", 2, 1) / "wavs"
    (tmp_path / "odd").mkdir()
    os.symlink(audio / "utt000.flac", os.fsencode(tmp_path / "odd") + b"/caf\xe9.flac")
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "train-0.tar", "w") as archive:
        archive.add(audio / "utt001.flac", "b.flac")
    (tmp_path / "meta.lst").write_text("x|said|lj/wavs/utt000.flac|text|lj/wavs/utt001.flac\nbroken\n")
    rows = {"audio": [{"bytes": (audio / "utt002.flac").read_bytes(), "path": None}], "text": ["C."]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    for name in ("odd", "tars", "meta.lst", "saved"):
        corpus = open_corpus(tmp_path / name)
        scanned = scan_corpus(CorpusSource(str(tmp_path / name)), tmp_path / "scanned" / name)
        assert list(scanned.utterances) == list(corpus.utterances) and scanned.identity() == corpus.identity()
        assert sum(scanned.manifest.seconds().values()) > 0
        assert name != "meta.lst" or any(isinstance(u.path, BadRow) for u in scanned.utterances)


def in_a_process(run: object) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=run)  # type: ignore[arg-type]
    process.start()
    process.join(60)
    return process.exitcode


def test_a_killed_scan_repeats_nothing_but_the_shard_at_hand(
    corpus_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 recordings in 6 shards; killed at the 13th header, again at the 11th, then left alone."""
    log, read = tmp_path / "log", scanning.audio_info
    monkeypatch.setattr(scanning, "_THREADS", 1)

    def scan(kill_at: int) -> None:
        count = 0

        def counting(path: str) -> AudioInfo:
            nonlocal count
            count += 1
            with open(log, "a") as file:
                file.write(f"{Path(path).stem}\n")
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return read(path)

        monkeypatch.setattr(scanning, "audio_info", counting)
        scan_corpus(CorpusSource(str(corpus_path)), tmp_path / "scanned")

    listed = None
    for kill_at, exit_code in ((13, -signal.SIGKILL), (11, -signal.SIGKILL), (0, 0)):
        assert in_a_process(lambda kill_at=kill_at: scan(kill_at)) == exit_code
        now = (tmp_path / "scanned" / "utterances-00000.parquet").stat().st_mtime_ns
        assert listed in (None, now)  # the listing is made once
        listed = now
    seen = log.read_text().split()
    assert len(set(seen)) == 28 and 28 < len(seen) <= 28 + 2 * 5
    before = len(seen)
    scan_corpus(CorpusSource(str(corpus_path)), tmp_path / "scanned")
    assert len(log.read_text().split()) == before


def test_processes_share_the_headers_and_help(
    corpus_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = stored_below(tmp_path, open_corpus(corpus_path))
    seen: dict[int, int] = {}
    read = scanning.audio_info

    def counting(path: str) -> AudioInfo:
        rank = int(os.environ["RANK"])
        seen[rank] = seen.get(rank, 0) + 1
        return read(path)

    monkeypatch.setattr(scanning, "audio_info", counting)
    monkeypatch.setattr(scanning, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    read_headers(scanned.manifest)  # nobody else is there: in the end it reads for all
    assert seen == {1: 28}
    monkeypatch.setenv("RANK", "0")
    for number in (0, 3):  # its own: it waits for nobody
        scanned.manifest.headers_file(number).unlink()
    with monkeypatch.context() as patch:
        patch.delattr(scanning.time, "sleep")
        read_headers(scanned.manifest)
    assert seen == {1: 28, 0: 10}
    for number in (0, 2, 3):
        scanned.manifest.headers_file(number).unlink()
    read_headers(scanned.manifest)
    assert seen == {1: 28, 0: 25}


def test_tokens_of_a_scanned_corpus(
    corpus_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the corpus in memory, listed on the way, and scanned before; by one process and by four at once."""
    tokenize_corpus(FakeCodec(), open_corpus(corpus_path), tmp_path / "memory", OPTIONS, workers=0)
    expected = content(tmp_path / "memory")
    scanned = str(tmp_path / "scanned")
    assert main(["scan", str(corpus_path), "--output", scanned]) == 0

    def run(path: str, output: Path, rank: int) -> None:
        os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), "4"
        tokenize_corpus(
            FakeCodec(seconds=0.01),
            lambda folder: listed_below(folder, CorpusSource(path)),
            output,
            OPTIONS,
            workers=0,
        )

    for path in (str(corpus_path), scanned):
        output = tmp_path / f"tokens of {Path(path).name}"
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=run, args=(path, output, rank)) for rank in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 4
        assert content(output) == expected
        assert sorted(p.name for p in output.iterdir() if p.is_dir()) == ["data"]  # the listing is gone
    with pytest.raises(UserError, match="scanned already"):
        open_corpus(scanned, speaker="anna")
    with pytest.raises(UserError, match="another corpus is scanned there"):
        scan_corpus(CorpusSource(str(corpus_path), speaker="anna"), scanned)
    with pytest.raises(UserError, match="holds something else"):
        scan_corpus(CorpusSource(str(corpus_path)), tmp_path / "memory")


def test_words_reach_the_tokens_whatever_the_corpus_is_in(corpus_path: Path, tmp_path: Path) -> None:
    times, tokens = tmp_path / "times", tmp_path / "tokens"
    corpus = open_corpus(corpus_path)
    align_corpus(corpus, EvenAligner(), times, workers=0, shards=5)
    scanned = scan_corpus(CorpusSource(str(corpus_path)), tmp_path / "scanned")
    aligned = align_corpus(lambda folder: scanned, EvenAligner(), tmp_path / "again", workers=0, shards=5)
    assert aligned.whole and content(tmp_path / "again") == content(times)
    known = with_alignment(corpus, times)
    joined = with_alignment(scanned, times)
    assert plain(list(joined.utterances)) == plain(list(known.utterances))
    on_the_way = listed_below(tmp_path, CorpusSource(str(corpus_path)), str(times))
    assert on_the_way.identity() == known.identity()
    assert joined.identity() == corpus.identity() | {"words": joined.identity()["words"]}
    for number, one in enumerate((known, joined, on_the_way)):
        tokenize_corpus(FakeCodec(), one, tokens / str(number), OPTIONS, workers=0)
    first, *others = (
        [path.read_bytes() for path in sorted((tokens / str(number)).glob("*.parquet"))]
        for number in range(3)
    )
    assert len(first) == 7 and others == [first, first]
    assert TokenDataset.open(tokens / "1").words(3) is not None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "utt000.wav").write_bytes(b"")
    with pytest.raises(UserError, match="has other words for utt000"):
        listed_below(tmp_path, CorpusSource(str(tmp_path / "other")), str(times))


def test_a_run_that_an_earlier_version_began_goes_on(corpus_path: Path, tmp_path: Path) -> None:
    """It has kept its identity with the lengths of the recordings in one file."""
    corpus = open_corpus(corpus_path)
    tokenize_corpus(FakeCodec(), corpus, tmp_path / "whole", OPTIONS, workers=0)
    metadata = json.loads((tmp_path / "whole" / "metadata.json").read_text())
    identity = {key: metadata[key] for key in ("codec", "corpus", "options")}
    (tmp_path / "begun").mkdir()
    save_file(
        {"headers": np.zeros((28, 3), np.int64)},
        tmp_path / "begun" / ".headers.safetensors",
        {"identity": json.dumps(identity)},
    )
    with pytest.raises(UserError, match="not whole yet"):
        TokenDataset.open(tmp_path / "begun")
    with pytest.raises(UserError, match=r"corpus\.hash"):
        tokenize_corpus(FakeCodec(), open_corpus(corpus_path, speaker="x"), tmp_path / "begun", OPTIONS)
    tokenize_corpus(FakeCodec(), corpus, tmp_path / "begun", OPTIONS, workers=0)
    assert content(tmp_path / "begun") == content(tmp_path / "whole")
    TokenDataset.open(tmp_path / "begun", codec=CodecInfo.of(FakeCodec()))  # type: ignore[arg-type]
