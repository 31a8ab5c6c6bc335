"""Bodies of requests: never unpacked, never longer than allowed, and forms taken apart while they arrive."""

from collections.abc import AsyncIterable, AsyncIterator
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

# Of one part of a form: its name, the name of a file and its kind take about 150 bytes.
_MAX_PART_HEAD_BYTES: Final = 4096
_UNPACKED: Final = {"Content-Encoding": ("", "identity"), "Transfer-Encoding": ("", "chunked")}


class BodyTooLong(Exception):
    """A body is longer than it may be."""


@web.middleware
async def refuse_packed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 415 to every body that would have to be unpacked, and hang up.

    No client packs what it sends, and 1 MB of gzip may hold 1 GB. The HTTP library must be told not to unpack either
    (`auto_decompress=False`): it would do so before anybody has looked at the request.
    """
    for name, plain in _UNPACKED.items():
        if any(word.strip().lower() not in plain for word in request.headers.getall(name, ())):
            refusal = web.Response(
                status=415, text="the body must not be compressed\n", headers={"Accept-Encoding": "identity"}
            )
            refusal.force_close()
            return refusal
    return await handler(request)


async def pieces_of(request: web.Request, max_bytes: int) -> AsyncIterator[bytes]:
    """A body as it arrives. Raises `BodyTooLong` as soon as there is more than `max_bytes` of it."""
    count = 0
    async for piece in request.content.iter_any():
        count += len(piece)
        if count > max_bytes:
            raise BodyTooLong
        yield piece


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """All of a body. Raises `BodyTooLong`."""
    return b"".join([piece async for piece in pieces_of(request, max_bytes)])


async def form_parts(
    content_type: str, pieces: AsyncIterable[bytes], max_parts: int
) -> AsyncIterator[tuple[Message, bytes]]:
    """The parts of a `multipart/form-data` body: their headers and what they hold, as it came.

    Every piece is searched once, as it arrives. Libraries read line by line, or search the whole at its end: three
    megabytes of line feeds held the loop for half a second at a time.

    Args:
        content_type: the request's header, which names the boundary.
        pieces: the body.
        max_parts: parts that are looked at; with more of them the form is none.

    Raises:
        ValueError: no form, or one that breaks off.
    """
    head = Message()
    head["Content-Type"] = content_type.encode("ascii", "replace").decode()
    boundary = head.get_boundary("") if head.get_content_maintype() == "multipart" else ""
    if not boundary:
        raise ValueError("not a form")
    mark = b"\r\n--" + boundary.encode()
    waiting = bytearray(b"\r\n")  # the first mark may stand at the very beginning
    searched, marks = 0, 0
    async for piece in pieces:
        waiting += piece
        while (end := waiting.find(mark, searched)) >= 0:
            if marks:
                yield _part(waiting, end)
            marks += 1
            if marks > max_parts + 1:
                raise ValueError("too many parts")
            del waiting[: end + len(mark)]
            searched = 0
        searched = max(0, len(waiting) - len(mark) + 1)
    if not marks or not waiting.startswith(b"--"):
        raise ValueError("the form breaks off")


def _part(waiting: bytearray, end: int) -> tuple[Message, bytes]:
    begin = waiting.find(b"\r\n\r\n", 0, min(end, _MAX_PART_HEAD_BYTES))
    if begin < 0:
        raise ValueError("a part without headers")
    headers = BytesHeaderParser().parsebytes(bytes(waiting[2:begin]))
    return headers, bytes(memoryview(waiting)[begin + 4 : end])
