"""The token dataset: the same bytes whatever happened on the way, readable by everybody, honest about
failures.
"""

import hashlib
import json
import math
import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from codec import CodecInfo
from codec.foundation import UserError
from data import TokenDataset, TokenizeOptions, open_corpus, read_audio, tokenize_corpus
from data.token_dataset import TokenStream
from tests.data.fake_codec import HOP, FakeCodec

OPTIONS = TokenizeOptions(shards=6, batch_seconds=2.0)


def content(directory: Path) -> dict[str, str]:
    """Every file, hidden ones too, with its hash."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.is_file()
    }


def start(corpus: Path, output: Path, codec: FakeCodec, rank: int = 0, world_size: int = 1) -> BaseProcess:
    """Tokenize in a process of its own."""

    def run() -> None:
        os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), str(world_size)
        tokenize_corpus(codec, open_corpus(corpus), output, OPTIONS, workers=0)

    # Forked, for a fresh interpreter needs seconds to import what this one has.
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def exit_code(process: BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


@pytest.fixture
def undisturbed(corpus_path: Path, tmp_path: Path) -> dict[str, str]:
    result = tokenize_corpus(
        FakeCodec(), open_corpus(corpus_path), tmp_path / "undisturbed", OPTIONS, workers=2
    )
    assert result.whole
    return content(tmp_path / "undisturbed")


def test_no_trace_of_kills(corpus_path: Path, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    output = tmp_path / "killed"
    for call in (1, 4, 2, 7, 3):
        assert exit_code(start(corpus_path, output, FakeCodec(kill_in_call=call))) == -signal.SIGKILL
        with pytest.raises(UserError, match="not whole yet"):
            TokenDataset.open(output)
    assert exit_code(start(corpus_path, output, FakeCodec())) == 0
    assert content(output) == undisturbed


def test_no_trace_of_a_kill_while_writing(
    corpus_path: Path, tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process is killed before its first rename, the second before its second, and so on to the
    end.
    """
    output = tmp_path / "killed"
    replace = os.replace
    left = [0]

    def killing(source: str, target: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    kills = 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killing)
        while True:
            left[0] = kills + 1
            if exit_code(start(corpus_path, output, FakeCodec())) == 0:
                break
            kills += 1
            assert kills < 10
    assert kills > 4
    assert content(output) == undisturbed


