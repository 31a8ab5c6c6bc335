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

So in mode `2pass`, what a server says with texts that come while somebody speaks tells what it says with the last one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np
import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt
from xiaozhi.settings.asr import FunasrSettings, RemoteAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.hotwords import hotwords
from xiaozhi.stages.asr.live import Heard, LiveRecognizer, Sound, in_background
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections, NotOpened, reason

_CHUNK_SIZE: Final = (5, 10, 5)  # of 60 ms: what the published clients use
_CHUNK_INTERVAL: Final = 10
_NAME_WEIGHT: Final = 20  # of hot words, as in FunASR's own examples
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_MAX_MESSAGES: Final = 5000  # a text every 0.6 s, in the longest sound that is sent
# Servers cut sound at pauses of 0.5 to 0.8 s and send a text for each part. Whoever speaks for so long pauses, perhaps
# over noise that this side takes for voice.
_MIN_CUT_S: Final = 3.0
_MIN_PAUSE_S: Final = 0.4
_PAUSE_STEP: Final = UPLINK_RATE_HZ // 50
# A fifth of the loudness of the loud parts (-14 dB) is a pause.
_PAUSE_BELOW: Final = 0.2
_NEXT_PART_S: Final = 0.25
_END: Final = '{"is_speaking": false, "is_end": true}'
# How long to wait for the answer of a server that knows `is_end`, when finding out whether it does.
_PROBE_S: Final = 0.5


class Funasr(LiveRecognizer):
    """Recognises through a FunASR runtime, which tells texts while somebody speaks in mode `2pass` alone.

    Each stream has a connection of its own, as in FunASR's clients: not all servers take a second one.

    Args:
        settings: where and how.
        remote: limits.
        language: what is spoken; for servers that run SenseVoice.
        itn: write numbers as digits.
    """

    name = "funasr"
    # The server's voice detection works piece by piece and expects pieces of 60 * 10 / 10 ms.
    piece_ms = 60

    def __init__(self, settings: FunasrSettings, remote: RemoteAsrSettings, language: Language, *, itn: bool) -> None:
        super().__init__(remote)
        self._settings = settings
        self.tells_partials = settings.mode != "offline"
        self._language = language
        self._itn = itn
        self._connections = Connections(None, connect_s=remote.connect_timeout_s)
        self.says_end = False
        """This server says so behind the last text."""

    @classmethod
    def build(cls, context: RecognizerContext) -> "Funasr":
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
        if words := hotwords(settings.hotwords, self.names):
            weights = {word: settings.hotwords.get(word, _NAME_WEIGHT) for word in words}
            message["hotwords"] = orjson.dumps(weights).decode()  # JSON in a string
        return message

    async def converse(self, sound: Sound, heard: Heard) -> str:
        """Recognise one stream.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        return await _Stream(self, sound, heard).recognise()

    async def connect(self) -> None:
        """Connect once and find out whether the server says when a text is the last; no connection is kept.

        Raises:
            RemoteError: it cannot be reached.
        """
        async with self.socket() as socket:
            await socket.send_str(_END)
            try:
                async with asyncio.timeout(_PROBE_S):  # most answer nothing
                    while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT and not self.says_end:
                        self.says_end = self.read(message.data).is_end
            except (TimeoutError, RemoteError):
                pass  # it is there; whether it is a FunASR runtime will be seen at the first sentence

    async def disconnect(self) -> None:
        """Close what is open."""
        await self._connections.close()

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A connection with its configuration sent.

        Raises:
            RemoteError: refused, or broken.
        """
        try:
            socket = await self._connections.websocket(
                self._settings.url,
                max_bytes=_MAX_MESSAGE_BYTES,
                advice=dict.fromkeys(range(400, 600), "is asr.funasr.url a FunASR runtime?"),
                protocols=("binary",),
                ssl=self._settings.verify_tls,
            )
        except NotOpened as error:
            unsigned = isinstance(error.__cause__, aiohttp.ClientConnectorCertificateError)
            advice = ": if the server is your own, asr.funasr.verify_tls = false" if unsigned else ""
            raise RemoteError(f"{self.name}: {error}{advice}") from error
        try:
            async with socket:
                await socket.send_str(orjson.dumps(self.config()).decode())
                yield socket
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteError(f"{self.name}: {self._settings.url} {reason(error)}") from error

    def read(self, message: str) -> "FunasrText":
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
            return FunasrText("", "", None, is_end=True)
        text, mode, final = said.get("text"), said.get("mode", ""), said.get("is_final")
        if not isinstance(text, str):
            raise RemoteError(f"{self.name}: answered without a text")
        return FunasrText(text, str(mode), final if isinstance(final, bool) else None)


