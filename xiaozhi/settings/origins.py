"""How browsers name the page that asks, and how an owner writes it in the settings. Pure."""

import re
from typing import Final

EVERYBODY: Final = "*"
NO_ADDRESS: Final = "null"
"""What browsers say for pages without an address: files, sandboxed frames, redirects. Any page can make itself one."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# RFC 6454: scheme, host and port, nothing else. Apps that bring their own browser have schemes of their own.
_WRITTEN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,30})://(?P<host>[a-z0-9._~-]{0,253}|\[[0-9a-f:.]{2,45}\])(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)


def as_sent(text: str) -> str:
    """A page as an owner writes it, in the words of browsers: small letters, no default port, no slash at the end.

    Raises:
        ValueError: it can be no page's; says what to write.
    """
    origin = text.strip().lower()
    if origin in (EVERYBODY, NO_ADDRESS):
        return origin
    match = _WRITTEN.fullmatch(origin) or _WRITTEN.fullmatch(origin.removesuffix("/"))
    # Some letters of other scripts become ASCII when they are made small.
    if match is None or not text.isascii() or not _is_whole(match):
        raise ValueError(
            'must be the beginning of a page\'s address, without a path, such as "https://app.example.com"; "null" for '
            'pages without an address; or "*" for every page'
        )
    port = int(match["port"] or 0)
    shown = "" if port in (0, _DEFAULT_PORTS.get(match["scheme"])) else f":{port}"
    return f"{match['scheme']}://{match['host']}{shown}"


def _is_whole(match: re.Match[str]) -> bool:
    """It has a host where its scheme needs one, and a port that exists."""
    port = match["port"]
    return (match["host"] != "" or match["scheme"] not in _DEFAULT_PORTS) and (port is None or 0 < int(port) < 65_536)
