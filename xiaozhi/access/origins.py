"""Which web pages may use the device protocol. Pure.

A browser runs the pages of strangers inside the house, and tells servers by the header `Origin` for which page it asks;
a page cannot change that. Devices and programs that are no browser send none and are not looked at here.

The page's own word alone is not enough where its name is anybody's: a stranger's DNS name may be made to point to this
server after his page was loaded (DNS rebinding); then `Origin` and `Host` agree, and are both his.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from xiaozhi.access.loopback import is_loopback_host
from xiaozhi.settings.origins import EVERYBODY, NO_ADDRESS, as_sent

_PLACE: Final = r"(?P<host>[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_.])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>\d{1,5}))?"
_PAGE: Final = re.compile(r"(?P<scheme>https?)://" + _PLACE, re.ASCII)
_HOST: Final = re.compile(_PLACE, re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# What two WebSocket libraries for microcontrollers put into the header for want of a page (ArduinoWebsockets and its
# derivative). A browser never sends a path there, so no page can say these.
_LIBRARIES: Final = frozenset(
    ("https://github.com/gilmaimon/TinyWebsockets", "https://github.com/khoih-prog/Websockets2_Generic")
)

# Names under which routers know the machines of a house; nobody can have them in the public DNS (RFC 6762, RFC 8375,
# ICANN's reserved names). Not `fritz.box`, which a stranger has registered once.
_HOUSE_SUFFIXES: Final = ("lan", "home", "internal", "home.arpa", "localdomain")


@dataclass(frozen=True, slots=True)
class Page:
    """Whose a page is.

    Attributes:
        scheme: `http` or `https`.
        host: a name in small letters, or an address as `ipaddress` writes it.
        port: the scheme's own where the browser named none.
    """

    scheme: str
    host: str
    port: int


class Origins:
    """Decides whether a page may use the device protocol.

    Args:
        listed: pages that the owner has named, as `server.origins` has them.
        public: addresses at which this server is reached, as URLs; where there are any, its own pages are those of
            their hosts and no others.
        names: what this machine is called, in small letters.
        ports: where it listens.
    """

    def __init__(
        self,
        listed: Sequence[str] = (),
        *,
        public: Sequence[str] = (),
        names: Collection[str] = (),
        ports: Collection[int] = (),
    ) -> None:
        self._listed = frozenset(listed)
        self._public = frozenset(filter(None, map(_place_of, public)))
        self._names = frozenset(names)
        self._ports = frozenset(ports)

    @property
    def everybody(self) -> bool:
        """Every page may, as on a server without this rule."""
        return EVERYBODY in self._listed

    def allows(self, origin: str, host: str, peer: str) -> bool:
        """Whether a request may be answered.

        Args:
            origin: its header `Origin`; empty where it has none, as from every device.
            host: the host it asked for, with or without a port: `Host`, or what a trusted proxy says.
            peer: the browser's own address; empty where that is not known.
        """
        if not is_page(origin):
            return True
        try:
            sent = as_sent(origin)
        except ValueError:
            return False  # nothing that a browser sends
        if sent in self._listed:
            return True
        if sent == NO_ADDRESS:
            return False  # everybody can say so: "*" is a decision about pages that have a name
        if self.everybody:
            return True
        page = page_of(origin)
        if page is None:
            return False
        # A developer's test page on this machine: its name leads a stranger's browser to the stranger's machine.
        return self._is_own(page, host) or (is_loopback_host(page.host) and is_loopback_host(peer))

    def is_own_host(self, host: str) -> bool:
        """Whether the host that a request asks for is this server, and not a stranger's name that leads here.

        Args:
            host: with or without a port: `Host`, or what a trusted proxy says.
        """
        match = _HOST.fullmatch(host.lower()) if host.isascii() else None
        if match is None:
            return False
        name = _plain(match["host"])
        return self._is_ours(name) or name in {known for known, _ in self._public} | hosts_of(self._listed)

    def _is_own(self, page: Page, host: str) -> bool:
        """It is a page of this server itself."""
        if self._public:
            return any(name == page.host and page.port in (port, *self._ports) for name, port in self._public)
        match = _HOST.fullmatch(host.lower()) if host.isascii() else None
        if match is None or _plain(match["host"]) != page.host or not self._is_ours(page.host):
            return False
        # Another port of this machine is another program's.
        asked = int(match["port"]) if match["port"] else _DEFAULT_PORTS[page.scheme]
        return page.port == asked or page.port in self._ports

    def _is_ours(self, name: str) -> bool:
        """A name that no stranger can have pointed to this machine."""
        if name in self._names or name == "localhost" or name.endswith(".local"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def is_page(origin: str) -> bool:
    """Whether a browser has sent this header: not where it is missing, or says what only certain devices say."""
    return bool(origin) and origin not in _LIBRARIES


def page_of(origin: str) -> Page | None:
    """The page that an `Origin` header names; None for what is no page with an address."""
    match = _PAGE.fullmatch(origin.lower()) if origin.isascii() else None
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[match["scheme"]]
    return Page(match["scheme"], _plain(match["host"]), port) if 0 < port < 65_536 else None


def names_of(hostname: str) -> frozenset[str]:
    """What a machine may be called at home: its name, whole and short, and as routers complete it."""
    whole = _plain(hostname.strip().lower())
    short = whole.partition(".")[0]
    if not short:
        return frozenset()
    return frozenset((whole, short, *(f"{short}.{suffix}" for suffix in _HOUSE_SUFFIXES)))


def hosts_of(urls: Iterable[str]) -> frozenset[str]:
    """The hosts of addresses; those without one are left out."""
    return frozenset(place[0] for place in map(_place_of, urls) if place is not None)


def _plain(host: str) -> str:
    """One spelling of a host: IPv6 without brackets and at its shortest, a name without the dot of the root."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return host.removesuffix(".")


def _place_of(url: str) -> tuple[str, int] | None:
    """Host and port of an address; None where it has none."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (_plain(name), port or _DEFAULT_PORTS.get(parts.scheme, 80)) if name else None
