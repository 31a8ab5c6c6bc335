"""`[alerts]`: when somebody should look."""

from pydantic import Field, SecretStr, field_validator

from xiaozhi.settings.section import Section


class AlertsSettings(Section):
    """From which readings on an alert is raised; 0 never."""

    enabled: bool = True
    check_s: float = Field(5.0, ge=0.5, le=300)
    after_s: float = Field(15.0, ge=0, le=3600)
    clear_s: float = Field(30.0, ge=0, le=3600)
    memory_percent: float = Field(85, ge=0, le=100)
    cpu_percent: float = Field(80, ge=0, le=100)
    asr_wait_ms: float = Field(500, ge=0, le=600_000)
    error_percent: float = Field(2, ge=0, le=100)
    error_window_s: float = Field(300, ge=10, le=86_400)
    error_least_turns: int = Field(20, ge=1, le=100_000)
    cache_hit_percent: float = Field(10, ge=0, le=100)
    cache_least_lookups: int = Field(1000, ge=1, le=10_000_000)
    disk_percent: float = Field(95, ge=0, le=100)
    upstreams: bool = True
    webhook: SecretStr = SecretStr("")
    webhook_timeout_s: float = Field(5.0, ge=0.5, le=60)
    webhook_attempts: int = Field(3, ge=1, le=10)

    @field_validator("webhook")
    @classmethod
    def _http(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError('must begin with "http://" or "https://"')
        return url
