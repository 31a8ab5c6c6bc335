"""`[tts]`: text to speech."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, SocketAddress, key_of
from xiaozhi.settings.section import Provider, Section


class EdgeVoiceSettings(Section):
    """Microsoft Edge's read-aloud service: free, needs internet."""

    voice: str = "zh-CN-XiaoxiaoNeural"
    voice_en: str = "en-US-EmmaMultilingualNeural"
    rate_percent: int = Field(0, ge=-50, le=100)
    url: SocketAddress = ""


class OpenAIVoiceSettings(Section):
    """Any speech server that speaks OpenAI's `/audio/speech`."""

    base_url: Address = "https://api.openai.com/v1"
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = "tts-1"
    voice: str = "alloy"
    format: Literal["pcm", "wav", "mp3", "opus"] = "pcm"
    pcm_rate_hz: int = Field(24_000, ge=8000, le=48_000)
    speed: float = Field(1.0, ge=0.25, le=4.0)

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return key_of(self.api_key, self.api_key_env)


class SherpaVoiceSettings(Section):
    """A local voice through sherpa-onnx (Matcha, VITS or Kokoro)."""

    model_dir: Path | None = None
    speaker: int = Field(0, ge=0, le=10_000)
    speed: float = Field(1.0, ge=0.5, le=2.0)
    threads: int = Field(1, ge=1, le=64)
    provider: Provider = "cpu"


class EspeakVoiceSettings(Section):
    """The embedded voice: always there, plain."""

    voice: str = "cmn"
    voice_en: str = "en-us+f2"
    rate_wpm: int = Field(160, ge=80, le=450)


class AzureVoiceSettings(Section):
    """Azure's speech service: natural, streamed, needs a key."""

    region: str = Field("eastasia", pattern=r"^[a-z0-9-]{0,40}$")
    endpoint: Address = ""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "AZURE_SPEECH_KEY"
    voice: str = Field("zh-CN-XiaoxiaoNeural", min_length=1, max_length=100)
    voice_en: str = Field("en-US-EmmaMultilingualNeural", max_length=100)
    style: str = Field("", max_length=60)
    rate_percent: int = Field(0, ge=-50, le=100)

    @model_validator(mode="after")
    def _address(self) -> "AzureVoiceSettings":
        if not self.endpoint and not self.region:
            raise ValueError("needs a region or an endpoint")
        return self

    def key(self) -> str:
        """The key of the speech resource, from the file or from the environment; empty when neither is set."""
        return key_of(self.api_key, self.api_key_env)


class IflytekVoiceSettings(Section):
    """iFlytek's online speech synthesis: natural Chinese, streamed, needs an application with key and secret."""

    app_id: str = Field("", max_length=100)
    app_id_env: str = "IFLYTEK_APP_ID"
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "IFLYTEK_API_KEY"
    api_secret: ApiKey = SecretStr("")
    api_secret_env: str = "IFLYTEK_API_SECRET"
    voice: str = Field("xiaoyan", min_length=1, max_length=100)
    voice_en: str = Field("", max_length=100)
    rate_percent: int = Field(0, ge=-50, le=100)
    url: SocketAddress = "wss://tts-api.xfyun.cn/v2/tts"

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
        return key_of(self.api_key, self.api_key_env)

    def secret(self) -> str:
        """The API secret, from the file or from the environment."""
        return key_of(self.api_secret, self.api_secret_env)


class TtsSettings(Section):
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