def test_two_processes_at_once(corpus_path: Path, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """Started by hand, and as the ranks of a launch."""
    for name, world_size in (("by hand", 1), ("launched", 2)):
        processes = [
            start(corpus_path, tmp_path / name, FakeCodec(seconds=0.02), number % world_size, world_size)
            for number in range(2)
        ]
        assert [exit_code(process) for process in processes] == [0, 0]
        assert content(tmp_path / name) == undisturbed


def test_each_process_takes_its_own_shards(
    corpus_path: Path, tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, so that no process is spared work that another has done."""
    corpus, output = open_corpus(corpus_path), tmp_path / "shared"
    monkeypatch.setenv("WORLD_SIZE", "3")
    seconds = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        codec = FakeCodec()
        result = tokenize_corpus(codec, corpus, output, OPTIONS, workers=0)
        seconds.append(sum(codec.padded_samples) / 24_000)
        # Seven shards, six of them of the training split.
        assert result.shards_left == [4, 2, 0][rank] and result.whole == (rank == 2)
    assert content(output) == undisturbed
    assert max(seconds) < 0.5 * sum(seconds)


def test_a_signal_stops_it_between_batches(
    corpus_path: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    output = tmp_path / "stopped"
    process = start(corpus_path, output, FakeCodec(seconds=0.2))
    while not any(output.glob("*.parquet")):
        assert process.is_alive()
        time.sleep(0.02)
    process.terminate()
    assert exit_code(process) == 0
    assert not (output / "metadata.json").exists()
    assert exit_code(start(corpus_path, output, FakeCodec())) == 0
    assert content(output) == undisturbed


def test_rows(corpus_path: Path, tmp_path: Path) -> None:
    """Against the fake codec on each file alone, and through three readers that know nothing of us."""
    import datasets
    import duckdb
    import pandas

    corpus = open_corpus(corpus_path, speaker="anna", language="en")
    output = tmp_path / "some tokens"
    assert tokenize_corpus(FakeCodec(num_quantizers=2), corpus, output, OPTIONS, workers=0).whole
    dataset = TokenDataset.open(output)
    assert len(dataset) == 24 and len(TokenDataset.open(output, "validation")) == 4
    assert [dataset.id(row) for row in range(24)] == [u.id for u in corpus.split("train")]
    for row, utterance in enumerate(corpus.split("train")):
        samples = read_audio(utterance.path, 24000)
        frames = math.ceil(len(samples) / HOP)
        alone = FakeCodec(num_quantizers=2).encode(samples[None, None]).audio_codes[0]  # (2, frames)
        codes = dataset.codes(row)
        assert codes.dtype == np.uint16 and len(codes) == 2 * frames == dataset.lengths[row]
        assert (codes.reshape(frames, 2) == alone.numpy().T).all()
        assert dataset.text(row) == utterance.text and dataset.speaker(row) == "anna"
        assert dataset.language(row) == "en" and dataset.words(row) is None
        assert dataset.seconds(row) == pytest.approx(len(samples) / 24000)
    loaded = datasets.load_dataset(str(output))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 24, "validation": 4}
    assert loaded["train"].features["codes"].feature.dtype == "uint16"
    assert loaded["train"][3]["codes"] == dataset.codes(3).tolist()
    shard = output / "train-00000-of-00006.parquet"
    assert pandas.read_parquet(shard)["codes"][0].tolist() == dataset.codes(0).tolist()
    (found,) = duckdb.sql(f"select codes, text from '{shard}' order by id limit 1").fetchall()
    assert found == (dataset.codes(0).tolist(), dataset.text(0))


def test_words_and_variants(corpus_path: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    audio = corpus_path / "wavs" / "utt000.flac"
    words = [["one", 0.05, 0.08], {"word": "two", "start": 0.08, "end": 0.1}]
    rows = [
        {"id": "t", "audio": str(audio), "words": [words[0], list(words[1].values())], "text": "one two"},  # type: ignore[attr-defined]
        {"id": "v", "audio": str(audio), "split": "dev", "words": [words[1]]},
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = TokenizeOptions(speeds=(1.0, 0.8), shifts=2)
    assert tokenize_corpus(FakeCodec(), open_corpus(manifest), tmp_path / "out", options, workers=0).whole
    dataset = TokenDataset.open(tmp_path / "out")
    assert [dataset.id(row) for row in range(4)] == ["t", "t@shift500", "t@speed0.8", "t@speed0.8@shift500"]
    samples = read_audio(audio, 24000)
    shifted = FakeCodec().encode(samples[None, None, 500:]).audio_codes[0, 0]
    assert dataset.codes(1).tolist() == shifted.tolist()
    assert dataset.seconds(2) == pytest.approx(dataset.seconds(0) / 0.8, abs=1e-4)
    found = dataset.words(3)
    assert found is not None and found[0].start == pytest.approx(0.05 / 0.8 - 500 / 24000, abs=1e-6)
    validation = TokenDataset.open(tmp_path / "out", "validation")
    assert len(validation) == 1 and validation.text(0) is None and validation.id(0) == "v"


def test_long_recordings_go_block_by_block(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, size=24000 * 25 + 77).astype(np.int16)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "long.flac", samples, 24000)
    soundfile.write(tmp_path / "audio" / "short.flac", samples[:30000], 24000)
    corpus = open_corpus(tmp_path / "audio")
    long = TokenizeOptions(long_seconds=5.0, shifts=2)
    tokenize_corpus(FakeCodec(), corpus, tmp_path / "blocks", long, workers=0)
    tokenize_corpus(FakeCodec(), corpus, tmp_path / "whole", TokenizeOptions(shifts=2), workers=0)
    blocks, whole = TokenDataset.open(tmp_path / "blocks"), TokenDataset.open(tmp_path / "whole")
    assert len(blocks) == len(whole) == 4
    for row in range(4):
        assert (blocks.codes(row) == whole.codes(row)).all() and blocks.seconds(row) == whole.seconds(row)


@pytest.mark.parametrize("long_seconds", [120.0, 0.5])
def test_gain_is_that_of_louder_audio(tmp_path: Path, long_seconds: float) -> None:
    samples = np.random.default_rng(0).normal(size=24000).clip(-3, 3) * 0.1
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "quiet.wav", samples, 24000, subtype="FLOAT")
    options = TokenizeOptions(gain=2.5, long_seconds=long_seconds)
    tokenize_corpus(FakeCodec(), open_corpus(tmp_path / "audio"), tmp_path / "out", options, workers=0)
    louder = read_audio(tmp_path / "audio" / "quiet.wav", 24000) * 2.5
    expected = FakeCodec().encode(louder[None, None]).audio_codes[0].T.flatten()
    assert TokenDataset.open(tmp_path / "out").codes(0).tolist() == expected.tolist()


def test_failures_are_recorded_and_counted(corpus_path: Path, tmp_path: Path) -> None:
    wavs = corpus_path / "wavs"
    (wavs / "utt003.flac").unlink()
    (wavs / "utt005.flac").write_bytes((wavs / "utt005.flac").read_bytes()[:3000])
    (wavs / "utt007.flac").write_text("not audio")
    result = tokenize_corpus(FakeCodec(), open_corpus(corpus_path), tmp_path / "out", OPTIONS, workers=1)
    assert result.whole and result.metadata is not None and result.metadata["failures"] == 3
    failures = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert {f["id"]: f["reason"].split(": ")[1].split(" ")[0] for f in failures} == {
        "utt003": "no",
        "utt005": "truncated",
        "utt007": "not",
    }
    assert result.too_many_failures(0.01) and not result.too_many_failures(3 / 28)
    assert len(TokenDataset.open(tmp_path / "out")) == 21
    again = tokenize_corpus(FakeCodec(), open_corpus(corpus_path), tmp_path / "out", OPTIONS, workers=1)
    assert again.metadata == result.metadata


def test_nothing_but_failures(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    for number in range(3):
        (tmp_path / "audio" / f"{number}.wav").write_text("not audio")
    result = tokenize_corpus(FakeCodec(), open_corpus(tmp_path / "audio"), tmp_path / "out", workers=0)
    assert result.whole and result.too_many_failures(0.99) and not result.too_many_failures(1.0)
    with pytest.raises(UserError, match="its train split has no rows"):
        TokenDataset.open(tmp_path / "out")


def test_a_shard_of_failures_alone(corpus_path: Path, tmp_path: Path) -> None:
    import datasets

    for number in range(8):
        path = corpus_path / "wavs" / f"utt{number:03d}.flac"
        path.write_bytes(path.read_bytes()[:2000])
    tokenize_corpus(FakeCodec(), open_corpus(corpus_path), tmp_path / "out", OPTIONS, workers=0)
    assert pq.read_metadata(tmp_path / "out" / "train-00000-of-00006.parquet").num_rows == 0
    assert len(datasets.load_dataset(str(tmp_path / "out"), split="train")) == 16
    assert TokenDataset.open(tmp_path / "out").id(0) == "utt008"


def test_another_run_in_the_same_directory_is_refused(corpus_path: Path, tmp_path: Path) -> None:
    corpus = open_corpus(corpus_path)
    tokenize_corpus(FakeCodec(), corpus, tmp_path / "out", OPTIONS, workers=0)
    with pytest.raises(UserError, match=r"codec\.fingerprint \(there 0123456789abcdef, now ffff\)"):
        tokenize_corpus(FakeCodec("ffff"), corpus, tmp_path / "out", OPTIONS, workers=0)
    with pytest.raises(UserError, match=r"options\.shards \(there 6, now 5\)"):
        tokenize_corpus(FakeCodec(), corpus, tmp_path / "out", TokenizeOptions(5, batch_seconds=2.0))
    other = open_corpus(corpus_path, speaker="somebody else")
    with pytest.raises(UserError, match=r"corpus\.hash"):
        tokenize_corpus(FakeCodec(), other, tmp_path / "out", OPTIONS, workers=0)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "train-00000-of-00001.parquet").touch()
    with pytest.raises(UserError, match="not of this run"):
        tokenize_corpus(FakeCodec(), corpus, tmp_path / "foreign", OPTIONS, workers=0)


def test_batches_stay_within_their_bound(corpus_path: Path, tmp_path: Path) -> None:
    codec = FakeCodec()
    tokenize_corpus(codec, open_corpus(corpus_path), tmp_path / "out", OPTIONS, workers=0)
    assert max(codec.padded_samples) <= 2.0 * 24000
    assert codec.calls < 24  # they are batches


def test_reading_checks_wholeness_and_fingerprint(corpus_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    tokenize_corpus(FakeCodec(), open_corpus(corpus_path), output, OPTIONS, workers=0)
    TokenDataset.open(output, codec=CodecInfo.of(FakeCodec()))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"0123456789abcdef.*ffff"):
        TokenDataset.open(output, codec=CodecInfo.of(FakeCodec("ffff")))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no split 'test', only train, validation"):
        TokenDataset.open(output, "test")
    output = output.rename(tmp_path / "tokens [1]*")  # no pattern, a name
    assert len(TokenDataset.open(output)) == 24
    before = content(output)
    (output / "train-00002-of-00006.parquet").unlink()
    with pytest.raises(UserError, match="1 shards are missing"):
        TokenDataset.open(output)
    tokenize_corpus(FakeCodec(), open_corpus(corpus_path), output, OPTIONS, workers=0)
    assert content(output) == before
    with pytest.raises(UserError, match="not a token dataset"):
        TokenDataset.open(corpus_path)
    with pytest.raises(UserError, match="no such directory"):
        TokenDataset.open(tmp_path / "nowhere")


def test_shards_are_streamed_as_asked(corpus_path: Path, tmp_path: Path) -> None:
    tokenize_corpus(FakeCodec(), open_corpus(corpus_path), tmp_path / "out", OPTIONS, workers=0)
    whole = TokenDataset.open(tmp_path / "out")
    stream = TokenStream(f"file://{tmp_path / 'out'}", tmp_path / "cache")
    parts = [stream.open("train", [number]) for number in range(stream.shards("train"))]
    everything = stream.open("train")
    assert len(everything) == len(whole) == sum(map(len, parts))
    assert [everything.id(row) for row in range(24)] == [
        part.id(row) for part in parts for row in range(len(part))
    ]
    assert (everything.codes(23) == whole.codes(23)).all()
    nothing = stream.open("train", [])
    assert len(nothing) == 0 and nothing.lengths.shape == (0,)


def test_streams_are_views(corpus_path: Path, tmp_path: Path) -> None:
    tokenize_corpus(FakeCodec(), open_corpus(corpus_path), tmp_path / "out", OPTIONS, workers=0)
    dataset = TokenDataset.open(tmp_path / "out")
    assert np.shares_memory(dataset.codes(5), dataset.codes(5)) and not dataset.codes(5).flags.owndata
    assert not dataset.codes(5).flags.writeable
    with pytest.raises(IndexError, match="rows 0 to 23, not 24"):
        dataset.codes(24)
