"""`[vision]`, `[push]`, `[mcp_server]`: pictures from devices, what is said to them from outside, other programs."""

import re
from typing import Final

from pydantic import Field, SecretStr, field_validator

from xiaozhi.settings.section import Section

_SPAN: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")
# A token that can be guessed in an afternoon is none; 16 random letters hold for longer than any device.
_SHORTEST_TOKEN: Final = 16


def minutes_of(span: str) -> tuple[int, int] | None:
    """`"22:00-07:00"` as minutes of the day, from and to; None for an empty text.

    Raises:
        ValueError: it is no such span.
    """
    if not span.strip():
        return None
    match = _SPAN.fullmatch(span.strip())
    if match is None:
        raise ValueError('must be a span such as "22:00-07:00", or empty')
    hours = [int(part) for part in match.groups()]
    return hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]


def _long_enough(token: SecretStr) -> SecretStr:
    if 0 < len(token.get_secret_value()) < _SHORTEST_TOKEN:
        raise ValueError(f"must have at least {_SHORTEST_TOKEN} characters, or be empty")
    return token


class VisionSettings(Section):
    """Pictures that devices send."""

    enabled: bool = True
    max_mb: float = Field(5.0, ge=0.1, le=20)
    max_pixels: int = Field(16_000_000, ge=100_000, le=100_000_000)
    side: int = Field(1024, ge=128, le=4096)
    max_concurrent: int = Field(4, ge=1, le=100)
    timeout_s: float = Field(25.0, ge=1, le=120)
    token_hours: float = Field(12.0, ge=0.1, le=720)


class PushSettings(Section):
    """What is said on devices from outside, and reminders."""

    enabled: bool = True
    token: SecretStr = SecretStr("")
    patience_s: float = Field(60.0, ge=1, le=3600)
    max_chars: int = Field(500, ge=20, le=5000)
    max_waiting: int = Field(8, ge=1, le=100)
    quiet_hours: str = ""
    tool: bool = False
    calls: bool = False
    alarm_repeats: int = Field(3, ge=0, le=20)
    alarm_every_s: float = Field(60.0, ge=5, le=3600)

    _token = field_validator("token")(_long_enough)

    @field_validator("quiet_hours")
    @classmethod
    def _span(cls, span: str) -> str:
        minutes_of(span)
        return span.strip()


class McpServerSettings(Section):
    """This server as an MCP server for other programs."""

    enabled: bool = False
    token: SecretStr = SecretStr("")
    origins: tuple[str, ...] = ()
    max_kb: int = Field(256, ge=16, le=4096)

    _token = field_validator("token")(_long_enough)
