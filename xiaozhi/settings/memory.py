"""`[memory]`: what is kept in mind about the users of each device."""

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, key_of
from xiaozhi.settings.section import Section


class MemorySettings(Section):
    """Long-term memory."""

    engine: Literal["local", "mem0", "off"] = "local"
    min_turns: int = Field(2, ge=1, le=50)
    max_facts: int = Field(60, ge=1, le=200)
    max_fact_chars: int = Field(120, ge=20, le=500)
    timeout_s: float = Field(30.0, ge=1, le=300)
    base_url: Address = ""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "MEM0_API_KEY"
    service_timeout_s: float = Field(10.0, ge=0.5, le=120)

    @model_validator(mode="after")
    def _address(self) -> "MemorySettings":
        if self.engine == "mem0" and not self.base_url:
            raise ValueError('engine "mem0" needs base_url, for example "http://127.0.0.1:8888"')
        return self

    def key(self) -> str:
        """The key of the service, from the file or from the environment; empty when neither is set."""
        return key_of(self.api_key, self.api_key_env)
