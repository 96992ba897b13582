"""A server as a user starts it: a process of its own, stopped by SIGTERM, its log kept."""

import http.client
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from codec.foundation import worker_context
from recipes.cli.main import main

_PATIENCE = 600.0  # seconds until a server answers, on a machine with much else to do


@dataclass(frozen=True)
class Answer:
    """A status, and the whole body."""

    status: int
    content: bytes


@dataclass(frozen=True)
class Server:
    """A running server on this machine."""

    process: ForkServerProcess
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, content, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def say(self, request: bytes) -> bytes:
        """What comes back for bytes that need not be HTTP; after them nothing more is sent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := connection.recv(65_536):
                    answer += piece
            except ConnectionResetError:
                pass
            return answer

    def memory(self, what: str = "VmRSS") -> float:
        """MiB; "VmHWM" is the most there ever was."""
        found = re.search(rf"{what}:\s*(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) / 1_024

    def terminate(self) -> int | None:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        self.process.join(90)
        return self.process.exitcode


def _serve(folder: Path, log: Path, words: list[str], fresh: bool) -> None:
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    with open(log, "w", buffering=1) as output:
        sys.stdout = sys.stderr = output
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "recipes", *words])
        sys.exit(main(words))


@contextmanager
def running(command: str, *options: str, folder: Path, fresh: bool = False) -> Iterator[Server]:
    """`codec-slm COMMAND --port ... OPTIONS`, answering; temporary files go to `folder`, its log too.

    Unless it is to start afresh, its process is a fork of one that has imported all that takes long.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log.txt"
    words = [command, "--port", str(port), *options]

    process = worker_context("recipes.loading").Process(target=_serve, args=(folder, log, words, fresh))
    process.start()
    try:
        latest = time.monotonic() + _PATIENCE
        while True:
            assert process.is_alive() and time.monotonic() < latest, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield Server(process, port, log)
    finally:
        process.kill()
        process.join()
