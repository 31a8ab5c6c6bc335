"""`[server]`, `[auth]`, `[ota]`: where devices connect, who may, and what they are told."""

import ipaddress
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.origins import as_sent
from xiaozhi.settings.section import Port, Section


def addresses_or_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts as they are.

    Raises:
        ValueError: one is neither an address nor a network.
    """
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError('must be IP addresses or networks such as "10.0.0.0/8"') from None
    return texts


class ServerSettings(Section):
    """Where devices connect and what one of them may cost."""

    host: str = "0.0.0.0"  # devices are on the local network, not on this machine
    port: Port = 8000
    public_url: str = ""
    data_dir: Path = Path("data")
    max_devices: int = Field(200, ge=1, le=100_000)
    hello_timeout_s: float = Field(15.0, ge=1, le=120)
    idle_close_s: float = Field(120.0, ge=5, le=86_400)
    keepalive_s: float = Field(50.0, ge=5, le=100)
    reload: bool = True
    drain_s: float = Field(20.0, ge=0, le=600)
    send_timeout_s: float = Field(10.0, ge=1, le=120)
    max_message_bytes: int = Field(131_072, ge=4096, le=1_048_576)
    timezone: str = ""
    trusted_proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    requests_per_minute: int = Field(600, ge=0, le=1_000_000)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_port: Port = 0

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError('must be a time zone such as "Asia/Shanghai", or empty') from None
        return name

    @field_validator("origins")
    @classmethod
    def _pages(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(as_sent(origin) for origin in origins)

    _proxies = field_validator("trusted_proxies")(addresses_or_networks)

    @model_validator(mode="after")
    def _certificate(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if self.tls_port and self.tls_cert is None:
            raise ValueError("tls_port needs tls_cert and tls_key")
        if self.tls_port and self.tls_port == self.port:
            raise ValueError("tls_port must not be the same as port; leave it at 0 to serve TLS on port alone")
        return self


class AuthSettings(Section):
    """Who may connect."""

    mode: Literal["open", "token", "activate"] = "token"
    token_ttl_days: float = Field(30.0, gt=0, le=3650)
    rotate_days: float = Field(90.0, ge=0, le=3650)
    tokens: tuple[SecretStr, ...] = ()
    new_devices_per_hour: int = Field(100, ge=0, le=100_000)
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()


class OtaSettings(Section):
    """What devices are told when they boot."""

    firmware_dir: Path | None = None
    rollout_percent: int = Field(100, ge=0, le=100)
