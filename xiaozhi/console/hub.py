"""Live events for the pages: each client has a short queue of its own; one that does not read is let go."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

MAX_CLIENTS: Final = 16
# A minute of quiet operation, or a burst of log lines.
_QUEUE: Final = 256


class TooManyClients(Exception):
    """No more pages can listen."""


def event(kind: str, data: Any, number: int) -> bytes:
    """One event of `text/event-stream`."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), orjson.dumps(data, default=str))


@dataclass(eq=False, slots=True)
class Client:
    """One page that listens."""

    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    gone: bool = False

    async def next(self) -> bytes | None:
        """The next events, as many as wait; None when the stream is over."""
        pieces: list[bytes] = []
        piece = await self.queue.get()
        while piece is not None:
            pieces.append(piece)
            if self.queue.empty():
                break
            piece = self.queue.get_nowait()
        return b"".join(pieces) or None


class Hub:
    """Spreads events to the pages that listen. Publishing never waits."""

    def __init__(self) -> None:
        self._clients: set[Client] = set()
        self._numbers = itertools.count(1)
        self._closed = False
        self.dropped = 0
        """Clients let go because they did not read."""

    def __len__(self) -> int:
        return len(self._clients)

    def join(self) -> Client:
        """Begin to listen.

        Raises:
            TooManyClients: no more fit in, or the server stops.
        """
        if self._closed or len(self._clients) >= MAX_CLIENTS:
            raise TooManyClients
        client = Client()
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """Listen no more."""
        self._clients.discard(client)

    def publish(self, kind: str, data: Any) -> None:
        """Give everybody an event; whoever's queue is full is let go."""
        if not self._clients:
            return
        piece = event(kind, data, next(self._numbers))
        for client in list(self._clients):
            try:
                client.queue.put_nowait(piece)
            except asyncio.QueueFull:
                self.dropped += 1
                self._end(client)

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for client in list(self._clients):
            self._end(client)

    def _end(self, client: Client) -> None:
        self._clients.discard(client)
        client.gone = True
        while not client.queue.empty():
            client.queue.get_nowait()
        client.queue.put_nowait(None)
