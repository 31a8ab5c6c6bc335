"""The settings as types: one class per table of `settings.toml`, in the order of the file."""

import ipaddress
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.presets import PresetName, with_preset

Port = Annotated[int, Field(ge=0, le=65535)]
Language = Literal["auto", "zh", "en", "ja", "ko", "yue"]
Provider = Literal["cpu", "cuda"]


class _Section(BaseModel):
    """A table: unknown keys are errors, values are checked and never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class ServerSettings(_Section):
    """Where devices connect and what one of them may cost."""

    host: str = "0.0.0.0"  # devices are on the local network, not on this machine
    port: Port = 8000
    public_url: str = ""
    data_dir: Path = Path("data")
    max_devices: int = Field(200, ge=1, le=100_000)
    hello_timeout_s: float = Field(15.0, ge=1, le=120)
    idle_close_s: float = Field(120.0, ge=5, le=86_400)
    keepalive_s: float = Field(50.0, ge=5, le=100)
    drain_s: float = Field(20.0, ge=0, le=600)
    send_timeout_s: float = Field(10.0, ge=1, le=120)
    max_message_bytes: int = Field(131_072, ge=4096, le=1_048_576)
    timezone: str = ""
    trusted_proxies: tuple[str, ...] = ()
    requests_per_minute: int = Field(600, ge=0, le=1_000_000)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_port: Port = 0

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError('must be a time zone such as "Asia/Shanghai", or empty') from None
        return name

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError('must be IP addresses or networks such as "10.0.0.0/8"') from None
        return proxies

    @model_validator(mode="after")
    def _certificate(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if self.tls_port and self.tls_cert is None:
            raise ValueError("tls_port needs tls_cert and tls_key")
        if self.tls_port and self.tls_port == self.port:
            raise ValueError("tls_port must not be the same as port; leave it at 0 to serve TLS on port alone")
        return self


class AuthSettings(_Section):
    """Who may connect."""

    mode: Literal["open", "token", "activate"] = "token"
    token_ttl_days: float = Field(30.0, gt=0, le=3650)
    rotate_days: float = Field(90.0, ge=0, le=3650)
    tokens: tuple[SecretStr, ...] = ()
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()


class OtaSettings(_Section):
    """What devices are told when they boot."""

    firmware_dir: Path | None = None
    rollout_percent: int = Field(100, ge=0, le=100)


class LogSettings(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    transcripts: bool = False


class ModelsSettings(_Section):
    """Where models lie and whence they are fetched."""

    dir: Path = Path("models")
    auto_pull: bool = True
    mirrors: tuple[Literal["github", "huggingface", "hf-mirror"], ...] = ("github", "huggingface", "hf-mirror")
    connect_timeout_s: float = Field(5.0, gt=0, le=60)


class AudioSettings(_Section):
    """The sound sent to devices."""

    bitrate_bps: int = Field(24_000, ge=6_000, le=128_000)
    complexity: int = Field(5, ge=0, le=10)
    lead_ms: int = Field(240, ge=120, le=2000)
    stop_margin_ms: int = Field(200, ge=0, le=2000)
    start_gap_ms: int = Field(80, ge=0, le=500)
    codec_workers: int = Field(1, ge=1, le=32)
    instant_flush: bool = True
    flush_hold_ms: int = Field(60, ge=50, le=500)


class VadSettings(_Section):
    """Finding speech in the microphone's stream."""

    model: str = "auto"
    threshold: float = Field(0.5, gt=0, lt=1)
    release_threshold: float = Field(0.35, gt=0, lt=1)
    min_speech_ms: int = Field(128, ge=32, le=2000)
    pre_roll_ms: int = Field(320, ge=0, le=2000)
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


# What a profile stands for. Any single value in the file overrides its profile's.
TURN_PROFILES: Mapping[str, Mapping[str, int]] = {
    "conservative": {
        "soft_end_ms": 192, "complete_ms": 600, "neutral_ms": 800, "trailing_ms": 1500, "max_speculations": 2,
    },
    "balanced": {
        "soft_end_ms": 96, "complete_ms": 400, "neutral_ms": 650, "trailing_ms": 1200, "max_speculations": 5,
    },
    "aggressive": {
        "soft_end_ms": 64, "complete_ms": 300, "neutral_ms": 450, "trailing_ms": 900, "max_speculations": 5,
    },
}  # fmt: skip


