"""Who counts as one visitor. Pure."""

import ipaddress
from typing import Final

# One subscriber has a whole /64 of IPv6 addresses.
_IPV6_PREFIX: Final = 64


def group_of(address: str) -> str:
    """The address, or the network that one subscriber of IPv6 has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
    return str(parsed)
