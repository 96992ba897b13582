"""Running an application around a model until somebody stops it."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import h11
import torch
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from codec.foundation import UserError
from recipes.apps.config import DemoLimits, ServiceLimits
from slm import SpeechLM

Limits = TypeVar("Limits", DemoLimits, ServiceLimits)
_HEADER_SECONDS = 10.0


def run_application(
    create_app: Callable[[SpeechLM, Limits], Any],
    load: Callable[[], SpeechLM],
    limits: Limits,
    host: str,
    port: int,
    patience_seconds: int,
) -> None:
    """Load and warm up a model, and answer requests to its application until SIGTERM or Ctrl-C.

    Each of the `limits.concurrent` requests gets its share of the cores, unless OMP_NUM_THREADS says otherwise: more
    threads than cores wait for one another. When it is stopped, requests in work get `patience_seconds` to finish. The
    exit status after SIGTERM is 0. Raises UserError for an address that cannot be listened on.
    """
    with _bound(host, port) as listener:
        speaker = load()
        if "OMP_NUM_THREADS" not in os.environ:
            share = max(1, len(os.sched_getaffinity(0)) // limits.concurrent)
            torch.set_num_threads(min(share, torch.get_num_threads()))
        speaker.warm_up()
        # uvicorn stops in good order, then raises the signal again. Without this, temporary files would stay.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(f"http://{host}:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            create_app(speaker, limits),
            http=PatientProtocol,
            log_level="warning",
            timeout_graceful_shutdown=patience_seconds,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the address. Raises UserError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}, port {port} ({reason}): choose another --port") from None
    return listener


class PatientProtocol(H11Protocol):
    """HTTP that hangs up on a client whose request line and headers do not come within 10 s."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody came."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """A part of a request came."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """They have gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(_HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