def _of_profile(name: str) -> Callable[[dict[str, Any]], int]:
    """The profile's value of a setting, for where the setting itself is not given."""
    # A profile that is not valid is not among the validated values; its own error is reported, not this one.
    return lambda valid: TURN_PROFILES[valid.get("profile", "balanced")][name]


class TurnSettings(_Section):
    """When a turn ends and a reply may begin; silences are audio time since the last voiced sample.

    The defaults are those of the profile `balanced`; another profile changes them, and single values override it.
    """

    profile: Literal["conservative", "balanced", "aggressive"] = "balanced"
    soft_end_ms: int = Field(default_factory=_of_profile("soft_end_ms"), ge=32, le=2000)
    complete_ms: int = Field(default_factory=_of_profile("complete_ms"), ge=32, le=5000)
    neutral_ms: int = Field(default_factory=_of_profile("neutral_ms"), ge=32, le=5000)
    trailing_ms: int = Field(default_factory=_of_profile("trailing_ms"), ge=32, le=10_000)
    commit_max_ms: int = Field(2000, ge=100, le=20_000)
    speculate: bool = True
    max_speculations: int = Field(default_factory=_of_profile("max_speculations"), ge=1, le=20)
    max_utterance_s: float = Field(30.0, ge=2, le=120)
    min_utterance_ms: int = Field(200, ge=0, le=2000)
    stall_s: float = Field(1.5, ge=0.2, le=30)
    barge_in: bool = True
    barge_in_ms: int = Field(300, ge=64, le=3000)
    wake_words: tuple[str, ...] = (
        "你好小智",
        "小智小智",
        "小智",
        "嗨小智",
        "嘿小智",
        "hi esp",
        "hey xiaozhi",
        "hello xiaozhi",
    )
    wake_reply: str = Field("", max_length=40)
    greeting: str = Field("", max_length=200)
    goodbye: str = Field("auto", max_length=200)
    exit_phrases: tuple[str, ...] = (
        "再见",
        "拜拜",
        "退下",
        "退下吧",
        "小智再见",
        "再见小智",
        "goodbye",
        "good bye",
        "bye",
        "bye bye",
        "goodbye xiaozhi",
    )


class RemoteAsrSettings(_Section):
    """What holds for every recogniser on another machine."""

    timeout_s: float = Field(4.0, ge=0.2, le=60)
    connect_timeout_s: float = Field(2.0, gt=0, le=30)
    max_concurrent: int = Field(20, ge=1, le=10_000)
    max_audio_s: float = Field(60.0, ge=1, le=600)
    max_text_chars: int = Field(2000, ge=10, le=100_000)
    failures: int = Field(2, ge=1, le=1000)
    retry_after_s: float = Field(30.0, ge=0, le=3600)
    early_decode: bool = False


class OpenAIAsrSettings(_Section):
    """Any transcription server that speaks OpenAI's `/audio/transcriptions`."""

    base_url: str = "https://api.openai.com/v1"
    api_key: SecretStr = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = Field("whisper-1", min_length=1, max_length=200)
    prompt: str = Field("", max_length=1000)

    @field_validator("base_url")
    @classmethod
    def _http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError('must begin with "http://" or "https://"')
        return url

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")


class FunasrSettings(_Section):
    """A FunASR runtime, over its WebSocket."""

    url: str = "ws://127.0.0.1:10095"
    mode: Literal["offline", "2pass"] = "offline"
    verify_tls: bool = True
    hotwords: dict[str, int] = Field(default_factory=dict, max_length=1000)

    @field_validator("url")
    @classmethod
    def _websocket(cls, url: str) -> str:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError('must begin with "ws://" or "wss://"')
        return url


