"""Files of sound that wait to be fetched, each once, by the device that was told of it."""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Final

# A device fetches it at once, behind a short sound of its own.
LIFETIME_S: Final = 30.0
_MAX_FILES: Final = 200
_TOKEN_BYTES: Final = 18


@dataclass(slots=True)
class Notification:
    """One file.

    Attributes:
        token: by which it is found; nobody guesses it.
        ogg: the file.
        begun: resolved when it is asked for.
        fetched: resolved with whether it was taken to its end.
    """

    token: str
    ogg: bytes
    begun: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    fetched: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Notifications:
    """One per process."""

    def __init__(self) -> None:
        self._waiting: dict[str, Notification] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def offer(self, ogg: bytes) -> Notification:
        """Have a file wait for the device that is told of it; the oldest goes where too many do."""
        while len(self._waiting) >= _MAX_FILES:
            self.withdraw(next(iter(self._waiting.values())))
        notification = Notification(secrets.token_urlsafe(_TOKEN_BYTES), ogg)
        self._waiting[notification.token] = notification
        return notification

    def take(self, token: str) -> Notification | None:
        """A file that is asked for; it is there once."""
        notification = self._waiting.pop(token, None)
        if notification is not None and not notification.begun.done():
            notification.begun.set_result(None)
        return notification

    def withdraw(self, notification: Notification) -> None:
        """Nobody waits for it any more."""
        self._waiting.pop(notification.token, None)
        notification.begun.cancel()
