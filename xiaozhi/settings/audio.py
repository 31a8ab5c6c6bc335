"""`[audio]` and `[vad]`: sound in both directions."""

from typing import Literal

from pydantic import Field, model_validator

from xiaozhi.settings.section import Provider, Section


class AudioSettings(Section):
    """The sound sent to devices."""

    bitrate_bps: int = Field(24_000, ge=6_000, le=128_000)
    complexity: int = Field(5, ge=0, le=10)
    lead_ms: int = Field(240, ge=120, le=900)
    stop_margin_ms: int = Field(200, ge=0, le=2000)
    start_gap_ms: int = Field(80, ge=0, le=500)
    codec_workers: int = Field(1, ge=1, le=32)
    instant_flush: bool = True
    flush_hold_ms: int = Field(60, ge=50, le=500)


class VadSettings(Section):
    """Finding speech in the microphone's stream."""

    model: str = "auto"
    threshold: float = Field(0.5, gt=0, lt=1)
    release_threshold: float = Field(0.35, gt=0, lt=1)
    min_speech_ms: int = Field(128, ge=32, le=2000)
    pre_roll_ms: int = Field(320, ge=0, le=2000)
    quiet_dbfs: float = Field(-64.0, ge=-120, le=-45)
    batch_max: int = Field(48, ge=1, le=1024)
    tick_ms: float = Field(10.0, ge=0, le=60)
    max_wait_ms: float = Field(50.0, ge=1, le=1000)
    max_concurrent: int = Field(1000, ge=1, le=100_000)
    threads: int = Field(1, ge=1, le=64)
    graph_optimization: Literal["disable", "basic", "extended", "all"] = "all"
    provider: Provider = "cpu"
    gpu_memory_mb: int = Field(512, ge=64, le=1_048_576)
    warm_up: bool = True

    @model_validator(mode="after")
    def _hysteresis(self) -> "VadSettings":
        if self.release_threshold > self.threshold:
            raise ValueError("release_threshold must not be above threshold")
        return self
