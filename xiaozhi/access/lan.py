"""Which of this machine's addresses devices on the local network can reach."""

import ipaddress
import socket
from typing import Final

# TEST-NET-1 (RFC 5737): never routed to a host. Connecting a UDP socket sends nothing; it only picks a route.
_ANYWHERE: Final = ("192.0.2.1", 9)


def reachable_host(host: str) -> str:
    """What devices on the local network call the address that is listened on: `lan_address` where it is all of them."""
    return lan_address() if host in ("0.0.0.0", "::", "") else host


def lan_address() -> str:
    """The IPv4 address of the interface with the default route, else any private one, else 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
            address = str(probe.getsockname()[0])
        except OSError:
            address = ""
    if address and not ipaddress.ip_address(address).is_loopback and address != "0.0.0.0":
        return address
    try:
        found = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        found = set()
    private = sorted(str(each) for each in found if not ipaddress.ip_address(each).is_loopback)
    return private[0] if private else "127.0.0.1"
