"""Speaks to devices that sleep: they are told of a file of sound, fetch it once, and play it.

That is all the firmware offers without an open channel; it says nothing about it, so what it fetches is what is known.
Firmware before August 2026 knows no `notify`, and shows the text instead.
"""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from xiaozhi.audio.ogg_writer import ogg_opus
from xiaozhi.conversation.recording import record
from xiaozhi.conversation.saying import Told
from xiaozhi.conversation.services import Services
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.text.language import is_chinese, language_of
from xiaozhi.transport.connected_devices import SleepingDevice

NOTIFY_PATH: Final = "/xiaozhi/notify/"

# A device asks at once, behind a short sound of its own, and gives up connecting after 5 s. One that has just started
# does not listen to it yet, so it is told once more.
_ASKS_WITHIN_S: Final = 8.0
_TIMES: Final = 2
# A device takes the file as fast as it plays it: the longest has as much time, and what a bad Wi-Fi needs.
_MAX_FETCH_S: Final = 600.0
_POPUP_S: Final = 1.0
_TOKEN_BYTES: Final = 18


@dataclass(eq=False, slots=True)
class _File:
    """One that waits to be fetched: `asked` for, and whether it was taken to its end."""

    ogg: bytes
    asked: asyncio.Event
    fetched: asyncio.Future[bool]


class Notifications:
    """One per process.

    Args:
        services: the voices.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: dict[str, _File] = {}  # by what nobody guesses

    async def speak(self, device: SleepingDevice, text: str, language: str = "") -> Told:
        """Have a sleeping device say a text; returns when it has been said, or shown.

        Args:
            device: that sleeps.
            text: what to say.
            language: of a text that does not show its own.
        """
        try:
            recording = await record(self._services, text, language)
        except VoiceError:
            return Told.DROPPED
        shown = " ".join(words for _, words in recording.subtitles)
        if recording.packets and device.base:
            token = secrets.token_urlsafe(_TOKEN_BYTES)
            file = self._waiting[token] = _File(
                ogg_opus(recording.packets), asyncio.Event(), asyncio.get_running_loop().create_future()
            )
            message = {
                "type": "notify",
                "audio_url": f"{device.base}{NOTIFY_PATH}{token}.ogg",
                "subtitles": [{"start_ms": at_ms, "text": words} for at_ms, words in recording.subtitles],
            }
            try:
                for _ in range(_TIMES):
                    if device.in_session:
                        return Told.REFUSED
                    device.publish(message)
                    if await _comes(file.asked, _ASKS_WITHIN_S):
                        return await self._played(device, file, recording.duration_ms / 1000.0)
            finally:
                self._waiting.pop(token, None)
        if device.in_session:
            return Told.REFUSED
        title = "通知" if is_chinese(language_of(text, default=language or "zh")) else "Notice"
        device.publish({"type": "alert", "status": title, "message": shown or text, "emotion": "neutral"})
        return Told.SHOWN

    async def _played(self, device: SleepingDevice, file: _File, duration_s: float) -> Told:
        asked_s = asyncio.get_running_loop().time()
        if not await file.fetched:
            return Told.INTERRUPTED if device.in_session else Told.DROPPED
        until_s = asked_s + _POPUP_S + duration_s  # meanwhile it is busy, and takes nothing else
        await asyncio.sleep(until_s - asyncio.get_running_loop().time())
        return Told.INTERRUPTED if device.in_session else Told.SPOKEN

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """`GET /xiaozhi/notify/TOKEN.ogg`: the file, once; 404 for who comes a second time or guesses."""
        file = self._waiting.pop(request.match_info["token"], None)
        if file is None:
            return web.Response(status=404, text="no such notification\n")
        file.asked.set()
        fetched = False
        try:
            response = web.StreamResponse(headers={"Content-Type": "audio/ogg", "Cache-Control": "no-store"})
            response.content_length = len(file.ogg)
            async with asyncio.timeout(_MAX_FETCH_S):
                await response.prepare(request)
                await response.write(file.ogg)
                await response.write_eof()
            fetched = True
        finally:
            file.fetched.set_result(fetched)
        return response


async def _comes(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