class AsrSettings(_Section):
    """Speech to text."""

    engine: Literal["auto", "sense-voice", "zipformer", "two-pass", "pocketsphinx", "openai", "funasr"] = "auto"
    fallback: Literal["auto", "sense-voice", "zipformer", "pocketsphinx"] = "auto"
    model_dir: Path | None = None
    streaming_model_dir: Path | None = None
    language: Language = "auto"
    itn: bool = True
    early_decode: bool = True
    partials: bool = False
    workers: int = Field(2, ge=1, le=64)
    threads: int = Field(1, ge=1, le=64)
    niceness: int = Field(10, ge=0, le=19)
    max_concurrent: int = Field(40, ge=1, le=10_000)
    batch_size: int = Field(1, ge=1, le=64)
    provider: Provider = "cpu"
    int8_rewrite: bool = True  # lossless, made once and compared with the original; see stages/asr/int8_rewrite.py
    timeout_s: float = Field(10.0, ge=0.5, le=120)
    remote: RemoteAsrSettings = RemoteAsrSettings()
    openai: OpenAIAsrSettings = OpenAIAsrSettings()
    funasr: FunasrSettings = FunasrSettings()


class LlmEndpoint(_Section):
    """One OpenAI-compatible chat endpoint; `preset` fills what is not given."""

    preset: PresetName | None = None
    name: str = Field(min_length=1)
    base_url: str
    model: str = Field(min_length=1)
    api_key: SecretStr = SecretStr("")
    api_key_env: str = ""
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    temperature: float | None = Field(None, ge=0, le=2)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    weight: float = Field(1.0, gt=0, le=1000)
    max_concurrent: int | None = Field(None, ge=1, le=10_000)
    tier: Literal["auto", "edge", "cloud"] = "auto"
    price: float | None = Field(None, ge=0, le=100_000)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _url(self) -> "LlmEndpoint":
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError('base_url must begin with "http://" or "https://"')
        return self

    def key(self) -> str:
        """The API key, from the file or from the variable named by `api_key_env`; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")

    @property
    def is_local(self) -> bool:
        """Whether the address is on this machine or in this network."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_private
        except ValueError:
            return "." not in host or host.endswith((".local", ".lan", ".internal"))

    @property
    def place(self) -> Literal["edge", "cloud"]:
        """The tier; `auto` goes by the address."""
        return self.tier if self.tier != "auto" else "edge" if self.is_local else "cloud"

    @property
    def is_free(self) -> bool:
        """Whether a request costs nothing; without a price local endpoints do not and others do."""
        return self.is_local if self.price is None else self.price == 0


class BreakerSettings(_Section):
    """When an endpoint that fails is left alone."""

    failures: int = Field(5, ge=1, le=1000)
    open_s: float = Field(30.0, ge=1, le=3600)
    window_s: float = Field(30.0, ge=1, le=3600)
    window_min: int = Field(10, ge=1, le=10_000)
    error_rate: float = Field(0.5, gt=0, le=1)


class HedgeSettings(_Section):
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


class RoutingSettings(_Section):
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


class LlmSettings(_Section):
    """The reply."""

    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    max_concurrent: int = Field(100, ge=1, le=10_000)
    connect_timeout_s: float = Field(3.0, gt=0, le=60)
    first_token_timeout_s: float = Field(8.0, gt=0, le=120)
    idle_timeout_s: float = Field(8.0, gt=0, le=120)
    reply_max_chars: int = Field(2000, ge=50, le=100_000)
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


class EdgeVoiceSettings(_Section):
    """Microsoft Edge's read-aloud service: free, needs internet."""

    voice: str = "zh-CN-XiaoxiaoNeural"
    voice_en: str = "en-US-EmmaMultilingualNeural"
    rate_percent: int = Field(0, ge=-50, le=100)
    url: str = ""


class OpenAIVoiceSettings(_Section):
    """Any speech server that speaks OpenAI's `/audio/speech`."""

    base_url: str = "https://api.openai.com/v1"
    api_key: SecretStr = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = "tts-1"
    voice: str = "alloy"
    format: Literal["pcm", "wav", "mp3", "opus"] = "pcm"
    speed: float = Field(1.0, ge=0.25, le=4.0)

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")


