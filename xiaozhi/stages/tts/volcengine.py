"""Volcengine's voices (Doubao, API v3): binary frames over a WebSocket that carries one session after the other.

The events are those of document 6561/1329505 (`tts/bidirection`). A session of the service has no marks of ours: it
cuts its text into sentences of its own, or tells of none at all (voices of the second generation), and holds back a
clause until it sees what follows. So each clause is a session of the service, all of one reply in series on one
connection: the first is spoken as soon as it is there, the end of each is known, and with voices of the second
generation a session names the one before it, so that a reply sounds like one. Sound is made faster than it is played.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncGenerator
from typing import Any, Final

import numpy as np
import orjson

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.settings.tts import VolcengineVoiceSettings
from xiaozhi.stages.tts.engine import Mark, Spoken, Voice, VoiceError, VoiceSession
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, closest
from xiaozhi.stages.volcengine import Frame, Kind, ServiceError, VolcengineSocket, access_headers, connect, event_frame
from xiaozhi.upstream.connections import Connections

_START_CONNECTION, _FINISH_CONNECTION = 1, 2
_CONNECTION_STARTED: Final = 50
_START, _CANCEL, _FINISH, _TASK = 100, 101, 102, 200
_STARTED, _CANCELLED, _FINISHED, _FAILED, _SOUND = 150, 151, 152, 153, 352
_OVER: Final = frozenset({_CANCELLED, _FINISHED, _FAILED})
_WELL: Final = frozenset({0, 20000000})
_SECOND_GENERATION: Final = "seed-tts-2.0"
# A session that is cancelled ends within some 0.2 s; a connection on which it does not is of no further use.
_MAX_CANCEL_S: Final = 1.0


class VolcengineVoice(Voice):
    """Speaks through Volcengine.

    Args:
        settings: account, resource, voice and rate.
        timeout_s: longest silence of a connection.
    """

    name = "volcengine"
    spans_clauses = True

    def __init__(self, settings: VolcengineVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self.warm_s = settings.keep_s or math.inf
        self.about = f"{settings.voice}, {settings.resource_id} from {settings.url}"
        self._connections = Connections(None)
        self._idle: dict[VolcengineSocket, asyncio.TimerHandle] = {}  # open, between sessions; and what closes them
        self._leaving: set[asyncio.Task[None]] = set()
        self._user = uuid.uuid4().hex

    def open(self, request: VoiceRequest = ANY_VOICE) -> VoiceSession:
        """Begin to speak."""
        return _Reply(self, request)

    def speaker(self, language: str, request: VoiceRequest) -> str:
        """The voice for a text: only those of the second generation are known by name."""
        settings = self._settings
        if settings.resource_id == _SECOND_GENERATION:
            return closest(self.name, request, language, settings.voice)
        owner, _, name = request.voice.partition(":")
        return name if owner == self.name and name else settings.voice

    def session(self, language: str, request: VoiceRequest, before: str) -> dict[str, Any]:
        """What begins a session.

        Args:
            language: of its text.
            request: how it should sound.
            before: the session that it goes on with; empty for none.
        """
        settings = self._settings
        rate = min(100, max(-50, settings.rate_percent + request.rate_percent))
        asked: dict[str, Any] = {
            "speaker": self.speaker(language, request),
            "audio_params": {"format": "pcm", "sample_rate": DOWNLINK_RATE_HZ, "speech_rate": rate},
        }
        additions: dict[str, Any] = {}
        if before and settings.resource_id == _SECOND_GENERATION:
            additions["section_id"] = before
        if request.pitch_semitones:
            additions["post_process"] = {"pitch": request.pitch_semitones}
        if additions:
            asked["additions"] = orjson.dumps(additions).decode()  # JSON in a string
        return {"user": {"uid": self._user}, **_namespace(_START), "req_params": asked}

    async def take(self) -> tuple[VolcengineSocket, bool]:
        """A connection without a session, and whether it was kept from before.

        Raises:
            VoiceError: refused, or not reached.
        """
        while self._idle:
            socket, closing = self._idle.popitem()  # the newest
            closing.cancel()
            if not socket.closed:
                return socket, True
        return await self._connect(), False

    def give_back(self, socket: VolcengineSocket) -> None:
        """The connection has no session any more."""
        keep_s = self._settings.keep_s
        if keep_s and not socket.closed:
            self._idle[socket] = asyncio.get_running_loop().call_later(keep_s, self._expire, socket)
        else:
            self.leave(socket)

    def leave(self, socket: VolcengineSocket, session: str = "") -> None:
        """Close a connection in the background; or cancel its session there, and keep it where that ends at once."""
        leaving = asyncio.get_running_loop().create_task(self._leave(socket, session), name="tts-volcengine-leave")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _expire(self, socket: VolcengineSocket) -> None:
        self._idle.pop(socket, None)
        self.leave(socket)

    async def _leave(self, socket: VolcengineSocket, session: str) -> None:
        kept = False
        try:
            async with asyncio.timeout(_MAX_CANCEL_S):
                if session:
                    await socket.send(event_frame(_CANCEL, {}, session))
                    while (frame := await socket.receive()).id != session or frame.event not in _OVER:
                        pass  # late sound is nobody's
                    self.give_back(socket)
                    kept = True
                else:
                    await socket.send(event_frame(_FINISH_CONNECTION, {}))
        except (ServiceError, TimeoutError):
            pass  # it is closed either way
        finally:
            if not kept:
                await socket.close()

    async def warm(self) -> None:
        """Open a connection for the first reply; without a session it costs nothing.

        Raises:
            VoiceError: it cannot be reached, or refuses the key or the resource.
        """
        self.give_back((await self.take())[0])

    async def close(self) -> None:
        """Close all connections."""
        for socket, closing in self._idle.items():
            closing.cancel()
            await socket.close()
        self._idle.clear()
        for leaving in tuple(self._leaving):
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._connections.close()

    async def _connect(self) -> VolcengineSocket:
        settings, table = self._settings, "tts.volcengine"
        if missing := settings.missing(table):
            raise VoiceError(f"{self.name}: {missing}")
        socket = None
        try:
            async with asyncio.timeout(self._timeout_s):
                headers = access_headers(settings.credential("app_id"), settings.key(), settings.resource_id, table)
                socket = await connect(self._connections, settings.url, headers, table)
                await socket.send(event_frame(_START_CONNECTION, {}))
                frame = await socket.receive()
                if frame.event != _CONNECTION_STARTED:
                    raise socket.refusal(0, frame.says() or f"answered event {frame.event}")
        except (ServiceError, TimeoutError) as error:
            if socket is not None:
                await socket.close()
            raise self.failure(error) from error
        return socket

    async def receive(self, socket: VolcengineSocket) -> Frame:
        """The next frame.

        Raises:
            ServiceError: the connection broke, or went silent.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await socket.receive()
        except TimeoutError as error:
            raise ServiceError(socket.about("no answer in time")) from error

    def failure(self, error: ServiceError | TimeoutError) -> VoiceError:
        """What went wrong, in a line that names this voice."""
        return VoiceError(f"{self.name}: {error if isinstance(error, ServiceError) else 'no answer in time'}")

    def refused(self, socket: VolcengineSocket, frame: Frame) -> ServiceError:
        """A session that has failed; the commonest reason is a voice of another resource."""
        said = frame.json()
        code = said.get("status_code", 0)
        hint = f"is {self._settings.voice} a voice of tts.volcengine.resource_id {self._settings.resource_id}?"
        return socket.refusal(code if isinstance(code, int) else 0, f"{frame.says()} ({hint})")


