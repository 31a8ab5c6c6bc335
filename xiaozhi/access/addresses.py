"""Where a client comes from and what address it is told. Pure."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web

from xiaozhi.access.loopback import is_loopback_host
from xiaozhi.settings import ServerSettings

WEBSOCKET_PATH: Final = "/xiaozhi/v1/"
OTA_PATH: Final = "/xiaozhi/ota/"
VISION_PATH: Final = "/mcp/vision/explain"

# DNS name or IPv4 address with an optional port: the firmware takes the first colon for the port and knows no IPv6.
_HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(?::(?P<port>\d{1,5}))?")
_FORWARDING: Final = ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via")
# More hops than this are no real chain of proxies.
_MAX_HOPS: Final = 16

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks as the settings write them.

    Raises:
        ValueError: one is neither.
    """
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The address that is responsible for a request.

    Args:
        peer: where the connection comes from.
        forwarded_for: the `X-Forwarded-For` header; anybody can write it, so it counts only where `peer` is trusted.
        trusted: proxies. Read from the right, the first address that is none of them is the client.
    """
    address = peer
    for hop in reversed(forwarded_for.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
        if not is_in(address, trusted):
            return address
        hop = hop.strip()
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            return address
        address = hop
    return address


def is_in(address: str, trusted: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks; what is no address lies in none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in trusted)


def address_of(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """`client_address` of a request."""
    return client_address(request.remote or "", ",".join(request.headers.getall("X-Forwarded-For", [])), trusted)


def host_of(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """The host that a client asked for, with its port where it named one: `Host`, or what a trusted proxy says."""
    host = request.headers.get("Host", "")
    if is_in(request.remote or "", trusted):
        host = request.headers.get("X-Forwarded-Host", host).partition(",")[0].strip()
    return host


def base_url(
    settings: ServerSettings, host_header: str, *, secure: bool, proxied: bool, own_port: int, fallback_host: str
) -> str:
    """`http://host[:port]` at which this client reaches us: the public address if set, else the host it used. Pure.

    Args:
        settings: the `[server]` table.
        host_header: as the client sent it; hostile values are ignored.
        secure: the client came over TLS.
        proxied: a proxy stands between; then a host without a port means the scheme's own port, else ours (the
            firmware's own HTTP client leaves the port out).
        own_port: the port this server listens on.
        fallback_host: this machine's address on the network, for a client that sent no usable host.
    """
    if settings.public_url:
        base = settings.public_url.rstrip("/")
        return "http" + base[len("ws") :] if base.startswith("ws") else base
    match = _HOST.fullmatch(host_header)
    if match and match["port"] and not 0 < int(match["port"]) < 65_536:
        match = None
    name = match["name"] if match else fallback_host
    if name == "0.0.0.0":
        name = fallback_host
    default_port = 443 if secure else 80
    port = int(match["port"]) if match and match["port"] else (default_port if proxied else own_port)
    scheme = "https" if secure else "http"
    return f"{scheme}://{name}" if port == default_port else f"{scheme}://{name}:{port}"


def websocket_url(base: str) -> str:
    """The address devices connect to, below a base address or as it stands where it names a path already. Pure."""
    base = "ws" + base[len("http") :] if base.startswith("http") else base
    return base.rstrip("/") + "/" if "/xiaozhi/" in base else base + WEBSOCKET_PATH


def typed_address(base: str) -> str:
    """The least that a person types into a browser to come to a base address: `192.168.1.10:8000`. Pure."""
    scheme, _, rest = base.partition("://")
    host = rest.partition("/")[0]
    # Browsers try http for a port, and either for none.
    return f"https://{host}" if scheme in ("https", "wss") and ":" in host else host


def is_loopback(base: str) -> bool:
    """Whether a base address is one that only this machine itself reaches. Pure."""
    return is_loopback_host(urlsplit(base).hostname or "")


def base_of(request: web.BaseRequest, settings: ServerSettings, lan_host: str) -> str:
    """`base_url` of a request."""
    headers: Mapping[str, str] = request.headers
    local = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return base_url(
        settings,
        headers.get("Host", ""),
        # A forged header changes only the address that its own sender is told.
        secure=request.secure or headers.get("X-Forwarded-Proto", "").lower() == "https",
        proxied=any(name in headers for name in _FORWARDING),
        own_port=int(local[1]) if local else settings.port,
        fallback_host=lan_host,
    )
