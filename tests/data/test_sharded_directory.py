"""What tokenizing and aligning share: who makes which shard, when a directory is whole, what a kill leaves."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from codec.foundation import StopSignal, UserError
from data.sharded_directory import Contents, Shard, ShardedDirectory, own_shards

SHARDS = [Shard("train", number, 7, 10 * number, 10 * number + 10) for number in range(7)]


class Directory(ShardedDirectory):
    """Of shards that hold their number."""

    kind = "test"
    has_notes = True

    def begun_identity(self) -> dict[str, Any] | None:
        return json.loads((self.path / ".begun").read_text()) if (self.path / ".begun").exists() else None

    def contents(self, shards: Sequence[Shard]) -> Contents:
        notes = [json.loads(self.notes_file(shard.file_name).read_text()) for shard in shards]
        metadata = {
            "format_version": 1,
            **self.identity,
            "shards": len(shards),
            "failures": 1,
            "notes": notes,
        }
        return Contents(metadata, [{"id": "ü", "reason": "broken"}], {"README.md": "about"})

    @staticmethod
    def shard_names(metadata: Mapping[str, Any]) -> list[str]:
        return [
            Shard("train", number, metadata["shards"], 0, 0).file_name for number in range(metadata["shards"])
        ]

    @staticmethod
    def count_tried(metadata: Mapping[str, Any]) -> int:
        return 10 * metadata["shards"]

    def make(self, shards: Sequence[Shard], stop: StopSignal) -> None:
        for shard in shards:
            self.write_shard(shard, str(shard.number).encode(), {"number": shard.number})


def launch(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))


def test_processes_divide_the_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shard belongs to one process, and they have as many each as can be."""
    for world_size in (1, 2, 3, 9):
        parts = []
        for rank in range(world_size):
            launch(monkeypatch, rank, world_size)
            parts.append([shard.number for shard in own_shards(SHARDS)])
        assert sorted(number for part in parts for number in part) == list(range(7))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert all(set(part) == set(range(rank, 7, world_size)) for rank, part in enumerate(parts))


def test_shards_begin_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise processes that are started by hand would all make the same shard at the same time."""
    orders = [[shard.number for shard in own_shards(SHARDS)] for _ in range(200)]
    assert {order[0] for order in orders} == set(range(7))
    assert all(order == [(order[0] + step) % 7 for step in range(7)] for order in orders)


def test_the_last_process_makes_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(tmp_path / "d", {"seed": 1})
    for rank in (2, 0, 1):
        launch(monkeypatch, rank, 3)
        assert not directory.prepare()
        result = directory.fill(SHARDS, directory.make)
        assert (result.whole, result.stopped) == (rank == 1, False)
        assert result.shards_left == {2: 5, 0: 2, 1: 0}[rank]
        own = {f"train-{number:05d}-of-00007.parquet" for number in range(rank, 7, 3)}
        assert own <= set(os.listdir(directory.path))
    assert sorted(os.listdir(directory.path)) == sorted(
        ["README.md", "failures.jsonl", "metadata.json", *(shard.file_name for shard in SHARDS)]
    )
    assert result.metadata is not None and [note["number"] for note in result.metadata["notes"]] == list(
        range(7)
    )
    assert (directory.path / "failures.jsonl").read_text() == '{"id": "ü", "reason": "broken"}\n'
    assert result.too_many_failures(0.01) and not result.too_many_failures(1 / 70)
    assert directory.prepare() and directory.result() == result


def test_a_process_makes_its_own_shards_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    directory = Directory(tmp_path, {})
    launch(monkeypatch, 1, 2)
    directory.fill(SHARDS, lambda shards, stop: given.extend(shard.number for shard in shards))
    assert sorted(given) == [1, 3, 5]
    directory.make(SHARDS[1::2], StopSignal())
    given.clear()
    directory.fill(SHARDS, lambda shards, stop: given.extend(shard.number for shard in shards))
    assert not given  # all are there


def test_a_shard_without_its_notes_is_made_again(tmp_path: Path) -> None:
    directory = Directory(tmp_path, {})
    (tmp_path / SHARDS[0].file_name).write_bytes(b"foreign")
    assert not directory.has(SHARDS[0]) and not directory.finish(SHARDS[:1])
    directory.make(SHARDS[:1], StopSignal())
    assert directory.finish(SHARDS[:1]) and (tmp_path / SHARDS[0].file_name).read_bytes() == b"0"
    directory.write_shard(SHARDS[0], b"other")
    assert (tmp_path / SHARDS[0].file_name).read_bytes() == b"0"


def test_what_is_there_is_checked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        Directory(tmp_path / "file", {}).prepare()
    identity = {"codec": {"name": "a", "rate": 24}, "sizes": (1, 2)}
    directory = Directory(tmp_path / "d", identity)
    assert not directory.prepare()
    (directory.path / ".begun").write_text(json.dumps(identity))
    assert not directory.prepare()  # a tuple comes back as a list
    with pytest.raises(
        UserError, match=r"another codec\.rate \(there 24, now 16\); sizes \(there \[1, 2\], now"
    ):
        Directory(directory.path, {"codec": {"name": "a", "rate": 16}, "sizes": [2]}).prepare()
    directory.fill(SHARDS, directory.make)
    (directory.path / SHARDS[3].file_name).unlink()
    assert not directory.prepare() and not directory.is_whole()
    directory.fill(SHARDS, directory.make)
    (directory.path / ".leftover.json.0123456789abcdef0123456789abcdef.new").touch()
    assert directory.prepare() and not any(name.endswith(".new") for name in os.listdir(directory.path))
    with pytest.raises(UserError, match="not of a test of this version"):
        Directory(directory.path, {"seed": 0}).prepare()
    (directory.path / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        directory.prepare()
