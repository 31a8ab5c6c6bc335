"""`[mqtt]`: devices that are reached while they sleep."""

import re
from typing import Final

from pydantic import Field, field_validator, model_validator

from xiaozhi.settings.section import Port, Section
from xiaozhi.settings.server import addresses_or_networks

TLS_PORT: Final = 8883
"""The firmware speaks TLS on exactly this port, and on no other."""
ALL_DEVICES: Final = "*"
# The firmware cuts at the first colon and knows no IPv6; up to 2.4 a port that is no number crashes it at every boot.
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?:(\d{1,5})")


class MqttSettings(Section):
    """MQTT for control and UDP for sound, beside the WebSocket."""

    enabled: bool = False
    port: Port = 1883
    tls_port: Port = 0
    udp_port: Port = 8884
    devices: tuple[str, ...] = (ALL_DEVICES,)
    endpoint: str = ""
    udp_endpoint: str = ""
    keepalive_s: int = Field(240, ge=30, le=3600)
    gateways: tuple[str, ...] = ()

    _gateways = field_validator("gateways")(addresses_or_networks)

    @field_validator("endpoint", "udp_endpoint")
    @classmethod
    def _reachable(cls, endpoint: str) -> str:
        match = _ENDPOINT.fullmatch(endpoint)
        if endpoint and (match is None or not 0 < int(match[1]) < 65_536):
            raise ValueError('must be a host and a port such as "xiaozhi.example.org:8883", or empty')
        return endpoint

    @model_validator(mode="after")
    def _ports(self) -> "MqttSettings":
        if self.port == TLS_PORT:
            raise ValueError(f"port must not be {TLS_PORT}: devices speak TLS there; that is what tls_port is for")
        if self.tls_port not in (0, TLS_PORT) and not self.endpoint:
            raise ValueError(f"tls_port must be {TLS_PORT}, where devices speak TLS, or endpoint say what leads to it")
        return self
