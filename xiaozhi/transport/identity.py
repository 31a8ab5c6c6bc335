"""Who a client says it is: from headers, or from the query where a browser cannot set headers. Pure."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PLAIN: Final = re.compile(r"[^\w:.@-]+", re.ASCII)
_LONGEST: Final = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's own words about itself; nothing here is proven.

    Attributes:
        device_id: usually a MAC address, lower case; a made-up one for clients that give none.
        client_id: a UUID that the device made on its first boot.
        token: without `Bearer`; empty when there was none.
    """

    device_id: str
    client_id: str
    token: str

    @classmethod
    def of(cls, headers: Mapping[str, str], query: Mapping[str, str]) -> "Identity":
        """Read the headers `Device-Id`, `Client-Id`, `Authorization`, or the query's words of the same names.

        Hostile characters are taken out and lengths are cut: the words end up in logs and in file names.
        """
        device_id = _clean(headers.get("Device-Id") or query.get("device-id") or "").lower()
        client_id = _clean(headers.get("Client-Id") or query.get("client-id") or "")
        token = (headers.get("Authorization") or query.get("authorization") or "").strip()
        if token.lower().startswith("bearer"):
            token = token[len("bearer") :].strip()
        return cls(device_id or f"anonymous-{uuid.uuid4().hex[:8]}", client_id, token[:512])


def _clean(text: str) -> str:
    return _PLAIN.sub("", text)[:_LONGEST]
