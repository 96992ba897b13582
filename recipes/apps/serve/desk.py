"""How many requests are worked on at once, and how many may wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from recipes.apps.serve.limits import ServiceLimits
from recipes.apps.serve.middleware import Refusal


class Desk:
    """So many places to work at; whoever comes when too many wait already is sent away (503)."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.concurrent)
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for as long as the block takes. Raises Refusal."""
        await self.take()
        try:
            yield
        finally:
            self.leave()

    async def take(self) -> None:
        """Wait for a place. Raises Refusal."""
        if self._places.locked() and self._waiting >= self._limits.waiting:
            raise Refusal(503, "too many requests are waiting: try again in a moment")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        """Make room for the next one."""
        self._places.release()
