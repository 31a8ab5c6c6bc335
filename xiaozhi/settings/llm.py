"""`[llm]`: the reply."""

import re
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, is_near, key_of
from xiaozhi.settings.presets import PresetName, with_preset
from xiaozhi.settings.section import Section
from xiaozhi.settings.thinking import begins_in_thought

# A token of RFC 9110.
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
# What decides how a request is read is not for the settings.
_OWN_HEADERS: Final = frozenset(
    {
        "content-type",
        "content-length",
        "transfer-encoding",
        "connection",
        "host",
        "accept-encoding",
        "expect",
        "upgrade",
    }
)
MAX_HEADER_CHARS: Final = 4000
"""Of one value of `extra_headers`; servers refuse heads above 8 KB."""


class LlmEndpoint(Section):
    """One OpenAI-compatible chat endpoint; `preset` fills what is not given."""

    preset: PresetName | None = None
    name: str = Field(min_length=1)
    base_url: Address = Field(min_length=1)
    model: str = Field(min_length=1)
    api_key: ApiKey = SecretStr("")
    api_key_env: str = ""
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    temperature: float | None = Field(None, ge=0, le=2)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    extra_headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=20)
    weight: float = Field(1.0, gt=0, le=1000)
    max_concurrent: int | None = Field(None, ge=1, le=10_000)
    tier: Literal["auto", "edge", "cloud"] = "auto"
    price: float | None = Field(None, ge=0, le=100_000)
    vision: bool = False
    thinks: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, dict) else values

    @field_validator("extra_headers")
    @classmethod
    def _sendable(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ValueError(f"must not hold {name!r}: no name of a header, or one that is sent anyway")
            text = value.get_secret_value()
            if len(text) > MAX_HEADER_CHARS or not (text.isascii() and text.isprintable()):
                raise ValueError(f"must hold printable ASCII of at most {MAX_HEADER_CHARS} characters for {name}")
        return headers

    def key(self) -> str:
        """The API key, from the file or from the variable named by `api_key_env`; empty when neither is set."""
        return key_of(self.api_key, self.api_key_env)

    def headers(self) -> dict[str, str]:
        """What goes along with every request besides the key."""
        return {name: value.get_secret_value() for name, value in self.extra_headers.items()}

    @property
    def begins_in_thought(self) -> bool:
        """Whether nothing is spoken of an answer before the end of the thought in it; without `thinks` by the name."""
        return begins_in_thought(self.model, self.extra_body) if self.thinks is None else self.thinks

    @property
    def is_local(self) -> bool:
        """Whether the address is on this machine or in this network."""
        return is_near(urlsplit(self.base_url).hostname or "")

    @property
    def place(self) -> Literal["edge", "cloud"]:
        """The tier; `auto` goes by the address."""
        return self.tier if self.tier != "auto" else "edge" if self.is_local else "cloud"

    @property
    def is_free(self) -> bool:
        """Whether a request costs nothing; without a price local endpoints do not and others do."""
        return self.is_local if self.price is None else self.price == 0


class BreakerSettings(Section):
    """When an endpoint that fails is left alone."""

    failures: int = Field(5, ge=1, le=1000)
    open_s: float = Field(30.0, ge=1, le=3600)
    window_s: float = Field(30.0, ge=1, le=3600)
    window_min: int = Field(10, ge=1, le=10_000)
    error_rate: float = Field(0.5, gt=0, le=1)


class HedgeSettings(Section):
    """Asking a second endpoint when the first is late."""

    mode: Literal["off", "free", "all"] = "free"
    share: float = Field(0.05, ge=0, le=1)
    from_s: float = Field(0.6, ge=0.05, le=60)
    to_s: float = Field(1.5, ge=0.05, le=60)

    @model_validator(mode="after")
    def _order(self) -> "HedgeSettings":
        if self.to_s < self.from_s:
            raise ValueError("to_s must not be below from_s")
        return self


class RoutingSettings(Section):
    """Which questions go to which tier."""

    enabled: bool = True
    long_chars: int = Field(40, ge=1, le=100_000)
    hard_words: tuple[str, ...] = (
        "为什么", "怎么做", "如何", "解释", "分析", "比较", "区别", "总结", "翻译", "推荐", "建议", "计划", "写一",
        "why", "how do", "how does", "how can", "explain", "analyse", "analyze", "compare", "difference", "summarize",
        "summarise", "translate", "recommend", "suggest", "plan", "write",
    )  # fmt: skip
    code_and_maths: Literal["edge", "cloud", "any"] = "cloud"
    tools: Literal["edge", "cloud", "any"] = "any"
    images: Literal["edge", "cloud", "any"] = "cloud"
    obey_device: bool = True
    busy_share: float = Field(0.9, gt=0, le=1)


DEFAULT_SYSTEM_PROMPT = (
    "你是小智，一个温暖、机灵的语音伙伴，住在用户身边的小设备里。用对方说的语言回答，口语化，简短，通常一到三句话。"
    "每次回答以一个表情符号开头来表达情绪，之后不再用表情。不要使用 Markdown、列表、代码或网址，因为你的话会被读出来。"
)


class LlmSettings(Section):
    """The reply."""

    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    max_concurrent: int = Field(100, ge=1, le=10_000)
    connect_timeout_s: float = Field(3.0, gt=0, le=60)
    first_token_timeout_s: float = Field(8.0, gt=0, le=120)
    idle_timeout_s: float = Field(8.0, gt=0, le=120)
    thinking_timeout_s: float = Field(20.0, gt=0, le=600)
    reply_max_chars: int = Field(2000, ge=50, le=100_000)
    reply_max_s: float = Field(480.0, ge=5, le=7200)
    history_turns: int = Field(12, ge=0, le=200)
    history_max_tokens: int = Field(3000, ge=0, le=1_000_000)
    history_summary: bool = True
    failover_first_token_s: float = Field(2.5, gt=0, le=120)
    failover_idle_s: float = Field(2.5, gt=0, le=120)
    health_check_s: float = Field(10.0, ge=1, le=3600)
    max_connections: int = Field(300, ge=1, le=10_000)
    max_connections_per_host: int = Field(100, ge=1, le=10_000)
    endpoints: tuple[LlmEndpoint, ...] = ()
    breaker: BreakerSettings = BreakerSettings()
    hedge: HedgeSettings = HedgeSettings()
    routing: RoutingSettings = RoutingSettings()

    @model_validator(mode="after")
    def _distinct(self) -> "LlmSettings":
        names = [endpoint.name for endpoint in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("endpoints must not have the same name twice")
        return self
