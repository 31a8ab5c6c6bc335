"""`[log]`, `[models]`, `[metrics]`, `[load]`: running the process."""

import ipaddress
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, SecretStr, field_validator

from xiaozhi.settings.section import Section

Mirror: TypeAlias = Literal["github", "huggingface", "hf-mirror", "modelscope", "tuna"]
"""Who publishes models, or copies of them. `tuna` has none any more and stands in older settings files."""


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    transcripts: bool = False


class ModelsSettings(Section):
    """Where models lie and whence they are fetched."""

    dir: Path = Path("models")
    auto_pull: bool = True
    mirrors: tuple[Mirror, ...] = ("github", "huggingface", "hf-mirror", "modelscope")
    connect_timeout_s: float = Field(5.0, gt=0, le=60)


class MetricsSettings(Section):
    """Figures for Prometheus at /metrics."""

    enabled: bool = True
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
    token: SecretStr = SecretStr("")

    @field_validator("allow")
    @classmethod
    def _networks(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for text in allow:
            ipaddress.ip_network(text, strict=False)
        return allow


class LoadStep(Section):
    """From which readings on something is given up; 0 never."""

    asr_wait_ms: float = Field(
        0,
        ge=0,
        le=600_000,
        description="Age of the oldest utterance that waits for recognition; 0 leaves this reading out.",
    )
    codec_wait_ms: float = Field(
        0, ge=0, le=600_000, description="Age of the oldest speech that waits to be encoded; 0 leaves this reading out."
    )
    loop_lag_ms: float = Field(
        0,
        ge=0,
        le=600_000,
        description="Second longest standstill of the process within two seconds; 0 leaves this reading out.",
    )
    memory_percent: float = Field(
        0, ge=0, le=100, description="Memory in percent of what the process may use; 0 leaves this reading out."
    )


class LoadSettings(Section):
    """What is given up under load, and when."""

    shed: bool = True
    check_ms: int = Field(100, ge=20, le=5000)
    recover_s: float = Field(5.0, ge=0, le=600)
    blame_ms: int = Field(50, ge=0, le=10_000)
    quality_bitrate_bps: int = Field(16_000, ge=6_000, le=128_000)
    quality_complexity: int = Field(0, ge=0, le=10)
    turns_at_once: int = Field(8, ge=1, le=1000)
    turn_wait_s: float = Field(15.0, ge=0.5, le=120)
    retry_after_s: int = Field(30, ge=1, le=3600)
    extras: LoadStep = LoadStep(asr_wait_ms=150, loop_lag_ms=40)
    speculation: LoadStep = LoadStep(asr_wait_ms=1000, loop_lag_ms=150)
    quality: LoadStep = LoadStep(codec_wait_ms=60, loop_lag_ms=60)
    hedging: LoadStep = LoadStep(asr_wait_ms=1000, loop_lag_ms=100)
    turns: LoadStep = LoadStep(asr_wait_ms=2500, codec_wait_ms=500, loop_lag_ms=300, memory_percent=90)
    devices: LoadStep = LoadStep(asr_wait_ms=4000, codec_wait_ms=1000, loop_lag_ms=600, memory_percent=85)