class SherpaVoiceSettings(_Section):
    """A local voice through sherpa-onnx (Matcha, VITS or Kokoro)."""

    model_dir: Path | None = None
    speaker: int = Field(0, ge=0, le=10_000)
    speed: float = Field(1.0, ge=0.5, le=2.0)
    threads: int = Field(1, ge=1, le=64)


class EspeakVoiceSettings(_Section):
    """The embedded voice: always there, plain."""

    voice: str = "cmn"
    voice_en: str = "en-us+f2"
    rate_wpm: int = Field(160, ge=80, le=450)


class AzureVoiceSettings(_Section):
    """Azure's speech service: natural, streamed, needs a key."""

    region: str = Field("eastasia", pattern=r"^[a-z0-9-]{0,40}$")
    endpoint: str = ""
    api_key: SecretStr = SecretStr("")
    api_key_env: str = "AZURE_SPEECH_KEY"
    voice: str = Field("zh-CN-XiaoxiaoNeural", min_length=1, max_length=100)
    voice_en: str = Field("en-US-EmmaMultilingualNeural", max_length=100)
    style: str = Field("", max_length=60)
    rate_percent: int = Field(0, ge=-50, le=100)

    @model_validator(mode="after")
    def _address(self) -> "AzureVoiceSettings":
        if not self.endpoint and not self.region:
            raise ValueError("needs a region or an endpoint")
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError('endpoint must begin with "http://" or "https://"')
        return self

    def key(self) -> str:
        """The key of the speech resource, from the file or from the environment; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")


class IflytekVoiceSettings(_Section):
    """iFlytek's online speech synthesis: natural Chinese, streamed, needs an application with key and secret."""

    app_id: str = Field("", max_length=100)
    app_id_env: str = "IFLYTEK_APP_ID"
    api_key: SecretStr = SecretStr("")
    api_key_env: str = "IFLYTEK_API_KEY"
    api_secret: SecretStr = SecretStr("")
    api_secret_env: str = "IFLYTEK_API_SECRET"
    voice: str = Field("xiaoyan", min_length=1, max_length=100)
    voice_en: str = Field("", max_length=100)
    rate_percent: int = Field(0, ge=-50, le=100)
    url: str = "wss://tts-api.xfyun.cn/v2/tts"

    @field_validator("url")
    @classmethod
    def _websocket(cls, url: str) -> str:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError('must begin with "ws://" or "wss://"')
        return url

    def app(self) -> str:
        """The application's id, from the file or from the environment."""
        return self.app_id or (os.environ.get(self.app_id_env, "") if self.app_id_env else "")

    def key(self) -> str:
        """The API key, from the file or from the environment."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")

    def secret(self) -> str:
        """The API secret, from the file or from the environment."""
        given = self.api_secret.get_secret_value()
        return given or (os.environ.get(self.api_secret_env, "") if self.api_secret_env else "")


class TtsSettings(_Section):
    """Text to speech: engines in order of preference."""

    engines: tuple[Literal["edge", "openai", "azure", "iflytek", "sherpa", "espeak"], ...] = Field(
        ("edge", "espeak"), min_length=1
    )
    first_audio_timeout_s: float = Field(2.0, gt=0, le=30)
    idle_timeout_s: float = Field(5.0, gt=0, le=60)
    retry_after_s: float = Field(30.0, ge=0, le=3600)
    max_concurrent: int = Field(40, ge=1, le=10_000)
    parallel_clauses: int = Field(2, ge=1, le=8)
    first_clause_min_chars: int = Field(2, ge=1, le=40)
    first_clause_max_chars: int = Field(24, ge=4, le=200)
    first_clause_wait_ms: int = Field(250, ge=0, le=5000)
    edge: EdgeVoiceSettings = EdgeVoiceSettings()
    openai: OpenAIVoiceSettings = OpenAIVoiceSettings()
    azure: AzureVoiceSettings = AzureVoiceSettings()
    iflytek: IflytekVoiceSettings = IflytekVoiceSettings()
    sherpa: SherpaVoiceSettings = SherpaVoiceSettings()
    espeak: EspeakVoiceSettings = EspeakVoiceSettings()

    @model_validator(mode="after")
    def _distinct(self) -> "TtsSettings":
        if len(set(self.engines)) != len(self.engines):
            raise ValueError("engines must not name one engine twice")
        if self.first_clause_max_chars < self.first_clause_min_chars:
            raise ValueError("first_clause_max_chars must not be below first_clause_min_chars")
        return self


class McpServer(_Section):
    """One external MCP server: a command that speaks over its standard input and output, or an address."""

    name: str = Field(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_-]+$")
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    cwd: str = ""
    url: str = ""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    timeout_s: float = Field(15.0, gt=0, le=600)
    dangerous: tuple[str, ...] = ()
    enabled: bool = True

    @model_validator(mode="after")
    def _one_way(self) -> "McpServer":
        if bool(self.command) == bool(self.url):
            raise ValueError("needs either command or url")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError('url must begin with "http://" or "https://"')
        return self


class DeviceToolSettings(_Section):
    """The device's own tools."""

    timeout_s: float = Field(10.0, gt=0, le=120)
    camera_timeout_s: float = Field(60.0, gt=0, le=300)
    max_tools: int = Field(64, ge=0, le=1000)


