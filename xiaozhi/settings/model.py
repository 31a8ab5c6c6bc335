"""The settings as types: one class per table of `settings.toml`, in the order of the file."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

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


class AuthSettings(_Section):
    """Who may connect."""

    mode: Literal["open", "token"] = "token"
    token_ttl_days: float = Field(30.0, gt=0, le=3650)
    tokens: tuple[SecretStr, ...] = ()


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


class AsrSettings(_Section):
    """Speech to text."""

    engine: Literal["auto", "sense-voice", "zipformer", "two-pass", "pocketsphinx"] = "auto"
    model_dir: Path | None = None
    streaming_model_dir: Path | None = None
    language: Language = "auto"
    itn: bool = True
    early_decode: bool = True
    workers: int = Field(2, ge=1, le=64)
    threads: int = Field(1, ge=1, le=64)
    max_concurrent: int = Field(40, ge=1, le=10_000)
    batch_size: int = Field(1, ge=1, le=64)
    provider: Provider = "cpu"
    int8_rewrite: bool = True  # lossless, made once and compared with the original; see stages/asr/int8_rewrite.py
    timeout_s: float = Field(10.0, ge=0.5, le=120)


class LlmEndpoint(_Section):
    """One OpenAI-compatible chat endpoint."""

    name: str = Field(min_length=1)
    base_url: str
    model: str = Field(min_length=1)
    api_key: SecretStr = SecretStr("")
    api_key_env: str = ""
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    temperature: float | None = Field(None, ge=0, le=2)
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _url(self) -> "LlmEndpoint":
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError('base_url must begin with "http://" or "https://"')
        return self

    def key(self) -> str:
        """The API key, from the file or from the variable named by `api_key_env`; empty when neither is set."""
        return self.api_key.get_secret_value() or (os.environ.get(self.api_key_env, "") if self.api_key_env else "")


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
    history_max_chars: int = Field(6000, ge=0, le=1_000_000)
    endpoints: tuple[LlmEndpoint, ...] = ()

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


class TtsSettings(_Section):
    """Text to speech: engines in order of preference."""

    engines: tuple[Literal["edge", "openai", "sherpa", "espeak"], ...] = Field(("edge", "espeak"), min_length=1)
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
    sherpa: SherpaVoiceSettings = SherpaVoiceSettings()
    espeak: EspeakVoiceSettings = EspeakVoiceSettings()

    @model_validator(mode="after")
    def _distinct(self) -> "TtsSettings":
        if len(set(self.engines)) != len(self.engines):
            raise ValueError("engines must not name one engine twice")
        if self.first_clause_max_chars < self.first_clause_min_chars:
            raise ValueError("first_clause_max_chars must not be below first_clause_min_chars")
        return self


class Settings(_Section):
    """Everything. `Settings()` is the embedded default: no key, no download, no internet needed."""

    ENV_PREFIX: ClassVar[str] = "XIAOZHI_"

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()
    models: ModelsSettings = ModelsSettings()
    audio: AudioSettings = AudioSettings()
    vad: VadSettings = VadSettings()
    turn: TurnSettings = TurnSettings()
    asr: AsrSettings = AsrSettings()
    llm: LlmSettings = LlmSettings()
    tts: TtsSettings = TtsSettings()
