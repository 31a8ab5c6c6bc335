"""Microsoft Edge's read-aloud service through the package `edge-tts`: free, natural, needs internet.

The service streams MP3 at 24 kHz, which is decoded as it arrives. `edge-tts` opens a WebSocket for each text; what that
is opened over (TCP and TLS) is there already for the first text of a reply.
"""

import asyncio
import math
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import aiohttp
from edge_tts import Communicate, communicate
from edge_tts.constants import TRUSTED_CLIENT_TOKEN, WSS_URL
from edge_tts.exceptions import EdgeTTSException, NoAudioReceived

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.stream_decode import SpeechDecoder, decode_parts
from xiaozhi.concurrency.channel import Channel
from xiaozhi.settings import EdgeVoiceSettings
from xiaozhi.stages.tts.engine import ClauseVoice, TextRefused, VoiceError
from xiaozhi.stages.tts.errors import undecodable
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, bilingual
from xiaozhi.upstream.connections import Spares, refusal

# 3 s of the service's 48 kbit/s: how far the socket may run ahead of who listens.
_AHEAD_BYTES: Final = 18_000
_REACH_TIMEOUT_S: Final = 5.0
# How long a connection waits for a text at most, and how many do; one that the service closes is replaced unnoticed.
_SPARE_S: Final = 10.0
_MAX_SPARE: Final = 8
_MAX_ANSWER_BYTES: Final = 65_536

# The service takes a difference in Hz alone; the voices speak at about 200 (women) or 120 (men).
_VOICE_HZ: Final = 180.0


class _Connection(aiohttp.TCPConnector):
    """What one text is spoken over: outlives the sessions of the library, which opens a second one to try again."""

    async def close(self, *, abort_ssl: bool = False) -> None:
        """A session of the library has ended; nothing happens."""

    async def abort(self) -> None:
        """Close the connections under whoever uses them."""
        await super().close(abort_ssl=True)