class _Reply:
    """The texts of one reply, each a session of the service behind the one before it."""

    def __init__(self, voice: VolcengineVoice, request: VoiceRequest) -> None:
        self._voice, self._request = voice, request
        self._texts: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()

    async def send(self, text: str, language: str) -> None:
        self._texts.put_nowait((text, language))

    async def end(self) -> None:
        self._texts.put_nowait(None)

    async def cancel(self) -> None:
        self._texts.put_nowait(None)  # whoever reads closes `sound`, and with it what is under way

    async def sound(self) -> AsyncGenerator[Spoken, None]:
        number, before = 0, ""
        while (item := await self._texts.get()) is not None:
            text, language = item
            session = str(uuid.uuid4())
            asked = self._voice.session(language, self._request, before)
            socket = await self._begin(session, asked)
            over = False
            try:
                await socket.send(event_frame(_TASK, {**_namespace(_TASK), "req_params": {"text": text}}, session))
                await socket.send(event_frame(_FINISH, {}, session))
                odd = b""
                while not over:
                    frame = await self._next(socket, session)
                    over = frame.event == _FINISHED
                    if frame.event == _SOUND and frame.kind is Kind.SOUND_DOWN:
                        data = odd + frame.payload
                        odd = data[len(data) & ~1 :]
                        yield _samples(data)
            except ServiceError as error:
                await socket.close()
                raise self._voice.failure(error) from error
            finally:
                if over:
                    self._voice.give_back(socket)
                elif not socket.closed:
                    self._voice.leave(socket, session)
            yield Mark(number)
            number, before = number + 1, session

    async def _begin(self, session: str, asked: dict[str, Any]) -> VolcengineSocket:
        """A connection with a session on it. One that was kept may have been closed meanwhile: then another is opened.

        Raises:
            VoiceError: refused, or not reached.
        """
        while True:
            socket, kept = await self._voice.take()
            try:
                await socket.send(event_frame(_START, asked, session))
                while (await self._next(socket, session)).event != _STARTED:
                    pass
            except ServiceError as error:
                await socket.close()
                if not (kept and error.ended):
                    raise self._voice.failure(error) from error
            except BaseException:
                self._voice.leave(socket, session)
                raise
            else:
                return socket

    async def _next(self, socket: VolcengineSocket, session: str) -> Frame:
        """The next frame of this session; what comes late of another one is dropped.

        Raises:
            ServiceError: the session failed, or its connection.
        """
        while True:
            frame = await self._voice.receive(socket)
            if frame.id and frame.id != session:
                continue
            if frame.event in (_FAILED, _CANCELLED):
                raise self._voice.refused(socket, frame)
            if frame.event == _FINISHED and frame.json().get("status_code", 0) not in _WELL:
                raise self._voice.refused(socket, frame)
            return frame


def _namespace(event: int) -> dict[str, Any]:
    return {"event": event, "namespace": "BidirectionalTTS"}


def _samples(data: bytes) -> PcmInt:
    """The whole samples in bytes, int16[n]."""
    return np.frombuffer(data[: len(data) & ~1], "<i2").astype(np.int16, copy=False)
