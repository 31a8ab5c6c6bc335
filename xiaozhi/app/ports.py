"""Ports that are bound before anything is loaded."""

import socket

from xiaozhi.access.binding import bind, port_of, why_not


class CannotServe(Exception):
    """Serving is not possible; one line says why and what to do."""


class BoundPort:
    """A port that is bound and perhaps not listened on yet; a context that closes what nobody took over.

    Args:
        host: the address.
        port: its number; 0 for any.
        name: of the setting.
        kind: of TCP, or of UDP.

    Raises:
        CannotServe: it is taken or may not be used.
    """

    def __init__(self, host: str, port: int, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self._name, self._where = name, f"{host}:{port}"
        try:
            self.sockets = bind(host, port, kind)
        except OSError as error:
            raise self.failure(error) from error

    def failure(self, error: OSError) -> CannotServe:
        """Why it cannot be listened on."""
        other = "" if self._name == "server.port" else f" ({self._name})"
        return CannotServe(f"cannot listen on {self._where}{other}: {why_not(error)}")

    @property
    def number(self) -> int:
        """The real one."""
        return port_of(self.sockets)

    def __enter__(self) -> "BoundPort":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            one.close()
