import itertools
import json
import threading
from collections import Counter

import numpy as np
import pytest

from codec.foundation import UserError
from data.token_dataset import TokenStream
from data.tokenization import TokenRow, parquet_bytes
from slm.documents import rows as measure
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.documents.rows import Source, TextRows
from slm.packing.blocks import BlockStream, StreamPosition
from slm.packing.shard_windows import BlocksAhead, ShardWindows, StreamedSource
from slm.training.config import DatasetConfig
from slm.training.data import open_training_data
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import MemoryRows, codec_info, speech_rows, train_text_model
from tests.slm.toy_training import toy_config

CODEC = codec_info((64,))
PLAIN = DocumentConfig(formats={"speech": 1.0, "aligned": 1.0}, corruption=0.0, voice_tag_probability=0.0)
SHARDS, ROWS = 5, 12  # rows of a shard


def write_shards(directory, data: MemoryRows, name="train") -> None:
    """A dataset in shards; the first code of a row is its number, so that rows can be told apart."""
    directory.mkdir(parents=True)
    for row, stream in enumerate(data.streams):
        stream[0] = row
    for shard in range(SHARDS):
        rows = [
            TokenRow(
                f"{row}",
                data.codes(row),
                len(data.codes(row)) / 24,
                data.text(row),
                "slt",
                "en",
                data.words(row),
            )
            for row in range(shard * ROWS, (shard + 1) * ROWS)
        ]
        content = parquet_bytes(rows, data.info)
        (directory / f"{name}-{shard:05d}-of-{SHARDS:05d}.parquet").write_bytes(content)
    split = {"shards": SHARDS, "rows": SHARDS * ROWS, "seconds": sum(map(len, data.streams)) / 24}
    metadata = {"codec": data.info.to_dict(), "splits": {name: split}, "content_hash": directory.name}
    (directory / "metadata.json").write_text(json.dumps(metadata))


@pytest.fixture
def vocabulary(tmp_path) -> Vocabulary:
    return Vocabulary.build(train_text_model(tmp_path, "char"), CODEC)


@pytest.fixture
def stream(tmp_path) -> TokenStream:
    write_shards(tmp_path / "far away", speech_rows(SHARDS * ROWS, 0, CODEC))
    return TokenStream(f"file://{tmp_path / 'far away'}", tmp_path / "cache")


