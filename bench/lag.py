"""How late a bench's own loop was: what is itself late proves nothing about a server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(slots=True)
class Lag:
    """The worst lag of a loop so far, in milliseconds."""

    worst_ms: float = 0.0


@contextlib.asynccontextmanager
async def watched_lag(every_s: float = 0.1) -> AsyncIterator[Lag]:
    """Watch this loop meanwhile.

    Args:
        every_s: how often it is to wake; what is shorter than that between two looks may be missed.
    """
    lag = Lag()
    watching = asyncio.create_task(_watch(lag, every_s))
    try:
        yield lag
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(lag: Lag, every_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + every_s
        await asyncio.sleep(every_s)
        lag.worst_ms = max(lag.worst_ms, (loop.time() - due_s) * 1000.0)