class EdgeVoice(ClauseVoice):
    """Speaks through the read-aloud service.

    `edge-tts` knows its address only as a constant of a module, so `settings.url`, where it is set, replaces that
    constant for the whole process: the voice that was built last decides. A process has one.

    Args:
        settings: voices, rate, and another address of the service.
        timeout_s: longest time to connect, and longest silence of the connection.

    Raises:
        VoiceError: a voice's name cannot be one.
    """

    name = "edge"
    warm_s = 0.0

    def __init__(self, settings: EdgeVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        where = settings.url or "Microsoft's read-aloud service, needs internet"
        self.about = f"{settings.voice}, English {settings.voice_en} ({where})"
        self._timeout_s = max(1, math.ceil(timeout_s))
        self._url = _address(settings.url)
        self._spares = Spares[_Connection](_SPARE_S, _MAX_SPARE, _Connection.abort)
        for voice in filter(None, (settings.voice, settings.voice_en)):
            self._request("", voice, None)  # finds names that cannot be
        communicate.WSS_URL = self._url  # type: ignore[attr-defined]  # the module reads it there without exporting it

    def voice_for(self, text: str, language: str, request: VoiceRequest = ANY_VOICE) -> str:
        """What is wished, or the configured voice: the other one for English while the configured one is Mandarin."""
        settings = self._settings
        english = settings.voice_en if settings.voice.startswith("zh-") else ""  # others speak English themselves
        return bilingual(self.name, request, text, language, settings.voice, english)

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound as it arrives.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not MP3.
        """
        decoder = SpeechDecoder("mp3")
        async with aclosing(self._mp3(text, self.voice_for(text, language, request), request)) as stream:
            try:
                async for data in stream:
                    for pcm in decode_parts(decoder, data):
                        yield pcm
                rest = decoder.finish()
            except DecodeError as error:
                raise undecodable(self.name, error) from error
        if len(rest):
            yield rest

    async def _mp3(self, text: str, voice: str, request: VoiceRequest) -> AsyncGenerator[bytes, None]:
        """The service's bytes.

        A task of its own reads them, because leaving the library's WebSocket waits up to 10 s for the other side's
        goodbye; once the connection under it is closed it leaves at once.
        """
        connection = self._spares.take() or _Connection(keepalive_timeout=_SPARE_S)
        speech = self._request(text, voice, connection, request)
        pieces: Channel[bytes] = Channel(_AHEAD_BYTES, len)
        reading = asyncio.create_task(_read(speech, pieces), name="edge-read")
        try:
            async for data in pieces:
                yield data
            await reading
        except NoAudioReceived as error:  # of symbols, of a script that the voice does not know
            raise TextRefused(f"{self.name}: {error}") from error
        except EdgeTTSException as error:
            raise VoiceError(f"{self.name}: {error}") from error
        except aiohttp.WSServerHandshakeError as error:
            raise VoiceError(f"{self.name}: {refusal(error)}") from error
        except (aiohttp.ClientError, OSError, ValueError, KeyError) as error:  # the last two: malformed messages
            raise VoiceError(f"{self.name}: broke off: {_reason(error)}") from error
        finally:
            reading.cancel()
            await connection.abort()
            await asyncio.gather(reading, return_exceptions=True)

    def _request(
        self, text: str, voice: str, connection: _Connection | None, request: VoiceRequest = ANY_VOICE
    ) -> Communicate:
        rate_percent = min(100, max(-50, self._settings.rate_percent + request.rate_percent))
        try:
            return Communicate(
                text,
                voice,
                rate=f"{rate_percent:+d}%",
                pitch=f"{round(_VOICE_HZ * (request.pitch_ratio - 1.0)):+d}Hz",
                connector=connection,
                connect_timeout=self._timeout_s,
                receive_timeout=self._timeout_s,
            )
        except ValueError as error:
            raise VoiceError(f"{self.name}: {error}") from error

    async def warm(self) -> None:
        """Open a connection for the next text, and so find out whether the service can be reached.

        Raises:
            VoiceError: it cannot.
        """
        url = re.sub(r"^ws", "http", self._url)
        timeout = aiohttp.ClientTimeout(total=_REACH_TIMEOUT_S)
        connection = _Connection(keepalive_timeout=_SPARE_S)
        tls = communicate._SSL_CTX  # the library's own: a connection made with another is not taken
        try:
            async with (
                aiohttp.ClientSession(connector=connection, trust_env=True, timeout=timeout) as session,
                session.get(url, ssl=tls, allow_redirects=False) as answer,  # any will do
            ):
                await answer.content.read(_MAX_ANSWER_BYTES)  # to its end: the connection is kept then
        except BaseException as error:
            await connection.abort()
            if isinstance(error, aiohttp.ClientError | OSError):
                raise VoiceError(f"{self.name}: the read-aloud service cannot be reached: {_reason(error)}") from error
            raise
        self._spares.put(connection)

    async def close(self) -> None:
        """Close what is open."""
        await self._spares.close()


def _reason(error: Exception) -> str:
    """Why, in words; the library's own text for a connection that fails shows a Python object."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _address(url: str) -> str:
    """The full address; the library appends further parameters with `&`."""
    if not url:
        return WSS_URL
    return url if "?" in url else f"{url}?TrustedClientToken={TRUSTED_CLIENT_TOKEN}"


async def _read(speech: Communicate, pieces: Channel[bytes]) -> None:
    """Read a stream to its end into a channel and close that; an error is the task's."""
    try:
        async with aclosing(speech.stream()) as messages:
            async for message in messages:
                if message["type"] == "audio":
                    await pieces.put(message["data"])
        # The library takes a connection that breaks for the end; only a real end sets this count back.
        if speech.state.get("chunk_audio_bytes", 0):
            raise aiohttp.ClientConnectionError("the connection ended before the sound")
    finally:
        pieces.close()
