"""A FunASR runtime over its WebSocket: a configuration, the sound in pieces, a word at its end, texts in JSON.

The fields are those of FunASR's WebSocket protocol, read in its servers' source. The server in Python says `is_final`
while sound still comes and the one in C++ when none comes any more, so that word means nothing here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.settings.asr import FunasrSettings, RemoteAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.remote import RemoteError, one_short_line, to_text

_CHUNK_SIZE: Final = (5, 10, 5)  # of 60 ms: what the published clients use
_CHUNK_INTERVAL: Final = 10
# The server's voice detection works piece by piece and expects pieces of 60 * 10 / 10 ms.
_PIECE_BYTES: Final = UPLINK_RATE_HZ * 60 // 1000 * 2
_MOST_MESSAGE_BYTES: Final = 1024 * 1024
_MOST_MESSAGES: Final = 500
# Servers cut sound at pauses of 0.8 s and send a text for each part, without saying which is the last.
_CUT_LEAST_S: Final = 3.0
_NEXT_PART_S: Final = 0.25
_TEXTS: Final = ("offline", "2pass-offline")


class Funasr:
    """Recognises through a FunASR runtime; each utterance has a connection of its own, as in FunASR's clients.

    Args:
        settings: where and how.
        remote: limits.
        language: what is spoken; for servers that run SenseVoice.
        itn: write numbers as digits.
    """

    name = "funasr"

    def __init__(self, settings: FunasrSettings, remote: RemoteAsrSettings, language: Language, *, itn: bool) -> None:
        self._settings = settings
        self._remote = remote
        self._language = language
        self._itn = itn
        self._session: aiohttp.ClientSession | None = None

    def config(self) -> dict[str, Any]:
        """The first message."""
        settings = self._settings
        message: dict[str, Any] = {
            "mode": settings.mode,
            "chunk_size": list(_CHUNK_SIZE),
            "chunk_interval": _CHUNK_INTERVAL,
            "wav_name": "xiaozhi",
            "wav_format": "pcm",
            "audio_fs": UPLINK_RATE_HZ,
            "is_speaking": True,
            "itn": self._itn,
            "svs_lang": self._language,
            "svs_itn": self._itn,
        }
        if settings.hotwords:
            message["hotwords"] = orjson.dumps(settings.hotwords).decode()  # JSON in a string
        return message

    async def recognise(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        data = to_int16(pcm).astype("<i2", copy=False).tobytes()
        try:
            async with self._connect() as socket:
                await socket.send_str(orjson.dumps(self.config()).decode())
                for start in range(0, len(data), _PIECE_BYTES):
                    await socket.send_bytes(data[start : start + _PIECE_BYTES])
                await socket.send_str('{"is_speaking": false}')
                parts = await self._parts(socket, cut=len(pcm) >= _CUT_LEAST_S * UPLINK_RATE_HZ)
        except aiohttp.WSServerHandshakeError as error:
            raise RemoteError(f"{self.name}: HTTP {error.status}: is asr.funasr.url a FunASR runtime?") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteError(f"{self.name}: {_reason(error)}") from error
        return to_text("".join(parts), self.name, self._remote.max_text_chars)

    async def warm(self) -> None:
        """Connect once; no connection is kept.

        Raises:
            RemoteError: it cannot be reached.
        """
        try:
            async with self._connect():
                pass
        except aiohttp.WSServerHandshakeError as error:
            raise RemoteError(f"{self.name}: HTTP {error.status}: is asr.funasr.url a FunASR runtime?") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteError(f"{self.name}: {self._settings.url} cannot be reached: {_reason(error)}") from error

    async def aclose(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        if self._session is None or self._session.closed:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._remote.connect_timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True)
        async with self._session.ws_connect(
            self._settings.url,
            protocols=("binary",),
            ssl=self._settings.verify_tls,
            max_msg_size=_MOST_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.1),  # nobody waits for the other side's goodbye
        ) as socket:
            yield socket

    async def _parts(self, socket: aiohttp.ClientWebSocketResponse, *, cut: bool) -> list[str]:
        """The texts of the parts that the server has cut the sound into; one where it is too short for that."""
        parts: list[str] = []
        for _ in range(_MOST_MESSAGES):
            try:
                async with asyncio.timeout(_NEXT_PART_S if parts else None):
                    message = await socket.receive()
            except TimeoutError:
                return parts
            if message.type is not aiohttp.WSMsgType.TEXT:
                if parts:
                    return parts
                raise RemoteError(f"{self.name}: the connection ended before the text")
            text = self._text(message.data)
            if text is not None:
                parts.append(text)
                if not cut:
                    return parts
        raise RemoteError(f"{self.name}: sends without an end")

    def _text(self, message: str) -> str | None:
        """The text of a part; None where the message is another (a text on the way, of mode `2pass`)."""
        try:
            said = orjson.loads(message)
        except orjson.JSONDecodeError as error:
            shown = one_short_line(message)
            raise RemoteError(f"{self.name}: answered something that is not JSON: {shown}") from error
        if not isinstance(said, dict) or not isinstance(said.get("text"), str):
            raise RemoteError(f"{self.name}: answered without a text")
        text: str = said["text"]
        return text if said.get("mode", "offline") in _TEXTS else None


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is signed by nobody known: if the server is your own, asr.funasr.verify_tls = false"
    return one_short_line(str(error)) or ("no answer in time" if isinstance(error, TimeoutError) else repr(error))