class WeatherSettings(_Section):
    """Where the weather comes from."""

    provider: Literal["open-meteo", "qweather"] = "open-meteo"
    city: str = ""
    url: str = ""
    geocoding_url: str = ""
    api_key: SecretStr = SecretStr("")
    api_key_env: str = "QWEATHER_API_KEY"
    cache_s: float = Field(600.0, ge=0, le=86_400)

    @model_validator(mode="after")
    def _host(self) -> "WeatherSettings":
        if self.provider == "qweather" and not self.url:
            raise ValueError('provider "qweather" needs url, the API host of the account')
        return self

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")


class ReminderSettings(_Section):
    """Timers, alarms and reminders."""

    max_per_device: int = Field(50, ge=1, le=1000)
    late_s: float = Field(86_400.0, ge=0, le=31_536_000)


class MusicSettings(_Section):
    """Music from a folder."""

    folder: Path | None = None
    max_tracks: int = Field(20_000, ge=1, le=1_000_000)
    ahead_s: float = Field(3.0, ge=0.5, le=30)
    workers: int = Field(2, ge=1, le=16)


class NewsSettings(_Section):
    """News by RSS or Atom."""

    feeds: tuple[str, ...] = ("https://www.chinanews.com.cn/rss/scroll-news.xml",)
    feeds_en: tuple[str, ...] = ("https://feeds.bbci.co.uk/news/world/rss.xml",)
    items: int = Field(5, ge=1, le=30)
    cache_s: float = Field(600.0, ge=0, le=86_400)


class SearchSettings(_Section):
    """Search on the web."""

    provider: Literal["none", "searxng", "tavily"] = "none"
    url: str = ""
    api_key: SecretStr = SecretStr("")
    api_key_env: str = "TAVILY_API_KEY"
    results: int = Field(5, ge=1, le=20)

    @model_validator(mode="after")
    def _address(self) -> "SearchSettings":
        if self.provider == "searxng" and not self.url:
            raise ValueError('provider "searxng" needs url, for example "http://127.0.0.1:8080"')
        return self

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")


class HomeAssistantSettings(_Section):
    """Home Assistant by its REST interface; off while `url` is empty."""

    url: str = ""
    token: SecretStr = SecretStr("")
    token_env: str = "HOME_ASSISTANT_TOKEN"
    domains: tuple[str, ...] = (
        "light",
        "switch",
        "fan",
        "cover",
        "climate",
        "media_player",
        "scene",
        "script",
        "vacuum",
        "input_boolean",
        "sensor",
        "binary_sensor",
        "lock",
        "alarm_control_panel",
    )
    dangerous_domains: tuple[str, ...] = ("lock", "alarm_control_panel")
    cache_s: float = Field(10.0, ge=0, le=3600)

    def key(self) -> str:
        """The access token, from the file or from the environment; empty when neither is set."""
        return self.token.get_secret_value() or (os.environ.get(self.token_env, "") if self.token_env else "")


