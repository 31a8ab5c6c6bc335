"""Sockets of an address, bound before anything is loaded: a taken port is known at once, and nobody waits in vain."""

import errno
import os
import socket


def bind(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[socket.socket]:
    """One bound socket for every address of the host; nobody can connect before one listens. Blocking for names.

    Args:
        host: an address or name of this machine; empty for all of them.
        port: 0 for a free one, which is then the same for all.
        kind: of TCP, or of UDP.

    Raises:
        OSError: none of them can be bound, or one is taken.
    """
    found = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, one_kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, one_kind, protocol)
            except OSError:  # a family that the kernel does not know
                continue
            bound.append(one)
            if os.name == "posix" and kind is socket.SOCK_STREAM:  # the port of a server that has just ended is free
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address[0], port or port_of(bound), *address[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL or len(found) == 1:
                    raise
                bound.pop().close()  # a family that this machine has no address of
        if not bound:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def port_of(sockets: list[socket.socket]) -> int:
    """The port that bound sockets have."""
    return int(sockets[0].getsockname()[1])


def why_not(error: OSError) -> str:
    """What to do about an address that cannot be listened on."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "server.host is no address of this machine: use 0.0.0.0 for all of them"
    match error.errno:
        case errno.EADDRINUSE:
            return "in use; is a server running already? Stop it, or choose another port with --port"
        case errno.EACCES:
            return "ports below 1024 need a privilege: choose another, or give CAP_NET_BIND_SERVICE"
        case _:
            return os.strerror(error.errno) if error.errno else str(error)
