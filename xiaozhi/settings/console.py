"""`[console]`: the pages for owners under `/console/`."""

import ipaddress
from typing import Final

from pydantic import Field, field_validator

from xiaozhi.settings.section import Section

SELF: Final = "self"
"""In `allow`: this machine, by whichever of its addresses it is asked."""


class ConsoleSettings(Section):
    """The pages for owners."""

    enabled: bool = True
    allow: tuple[str, ...] = (
        SELF, "127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fd00::/8",
        "fe80::/10",
    )  # fmt: skip
    password_file: str = Field("console-password", min_length=1, max_length=400)
    session_hours: float = Field(12.0, ge=0.1, le=720)
    idle_minutes: float = Field(60.0, ge=1, le=43_200)
    transcripts: bool = True
    turns: int = Field(500, ge=10, le=10_000)
    log_lines: int = Field(2000, ge=100, le=50_000)

    @field_validator("allow")
    @classmethod
    def _networks(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for text in allow:
            try:
                if text != SELF:
                    ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f'must be "{SELF}", IP addresses or networks such as "10.0.0.0/8"') from None
        return allow
