"""What the firmware does with `notify`: it fetches an Ogg Opus file and plays it, and says nothing about it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.ogg import opus_packets
from xiaozhi.audio.packet_time import packet_ms

# Firmware: connecting and every read may take so long; no redirects.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=5.0)
_HEADERS: Final = {"Accept": "audio/ogg, application/ogg", "Accept-Encoding": "identity"}


@dataclass(slots=True)
class Notification:
    """One that is played, or was.

    Attributes:
        url: of its sound.
        subtitles: each with the millisecond at which it is shown.
        packets: its sound, Opus, as far as it has been fetched.
        error: why it was not played to its end.
        played: it was.
    """

    url: str
    subtitles: list[tuple[float, str]] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    error: str = ""
    played: bool = False

    @classmethod
    def read(cls, message: dict[str, Any]) -> "Notification":
        """Understand the message; subtitles without a time or a text are left out."""
        given = message.get("subtitles", [])
        pairs = [(one.get("start_ms"), one.get("text")) for one in given if isinstance(one, dict)]
        subtitles = [
            (float(at_ms), text) for at_ms, text in pairs if isinstance(at_ms, int | float) and isinstance(text, str)
        ]
        return cls(message["audio_url"], subtitles)

    @property
    def text(self) -> str:
        """What is shown, one subtitle after the other."""
        return " ".join(text for _, text in self.subtitles)

    async def play(self, session: aiohttp.ClientSession) -> None:
        """Fetch it and let it sound for as long as it takes. Never raises for what a server does."""
        try:
            async with session.get(self.url, headers=_HEADERS, allow_redirects=False, timeout=_TIMEOUT) as response:
                if not 200 <= response.status < 300:
                    self.error = f"status {response.status}"
                    return
                self.packets = opus_packets(await response.read())
        except (aiohttp.ClientError, TimeoutError, DecodeError) as error:
            self.error = str(error) or type(error).__name__
            return
        await asyncio.sleep(sum(map(packet_ms, self.packets)) / 1000.0)
        self.played = True