def rows_of(documents: Documents, window: int, vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """(source, row) of every document of a window."""
    plan = documents.plan(window)
    found = []
    for index in range(len(plan.rows)):
        row = documents.row(window, index)
        source = [source.dataset for source in documents.sources].index(row.dataset)
        found.append((source, row.index if source else int(row.dataset.codes(row.index)[0])))
    return found


def test_every_row_comes_once_a_pass_and_few_shards_lie_on_the_disk(stream, vocabulary, tmp_path):
    windows = ShardWindows([StreamedSource(stream)], vocabulary, PLAIN, seed=0, shards=2)
    seen, orders = Counter(), []
    for window in range(5):  # two passes
        rows = [row for _, row in rows_of(windows.documents(window), window, vocabulary)]
        assert len(rows) == 2 * ROWS
        orders.append(rows)
        seen.update(rows)
        assert len(list(tmp_path.glob("cache/*/*.arrow"))) <= 4
        assert window != 2 or max(seen.values()) <= 2
    assert sorted(seen) == list(range(SHARDS * ROWS)) and set(seen.values()) == {2}
    assert set(orders[0]) != set(orders[3]) or orders[0] != orders[3]


def test_shards_are_measured_once_for_all_processes(stream, vocabulary, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "_LARGE", 10)

    def lengths(window: int) -> list[int]:
        windows = ShardWindows([StreamedSource(stream)], vocabulary, PLAIN, seed=0, shards=2)
        return windows.documents(window).lengths(window).tolist()

    first = lengths(0)
    with monkeypatch.context() as patched:
        patched.setattr(measure, "_read", None)
        assert lengths(0) == first
        with pytest.raises(TypeError):  # other shards of as many rows
            lengths(1)
    assert lengths(1) != first


def test_what_lies_on_the_disk_is_mixed_in(stream, vocabulary):
    local = speech_rows(30, 1, CODEC)
    texts = TextRows("texts", np.arange(40, dtype=np.uint16) % 9, np.arange(0, 41, 4), "hash")
    plain = [StreamedSource(stream), Source(local), Source(texts)]
    windows = ShardWindows(plain, vocabulary, PLAIN, seed=0, shards=1)
    seen = Counter()
    for window in range(SHARDS):  # one pass
        seen.update((source, row) for source, row in rows_of(windows.documents(window), window, vocabulary))
    assert set(seen.values()) == {1} and len(seen) == SHARDS * ROWS + 30 + 10
    weighted = [StreamedSource(stream, weight=1.0), Source(local, weight=3.0)]
    windows = ShardWindows(weighted, vocabulary, PLAIN, seed=0, shards=1)
    tokens = Counter()
    for window in range(SHARDS):
        documents = windows.documents(window)
        plan = documents.plan(window)
        for row in plan.rows.tolist():
            tokens[row >= ROWS] += int(documents.table.speech[row])
    assert tokens[True] / tokens.total() == pytest.approx(0.75, abs=0.05)


def test_windows_are_a_function_of_the_seed_and_their_number(stream, vocabulary, tmp_path):
    def blocks(position, steps, rank=0, processes=1, seed=0, cache="cache"):
        opened = TokenStream(stream.name, tmp_path / cache)
        windows = ShardWindows([StreamedSource(opened)], vocabulary, PLAIN, seed, shards=2)
        stream_of = BlockStream(BlocksAhead(windows, 256), 4, position, rank, processes)
        found = [[b["input_ids"].tolist() for b in step] for step in itertools.islice(stream_of, steps)]
        return found, stream_of.position

    whole, _ = blocks(StreamPosition(), 30)
    first, position = blocks(StreamPosition(), 20)
    assert position.epoch > 0
    rest, _ = blocks(position, 10, cache="another machine's cache")
    assert first + rest == whole
    ranks = [blocks(StreamPosition(), 30, rank, 2)[0] for rank in range(2)]
    for step, both in enumerate(zip(*ranks, strict=True)):
        assert sorted(itertools.chain(*both)) == sorted(whole[step])
    assert blocks(StreamPosition(), 5, seed=1)[0] != whole[:5]


def test_the_next_window_is_made_beside_the_one_in_use(stream, vocabulary):
    windows = ShardWindows([StreamedSource(stream)], vocabulary, PLAIN, seed=0, shards=2)
    threads, made, third = {}, windows.documents, threading.Event()

    def documents(window):
        threads[window] = threading.current_thread()
        third.set() if window == 2 else None
        return made(window)

    windows.documents = documents
    ahead = BlocksAhead(windows, 256)
    ahead(0)
    ahead(1)
    assert third.wait(30) and threading.main_thread() not in threads.values()
    assert len(threads) == 3


def test_processes_share_the_files(stream, tmp_path):
    opened = [TokenStream(stream.name, tmp_path / "cache") for _ in range(4)]
    found: list = [None] * 4

    def read(number):
        found[number] = opened[number].open("train")

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert all(len(dataset) == SHARDS * ROWS for dataset in found)
    stream.forget("train", set())
    for dataset in found:  # what is mapped stays, though its file is gone
        assert [int(dataset.codes(row)[0]) for row in range(len(dataset))] == list(range(SHARDS * ROWS))
    assert not list(tmp_path.glob("cache/*/*.arrow"))


def test_errors_name_the_address(stream, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: not a whole token dataset"):
        TokenStream(f"file://{tmp_path}/nowhere", tmp_path / "cache")
    with pytest.raises(UserError, match=r"nosuch://x: .*nosuch"):
        TokenStream("nosuch://x", tmp_path / "cache")
    with pytest.raises(UserError, match=r"far away: has no split 'test', only train"):
        stream.open("test")
    (tmp_path / "far away/train-00003-of-00005.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"train-00003-of-00005\.parquet cannot be read"):
        stream.open("train", [3])


def test_a_config_streams(stream, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_SLM_CACHE", str(tmp_path / "cache"))
    train_text_model(tmp_path, "char")
    settings = dict(
        datasets=[DatasetConfig(stream.name, weight=1.0)],
        text_model=str(tmp_path / "char.model"),
        voices=["slt"],
        window_shards=2,
    )
    data = open_training_data(toy_config(tmp_path / "run", **settings))
    steps = itertools.islice(data.stream(0, StreamPosition(), 0, 1), 3)
    assert [len(step) for step in steps] == [4, 4, 4]
    with pytest.raises(UserError, match="give voices"):
        toy_config(tmp_path / "run", **(settings | {"voices": None}))
    with pytest.raises(UserError, match="max_epochs needs all datasets on the disk"):
        limited = [DatasetConfig(stream.name, max_epochs=2.0)]
        toy_config(tmp_path / "run", **(settings | {"datasets": limited}))
