"""A bounded channel between two stages: bounded by weight (milliseconds, characters), not only by count.

A full channel makes the stage before it wait; that is how a slow reader slows the upstream sockets and how latency
stays bounded. Microphone audio cannot wait, so a channel may instead drop its oldest items and count them.

Channels with a kind are counted together with all others of that kind: how much waits, since when, what was dropped.
"""

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# Of the limit: a writer that waits for room is woken when no more than this is left.
_GO_ON_AT: Final = 0.75


class ChannelClosed(Exception):
    """Put into a channel whose reader or writer has closed it."""


class ChannelKind:
    """What all channels of one purpose have in common.

    Args:
        name: of the purpose, for metrics.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped = 0
        """Items forgotten because their reader was too slow, since the start."""
        self._open: weakref.WeakSet[Channel[object]] = weakref.WeakSet()

    def enter(self, channel: "Channel[T]") -> None:
        """Count this channel in, as long as it lives."""
        self._open.add(channel)  # type: ignore[arg-type]  # only lengths and ages are read

    def depth(self) -> int:
        """Items that wait now in all channels."""
        return sum(len(channel) for channel in self._open)

    def oldest_s(self) -> float:
        """How long the item has waited that waits longest, in seconds; 0 when none waits."""
        now_s = time.monotonic()
        return max((now_s - at_s for channel in self._open if (at_s := channel.waits_since_s) is not None), default=0.0)


class Channel(Generic[T]):
    """A single-reader queue that holds at most `limit` units of weight (at least one item always fits).

    A writer that waits for room goes on when a quarter of the channel is free: one step of its task then brings
    several packets, not one.

    Args:
        limit: the most weight that may wait.
        weigh: the weight of one item in the unit of `limit`; 1 for each item when left out.
        drop_oldest: a full channel forgets its oldest items instead of making the writer wait.
        kind: counts this channel together with others.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_drop_oldest",
        "_items",
        "_kind",
        "_limit",
        "_readable",
        "_weigh",
        "_weight",
        "_writable",
        "dropped",
    )

    def __init__(
        self,
        limit: float,
        weigh: Callable[[T], float] | None = None,
        *,
        drop_oldest: bool = False,
        kind: ChannelKind | None = None,
    ) -> None:
        self._limit = limit
        self._weigh = weigh or (lambda _item: 1.0)
        self._drop_oldest = drop_oldest
        self._kind = kind
        self._items: deque[tuple[T, float, float]] = deque()  # item, weight, when it was put
        self._weight = 0.0
        self._closed = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.dropped = 0
        """Items forgotten because the reader was too slow."""
        if kind is not None:
            kind.enter(self)

    @property
    def weight(self) -> float:
        """What waits now, in the unit of the limit."""
        return self._weight

    @property
    def waits_since_s(self) -> float | None:
        """When the oldest waiting item was put, in monotonic seconds; None when none waits."""
        return self._items[0][2] if self._items else None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Nothing more can be put; what waits can still be read."""
        return self._closed

    def put_nowait(self, item: T) -> None:
        """Put without waiting: drops the oldest items when that was asked for, else lets the weight exceed the limit.

        Raises:
            ChannelClosed: the channel is closed.
        """
        if self._closed:
            raise ChannelClosed
        weight = self._weigh(item)
        if self._drop_oldest:
            while self._items and self._weight + weight > self._limit:
                self._weight -= self._items.popleft()[1]
                self.dropped += 1
                if self._kind is not None:
                    self._kind.dropped += 1
        self._items.append((item, weight, time.monotonic()))
        self._weight += weight
        self._readable.set()
        if self._weight >= self._limit:
            self._writable.clear()

    async def put(self, item: T) -> None:
        """Put, waiting until there is room.

        Raises:
            ChannelClosed: the channel is closed, or was while waiting.
        """
        while not self._drop_oldest and self._weight >= self._limit and not self._closed:
            await self._writable.wait()
        self.put_nowait(item)

    async def get(self) -> T:
        """Take the oldest item, waiting for one.

        Raises:
            ChannelClosed: the channel is closed and empty.
        """
        while not self._items:
            if self._closed:
                raise ChannelClosed
            self._readable.clear()
            await self._readable.wait()
        return self.take()

    @property
    def first(self) -> T | None:
        """The oldest item that waits; None when none does."""
        return self._items[0][0] if self._items else None

    def take(self) -> T:
        """Take `first`.

        Raises:
            IndexError: nothing waits.
        """
        item, weight, _ = self._items.popleft()
        self._weight = self._weight - weight if self._items else 0.0
        if self._weight < self._limit and self._weight <= self._limit * _GO_ON_AT:
            self._writable.set()
        return item

    async def peek(self) -> T | None:
        """Wait for the oldest item and return it without taking it; None when the channel ends empty."""
        while not self._items:
            if self._closed:
                return None
            self._readable.clear()
            await self._readable.wait()
        return self._items[0][0]

    def drain(self) -> list[T]:
        """Take everything that waits, without waiting."""
        items = [item for item, _, _ in self._items]
        self._items.clear()
        self._weight = 0.0
        self._writable.set()
        return items

    def close(self) -> None:
        """End the channel: the reader gets what waits and then the end. Closing twice is harmless."""
        self._closed = True
        self._readable.set()
        self._writable.set()

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield items until the channel is closed and empty."""
        while True:
            try:
                item = await self.get()
            except ChannelClosed:
                return
            yield item


# The channels of a conversation, in the order in which audio and text go through them.
MICROPHONE = ChannelKind("microphone")
HEARD = ChannelKind("heard")
CLAUSES = ChannelKind("clauses")
SYNTHESIS = ChannelKind("synthesis")
PACKETS = ChannelKind("packets")
KINDS = (MICROPHONE, HEARD, CLAUSES, SYNTHESIS, PACKETS)
