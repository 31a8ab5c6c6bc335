"""What a device is told of MQTT at its start, and what it shows when it connects: addresses and credentials. Pure."""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import orjson

from xiaozhi.access.identity import Identity, normal_id
from xiaozhi.settings import MqttSettings
from xiaozhi.settings.mqtt import ALL_DEVICES, TLS_PORT

PUBLISH_TOPIC: Final = "device-server"
"""Where devices publish; what the makers' own service calls it."""
# Of the client id: what the field writes in front of the device's address and its own id.
_GROUP: Final = "xiaozhi"
_MAX_USERNAME_CHARS: Final = 1024
_MAX_BASE_CHARS: Final = 300


def topic_of(device_id: str) -> str:
    """Where a device is published to. The firmware subscribes to nothing and looks at no topic; other clients may."""
    return "devices/p2p/" + device_id.replace(":", "_")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a client shows when it connects.

    Attributes:
        identity: who it says it is, with its token.
        base: `http://host:port` by which it reached the OTA address; empty where it does not say.
    """

    identity: Identity
    base: str


def shown(username: str, password: str) -> Shown | None:
    """Who a client says it is; None for what was not given by `MqttOffer`. Nothing in it is proven but by its token."""
    if len(username) > _MAX_USERNAME_CHARS:
        return None
    try:
        words = orjson.loads(b64decode(username, validate=True))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(words, dict):
        return None
    headers = {"Device-Id": words.get("device"), "Client-Id": words.get("client"), "Authorization": password}
    if not all(isinstance(value, str) for value in headers.values()) or not headers["Device-Id"]:
        return None
    base = words.get("base")
    identity = Identity.of({name: str(value) for name, value in headers.items()}, {})
    return Shown(identity, base if isinstance(base, str) and _is_base(base) else "")


def _is_base(base: str) -> bool:
    if len(base) > _MAX_BASE_CHARS:
        return False
    try:
        parts = urlsplit(base)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def http_base(address: str) -> str:
    """`http://host[:port]` of an address as settings write it, perhaps with another scheme and a path."""
    address = "http" + address[len("ws") :] if address.startswith("ws") else address
    return address.split("/xiaozhi/")[0].rstrip("/")


class MqttOffer:
    """What devices are told; made once the ports are open.

    Args:
        settings: the `[mqtt]` table.
        port, tls_port, udp_port: the real ones; `tls_port` is 0 for none.
    """

    def __init__(self, settings: MqttSettings, port: int, tls_port: int, udp_port: int) -> None:
        self._settings = settings
        self._devices = {normal_id(one) for one in settings.devices}
        self.port = port
        self._tls_port = tls_port
        self._udp_port = udp_port

    def is_for(self, device_id: str) -> bool:
        """Whether a device is to use it."""
        return ALL_DEVICES in self._devices or device_id in self._devices

    def section(self, identity: Identity, token: str, base: str) -> Mapping[str, object]:
        """The `mqtt` section of the OTA answer.

        Args:
            identity: who asks.
            token: that it may show, the same one as at a WebSocket: any node can check it.
            base: `http://host[:port]` of the node where it belongs, which listens on the same ports as this one; https
                means that it trusts the certificate.
        """
        base = http_base(base)
        secure = base.startswith("https:") and self._tls_port
        host = urlsplit(base).hostname or ""
        words = {"device": identity.device_id, "client": identity.client_id, "base": base}
        # The field's scheme, for people who look at it; who it is stands in the user name.
        client_id = "@@@".join((_GROUP, identity.device_id.replace(":", "_"), identity.client_id))
        return {
            "endpoint": self._settings.endpoint or f"{host}:{TLS_PORT if secure else self.port}",
            "client_id": client_id,
            "username": b64encode(orjson.dumps(words)).decode(),
            "password": token,
            "keepalive": self._settings.keepalive_s,
            "publish_topic": PUBLISH_TOPIC,
            "subscribe_topic": "null",  # nobody reads it, and old firmware fails without it
        }

    def udp(self, base: str) -> tuple[str, int]:
        """Host and port of sound for a device that reached the OTA address by `base`."""
        if self._settings.udp_endpoint:
            host, _, port = self._settings.udp_endpoint.partition(":")
            return host, int(port)
        return urlsplit(base).hostname or "", self._udp_port
