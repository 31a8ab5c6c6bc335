"""Volcengine's streaming recognition: strict about keys, order, sizes and compression; says words as sound comes.

The frames are read and written here by hand, from document 6561/1354869 and not from the client's code.
"""

import asyncio
import gzip
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset

_PATH = "/api/v3/sauc/bigmodel_async"
_BYTES_PER_S: Final = 32_000
_MIN_PIECE, _MAX_PIECE = 3200, 6400  # 100 to 200 ms; the last one may be shorter
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

    @property
    def ws_url(self) -> str:
        """What goes into `asr.volcengine.url`."""
        return self.url.replace("http", "ws", 1) + _PATH

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
