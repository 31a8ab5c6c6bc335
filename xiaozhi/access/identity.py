"""Who a client says it is: from headers, or from the query where a browser cannot set headers. Pure."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PLAIN: Final = re.compile(r"[^\w:.@-]+", re.ASCII)
_LONGEST: Final = 64
_ANONYMOUS: Final = "anonymous-"


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

    @property
    def is_anonymous(self) -> bool:
        """The client gave no name; the one it got is another one each time."""
        return self.device_id.startswith(_ANONYMOUS)

    @classmethod
    def of(cls, headers: Mapping[str, str], query: Mapping[str, str]) -> "Identity":
        """Read the headers `Device-Id`, `Client-Id`, `Authorization`, or the query's words of the same names.

        Browsers cannot set headers on a WebSocket; some of their clients call the token `token`.

        Hostile characters are taken out and lengths are cut: the words end up in logs and in file names.
        """
        device_id = _clean(headers.get("Device-Id") or query.get("device-id") or "").lower()
        client_id = _clean(headers.get("Client-Id") or query.get("client-id") or "")
        token = (headers.get("Authorization") or query.get("authorization") or query.get("token") or "").strip()
        if token.lower().startswith("bearer"):
            token = token[len("bearer") :].strip()
        return cls(device_id or f"{_ANONYMOUS}{uuid.uuid4().hex[:8]}", client_id, token[:512])


def from_body(identity: Identity, body: Mapping[str, object]) -> Identity:
    """Fill in what the headers did not say from the OTA request's body; what they said counts."""
    device_id, client_id = identity.device_id, identity.client_id
    mac, client = body.get("mac_address"), body.get("uuid")
    if identity.is_anonymous and isinstance(mac, str) and _clean(mac):
        device_id = _clean(mac).lower()
    if not client_id and isinstance(client, str):
        client_id = _clean(client)
    return Identity(device_id, client_id, identity.token)


def normal_id(text: str) -> str:
    """A device id as people write it (`AA-BB-CC-…`), in the form devices send."""
    text = text.strip().lower()
    return text.replace("-", ":") if re.fullmatch(r"(?:[0-9a-f]{2}-){5}[0-9a-f]{2}", text) else text


def _clean(text: str) -> str:
    return _PLAIN.sub("", text)[:_LONGEST]
