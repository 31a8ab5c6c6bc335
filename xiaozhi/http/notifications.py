"""`GET /xiaozhi/notify/TOKEN.ogg`: what a device that sleeps was told to fetch and to play, once."""

import asyncio
from typing import Final

from aiohttp import web

from xiaozhi.transport.notifications import Notifications

NOTIFY_PATH: Final = "/xiaozhi/notify/"
# A device takes the file as fast as it plays it: the longest has as much time, and what a bad Wi-Fi needs.
_MAX_S: Final = 600.0


class NotificationRoutes:
    """Hands out files of sound.

    Args:
        notifications: that wait.
    """

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """The file, once; 404 for who comes a second time or guesses."""
        notification = self._notifications.take(request.match_info["token"])
        if notification is None:
            return web.Response(status=404, text="no such notification\n")
        fetched = False
        try:
            response = web.StreamResponse(headers={"Content-Type": "audio/ogg", "Cache-Control": "no-store"})
            response.content_length = len(notification.ogg)
            async with asyncio.timeout(_MAX_S):
                await response.prepare(request)
                await response.write(notification.ogg)
                await response.write_eof()
            fetched = True
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            if not notification.fetched.done():
                notification.fetched.set_result(fetched)
        return response
