"""Events out of the bytes of a server-sent event stream, as the standard has them (WHATWG, HTML, 9.2.6).

Three things are taken that the standard would drop, because servers send them: an event whose data is a whole JSON
object or the mark of the end counts without a blank line behind it, so does the last event of the stream, and so does
JSON that stands on lines of its own or is the whole body.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from xiaozhi.text import bounded_json

# A chunk of a chat completion is a few hundred bytes, a whole completion a few thousand.
# Reading this much takes 3 ms at most.
MAX_EVENT_BYTES: Final = 262_144
END: Final = b"[DONE]"
"""The data of the last event of OpenAI's streams."""
_PLAIN: Final = "message"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class NotAChatStream(Exception):
    """The bytes are no stream of chat completion chunks; one line saying what they are instead."""


class Event(NamedTuple):
    """One event.

    Attributes:
        kind: its type; `message` where none is given, empty for JSON outside of any event.
        data: its data lines, joined by line feeds.
        body: the JSON value that they are; None where they are none.
    """

    kind: str
    data: bytes
    body: Any


class EventReader:
    """Takes bytes in pieces of any size, gives events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._begins = True
        self._kind = _PLAIN
        self._data: list[bytes] = []
        self._bytes = 0  # of `_data`, or of `_bare`
        self._bare: list[bytes] | None = None  # lines of a body that is JSON and no event stream

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that are complete with `data`. Lines end with CR, LF or both.

        Raises:
            NotAChatStream: a line or an event of more than `MAX_EVENT_BYTES`.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self._rest += data
        if b"\n" in data or b"\r" in data:
            lines = bytes(self._rest).splitlines(keepends=True)
            self._rest = bytearray(b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop())
            self._after_cr = not self._rest and lines[-1].endswith(b"\r")
            for line in lines:
                yield from self._line(line.rstrip(b"\r\n"))
        if len(self._rest) > MAX_EVENT_BYTES:
            raise NotAChatStream(f"sent a line of more than {MAX_EVENT_BYTES} bytes")

    def finish(self) -> Iterator[Event]:
        """Yield what the last lines hold when nothing ended them.

        Raises:
            NotAChatStream: as `feed`.
        """
        yield from self.feed(b"\n")
        yield from self._dispatch()
        if self._bare:
            data, self._bare = b"\n".join(self._bare), None
            yield Event("", data, as_json(data))

    def _line(self, line: bytes) -> Sequence[Event]:
        if self._begins:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if self._bare is not None:
            self._keep(self._bare, line)
            return ()
        if not line:
            return self._dispatch()
        begins, self._begins = self._begins, False
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if not self._data and value == END:
                return (Event(self._kind, value, None),)
            if not self._data and value.startswith(b"{") and (body := as_json(value)) is not None:
                return (Event(self._kind, value, body),)
            if value.strip():
                self._keep(self._data, value)
        elif name == b"event":
            self._kind = value.decode("utf-8", "replace").strip() or _PLAIN
        elif line.lstrip().startswith(b"{"):
            if (body := as_json(line)) is not None:
                return (Event("", line, body),)
            if begins:
                self._bare = []
                self._keep(self._bare, line)
        return ()

    def _dispatch(self) -> Sequence[Event]:
        """The event ends here."""
        kind, self._kind = self._kind, _PLAIN
        if not self._data:
            return ()
        lines, self._data, self._bytes = self._data, [], 0
        data = b"\n".join(lines)
        body = as_json(data)
        if body is None and len(lines) > 1:  # several events without a blank line between them
            return [Event(kind, line, as_json(line)) for line in lines]
        return (Event(kind, data, body),)

    def _keep(self, lines: list[bytes], line: bytes) -> None:
        lines.append(line)
        self._bytes += len(line) + 1
        if self._bytes > MAX_EVENT_BYTES:
            raise NotAChatStream(f"sent an event of more than {MAX_EVENT_BYTES} bytes")


def as_json(data: bytes) -> Any:
    """The value; None for `null`, for what is no JSON, and for what is nested too deeply, see `bounded_json`.

    What the quick reader refuses is read by the patient one: halves of characters, bytes that are not UTF-8.
    """
    try:
        return bounded_json.loads(data)
    except orjson.JSONDecodeError:
        if not data.lstrip().startswith(b"{"):
            return None
    try:
        value = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return None if bounded_json.is_deeper(value, bounded_json.MAX_LEVELS) else value
