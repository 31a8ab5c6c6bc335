"""MiniMax's speech over its WebSocket: a session for a reply, a message for each clause, sound as hex in JSON.

The events are those of MiniMax's page "T2A WebSocket" as LiveKit's and TEN's plugins use it: `connected_success`,
`task_start` with model and voice, `task_started`, `task_continue` with a text, `task_continued` with its sound until
`is_final`. There is no event that stops: a session that is cancelled closes its connection. One that has ended well
leaves its connection to the next reply with the same voice; the service closes idle ones after two minutes.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np
import orjson

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.settings.tts import MinimaxVoiceSettings
from xiaozhi.stages.tts.engine import Mark, Spoken, TextRefused, Voice, VoiceError, VoiceSession
from xiaozhi.stages.tts.errors import short
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, closest
from xiaozhi.text import bounded_json
from xiaozhi.upstream.connections import Connections, NotOpened, reason

_MAX_TEXT_CHARS: Final = 9999  # the service takes less than 10000
_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_MAX_GREETINGS: Final = 10
_MAX_KEPT: Final = 4
_KEPT_S: Final = 60.0
_ADVICE: Final = {
    1002: "too many requests a minute: lower tts.max_concurrent, or raise the limit of the account",
    1004: "the key is wrong: see tts.minimax.api_key; keys of minimaxi.com and minimax.io are not interchangeable",
    1008: "the account has no balance left: see the console",
    1026: "the text is refused as sensitive",
    1039: "too many characters a minute: see the limit of the account",
    1042: "the text has too many characters that cannot be spoken",
    2013: "a parameter is wrong: see tts.minimax.model, tts.minimax.voice and tts.minimax.emotion",
    2049: "the key is wrong: see tts.minimax.api_key; keys of minimaxi.com and minimax.io are not interchangeable",
}
_ABOUT_THE_TEXT: Final = frozenset({1026, 1042})


class MinimaxVoice(Voice):
    """Speaks through MiniMax.

    Args:
        settings: key, model, voice.
        timeout_s: longest silence of the connection.
    """

    name = "minimax"
    warm_s = _KEPT_S
    spans_clauses = True

    def __init__(self, settings: MinimaxVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self.about = f"{settings.voice}, {settings.model} ({settings.url})"
        self._connections = Connections(timeout_s)
        self._kept: list[_Line] = []
        self._background: set[asyncio.Task[None]] = set()

    def start(self, request: VoiceRequest = ANY_VOICE) -> dict[str, Any]:
        """The event that begins a session as `request` asks; its voices speak every language."""
        settings = self._settings
        rate = min(100, max(-50, settings.rate_percent + request.rate_percent))
        voice: dict[str, Any] = {
            "voice_id": closest(self.name, request, "zh", settings.voice),
            "speed": 1.0 + rate / 100.0,
            "vol": 1.0,
            "pitch": request.pitch_semitones,
        }
        if settings.emotion:
            voice["emotion"] = settings.emotion
        return {
            "event": "task_start",
            "model": settings.model,
            "voice_setting": voice,
            "audio_setting": {"sample_rate": DOWNLINK_RATE_HZ, "format": "pcm", "channel": 1},
            "language_boost": settings.language,
        }

    def open(self, request: VoiceRequest = ANY_VOICE) -> VoiceSession:
        """The clauses of a reply, one after the other."""
        return _MinimaxSession(self, self.start(request))

    async def warm(self) -> None:
        """Begin a session and keep it for the first reply; only texts cost money.

        Raises:
            VoiceError: it cannot be reached, or refuses the key or the voice.
        """
        self.keep(await self.dial(self.start()))

    async def close(self) -> None:
        """Close what is open."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for line in self._kept:
            await line.socket.close()
        self._kept.clear()
        await self._connections.close()

    async def take(self, start: dict[str, Any]) -> "_Line":
        """A connection with a session of this kind: a kept one, else a new one.

        Raises:
            VoiceError: it cannot be reached, or refuses the key or the voice.
        """
        now_s = time.monotonic()
        for line in self._kept[:]:
            if now_s - (line.kept_since_s or 0.0) > _KEPT_S or line.socket.closed:
                self._kept.remove(line)
                self._do(_close(line))
        for line in reversed(self._kept):
            if line.start == start:
                self._kept.remove(line)
                return line
        return await self.dial(start)

    async def dial(self, start: dict[str, Any]) -> "_Line":
        """A new connection with a session.

        Raises:
            VoiceError: it cannot be reached, or refuses the key or the voice.
        """
        settings = self._settings
        if missing := settings.missing("tts.minimax"):
            raise VoiceError(f"{self.name}: {missing}")
        headers = {"Authorization": f"Bearer {settings.key()}"}
        advice = dict.fromkeys((401, 403), _ADVICE[1004])
        try:
            socket = await self._connections.websocket(
                settings.url, max_bytes=_MAX_MESSAGE_BYTES, headers=headers, advice=advice
            )
        except NotOpened as error:
            raise VoiceError(f"{self.name}: {error}") from error
        line = _Line(self.name, socket, start, self._timeout_s)
        try:
            await line.expect("connected_success")
            await line.send(start)
            await line.expect("task_started")
        except BaseException:
            self._do(_close(line))
            raise
        return line

    def keep(self, line: "_Line") -> None:
        """Leave a connection whose texts have all been spoken to the next reply."""
        if len(self._kept) >= _MAX_KEPT:
            self._do(_close(self._kept.pop(0)))
        line.kept_since_s = time.monotonic()
        self._kept.append(line)

    def drop(self, line: "_Line", *, refill: bool) -> None:
        """Close a connection at once, without waiting; with `refill` open another one for the next reply."""
        self._do(self._replace(line) if refill else _close(line))

    async def _replace(self, line: "_Line") -> None:
        await _close(line)
        if not any(kept.start == line.start for kept in self._kept):
            with suppress(VoiceError):  # the next reply will be told
                self.keep(await self.dial(line.start))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="tts-minimax")
        self._background.add(task)
        task.add_done_callback(self._background.discard)


