"""Alerts as HTTP requests: in the background, a few attempts, never in anybody's way."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from xiaozhi.settings.operation import AlertsSettings

_log = logging.getLogger(__name__)

# Alerts that wait; a webhook that is away must not fill the memory. The oldest is dropped.
_MAX_WAITING: Final = 32
_FIRST_PAUSE_S: Final = 1.0


class Webhook:
    """Posts JSON to the address of the settings, one request after another.

    Args:
        settings: the `[alerts]` table; may be exchanged at any time.
    """

    def __init__(self, settings: AlertsSettings) -> None:
        self.settings = settings
        self.sent = 0
        """Requests that were taken."""
        self.failed = 0
        """Messages that no attempt brought there, or for which there was no room."""
        self._waiting: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(_MAX_WAITING)

    def post(self, message: Mapping[str, Any]) -> None:
        """Send a message soon, where an address is set. Never waits."""
        if not self.settings.webhook.get_secret_value():
            return
        if self._waiting.full():
            self._waiting.get_nowait()
            self.failed += 1
        self._waiting.put_nowait(message)

    async def run(self) -> None:
        """Send what comes. Runs until cancelled."""
        async with aiohttp.ClientSession() as http:
            while True:
                message = await self._waiting.get()
                await self._send(http, message)

    async def _send(self, http: aiohttp.ClientSession, message: Mapping[str, Any]) -> None:
        settings = self.settings
        url = settings.webhook.get_secret_value()
        if not url:
            return
        why = ""
        for attempt in range(settings.webhook_attempts):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            timeout = aiohttp.ClientTimeout(total=settings.webhook_timeout_s)
            try:
                # A redirect would turn the POST into a GET somewhere else.
                async with http.post(url, json=message, timeout=timeout, allow_redirects=False) as answer:
                    if answer.status < 300:
                        self.sent += 1
                        return
                    why = f"status {answer.status}"
                    if answer.status < 500 and answer.status not in (408, 429):
                        break  # it will not like the same message better later
            except TimeoutError:
                why = f"no answer within {settings.webhook_timeout_s:g} s"
            except (aiohttp.ClientError, ValueError) as error:  # their texts may show the address
                why = type(error).__name__
        self.failed += 1
        _log.warning("an alert was not taken by the webhook at %s: %s", urlsplit(url).hostname, why)