@dataclass(frozen=True, slots=True)
class FunasrText:
    """One message: a text, of which pass it is (empty where it is not said), and the server's `is_final`."""

    text: str
    mode: str
    final: bool | None
    is_end: bool = False


class _Stream:
    """One stream on a connection of its own.

    Args:
        engine: connects and reads.
        sound: of the stream.
        heard: takes the text so far.
    """

    def __init__(self, engine: Funasr, sound: Sound, heard: Heard) -> None:
        self._engine, self._sound, self._heard = engine, sound, heard
        self._final: str | None = None  # what will not change any more: the server cuts at pauses, and tells each part
        self._running = ""  # what the first pass has heard since
        self._told_end = False
        self._cut = False
        self._final_before: bool | None = None  # the server's `is_final` while sound still came
        self._news, self._over = asyncio.Event(), False

    @property
    def _text(self) -> str:
        return (self._final or "") + self._running

    async def recognise(self) -> str:
        """Send all, and wait for the last text.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        async with (
            self._engine.socket() as socket,
            in_background(self._send(socket)) as sending,
            in_background(self._read(socket)) as reading,
        ):
            try:
                await asyncio.wait((sending, reading), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    await sending
                    await self._last(socket, reading)
                if reading.done() and not self._over:
                    await reading
            except asyncio.CancelledError:
                if self._told_end and self._final is None:  # it did not say so: another server is there by now
                    self._engine.says_end = False
                raise
        return self._text

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        pieces = []
        async for piece in self._sound:
            pieces.append(piece)
            await socket.send_bytes(piece)
        self._cut = self._final is not None or _may_be_cut(np.frombuffer(b"".join(pieces), "<i2"))
        self._told_end = True
        await socket.send_str(_END)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        for _ in range(_MAX_MESSAGES):
            if (message := await socket.receive()).type is not aiohttp.WSMsgType.TEXT:
                break
            self._take(self._engine.read(message.data))
            self._news.set()
            self._heard(self._text)
        else:
            raise RemoteError(f"{self._engine.name}: sends without an end")
        if not self._told_end or self._final is None:
            raise RemoteError(f"{self._engine.name}: the connection ended before the text")

    def _take(self, said: FunasrText) -> None:
        """Add what was said. Text of the second pass replaces all of the first since the one before it."""
        max_chars = self._engine.remote.settings.max_text_chars
        if said.is_end:
            self._engine.says_end = self._over = True
        elif said.mode.endswith("online"):
            self._running = (self._running + said.text)[:max_chars]
        else:
            self._final, self._running = ((self._final or "") + said.text)[:max_chars], ""
        if not self._told_end:
            self._final_before = said.final if said.final is not None else self._final_before
        elif not (self._engine.says_end or said.mode.endswith("online")):
            self._over = self._is_last(said) or not self._cut

    def _is_last(self, said: FunasrText) -> bool:
        """Whether no text follows this one, which came behind the end."""
        if said.mode == "offline":
            return said.final is False
        # What a server says of texts while sound still comes tells whether it is the one in Python or in C++.
        return self._final_before is not None and said.final is (not self._final_before)

    async def _last(self, socket: aiohttp.ClientWebSocketResponse, reading: asyncio.Task[None]) -> None:
        """Wait for the last text: as long as the caller where it is certain that one comes, else for a moment."""
        nudged = False
        reading.add_done_callback(lambda _task: self._news.set())
        while not self._over and not reading.done():
            self._news.clear()
            certain = self._engine.says_end or (nudged and (self._final is None or self._running != ""))
            try:
                async with asyncio.timeout(None if certain else _NEXT_PART_S):
                    await self._news.wait()
            except TimeoutError:
                if nudged:
                    self._over = True
                    return
                nudged = True
                await socket.send_bytes(bytes(self._engine.piece_bytes))


def _may_be_cut(pcm: PcmInt) -> bool:
    """Whether a server may find a pause in int16[n] at 16 kHz that it cuts at."""
    if len(pcm) >= _MIN_CUT_S * UPLINK_RATE_HZ:
        return True
    steps = len(pcm) // _PAUSE_STEP
    if not steps:
        return False
    levels = np.abs(pcm[: steps * _PAUSE_STEP].astype(np.float32)).reshape(steps, _PAUSE_STEP).mean(axis=1)
    quiet = levels < _PAUSE_BELOW * float(np.quantile(levels, 0.9))
    edges = np.flatnonzero(np.diff(np.concatenate(([0], quiet.astype(np.int8), [0]))))
    longest = int(np.max(edges[1::2] - edges[::2], initial=0))
    return longest * _PAUSE_STEP >= _MIN_PAUSE_S * UPLINK_RATE_HZ
