"""The HTTP service as a process of its own, against what a stranger may send it."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from tests.recipes.malformed import MALFORMED, NO_HTTP, encoded, flac_bomb, hum
from tests.recipes.servers import Server, running
from tests.recipes.untrained_models import save_speaker

SECRETS = (b"secret place", b"/tmp", b"site-packages", b"Traceback", b"root:", b".py")
LIMITS = ["--limits.megabytes", "0.5", "--limits.seconds", "4", "--limits.characters", "80"]
SPEECH = json.dumps({"text": "Hello there, it rains.", "voice": "bert", "seed": 7, "stream": True}).encode()
CODES = json.dumps({"codes": [list(range(48))]}).encode()
# What an allocator keeps for itself moves by some MiB; a leak of what was sent, decoded or generated would be more.
STEADY_MIB = 2.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speaker(tmp_path_factory.mktemp("a secret place"))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(
        "serve", "--model", str(model), *LIMITS, folder=tmp_path_factory.mktemp("log"), fresh=True
    ) as server:
        yield server
        log = server.log.read_bytes()
    # its first line is the address
    assert not any(secret in log for secret in SECRETS) and server.address.encode() in log


def is_discreet(error: str) -> bool:
    """One short line that tells nothing of the machine but what the request said itself."""
    quoted = error.replace("'/etc/passwd'", "").replace("(/etc/passwd)", "").encode()
    return 0 < len(error) < 300 and "\n" not in error and not any(secret in quoted for secret in SECRETS)


def steady_growth(server: Server, work: Callable[[], object]) -> float:
    """MiB that a round of work adds, the least of four: what leaks is added by each, what allocators keep is not."""
    sizes = [server.memory()]
    for _ in range(4):
        work()
        sizes.append(server.memory())
    return min(after - before for before, after in pairwise(sizes))


def test_malformed_requests_are_refused_and_leave_nothing_behind(server: Server) -> None:
    assert len(MALFORMED) + len(NO_HTTP) > 100

    def answered_wrongly() -> list[tuple[object, ...]]:
        wrong: list[tuple[object, ...]] = []
        for request in MALFORMED:
            answer = server.ask(request.method, request.path, request.content)
            told = json.loads(answer.content or b"{}").get("error", "")
            if answer.status != request.status or request.words not in told or not is_discreet(told):
                wrong.append((request.path, request.content[:60], answer))
        for content in NO_HTTP:
            said = server.say(content)
            if said[:10] not in (b"", b"HTTP/1.1 4") or any(secret in said for secret in SECRETS):
                wrong.append((content[:60], said[:300]))
        return wrong

    for _ in range(3):  # until every thread has met the largest of them
        assert answered_wrongly() == []
    assert steady_growth(server, answered_wrongly) < STEADY_MIB
    health = server.ask("GET", "/health")
    assert health.status == 200 and not any(secret in health.content for secret in SECRETS)


def test_no_request_of_many_at_once_is_lost(server: Server) -> None:
    requests = [
        ("/speak", SPEECH),
        ("/encode", encoded(hum(1.0))),
        ("/decode", CODES),
        ("/encode", b"no audio"),
    ]
    alone = [server.ask("POST", *request) for request in requests]
    assert [answer.status for answer in alone] == [200, 200, 200, 400]

    def round_of_twenty() -> None:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda number: server.ask("POST", *requests[number % 4]), range(20)))
        assert answers == alone * 5

    round_of_twenty()
    assert steady_growth(server, round_of_twenty) < STEADY_MIB


def test_a_small_file_of_many_hours_is_not_unpacked(server: Server) -> None:
    bomb = flac_bomb(hours=4.0)
    assert len(bomb) < 2**19 < 4 * 3_600 * 8_000 * 2 / 400
    server.ask("POST", "/encode", encoded(hum(3.9)))
    # what is read of a long recording at once is the same for all of them
    assert server.ask("POST", "/encode", flac_bomb(hours=1.0)).status == 413
    most = server.memory("VmHWM")
    began = time.perf_counter()
    answer = server.ask("POST", "/encode", bomb)
    assert answer.status == 413 and b"longer than 4 s" in answer.content
    assert time.perf_counter() - began < 5.0  # to decode it all takes longer by far
    assert server.memory("VmHWM") - most < 64.0  # of 1.3 GiB


def test_an_oversized_upload_is_refused_before_it_is_read(server: Server) -> None:
    head = b"POST /encode HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + b"Content-Length: 99999999999\r\n\r\n")
        assert connection.recv(4_096).startswith(b"HTTP/1.1 413")  # not a byte of it was sent
    # one that does not say how long it is: answered while it is still coming
    sent, chunk = 0, b"10000\r\n" + bytes(2**16) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.setblocking(False)
        answer = b""
        while not answer and sent < 2**30:
            try:
                connection.send(chunk)
                sent += len(chunk)
            except BlockingIOError:
                time.sleep(0.01)
            except ConnectionError:  # it has hung up on a slow reader; what it had said before is still there
                sent = 2**30
            with contextlib.suppress(BlockingIOError):
                answer = connection.recv(4_096)
    assert answer.startswith(b"HTTP/1.1 413")
    # a client that listens only after it has sent everything reads the answer too
    answer_after = server.ask("POST", "/encode", bytes(2**20))
    assert answer_after.status == 413 and b"larger than 0.5 MB" in answer_after.content


def test_sigterm_lets_what_is_running_end(model: Path, tmp_path: Path) -> None:
    said = {"text": "Hello there, it rains. The train leaves in twenty minutes.", "seed": 1, "stream": True}
    text = json.dumps(said).encode()
    with running("serve", "--model", str(model), "--limits.concurrent", "1", folder=tmp_path) as server:
        alone = server.ask("POST", "/speak", text)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/speak", text)
        response = connection.getresponse()
        begun = response.read(1_000)
        with ThreadPoolExecutor(2) as pool:
            waits = pool.submit(server.ask, "POST", "/speak", text)  # its turn has not come yet
            time.sleep(0.3)
            status = pool.submit(server.terminate)
            assert begun + response.read() == alone.content
            assert waits.result() == alone
            assert status.result() == 0
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/health")
        assert "Traceback" not in server.log.read_text()
