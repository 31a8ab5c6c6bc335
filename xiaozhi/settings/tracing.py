"""`[tracing]`: turns as OpenTelemetry spans."""

from pydantic import Field, SecretStr, field_validator

from xiaozhi.settings.section import Section


class TracingSettings(Section):
    """Where spans of finished turns go; needs the extra `xiaozhi[otel]`."""

    enabled: bool = False
    endpoint: str = "http://127.0.0.1:4318/v1/traces"
    headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=20)
    service_name: str = Field("xiaozhi", min_length=1, max_length=100)
    timeout_s: float = Field(5.0, ge=0.5, le=60)

    @field_validator("endpoint")
    @classmethod
    def _http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError('must begin with "http://" or "https://"')
        return url