class ToolsSettings(_Section):
    """What the model may call."""

    enabled: bool = True
    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    confirm: bool = True
    dangerous: tuple[str, ...] = ("self.system.reconfigure_wifi", "self.reboot", "self.upgrade_firmware")
    timeout_s: float = Field(15.0, gt=0, le=600)
    result_max_chars: int = Field(4000, ge=200, le=100_000)
    max_rounds: int = Field(5, ge=1, le=20)
    max_calls: int = Field(8, ge=1, le=64)
    max_tools: int = Field(96, ge=1, le=512)
    filler_after_s: float = Field(1.2, ge=0, le=30)
    http_timeout_s: float = Field(6.0, gt=0, le=60)
    http_max_kb: int = Field(2048, ge=16, le=65_536)
    private_redirects: bool = False
    mcp_config: Path | None = None
    servers: tuple[McpServer, ...] = ()
    device: DeviceToolSettings = DeviceToolSettings()
    weather: WeatherSettings = WeatherSettings()
    reminders: ReminderSettings = ReminderSettings()
    music: MusicSettings = MusicSettings()
    news: NewsSettings = NewsSettings()
    search: SearchSettings = SearchSettings()
    home_assistant: HomeAssistantSettings = HomeAssistantSettings()

    @model_validator(mode="after")
    def _distinct(self) -> "ToolsSettings":
        names = [server.name for server in self.servers]
        if len(set(names)) != len(names):
            raise ValueError("servers must not have the same name twice")
        return self


class EmbeddingsSettings(_Section):
    """An endpoint that tells how alike two questions are; without one a built-in measure is used."""

    base_url: str = ""
    model: str = ""
    api_key: SecretStr = SecretStr("")
    api_key_env: str = ""
    timeout_ms: int = Field(150, ge=10, le=5000)
    threshold: float = Field(0.92, gt=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "EmbeddingsSettings":
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise ValueError('base_url must begin with "http://" or "https://"')
        if self.base_url and not self.model:
            raise ValueError("model must be given together with base_url")
        return self

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")


class CacheSettings(_Section):
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


class StoreSettings(_Section):
    """What is kept of devices and conversations."""

    file: str = Field("xiaozhi.db", min_length=1, max_length=200)
    conversations: bool = True
    keep_days: float = Field(90.0, ge=0, le=36_500)
    keep_turns_per_device: int = Field(2000, ge=1, le=1_000_000)


class AgentsSettings(_Section):
    """Personas."""

    default: str = Field("xiaozhi", min_length=1, max_length=40)
    switch_by_voice: bool = True
    feelings: bool = True


class MetricsSettings(_Section):
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


class LoadStep(_Section):
    """From which readings on something is given up; 0 never."""

    asr_wait_ms: float = Field(0, ge=0, le=600_000)
    codec_wait_ms: float = Field(0, ge=0, le=600_000)
    loop_lag_ms: float = Field(0, ge=0, le=600_000)
    memory_percent: float = Field(0, ge=0, le=100)


class LoadSettings(_Section):
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


class Settings(_Section):
    """Everything. `Settings()` is the embedded default: no key, no download, no internet needed."""

    ENV_PREFIX: ClassVar[str] = "XIAOZHI_"

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    ota: OtaSettings = OtaSettings()
    log: LogSettings = LogSettings()
    models: ModelsSettings = ModelsSettings()
    audio: AudioSettings = AudioSettings()
    vad: VadSettings = VadSettings()
    turn: TurnSettings = TurnSettings()
    asr: AsrSettings = AsrSettings()
    llm: LlmSettings = LlmSettings()
    tts: TtsSettings = TtsSettings()
    cache: CacheSettings = CacheSettings()
    tools: ToolsSettings = ToolsSettings()
    store: StoreSettings = StoreSettings()
    agents: AgentsSettings = AgentsSettings()
    load: LoadSettings = LoadSettings()
    metrics: MetricsSettings = MetricsSettings()
