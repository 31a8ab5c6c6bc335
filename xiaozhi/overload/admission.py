"""Turns that wait their turn while the process is overloaded."""

import asyncio
from collections import deque


class TurnedAway(Exception):
    """A turn has waited too long to be worth answering."""


class TurnAdmission:
    """Lets turns through freely while `open`, and a few at a time otherwise, first come first served.

    Args:
        at_once: turns on their way to their first sound at the same time while it is not open.
        wait_s: how long a turn may wait.
    """

    def __init__(self, at_once: int, wait_s: float) -> None:
        self.held = 0
        """Turns that had to wait, since the start."""
        self.turned_away = 0
        """Turns that waited in vain, since the start."""
        self._at_once = at_once
        self._wait_s = wait_s
        self._open = True
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def retune(self, at_once: int, wait_s: float) -> None:
        """Other limits from now on; turns that wait already do so for as long as they were told."""
        self._at_once, self._wait_s = at_once, wait_s
        self._let_in()

    @property
    def open(self) -> bool:
        """Whether turns go through freely."""
        return self._open

    @open.setter
    def open(self, value: bool) -> None:
        self._open = value
        self._let_in()

    @property
    def waiting(self) -> int:
        """Turns that wait now."""
        return sum(not place.done() for place in self._waiting)

    @property
    def full(self) -> bool:
        """Whether a turn that comes now would have to wait."""
        return not self._open and (self._inside >= self._at_once or bool(self.waiting))

    async def enter(self) -> None:
        """Take a place on the way to the first sound, waiting for one where there is none; `leave` gives it back.

        Raises:
            TurnedAway: there was none in time.
        """
        if not self.full:
            self._inside += 1
            return
        self.held += 1
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._wait_s):
                await asyncio.shield(place)
        except BaseException as error:
            if not place.done():
                place.cancel()
            elif isinstance(error, TimeoutError):
                return  # the place came in the same moment
            else:
                self.leave()
            if isinstance(error, TimeoutError):
                self.turned_away += 1
                raise TurnedAway from None
            raise

    def leave(self) -> None:
        """Give the place to the next."""
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._open or self._inside < self._at_once):
            place = self._waiting.popleft()
            if not place.done():
                self._inside += 1
                place.set_result(None)