@dataclass(slots=True, eq=False)
class _Line:
    """A connection with a session on it."""

    name: str
    socket: aiohttp.ClientWebSocketResponse
    start: dict[str, Any]
    timeout_s: float
    kept_since_s: float | None = None  # None for one that has been used since

    async def send(self, event: dict[str, Any]) -> None:
        try:
            await self.socket.send_str(orjson.dumps(event).decode())
        except (aiohttp.ClientError, OSError) as error:
            raise VoiceError(f"{self.name}: {reason(error)}") from error

    async def expect(self, event: str) -> None:
        for _ in range(_MAX_GREETINGS):
            if (await self.receive())["event"] == event:
                return
        raise VoiceError(f"{self.name}: sends no {event}")

    async def receive(self) -> dict[str, Any]:
        try:
            message = await self.socket.receive(self.timeout_s)
        except TimeoutError as error:
            raise VoiceError(f"{self.name}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise VoiceError(f"{self.name}: {reason(error)}") from error
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise VoiceError(f"{self.name}: the connection ended before the sound")
        return event_of(message.data)

    async def speak(self, text: str) -> AsyncGenerator[PcmInt, None]:
        """The sound of a text; the connection is of no use where it is not read to its end."""
        text = text.encode("utf-8", "ignore").decode()[:_MAX_TEXT_CHARS]
        await self.send({"event": "task_continue", "text": text})
        odd, size, whole, final = b"", 0, hashlib.blake2b(), False
        while not final:
            said = await self.receive()
            data, final = sound_of(said), said.get("is_final") is True
            # Over HTTP the last message has all sound once more, and nothing says that it never has here.
            if final and size and len(data) == size and hashlib.blake2b(data).digest() == whole.digest():
                return
            size += len(data)
            whole.update(data)
            data = odd + data
            even = len(data) & ~1
            odd = data[even:]
            if even:
                yield np.frombuffer(data[:even], "<i2").astype(np.int16, copy=False)


class _MinimaxSession:
    """A reply on one connection.

    The next clause is sent when the sound of this one is there: it is made much faster than it is played, and it is
    certain whose sound comes.
    """

    def __init__(self, voice: MinimaxVoice, start: dict[str, Any]) -> None:
        self._voice, self._start = voice, start
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._line: _Line | None = None
        self._speaking = self._cancelled = False

    async def send(self, text: str, language: str) -> None:
        self._texts.put_nowait(text)

    async def end(self) -> None:
        self._texts.put_nowait(None)

    async def sound(self) -> AsyncGenerator[Spoken, None]:
        number = 0
        try:
            while (text := await self._texts.get()) is not None:
                async with aclosing(self._speak(text)) as pieces:
                    async for pcm in pieces:
                        if self._cancelled:
                            return
                        yield pcm
                if self._cancelled:
                    return
                yield Mark(number)
                number += 1
        except VoiceError:
            if not self._cancelled:
                self._leave(refill=False)
                raise
        finally:
            self._leave(refill=True)

    async def _speak(self, text: str) -> AsyncGenerator[PcmInt, None]:
        while True:
            line = self._line = self._line or await self._voice.take(self._start)
            self._speaking = True
            try:
                async with aclosing(line.speak(text)) as pieces:
                    async for pcm in pieces:
                        line.kept_since_s = None
                        yield pcm
                self._speaking, line.kept_since_s = False, None
                return
            except VoiceError as error:
                if line.kept_since_s is None or self._cancelled or isinstance(error, TextRefused):
                    raise
                self._leave(refill=False)  # the service has closed it while it was kept: another one

    def _leave(self, *, refill: bool) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        if self._speaking:
            self._voice.drop(line, refill=refill)
        else:
            self._voice.keep(line)
        self._speaking = False

    async def cancel(self) -> None:
        self._cancelled = True
        self._texts.put_nowait(None)
        self._leave(refill=True)


async def _close(line: _Line) -> None:
    await line.socket.close()


def event_of(message: str) -> dict[str, Any]:
    """An event of the service, which has an `event`.

    Raises:
        TextRefused: it says that the text cannot be spoken.
        VoiceError: it tells of another error, or is no event.
    """
    try:
        said: dict[str, Any] = bounded_json.loads(message)
        answer = said.get("base_resp") or {}
        code, event = int(answer.get("status_code") or 0), str(said["event"])
        why = short(str(answer.get("status_msg", "")))
        trace = short(str(said.get("trace_id") or answer.get("trace_id") or ""))  # minimax.io and minimaxi.com differ
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise VoiceError(f"minimax: sent something that is not an answer: {short(message)}") from error
    if code or event == "task_failed":
        kind = TextRefused if code in _ABOUT_THE_TEXT else VoiceError
        raise kind(f"minimax: error {code}: {_ADVICE.get(code, why)} (trace {trace})")
    return said


def sound_of(event: dict[str, Any]) -> bytes:
    """The sound that an event brings, perhaps none.

    Raises:
        VoiceError: it is not hexadecimal.
    """
    try:
        return bytes.fromhex((event.get("data") or {}).get("audio") or "")
    except (ValueError, TypeError, AttributeError) as error:
        raise VoiceError("minimax: sent something that is not sound") from error
