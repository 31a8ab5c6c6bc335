"""Volcengine's recognition and voices: strict about keys, order, sizes and compression.

The frames are read and written here by hand, from document 6561/1354869 and not from the client's code.
"""

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import PcmInt

_PATH = "/api/v3/sauc/bigmodel_async"
_BYTES_PER_S: Final = 32_000
_MIN_PIECE, _MAX_PIECE = 3200, 6400  # 100 to 200 ms; the last one may be shorter
_VOICE_PATH: Final = "/api/v3/tts/bidirection"
_VOICE_PIECE_BYTES: Final = 5001  # odd on purpose: pieces of the service end anywhere
_LATE_PIECES: Final = 3
_LOG_ID: Final = "20261130-log"


class Refused(Exception):
    """An error frame of the service."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Stream:
    """One stream, as it was sent."""

    request: dict[str, Any]
    sound: bytearray = field(default_factory=bytearray)
    pieces: list[int] = field(default_factory=list)  # bytes of each
    ended: bool = False  # the client asked for the last text

    @property
    def seconds(self) -> float:
        """Of sound."""
        return len(self.sound) / _BYTES_PER_S


def refusal(request: web.Request, app_id: str, key: str, resource: str) -> web.Response | None:
    """Judge the headers as the service does at the handshake; None when they are good."""
    headers = request.headers
    new = headers.get("X-Api-Key") == key
    old = headers.get("X-Api-App-Key") == app_id and headers.get("X-Api-Access-Key") == key
    told = {"X-Tt-Logid": _LOG_ID}
    if not (new or old) or (new and "X-Api-Access-Key" in headers):
        return web.json_response({"error": "authenticate request: invalid token"}, status=401, headers=told)
    if headers.get("X-Api-Resource-Id") != resource:
        return web.json_response({"error": "requested resource not granted"}, status=403, headers=told)
    if len(headers.get("X-Api-Connect-Id", "")) != 36:
        return web.json_response({"error": "connect id"}, status=400, headers=told)
    return None


def parse(data: bytes, *, kind: int, serialisation: int) -> tuple[int, bytes]:
    """The flags and the payload of a frame of the client.

    Raises:
        Refused: it is not as the documents say.
    """
    if len(data) < 8 or data[0] != 0x11 or data[3] != 0:
        raise Refused(45000001, "header")
    if data[1] >> 4 != kind or data[2] >> 4 != serialisation:
        raise Refused(45000001, f"type {data[1] >> 4} or serialisation {data[2] >> 4}")
    size = int.from_bytes(data[4:8], "big")
    if size != len(data) - 8:
        raise Refused(45000001, "payload size")
    payload = data[8:]
    match data[2] & 15:
        case 0:
            return data[1] & 15, payload
        case 1:
            return data[1] & 15, gzip.decompress(payload)
    raise Refused(45000001, "compression")


class VolcengineAsrStandIn(StandIn):
    """`/api/v3/sauc/bigmodel_async`.

    Args:
        words: one is known after each half second of sound.
        last: the last text, where it is not all words.
        app_id: the application, for headers of the old console.
        key: its token, and the key of the new console.
        resource: what was bought.
        zipped: whether answers are gzip'd.
        listed: whether `result` is a list.
        port: 0 for any.

    Attributes:
        streams: all that were begun, oldest first.
    """

    WS_PATH = _PATH
    FAULTS = frozenset(
        "hang error-500 stall error-midway reset-midway garbage bomb text no-text silent-last ends redirect".split()
    )

    def __init__(
        self,
        *words: str,
        last: str | None = None,
        app_id: str = "4711",
        key: str = "k-volcengine",
        resource: str = "volc.seedasr.sauc.duration",
        zipped: bool = True,
        listed: bool = False,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.words = words or ("what ", "time ", "is ", "it")
        self.last = "".join(self.words) if last is None else last
        self.app_id, self.key, self.resource = app_id, key, resource
        self.zipped, self.listed = zipped, listed
        self.streams: list[Stream] = []
        self.handshakes = 0
        self.redirect = ""
        """Where the fault `redirect` leads."""

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        if self.fault == "hang":
            await self.hang()
        if self.fault == "error-500":
            return web.Response(status=500)
        if self.fault == "redirect":
            raise web.HTTPTemporaryRedirect(self.redirect)
        refused = refusal(request, self.app_id, self.key, self.resource)
        if refused is not None:
            return refused
        socket = web.WebSocketResponse()
        socket.headers["X-Tt-Logid"] = _LOG_ID
        await socket.prepare(request)
        try:
            await self._stream(request, socket)
        except Refused as error:
            text = json.dumps({"error": str(error)}).encode()
            head = bytes((0x11, 0xF0, 0x10, 0)) + error.code.to_bytes(4, "big")
            await socket.send_bytes(head + len(text).to_bytes(4, "big") + text)
            await socket.close()
        return socket

    async def _stream(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            return
        flags, payload = parse(message.data, kind=1, serialisation=1)
        asked = json.loads(payload)
        audio = asked["audio"]
        expected = {"format": "pcm", "codec": "raw", "rate": 16000, "bits": 16, "channel": 1}
        if flags or {name: audio.get(name) for name in expected} != expected:
            raise Refused(45000151, "audio")
        if asked["request"]["model_name"] != "bigmodel" or "uid" not in asked["user"]:
            raise Refused(45000001, "request")
        stream = Stream(asked)
        self.streams.append(stream)
        await self._tell(socket, None, number=1)
        short, shown = False, 0
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                raise Refused(45000001, "text")
            flags, piece = parse(message.data, kind=2, serialisation=0)
            if flags not in (0, 2) or short or len(piece) > _MAX_PIECE or len(piece) % 2:
                raise Refused(45000001, f"a piece of {len(piece)} bytes with flags {flags}")
            short = len(piece) < _MIN_PIECE
            stream.sound += piece
            stream.pieces.append(len(piece))
            number = len(stream.pieces) + 1
            known = min(len(self.words), int(stream.seconds * 2))
            if flags == 2:
                stream.ended = True
                await self.record(stream)
                await self._last(socket, stream, number)
                return
            if known > shown:
                shown = known
                if not await self._goes_well(request, socket, stream):
                    return
                await self._tell(socket, "".join(self.words[:known]), number=number)

    async def _goes_well(self, request: web.Request, socket: web.WebSocketResponse, stream: Stream) -> bool:
        match self.fault:
            case "stall":
                await self.hang()
            case "error-midway":
                raise Refused(55000031, "server busy")
            case "reset-midway":
                reset(request)
            case "garbage":
                await socket.send_bytes(b"<html>Please sign in.</html>")
            case "text":
                await socket.send_str("{}")
            case "bomb":
                zipped = gzip.compress(bytes(64 * 1024 * 1024))
                await socket.send_bytes(
                    bytes((0x11, 0x91, 0x11, 0)) + bytes(4) + len(zipped).to_bytes(4, "big") + zipped
                )
            case "no-text":
                await self._send(socket, {"result": {"text": 5}}, number=2, last=False)
            case "ends":
                await self._send(socket, self._result("".join(self.words), definite=True), number=2, last=True)
                await socket.close()
            case _:
                return True
        return False

    async def _last(self, socket: web.WebSocketResponse, stream: Stream, number: int) -> None:
        if self.fault == "silent-last":
            await self.hang()
        if not stream.sound:
            raise Refused(45000002, "empty audio")
        await self._send(socket, self._result(self.last, definite=True), number=number, last=True)
        await socket.close()

    async def _tell(self, socket: web.WebSocketResponse, text: str | None, *, number: int) -> None:
        said = {"audio_info": {"duration": 0}, "result": {"additions": {"log_id": _LOG_ID}}}
        await self._send(
            socket, said if text is None else self._result(text, definite=False), number=number, last=False
        )

    def _result(self, text: str, *, definite: bool) -> dict[str, Any]:
        times: dict[str, Any] = {"start_time": 0, "end_time": 500}
        result = {"text": text, "utterances": [{"text": text, "definite": definite, **times}]}
        return {"audio_info": {"duration": 500}, "result": [result] if self.listed else result}

    async def _send(self, socket: web.WebSocketResponse, said: dict[str, Any], *, number: int, last: bool) -> None:
        payload = json.dumps(said, ensure_ascii=False).encode()
        form: Literal[0x10, 0x11] = 0x11 if self.zipped else 0x10
        payload = gzip.compress(payload) if self.zipped else payload
        head = bytes((0x11, 0x93 if last else 0x91, form, 0))
        sequence = (-number if last and number % 2 else number).to_bytes(4, "big", signed=True)  # both are seen
        await socket.send_bytes(head + sequence + len(payload).to_bytes(4, "big") + payload)
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class VolcengineText:
    """What a session was asked to say."""

    text: str
    speaker: str
    rate: int
    session: str
    section: str
    connection: int


@dataclass(slots=True)
class _Session:
    """A session that is open."""

    id: str
    asked: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    finished: bool = False


class VolcengineVoiceStandIn(StandIn):
    """`/api/v3/tts/bidirection`: one session at a time on a connection, a voice of the resource that was bought.

    `requests` holds a `VolcengineText` for each session that was finished.

    Args:
        app_id, key, resource: as for recognition.
        sound: makes the sound of a text, int16[n] at 24 kHz.
        port: 0 for any.

    Attributes:
        connections: how many were opened.
        cancelled: the ids of sessions that were cancelled.
        closed: connections that the client finished in form.
    """

    WS_PATH = _VOICE_PATH
    FAULTS = frozenset(
        "hang error-500 hang-start failed hang-midway reset-midway error-midway garbage empty stray never-cancelled "
        "ends-idle".split()
    )

    def __init__(
        self,
        app_id: str = "4711",
        key: str = "k-volcengine",
        resource: str = "seed-tts-2.0",
        sound: Callable[[str], PcmInt] = tone,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.app_id, self.key, self.resource = app_id, key, resource
        self.sound = sound
        self.connections = 0
        self.cancelled: list[str] = []
        self.closed = 0

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_VOICE_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        number = self.connections
        if self.fault == "hang":
            await self.hang()
        if self.fault == "error-500":
            return web.Response(status=500)
        refused = refusal(request, self.app_id, self.key, self.resource)
        if refused is not None:
            return refused
        socket = web.WebSocketResponse()
        socket.headers["X-Tt-Logid"] = _LOG_ID
        await socket.prepare(request)
        speaking: asyncio.Task[None] | None = None
        session: _Session | None = None
        begun = False
        try:
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    raise Refused(45000001, "text")
                event, name, said = parse_event(message.data)
                if event == 1 and not begun:
                    begun = True
                    await _tell(socket, 50, "connection", {})
                elif event == 2 and begun:
                    self.closed += 1
                    await _tell(socket, 52, "connection", {})
                    await socket.close()
                elif event == 100 and begun and (session is None or (speaking is not None and speaking.done())):
                    session, speaking = _Session(name, said), None
                    await self._begin(socket, session)
                elif session is None or name != session.id:
                    raise Refused(45000001, f"event {event} of no session")
                elif event == 200 and not session.finished:
                    session.texts.append(said["req_params"]["text"])
                elif event == 102 and not session.finished:
                    session.finished = True
                    params = session.asked["req_params"]
                    section = json.loads(params.get("additions", "{}")).get("section_id", "")
                    rate = params["audio_params"]["speech_rate"]
                    asked = VolcengineText("".join(session.texts), params["speaker"], rate, name, section, number)
                    await self.record(asked)
                    speaking = asyncio.create_task(self._speak(request, socket, session, self.fault))
                elif event == 101:
                    self.cancelled.append(name)
                    if speaking is not None:
                        speaking.cancel()
                        await asyncio.gather(speaking, return_exceptions=True)
                    for _ in range(_LATE_PIECES):
                        await _tell(socket, 352, name, bytes(_VOICE_PIECE_BYTES))
                    if self.fault != "never-cancelled":
                        await _tell(socket, 151, name, {})
                        session = None
                else:
                    raise Refused(45000001, f"event {event} out of order")
        except Refused as error:
            text = json.dumps({"error": str(error)}).encode()
            head = bytes((0x11, 0xF0, 0x10, 0)) + error.code.to_bytes(4, "big")
            await socket.send_bytes(head + len(text).to_bytes(4, "big") + text)
            await socket.close()
        finally:
            if speaking is not None:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
        return socket

    async def _begin(self, socket: web.WebSocketResponse, session: _Session) -> None:
        if self.fault == "hang-start":
            await self.hang()
        asked = session.asked["req_params"]
        audio = asked["audio_params"]
        second = asked["speaker"].endswith("_uranus_bigtts")
        if (audio["format"], audio["sample_rate"]) != ("pcm", 24_000) or not -50 <= audio["speech_rate"] <= 100:
            raise Refused(45000001, "audio_params")
        if second != (self.resource == "seed-tts-2.0") or self.fault == "failed":
            said = {"status_code": 45000000, "message": "speaker permission denied"}
            await _tell(socket, 153, session.id, said)
            session.finished = True
            return
        await _tell(socket, 150, session.id, {})

    async def _speak(self, request: web.Request, socket: web.WebSocketResponse, session: _Session, fault: str) -> None:
        text = "".join(session.texts)
        if fault == "stray":
            await _tell(socket, 352, "of-another-session", bytes(_VOICE_PIECE_BYTES) + b"\x7f" * 1000)
        await _tell(socket, 350, session.id, {"text": text})
        body = self.sound(text).astype("<i2").tobytes() if fault != "empty" else b""
        for start in range(0, len(body), _VOICE_PIECE_BYTES):
            if start * 2 >= len(body):
                match fault:
                    case "hang-midway":
                        await self.hang()
                    case "reset-midway":
                        reset(request)
                        return
                    case "garbage":
                        await socket.send_bytes(b"<html>")
                        return
                    case "error-midway":
                        payload = b'{"error": "internal"}'
                        head = bytes((0x11, 0xF0, 0x10, 0)) + (55000000).to_bytes(4, "big")
                        await socket.send_bytes(head + len(payload).to_bytes(4, "big") + payload)
                        return
            await _tell(socket, 352, session.id, body[start : start + _VOICE_PIECE_BYTES])
        await _tell(socket, 351, session.id, {"text": text})
        await _tell(socket, 152, session.id, {"status_code": 20000000, "message": "ok"})
        if fault == "ends-idle":
            await socket.close()


def parse_event(data: bytes) -> tuple[int, str, dict[str, Any]]:
    """The number, the session and the payload of an event of the client.

    Raises:
        Refused: it is not as the documents say.
    """
    if data[:4] != bytes((0x11, 0x14, 0x10, 0)):
        raise Refused(45000001, "header")
    event, at = int.from_bytes(data[4:8], "big"), 8
    name = ""
    if event >= 100:
        size = int.from_bytes(data[at : at + 4], "big")
        name, at = data[at + 4 : at + 4 + size].decode(), at + 4 + size
        if size != 36:
            raise Refused(45000001, "session id")
    size = int.from_bytes(data[at : at + 4], "big")
    if size != len(data) - at - 4:
        raise Refused(45000001, "payload size")
    said = json.loads(data[at + 4 :])
    if event in (100, 200) and (said["event"], said["namespace"]) != (event, "BidirectionalTTS"):
        raise Refused(45000001, "namespace")
    return event, name, said


async def _tell(socket: web.WebSocketResponse, event: int, name: str, said: dict[str, Any] | bytes) -> None:
    """Send an event; sound as it is, all else in JSON."""
    kind, form = (0xB4, 0x00) if isinstance(said, bytes) else (0x94, 0x10)
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    parts = b"".join(len(part).to_bytes(4, "big") + part for part in (name.encode(), payload))
    await socket.send_bytes(bytes((0x11, kind, form, 0)) + event.to_bytes(4, "big") + parts)
