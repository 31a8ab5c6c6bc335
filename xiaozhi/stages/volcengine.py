"""What Volcengine's speech services share, recognition and voices of their third API: frames, keys, refusals.

A frame is a header of four bytes, then what the header announces, big-endian: the code of an error, a sequence number,
an event with the id of its session, and a payload behind its length. Documents 6561/1354869 (recognition) and
6561/1329505 (voices) of volcengine.com. Where they and the services in the field differ, both are read: a payload is
compressed or not as its own header says, and the last answer of a recognition is told by its flag alone.
"""

import struct
import uuid
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import aiohttp
import orjson

from xiaozhi.settings.pasted import key_fault
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import LOG_ID, MAX_SHOWN_CHARS, Connections, NotOpened, reason

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
"""Of a message from a service, and of what it unpacks to: twenty seconds of sound at 48 kHz are half of that."""
LAST: Final = 2
"""The flag of the last frame of a stream, with or without a sequence number."""
_VERSION_AND_WORDS: Final = 0x11  # version 1, a header of one word
_SEQUENCE: Final = 1
_EVENT: Final = 4
_JSON: Final = 1
_GZIP: Final = 1
_ZLIB_OF_GZIP: Final = 16 + zlib.MAX_WBITS
_ADVICE: Final = {
    45000001: "a parameter is wrong",
    45000081: "it waited too long for sound",
    45000151: "the sound has the wrong format",
    55000031: "the service is busy",
}


class Kind(IntEnum):
    """What a frame is, the high half of its second byte."""

    REQUEST = 1
    SOUND_UP = 2
    ANSWER = 9
    SOUND_DOWN = 11
    ERROR = 15


