"""Whether an address or a host is this machine itself. Pure."""

import ipaddress


def is_loopback_address(address: str) -> bool:
    """127.0.0.0/8 or ::1, also as an IPv6 socket writes the former (`::ffff:127.0.0.1`); a name is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine for whoever asks: `localhost`, or a loopback address, bare or in brackets."""
    return host == "localhost" or is_loopback_address(host.strip("[]"))
