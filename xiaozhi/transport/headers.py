"""Headers that every answer carries, whichever desk it comes from."""

from typing import Final

from aiohttp import hdrs, web, web_response

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