class ServiceError(Exception):
    """A service refused, broke, or sent bytes that are no frame; one line, without the name of the engine.

    Args:
        message: why.
        code: of the service's error, 0 where it has none.
        ended: the connection is no more.
    """

    def __init__(self, message: str, code: int = 0, *, ended: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.ended = ended


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame from a service.

    Attributes:
        kind: what it is.
        last: nothing of this stream follows.
        event: its number; 0 where it has none.
        id: of the session or connection that the event is about; empty where the service sends none.
        code: of an error.
        payload: unpacked.
    """

    kind: Kind
    last: bool
    event: int
    id: str
    code: int
    payload: bytes

    def json(self) -> dict[str, Any]:
        """The payload as an object; empty for a payload of no bytes.

        Raises:
            ServiceError: it is none.
        """
        try:
            said = bounded_json.loads(self.payload) if self.payload.strip() else {}
        except orjson.JSONDecodeError as error:
            raise ServiceError("a frame holds something that is not JSON") from error
        if not isinstance(said, dict):
            raise ServiceError("a frame holds something that is no object")
        return said

    def says(self) -> str:
        """The words of a refusal, in JSON or bare."""
        try:
            said = self.json()
        except ServiceError:
            return self.payload.decode("utf-8", "replace")
        return str(next((said[name] for name in ("error", "message", "error_msg") if said.get(name)), ""))


def packed(kind: Kind, payload: bytes, *, flags: int = 0) -> bytes:
    """A frame of recognition: gzip'd, JSON where it is a request, bare sound otherwise."""
    data = zlib.compress(payload, 1, _ZLIB_OF_GZIP)
    form = (_JSON if kind is Kind.REQUEST else 0) << 4 | _GZIP
    return bytes((_VERSION_AND_WORDS, kind << 4 | flags, form, 0)) + struct.pack(">I", len(data)) + data


def event_frame(event: int, payload: dict[str, Any], session: str | None = None) -> bytes:
    """A frame that tells a voice of an event, in JSON; `session` is the id of the session that it is about."""
    head = bytes((_VERSION_AND_WORDS, Kind.REQUEST << 4 | _EVENT, _JSON << 4, 0)) + struct.pack(">i", event)
    data = orjson.dumps(payload)
    parts = [data] if session is None else [session.encode(), data]
    return head + b"".join(struct.pack(">I", len(part)) + part for part in parts)


def read(message: bytes) -> Frame:
    """A frame of a service.

    Raises:
        ServiceError: it is none, is cut, or unpacks to more than `MAX_FRAME_BYTES`.
    """
    if len(message) < 4 or message[0] >> 4 != 1:
        raise ServiceError("answered something that is no frame")
    at = (message[0] & 15) * 4
    flags, compression = message[1] & 15, message[2] & 15
    try:
        kind = Kind(message[1] >> 4)
        code = event = 0
        session = b""
        if kind is Kind.ERROR:
            (code,) = struct.unpack_from(">I", message, at)
            at += 4
        elif flags == _EVENT:
            (event,) = struct.unpack_from(">i", message, at)
            at += 4
        elif flags & _SEQUENCE:
            at += 4
        payload, at = _chunk(message, at)
        if event and len(message) - at >= 4:  # what came first was an id: some frames have none
            session = payload
            payload, at = _chunk(message, at)
    except (struct.error, ValueError) as error:
        raise ServiceError("answered a frame that is cut or of no known kind") from error
    if compression == _GZIP and payload:
        payload = _unpacked(payload)
    last = kind is not Kind.ERROR and flags != _EVENT and bool(flags & LAST)
    return Frame(kind, last, event, session.decode("utf-8", "replace"), code, payload)


def _chunk(message: bytes, at: int) -> tuple[bytes, int]:
    """The bytes behind their length, and where they end."""
    (size,) = struct.unpack_from(">I", message, at)
    if size > len(message) - at - 4:
        raise ServiceError("answered a frame that is cut")
    return message[at + 4 : at + 4 + size], at + 4 + size


def _unpacked(data: bytes) -> bytes:
    unpacking = zlib.decompressobj(_ZLIB_OF_GZIP)
    try:
        payload = unpacking.decompress(data, MAX_FRAME_BYTES)
    except zlib.error as error:
        raise ServiceError("answered a frame that cannot be unpacked") from error
    if not unpacking.eof:
        raise ServiceError("answered a frame that is cut, or unpacks to more than it may")
    return payload


def access_headers(app_id: str, key: str, resource_id: str, table: str) -> dict[str, str]:
    """What opens a connection: the key of the new console, or number and token of an application of the old one.

    Documents differ in how the old number is called, so it is sent by both names.

    Args:
        app_id: of the application; empty with a key of the new console.
        key: the key, or the access token of the application.
        resource_id: what was bought.
        table: of the settings, for advice.

    Raises:
        ServiceError: key or number can be none.
    """
    for name, value in (("api_key", key), ("app_id", app_id)):
        if fault := key_fault(value):
            raise ServiceError(f"the key {fault}: see {table}.{name}")
    old = {"X-Api-App-Key": app_id, "X-Api-App-Id": app_id, "X-Api-Access-Key": key}
    connection = str(uuid.uuid4())
    return {
        **(old if app_id else {"X-Api-Key": key}),
        "X-Api-Resource-Id": resource_id,
        "X-Api-Connect-Id": connection,
        "X-Api-Request-Id": connection,
    }


class VolcengineSocket:
    """A connection to a service.

    Args:
        socket: open.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        # What the service calls this connection in its logs; aiohttp shows the headers of a refusal alone.
        self._log_id = one_line(socket._response.headers.get(LOG_ID, ""), MAX_SHOWN_CHARS)

    @property
    def closed(self) -> bool:
        """Nothing more can be sent."""
        return self._socket.closed

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            ServiceError: the connection broke.
        """
        try:
            await self._socket.send_bytes(frame)
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceError(f"the connection broke: {reason(error)}", ended=True) from error

    async def receive(self) -> Frame:
        """The next frame.

        Raises:
            ServiceError: the connection ended, what came is no frame, or it tells of an error.
        """
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            ended = message.type is not aiohttp.WSMsgType.TEXT
            line = "the connection ended" if ended else "answered something that is no frame"
            raise ServiceError(self.about(line), ended=ended)
        frame = read(message.data)
        if frame.kind is Kind.ERROR:
            raise self.refusal(frame.code, frame.says())
        return frame

    def refusal(self, code: int, says: str) -> ServiceError:
        """An error that the service has told."""
        advice = _ADVICE.get(code, "")
        shown = one_line(says, MAX_SHOWN_CHARS)
        return ServiceError(self.about(": ".join(filter(None, (f"error {code}", advice, shown)))), code)

    def about(self, line: str) -> str:
        """A line with what the service needs to find this connection in its logs."""
        return f"{line} (log id {self._log_id})" if self._log_id else line

    async def close(self) -> None:
        """Close it; nobody waits for the other side's goodbye."""
        await self._socket.close()


async def connect(connections: Connections, url: str, headers: dict[str, str], table: str) -> VolcengineSocket:
    """Open a connection.

    Args:
        connections: of the engine.
        url: of the service.
        headers: see `access_headers`.
        table: of the settings, for advice.

    Raises:
        ServiceError: refused, or not reached.
    """
    # Keys, and resources that the account has not bought, are refused here and not in a frame.
    advice = f"see {table}.api_key, {table}.app_id and {table}.resource_id"
    refusals = dict.fromkeys((400, 401, 403), advice)
    try:
        socket = await connections.websocket(url, max_bytes=MAX_FRAME_BYTES, headers=headers, advice=refusals)
    except NotOpened as error:
        raise ServiceError(str(error)) from error
    return VolcengineSocket(socket)
