"""Between a reply that is prepared and the turn it belongs to: who is ready, and when it may be heard."""

import asyncio
from collections.abc import Callable


class Gate:
    """One reply's gate. Nothing outside is touched before it opens: no message, no history, no tool.

    Args:
        on_ready: called once, when the first audio is there or will be by the time the device can play it.
        on_known: called when exactly this has been asked before.
    """

    def __init__(self, on_ready: Callable[[], None], on_known: Callable[[], None]) -> None:
        self._on_ready: Callable[[], None] | None = on_ready
        self.known = on_known
        """Exactly this has been asked before: it is a whole question."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._opened = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """The turn has been committed."""
        return self._opened.is_set()

    def ready(self) -> None:
        """Nothing is gained by waiting any longer. The first call counts."""
        if self._on_ready is not None:
            on_ready, self._on_ready = self._on_ready, None
            on_ready()

    def ready_in(self, seconds: float) -> None:
        """The same, after a while; at once when that is over already."""
        if seconds <= 0.0:
            self.ready()
        elif self._timer is None:
            self._timer = self._loop.call_later(seconds, self.ready)

    def open(self) -> None:
        """The turn is committed."""
        self._opened.set()

    async def opened(self) -> None:
        """Wait until the turn is committed."""
        await self._opened.wait()

    def close(self) -> None:
        """The reply is over or given up: nothing is ready any more."""
        self._on_ready = None
        if self._timer is not None:
            self._timer.cancel()
