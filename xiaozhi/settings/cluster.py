"""`[cluster]`: several nodes that share their devices, caches and conversations through Redis."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.section import Section

_SCHEMES = ("redis", "rediss", "unix")


class ClusterSettings(Section):
    """What joins nodes; without `url` this node is alone."""

    url: SecretStr = SecretStr("")
    password: SecretStr = SecretStr("")
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    prefix: str = Field("xiaozhi", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    node: str = Field("", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    address: str = ""
    tier: Literal["edge", "cloud"] = "cloud"
    capacity: int = Field(0, ge=0, le=100_000)
    overload: float = Field(1.25, ge=1.0, le=4.0)
    heartbeat_s: float = Field(1.5, ge=0.1, le=60)
    expiry_s: float = Field(5.0, ge=0.3, le=300)
    timeout_ms: int = Field(80, ge=5, le=5000)
    retry_s: float = Field(2.0, ge=0.1, le=60)
    max_value_kb: int = Field(256, ge=1, le=10_240)
    cache_ttl_s: float = Field(3600.0, ge=1, le=604_800)
    flight_wait_ms: int = Field(150, ge=0, le=5000)
    conversation_days: float = Field(30.0, ge=0.01, le=3650)

    @field_validator("url")
    @classmethod
    def _redis(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if text and (urlsplit(text).scheme not in _SCHEMES or "://" not in text):
            # The address may hold a password: it is not repeated here.
            raise ValueError('must begin with "redis://", "rediss://" (TLS) or "unix://"')
        return url

    @field_validator("address")
    @classmethod
    def _reachable(cls, address: str) -> str:
        known = address.startswith(("http://", "https://", "ws://", "wss://"))
        if address and not (known and urlsplit(address).hostname):
            raise ValueError('must be an address such as "http://10.0.0.5:8000" or "wss://node-1.example.org"')
        return address

    @model_validator(mode="after")
    def _tls(self) -> "ClusterSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        # Without TLS they would do nothing, and whoever set them takes the connection for a secret one.
        if any(files) and self.enabled and not self.secure:
            raise ValueError('tls_ca, tls_cert and tls_key need a url that begins with "rediss://"')
        return self

    @model_validator(mode="after")
    def _order(self) -> "ClusterSettings":
        if self.expiry_s < 2.0 * self.heartbeat_s:
            raise ValueError("expiry_s must be at least twice heartbeat_s: one lost heartbeat is no death")
        return self

    @property
    def secure(self) -> bool:
        """Redis is reached through TLS."""
        return urlsplit(self.url.get_secret_value()).scheme == "rediss"

    @property
    def enabled(self) -> bool:
        """This node is one of several."""
        return bool(self.url.get_secret_value())
