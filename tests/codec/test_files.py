"""Files and directories appear whole or not at all, also when the writer is killed."""

import multiprocessing
import os
import random
import signal
import time
from itertools import count
from pathlib import Path

import pytest

from codec.foundation import (
    RunDirectory,
    UserError,
    local_path,
    remove_directory,
    remove_leftovers,
    whole_directory,
    write_bytes,
    write_json,
    write_text,
)
from codec.foundation import files as files_module


def _write_for_ever(root: Path) -> None:
    """Write "version n" over and over: one file, and one directory of two files that must agree."""
    for version in count():
        write_text(root / "file", f"{version}\n" * 20_000)
        with whole_directory(root / "directory") as directory:
            (directory / "first").write_text(f"{version}\n" * 5_000)
            (directory / "second").write_text(f"{version}\n" * 5_000)


def _whole_version(path: Path, lines: int) -> str:
    content = path.read_text().splitlines()
    assert len(content) == lines and len(set(content)) == 1
    return content[0]


def test_a_reader_never_sees_a_part_although_the_writer_is_killed(tmp_path: Path) -> None:
    moments = random.Random(0)
    fork = multiprocessing.get_context("fork")
    for _ in range(4):
        writer = fork.Process(target=_write_for_ever, args=(tmp_path,))
        writer.start()
        end = time.monotonic() + 0.2 + moments.random() * 0.2
        while time.monotonic() < end:
            if (tmp_path / "file").exists():
                _whole_version(tmp_path / "file", 20_000)
        writer.kill()
        writer.join()
        directory = tmp_path / "directory"
        if directory.exists():
            assert _whole_version(directory / "first", 5_000) == _whole_version(directory / "second", 5_000)
        visible = {entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")}
        assert visible <= {"file", "directory"}
    remove_leftovers(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "directory"}


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(ValueError):
        write_json(tmp_path / "file", {"loss": float("nan")})
    with whole_directory(tmp_path / "directory") as directory:
        (directory / "old").touch()
    with pytest.raises(RuntimeError, match="full"), whole_directory(tmp_path / "directory") as directory:
        (directory / "new").touch()
        raise RuntimeError("disk full")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path / "directory") == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_directory_is_replaced_not_merged(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:  # what a file system without an atomic exchange answers
        monkeypatch.setattr(files_module, "_exchange", lambda first, second: False)
    for name in ("one", "two"):
        with whole_directory(tmp_path / "deep" / "er" / "directory") as directory:
            (directory / name).write_text(name)
    assert os.listdir(tmp_path / "deep" / "er" / "directory") == ["two"]
    assert os.listdir(tmp_path / "deep" / "er") == ["directory"]


def test_a_replacement_killed_between_two_renames_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with whole_directory(tmp_path / "directory") as directory:
        (directory / "old").touch()
    pid = os.fork()
    if pid == 0:  # the child dies right after the first of the two renames
        files_module._exchange = lambda first, second: False
        rename, calls = os.rename, []

        def dying_rename(source: Path, target: Path) -> None:
            if calls:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(source)
            rename(source, target)

        os.rename = dying_rename  # type: ignore[assignment]
        with whole_directory(tmp_path / "directory") as directory:
            (directory / "new").touch()
    os.waitpid(pid, 0)
    assert not (tmp_path / "directory").exists()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["directory"]
    assert os.listdir(tmp_path / "directory") == ["old"]


def test_a_removal_that_was_killed_is_finished_and_not_undone(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "weights").touch()
    pid = os.fork()
    if pid == 0:
        files_module.shutil.rmtree = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        remove_directory(tmp_path / "directory")
    os.waitpid(pid, 0)
    assert not (tmp_path / "directory").exists()
    assert len(os.listdir(tmp_path)) == 1
    remove_leftovers(tmp_path, older_than_seconds=3600)
    assert len(os.listdir(tmp_path)) == 1  # could be another process at work
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []


def test_leftovers_are_recognised_by_their_whole_name(tmp_path: Path) -> None:
    for name in (".gitignore", ".model.new", "metadata.json", ".cache.0123.old"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 4


def test_a_full_disk_is_named_with_the_path_whatever_a_library_says(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, whole_directory(tmp_path / "directory"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert caught.value.filename == str(tmp_path / "directory")


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: is a device or a pipe"):
        write_bytes(tmp_path / "pipe", b"x")
    with pytest.raises(OSError, match="File name too long") as caught:
        write_bytes(tmp_path / ("n" * 256), b"x")
    assert caught.value.filename == str(tmp_path / ("n" * 256)) and os.listdir(tmp_path) == ["pipe"]


def test_an_address_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("s3://bucket/x", Path("s3://bucket/x"), "GS://b", "abfs+x://b/c"):
        with pytest.raises(UserError, match="an address: give a path on this machine"):
            RunDirectory(address)
        with pytest.raises(UserError, match="an address"), whole_directory(address):
            pass
    assert not any(tmp_path.iterdir())
    assert local_path("a:b/c") == Path("a:b/c") and local_path("C:/x") == Path("C:/x")
