"""How an upstream can fail, whatever it does for us."""

from enum import Enum


class FailureKind(Enum):
    """What went wrong; the value is the label in metrics."""

    CONNECTION = "connection"
    """Refused, reset, name not found, TLS: before anything useful came."""
    FIRST_BYTE = "first_byte"
    """Connected, and nothing useful came in time."""
    BROKEN = "broken"
    """Broke off after it had begun: reset, ended in the middle, went silent, sent nonsense."""
    NONSENSE = "nonsense"
    """Answered something else than it was asked for, from the beginning."""
    BUSY = "busy"
    """Asks to be left alone for a while: HTTP 429, or 503 with Retry-After."""
    SERVER = "server"
    """HTTP 5xx."""
    REFUSED = "refused"
    """Refuses key, address or model (HTTP 401, 403, 404 …): it will go on refusing."""
    REQUEST = "request"
    """Refuses this one request (HTTP 400, 413, 415, 422): says nothing about others."""
