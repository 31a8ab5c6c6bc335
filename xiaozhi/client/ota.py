"""How a device finds its server: it posts a description of itself and is told where to connect."""

import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from xiaozhi.client.errors import ConnectFailed, connect_error

# Firmware: longer replies make its HTTP client hang for ever.
MAX_REPLY_BYTES = 8191
# Firmware: 30 s for the header and as much for the body.
_TIMEOUT = aiohttp.ClientTimeout(total=30.0)


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Who a device is.

    Attributes:
        device_id: its MAC address, lower case with colons.
        client_id: a UUID made at first boot.
        board: the board's name; `version` the firmware's.
        language: what its screen speaks.
    """

    device_id: str
    client_id: str
    board: str = "software"
    version: str = "2.4.2"
    language: str = "zh-CN"

    @classmethod
    def of(cls, device_id: str) -> "ClientIdentity":
        """The identity of the device with this address; its client id is always the same."""
        return cls(device_id.lower(), str(uuid.uuid5(uuid.NAMESPACE_OID, f"xiaozhi-client/{device_id.lower()}")))

    @classmethod
    def numbered(cls, number: int) -> "ClientIdentity":
        """One of up to 2^32 distinct devices, with a locally administered address."""
        octets = number.to_bytes(4, "big").hex(":")
        return cls.of(f"02:00:{octets}")

    @classmethod
    def of_this_machine(cls) -> "ClientIdentity":
        """Always the same on one machine; its address is made a locally administered one."""
        octets = (uuid.getnode() & 0xFF_FFFF_FFFF).to_bytes(5, "big").hex(":")
        return cls.of(f"02:{octets}")

    def description(self) -> dict[str, object]:
        """The body of the request, in the firmware's fields."""
        return {
            "version": 2,
            "language": self.language,
            "flash_size": 16_777_216,
            "minimum_free_heap_size": "123456",
            "mac_address": self.device_id,
            "uuid": self.client_id,
            "chip_model_name": "esp32s3",
            "chip_info": {"model": 9, "cores": 2, "revision": 0, "features": 18},
            "application": {
                "name": "xiaozhi",
                "version": self.version,
                "compile_time": "Aug  8 2026T08:00:00Z",
                "idf_version": "v6.0",
                "elf_sha256": "0" * 64,
            },
            "partition_table": [{"label": "ota_0", "type": 0, "subtype": 16, "address": 131_072, "size": 4_128_768}],
            "ota": {"label": "ota_0"},
            "display": {"monochrome": False, "width": 320, "height": 240},
            "board": {
                "type": self.board,
                "name": self.board,
                "manufacturer": "software",
                "ssid": "ap",
                "rssi": -50,
                "channel": 6,
                "ip": "192.0.2.7",
                "mac": self.device_id,
            },
        }


@dataclass(frozen=True, slots=True)
class OtaReply:
    """Where to connect; `version` None leaves the device's framing as it was. `body` is everything the server said."""

    url: str
    token: str
    version: int | None
    body: dict[str, Any]


async def ask_ota(session: aiohttp.ClientSession, url: str, identity: ClientIdentity) -> OtaReply:
    """Post the device's description and read where to connect, as the firmware does at every boot.

    Raises:
        Unreachable: no server there.
        ConnectFailed: an answer with which the firmware would stay mute: another status than 200,
            a redirect, more than 8191 bytes, no JSON object, or no `websocket.url`.
    """
    headers = {
        "Activation-Version": "1",
        "Device-Id": identity.device_id,
        "Client-Id": identity.client_id,
        "User-Agent": f"{identity.board}/{identity.version}",
        "Accept-Language": identity.language,
        "Content-Type": "application/json",
        "Connection": "close",
    }
    data = orjson.dumps(identity.description())
    try:
        async with session.post(url, data=data, headers=headers, allow_redirects=False, timeout=_TIMEOUT) as response:
            body = await response.read()
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise connect_error(url, error) from error
    if status != 200:
        raise ConnectFailed(f"{url} answered {status} instead of 200", status)
    if len(body) > MAX_REPLY_BYTES:
        raise ConnectFailed(f"{url} answered {len(body)} bytes; the firmware hangs on more than {MAX_REPLY_BYTES}")
    return _understand(url, body)


def _understand(url: str, body: bytes) -> OtaReply:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ConnectFailed(f"{url} did not answer JSON: {error}") from error
    if not isinstance(reply, dict):
        raise ConnectFailed(f"{url} answered JSON, but no object")
    section = reply.get("websocket")
    target = section.get("url") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(target, str) or not target:
        raise ConnectFailed(f"{url} names no websocket.url")
    token, version = section.get("token", ""), section.get("version")
    return OtaReply(target, token if isinstance(token, str) else "", version if version in (1, 2, 3) else None, reply)
