"""A FunASR runtime over its WebSocket: a configuration, the sound in pieces, a word at its end, texts in JSON.

The fields are those of FunASR's `runtime/docs/websocket_protocol.md` and of its servers' source:
`runtime/python/websocket/funasr_wss_server.py` in its versions of 2023 to 2026, and `runtime/websocket/bin/
websocket-server.cpp` and `websocket-server-2pass.cpp`. They differ in how one knows the last text:

- Python since July 2026 (pull request 3440): to `is_end` it answers `{"is_end": true, "is_final": true}` behind the
  last text, or with `is_final` false and an `error`.
- Python before: `is_final` is true for a part that was cut while sound still came, false for the last one. Where
  nothing is left after such a part, versions differ: an empty text, or nothing at all.
- Python of early 2026: the end alone has no effect; what is left is recognised when one more piece of sound comes.
- C++: one text with `is_final` false in mode `offline`; in mode `2pass` true for the last one, which may be empty and
  without a `mode`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np
import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.settings.asr import FunasrSettings, RemoteAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.recogniser import BuildContext
from xiaozhi.stages.asr.remote import RemoteRecognizer, to_text
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections, reason

_CHUNK_SIZE: Final = (5, 10, 5)  # of 60 ms: what the published clients use
_CHUNK_INTERVAL: Final = 10
# The server's voice detection works piece by piece and expects pieces of 60 * 10 / 10 ms.
_PIECE_BYTES: Final = UPLINK_RATE_HZ * 60 // 1000 * 2
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_MAX_MESSAGES: Final = 500
# Servers cut sound at pauses of 0.5 to 0.8 s and send a text for each part. Whoever speaks for so long pauses, perhaps
# over noise that this side takes for voice.
_MIN_CUT_S: Final = 3.0
_MIN_PAUSE_S: Final = 0.4
_PAUSE_STEP: Final = UPLINK_RATE_HZ // 50
# A fifth of the loudness of the loud parts (-14 dB) is a pause.
_PAUSE_BELOW: Final = 0.2
_NEXT_PART_S: Final = 0.25
_END: Final = '{"is_speaking": false, "is_end": true}'
_TEXTS: Final = ("offline", "2pass-offline")
# How long to wait for the answer of a server that knows `is_end`, when finding out whether it does.
_PROBE_S: Final = 0.5


class Funasr(RemoteRecognizer):
    """Recognises through a FunASR runtime; each utterance has a connection of its own, as in FunASR's clients.

    Args:
        settings: where and how.
        remote: limits.
        language: what is spoken; for servers that run SenseVoice.
        itn: write numbers as digits.
    """

    name = "funasr"

    def __init__(self, settings: FunasrSettings, remote: RemoteAsrSettings, language: Language, *, itn: bool) -> None:
        super().__init__(remote)
        self._settings = settings
        self._language = language
        self._itn = itn
        self._connections = Connections(None, connect_s=remote.connect_timeout_s)
        self._says_end = False  # this server says so behind the last text

    @classmethod
    def build(cls, context: BuildContext) -> "Funasr":
        """The runtime of `[asr.funasr]`."""
        asr = context.settings
        engine = cls(asr.funasr, asr.remote, asr.language, itn=asr.itn)
        engine.about = f"{cls.name} {asr.funasr.mode} from {asr.funasr.url}"
        return engine

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
                await socket.send_str(_END)
                parts = await self._parts(socket, cut=_may_be_cut(pcm))
        except aiohttp.WSServerHandshakeError as error:
            raise RemoteError(f"{self.name}: HTTP {error.status}: is asr.funasr.url a FunASR runtime?") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteError(f"{self.name}: {_reason(error)}") from error
        return to_text("".join(parts), self.name, self.remote.settings.max_text_chars)

    async def connect(self) -> None:
        """Connect once and find out whether the server says when a text is the last; no connection is kept.

        Raises:
            RemoteError: it cannot be reached.
        """
        try:
            async with self._connect() as socket:
                await socket.send_str(orjson.dumps(self.config()).decode())
                await socket.send_str(_END)
                await self._probe(socket)
        except aiohttp.WSServerHandshakeError as error:
            raise RemoteError(f"{self.name}: HTTP {error.status}: is asr.funasr.url a FunASR runtime?") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteError(f"{self.name}: {self._settings.url} cannot be reached: {_reason(error)}") from error

    async def disconnect(self) -> None:
        """Close what is open."""
        await self._connections.close()

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self._connections.session.ws_connect(
            self._settings.url,
            protocols=("binary",),
            ssl=self._settings.verify_tls,
            max_msg_size=_MAX_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.1),  # nobody waits for the other side's goodbye
        ) as socket:
            yield socket

    async def _probe(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """What the server answers to an end without any sound; most answer nothing."""
        try:
            async with asyncio.timeout(_PROBE_S):
                while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT and not self._says_end:
                    self._read(message.data)
        except (TimeoutError, RemoteError):
            pass  # it is there; whether it is a FunASR runtime will be seen at the first sentence

    async def _parts(self, socket: aiohttp.ClientWebSocketResponse, *, cut: bool) -> list[str]:
        """The texts of the parts that the server has cut the sound into; mostly one where it is not `cut`."""
        parts: list[str] = []
        nudged = False
        for _ in range(_MAX_MESSAGES):
            # A server that is busy may take its time, up to the caller's limit, where it is certain that more comes.
            patient = self._says_end or (nudged and not parts)
            try:
                async with asyncio.timeout(None if patient else _NEXT_PART_S):
                    message = await socket.receive()
            except TimeoutError:
                if nudged:
                    return parts
                nudged = True
                await socket.send_bytes(bytes(_PIECE_BYTES))
                continue
            except asyncio.CancelledError:
                self._says_end = self._says_end and not parts  # it did not say so: another server is there by now
                raise
            if message.type is not aiohttp.WSMsgType.TEXT:
                if parts:
                    return parts
                raise RemoteError(f"{self.name}: the connection ended before the text")
            said = self._read(message.data)
            if said.text is not None:
                parts.append(said.text)
            if said.is_end or (said.text is not None and not self._says_end and (said.last or not cut)):
                return parts
        raise RemoteError(f"{self.name}: sends without an end")

    def _read(self, message: str) -> "_Said":
        """A message of the server.

        Raises:
            RemoteError: it is none, or tells of an error.
        """
        try:
            said = bounded_json.loads(message)
        except orjson.JSONDecodeError as error:
            shown = one_line(message, MAX_SHOWN_CHARS)
            raise RemoteError(f"{self.name}: answered something that is not JSON: {shown}") from error
        if not isinstance(said, dict):
            raise RemoteError(f"{self.name}: answered without a text")
        if said.get("error"):
            raise RemoteError(f"{self.name}: {one_line(said['error'], MAX_SHOWN_CHARS)}")
        if said.get("is_end") is True:
            self._says_end = True
            return _Said(None, last=True, is_end=True)
        text, mode = said.get("text"), said.get("mode", "offline")
        if not isinstance(text, str):
            raise RemoteError(f"{self.name}: answered without a text")
        # In mode 2pass the last text of the server in Python looks like a part of the one in C++.
        last = mode == "offline" and said.get("is_final") is False and "mode" in said
        return _Said(text if mode in _TEXTS else None, last=last, is_end=False)


@dataclass(frozen=True, slots=True)
class _Said:
    """One message: a text that will not change any more, or None; whether another can follow."""

    text: str | None
    last: bool
    is_end: bool


def _may_be_cut(pcm: PcmFloat) -> bool:
    """Whether a server may find a pause in float32[n] at 16 kHz that it cuts at."""
    if len(pcm) >= _MIN_CUT_S * UPLINK_RATE_HZ:
        return True
    steps = len(pcm) // _PAUSE_STEP
    if not steps:
        return False
    levels = np.abs(pcm[: steps * _PAUSE_STEP]).reshape(steps, _PAUSE_STEP).mean(axis=1)
    quiet = levels < _PAUSE_BELOW * float(np.quantile(levels, 0.9))
    edges = np.flatnonzero(np.diff(np.concatenate(([0], quiet.astype(np.int8), [0]))))
    longest = int(np.max(edges[1::2] - edges[::2], initial=0))
    return longest * _PAUSE_STEP >= _MIN_PAUSE_S * UPLINK_RATE_HZ


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is signed by nobody known: if the server is your own, asr.funasr.verify_tls = false"
    return reason(error)
