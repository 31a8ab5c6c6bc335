"""Something being made once for everybody who asks for it meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# A clause short enough to be kept is spoken in a quarter of this; a voice that never ends is cut here. Packets.
MAX_PACKETS: Final = 1000


class TooLong(Exception):
    """The maker does not come to an end."""


class Flight(Generic[T]):
    """One production, run by a task of its own and followed by any number of readers.

    It goes on while somebody reads; when the last reader leaves before the end it is cancelled.

    Args:
        source: yields what is made, piece by piece; closed at the end, whatever the end.
        on_done: called once with all pieces, or with None when it failed or was cancelled.
    """

    def __init__(self, source: AsyncGenerator[T, None], on_done: Callable[[list[T] | None], None]) -> None:
        self._pieces: list[T] = []
        self._on_done = on_done
        self._readers = 0
        self._grown = asyncio.Event()
        self._done = False
        self._error: Exception | None = None
        self._task = asyncio.create_task(self._run(source), name="flight")

    async def _run(self, source: AsyncGenerator[T, None]) -> None:
        whole = False
        try:
            async with aclosing(source) as pieces:
                async for piece in pieces:
                    if len(self._pieces) >= MAX_PACKETS:
                        raise TooLong(f"more than {MAX_PACKETS} packets")
                    self._pieces.append(piece)
                    self._wake()
            whole = True
        except Exception as error:  # noqa: BLE001 - every reader gets it
            self._error = error
        finally:
            self._done = True
            self._on_done(self._pieces if whole else None)
            self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def follow(self) -> AsyncGenerator[T, None]:
        """Yield every piece from the first on, as they are made.

        Raises:
            Exception: whatever the maker raised, to every reader.
        """
        self._readers += 1
        at = 0
        try:
            while True:
                while at < len(self._pieces):
                    at += 1
                    yield self._pieces[at - 1]
                if self._done:
                    if self._error is not None:
                        raise self._error
                    return
                await self._grown.wait()
        finally:
            self._readers -= 1
            if not self._readers and not self._done:
                self._task.cancel()

    @property
    def abandoned(self) -> bool:
        """It was cancelled, or is about to be: nobody may join any more."""
        return self._task.cancelling() > 0 or self._task.cancelled()

    async def close(self) -> None:
        """Cancel it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Flights(Generic[K, T]):
    """What is under way, by key: whoever asks for the same meanwhile joins, and shares its failure as well."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight[T]] = {}

    def join(self, key: K) -> Flight[T] | None:
        """The one that is under way; None when there is none that can be joined."""
        flight = self._flights.get(key)
        return flight if flight is not None and not flight.abandoned else None

    def begin(self, key: K, source: AsyncGenerator[T, None], on_done: Callable[[list[T] | None], None]) -> Flight[T]:
        """Begin one that others may join until it is done; see `Flight`."""

        def done(pieces: list[T] | None) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            on_done(pieces)

        flight = self._flights[key] = Flight(source, done)
        return flight

    async def close(self) -> None:
        """End everything."""
        for flight in list(self._flights.values()):
            await flight.close()
