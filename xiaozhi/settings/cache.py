"""`[cache]`: what is kept."""

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, key_of
from xiaozhi.settings.section import Section


class EmbeddingsSettings(Section):
    """An endpoint that tells how alike two questions are; without one a built-in measure is used."""

    base_url: Address = ""
    model: str = ""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = ""
    timeout_ms: int = Field(150, ge=10, le=5000)
    threshold: float = Field(0.92, gt=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "EmbeddingsSettings":
        if self.base_url and not self.model:
            raise ValueError("model must be given together with base_url")
        return self

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return key_of(self.api_key, self.api_key_env)


class CacheSettings(Section):
    """What is not made twice."""

    answers: bool = True
    similar: bool = True
    threshold: float = Field(0.5, gt=0, le=1)
    ttl_s: float = Field(1800.0, ge=1, le=604_800)
    max_entries: int = Field(1000, ge=1, le=20_000)
    max_mb: int = Field(8, ge=1, le=1024)
    preload: Path | None = None
    common_replies: bool = True
    speech: bool = True
    speech_max_chars: int = Field(100, ge=1, le=300)
    speech_memory_mb: int = Field(32, ge=1, le=65_536)
    speech_memory_ttl_s: float = Field(3600.0, ge=1, le=604_800)
    disk_mb: int = Field(256, ge=0, le=1_048_576)
    disk_ttl_s: float = Field(86_400.0, ge=60, le=31_536_000)
    premake: bool = True
    recognition: bool = True
    recognition_ttl_s: float = Field(1800.0, ge=1, le=604_800)
    recognition_entries: int = Field(1000, ge=1, le=1_000_000)
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
