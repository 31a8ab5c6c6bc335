"""Headers of requests, made text before anybody reads them, and those that every answer carries."""

from typing import Any, Final

from aiohttp import hdrs, web, web_response
from multidict import CIMultiDict, CIMultiDictProxy

SERVER_NAME: Final = "xiaozhi"
# Where a desk says nothing else: what it answers is for the one who asked (tokens, figures), it is not guessed to be of
# another kind than it says, it is no page, and stands in nobody's frame.
_PRIVATE: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_CLOSED: Final = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_SWITCHING: Final = 101


def read_as_text(server: web.Server) -> None:
    """Have a question mark stand for every byte of a header that is no UTF-8.

    The library lets such bytes through as lone surrogates, which nothing can encode: comparing a token, quoting a
    header in an answer or writing it into the log raises, and some of that the library does itself.
    """
    make = server.request_factory

    def factory(message: Any, *more: Any) -> web.BaseRequest:
        if not all(value.isascii() for _, value in message.raw_headers):
            pairs = [(name, value.encode("utf-8", "replace").decode()) for name, value in message.headers.items()]
            message = message._replace(headers=CIMultiDictProxy(CIMultiDict(pairs)))
        return make(message, *more)

    server.request_factory = factory


async def harden(_request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that the desk has not set; for `on_response_prepare`. Devices get few: some read them slowly."""
    response.headers[hdrs.SERVER] = SERVER_NAME
    if response.status == _SWITCHING:
        return
    for name, value in _PRIVATE.items():
        response.headers.setdefault(name, value)
    if response.content_type.startswith("text/"):
        for name, value in _CLOSED.items():
            response.headers.setdefault(name, value)


def name_nobodys_version() -> None:
    """Answers to what is no HTTP do not come from the application; they would name the library and its version."""
    vars(web_response)["SERVER_SOFTWARE"] = SERVER_NAME
