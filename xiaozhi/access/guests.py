"""Passes for the talk page: the browser is a device of its own for a while. Pure: time is passed in."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

# Ids with this beginning are those of clients that gave none: nothing is kept of what they say.
GUEST_PREFIX: Final = "anonymous-console-"
# The page asks for a pass just before it connects; it may connect again with it for a while.
PASS_S: Final = 600.0
_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Pass:
    """What the page shows when it connects.

    Attributes:
        device_id: who it is.
        client_id: second half of a device's identity.
        token: of one use: this device on this server.
    """

    device_id: str
    client_id: str
    token: str

    def __repr__(self) -> str:
        return f"Pass({self.device_id})"


class Guests:
    """Who may connect from the talk page."""

    def __init__(self) -> None:
        self._passes: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # by device: digest and end
        self.issued = 0
        """Passes given."""
        self.refused = 0
        """Connections without a valid one."""

    def issue(self, session: str, now_s: float) -> Pass:
        """A pass for a session, always for the same device; the one before counts no more."""
        device_id = guest_id(session)
        token = f"console.{secrets.token_urlsafe(32)}"
        self._passes.pop(device_id, None)
        self._passes[device_id] = (_digest(token), now_s + PASS_S)
        while len(self._passes) > _MAX:
            self._passes.popitem(last=False)
        self.issued += 1
        return Pass(device_id, f"console-{session}", token)

    def withdraw(self, session: str) -> str:
        """The session is over; returns the id of its device, which should be disconnected."""
        self._passes.pop(guest_id(session), None)
        return guest_id(session)

    def admits(self, device_id: str, token: str, origin: str, host: str, now_s: float) -> bool:
        """Whether a connection under a guest's id holds a pass and comes from a page of this server.

        Args:
            device_id: who the client says it is.
            token: what it shows.
            origin: its `Origin` header, which browsers send with every WebSocket.
            host: its `Host` header.
            now_s: monotonic time.
        """
        digest, end_s = self._passes.get(device_id, (b"", 0.0))
        fits = hmac.compare_digest(digest, _digest(token)) and now_s < end_s and same_host(origin, host)
        self.refused += not fits
        return fits


def guest_id(session: str) -> str:
    """The device that a session talks as."""
    return f"{GUEST_PREFIX}{session}"


def is_guest(device_id: str) -> bool:
    """Whether an id is of the talk page's kind."""
    return device_id.startswith(GUEST_PREFIX)


def same_host(origin: str, host: str) -> bool:
    """Whether an `Origin` header names the host (and port) that was asked."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return bool(host) and parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
