"""Something being made once for everybody who asks for it meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

# A clause short enough to be kept is spoken in a quarter of this; a voice that never ends is cut here. Packets.
MAX_PACKETS: Final = 1000


class TooLong(Exception):
    """The maker does not come to an end."""


class Flight:
    """One production, run by a task of its own and followed by any number of readers.

    It goes on while somebody reads; when the last reader leaves before the end it is cancelled.

    Args:
        source: yields the packets; closed at the end, whatever the end.
        on_done: called once with all packets, or with None when it failed or was cancelled.
    """

    def __init__(self, source: AsyncGenerator[bytes, None], on_done: Callable[[list[bytes] | None], None]) -> None:
        self.packets: list[bytes] = []
        """What has been made so far."""
        self._on_done = on_done
        self._readers = 0
        self._grown = asyncio.Event()
        self._done = False
        self._error: Exception | None = None
        self._task = asyncio.create_task(self._run(source), name="speech-flight")

    async def _run(self, source: AsyncGenerator[bytes, None]) -> None:
        whole = False
        try:
            async with aclosing(source) as packets:
                async for packet in packets:
                    if len(self.packets) >= MAX_PACKETS:
                        raise TooLong(f"more than {MAX_PACKETS} packets")
                    self.packets.append(packet)
                    self._wake()
            whole = True
        except Exception as error:  # noqa: BLE001 - every reader gets it
            self._error = error
        finally:
            self._done = True
            self._on_done(self.packets if whole else None)
            self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Yield every packet from the first on, as they are made.

        Raises:
            Exception: whatever the maker raised, to every reader.
        """
        self._readers += 1
        at = 0
        try:
            while True:
                while at < len(self.packets):
                    at += 1
                    yield self.packets[at - 1]
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
