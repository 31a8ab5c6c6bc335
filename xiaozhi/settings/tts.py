"""`[tts]`: text to speech."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.engines import EngineSettings, KnownVoice, tables_of, with_plugins
from xiaozhi.settings.pasted import Address, ApiKey, SocketAddress
from xiaozhi.settings.section import Provider, Section

# Microsoft's neural voices, the same behind the read-aloud service and Azure; the most liked of each kind first.
MICROSOFT: Final = (
    KnownVoice("zh-CN-XiaoxiaoNeural", "zh", "female"),
    KnownVoice("zh-CN-XiaoyiNeural", "zh", "female"),
    KnownVoice("zh-CN-YunxiNeural", "zh", "male"),
    KnownVoice("zh-CN-YunyangNeural", "zh", "male"),
    KnownVoice("zh-CN-YunjianNeural", "zh", "male"),
    KnownVoice("zh-CN-YunxiaNeural", "zh", "male"),
    KnownVoice("zh-HK-HiuMaanNeural", "yue", "female"),
    KnownVoice("zh-HK-HiuGaaiNeural", "yue", "female"),
    KnownVoice("zh-HK-WanLungNeural", "yue", "male"),
    KnownVoice("en-US-EmmaMultilingualNeural", "en", "female"),
    KnownVoice("en-US-AvaMultilingualNeural", "en", "female"),
    KnownVoice("en-US-AndrewMultilingualNeural", "en", "male"),
    KnownVoice("en-US-BrianMultilingualNeural", "en", "male"),
    KnownVoice("en-US-AriaNeural", "en", "female"),
    KnownVoice("en-US-JennyNeural", "en", "female"),
    KnownVoice("en-US-GuyNeural", "en", "male"),
    KnownVoice("en-GB-SoniaNeural", "en", "female"),
    KnownVoice("en-GB-RyanNeural", "en", "male"),
    KnownVoice("ja-JP-NanamiNeural", "ja", "female"),
    KnownVoice("ja-JP-KeitaNeural", "ja", "male"),
    KnownVoice("ko-KR-SunHiNeural", "ko", "female"),
    KnownVoice("ko-KR-InJoonNeural", "ko", "male"),
)
# OpenAI's voices speak every language, each with the same voice; `*` stands for that.
_OPENAI: Final = (
    KnownVoice("nova", "*", "female"),
    KnownVoice("alloy", "*", "female"),
    KnownVoice("shimmer", "*", "female"),
    KnownVoice("coral", "*", "female"),
    KnownVoice("sage", "*", "female"),
    KnownVoice("onyx", "*", "male"),
    KnownVoice("echo", "*", "male"),
    KnownVoice("fable", "*", "male"),
    KnownVoice("ash", "*", "male"),
    KnownVoice("ballad", "*", "male"),
)
# The basic voices, which every application has; they read English words within Chinese.
_IFLYTEK: Final = (
    KnownVoice("xiaoyan", "zh", "female"),
    KnownVoice("aisxping", "zh", "female"),
    KnownVoice("aisjinger", "zh", "female"),
    KnownVoice("aisjiuxu", "zh", "male"),
    KnownVoice("aisbabyxu", "zh", "male"),
)
_ESPEAK: Final = (
    KnownVoice("cmn+f2", "zh", "female"),
    KnownVoice("cmn+m3", "zh", "male"),
    KnownVoice("en-us+f2", "en", "female"),
    KnownVoice("en-us+m3", "en", "male"),
)


class EdgeVoiceSettings(EngineSettings):
    """Microsoft Edge's read-aloud service: free, needs internet."""

    implementation = "xiaozhi.stages.tts.edge:EdgeVoice"
    title = ("声音：Edge", "Voice: Edge")
    known_voices = MICROSOFT

    voice: str = "zh-CN-XiaoxiaoNeural"
    voice_en: str = "en-US-EmmaMultilingualNeural"
    rate_percent: int = Field(0, ge=-50, le=100)
    url: SocketAddress = ""


class OpenAIVoiceSettings(EngineSettings):
    """Any speech server that speaks OpenAI's `/audio/speech`."""

    implementation = "xiaozhi.stages.tts.openai_speech:OpenAIVoice"
    title = ("声音：OpenAI 接口", "Voice: OpenAI")
    known_voices = _OPENAI

    base_url: Address = "https://api.openai.com/v1"
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = "tts-1"
    voice: str = "alloy"
    format: Literal["pcm", "wav", "mp3", "opus"] = "pcm"
    pcm_rate_hz: int = Field(24_000, ge=8000, le=48_000)
    speed: float = Field(1.0, ge=0.25, le=4.0)

    @property
    def needs_credentials(self) -> bool:
        """Services on the internet do."""
        return self.base_url.startswith("https://")


class SherpaVoiceSettings(EngineSettings):
    """A local voice through sherpa-onnx (Matcha, VITS or Kokoro)."""

    implementation = "xiaozhi.stages.tts.sherpa:SherpaVoice"
    title = ("声音：本地模型", "Voice: local model")
    needs_network = False

    model_dir: Path | None = None
    speaker: int = Field(0, ge=0, le=10_000)
    speed: float = Field(1.0, ge=0.5, le=2.0)
    threads: int = Field(1, ge=1, le=64)
    provider: Provider = "cpu"


class EspeakVoiceSettings(EngineSettings):
    """The embedded voice: always there, plain."""

    implementation = "xiaozhi.stages.tts.espeak:EspeakVoice"
    title = ("声音：内置", "Voice: embedded")
    needs_network = False
    known_voices = _ESPEAK

    voice: str = "cmn"
    voice_en: str = "en-us+f2"
    rate_wpm: int = Field(160, ge=80, le=450)


class AzureVoiceSettings(EngineSettings):
    """Azure's speech service: natural, streamed, needs a key."""

    implementation = "xiaozhi.stages.tts.azure:AzureVoice"
    title = ("声音：Azure", "Voice: Azure")
    known_voices = MICROSOFT

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


class IflytekVoiceSettings(EngineSettings):
    """iFlytek's online speech synthesis: natural Chinese, streamed, needs an application with key and secret."""

    implementation = "xiaozhi.stages.tts.iflytek:IflytekVoice"
    title = ("声音：讯飞", "Voice: iFlytek")
    known_voices = _IFLYTEK

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


class VoiceTables(Section):
    """The voices: a line here, or an entry point, registers one."""

    edge: EdgeVoiceSettings = EdgeVoiceSettings()
    openai: OpenAIVoiceSettings = OpenAIVoiceSettings()
    azure: AzureVoiceSettings = AzureVoiceSettings()
    iflytek: IflytekVoiceSettings = IflytekVoiceSettings()
    sherpa: SherpaVoiceSettings = SherpaVoiceSettings()
    espeak: EspeakVoiceSettings = EspeakVoiceSettings()


if not TYPE_CHECKING:
    VoiceTables = with_plugins("xiaozhi.voices", VoiceTables)

VOICES: Final[Mapping[str, type[EngineSettings]]] = tables_of(VoiceTables)
"""The settings of each voice, by its name."""

if TYPE_CHECKING:
    VoiceName: TypeAlias = str
else:
    VoiceName = Literal[tuple(VOICES)]


class TtsSettings(VoiceTables):
    """Text to speech: engines in order of preference."""

    engines: tuple[VoiceName, ...] = Field(("edge", "espeak"), min_length=1)
    first_audio_timeout_s: float = Field(2.0, gt=0, le=30)
    idle_timeout_s: float = Field(5.0, gt=0, le=60)
    retry_after_s: float = Field(30.0, ge=0, le=3600)
    max_concurrent: int = Field(40, ge=1, le=10_000)
    parallel_clauses: int = Field(2, ge=1, le=8)
    first_clause_min_chars: int = Field(2, ge=1, le=40)
    first_clause_max_chars: int = Field(24, ge=4, le=200)
    first_clause_wait_ms: int = Field(250, ge=0, le=5000)

    @model_validator(mode="after")
    def _distinct(self) -> "TtsSettings":
        if len(set(self.engines)) != len(self.engines):
            raise ValueError("engines must not name one engine twice")
        if self.first_clause_max_chars < self.first_clause_min_chars:
            raise ValueError("first_clause_max_chars must not be below first_clause_min_chars")
        return self
