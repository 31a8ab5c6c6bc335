"""`[asr]`: speech to text."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import Field, SecretStr, field_validator

from xiaozhi.settings.engines import EngineSettings, tables_of, with_plugins
from xiaozhi.settings.pasted import Address, ApiKey, SocketAddress
from xiaozhi.settings.section import Language, Precision, Provider, Section


class RemoteAsrSettings(Section):
    """What holds for every recogniser on another machine."""

    timeout_s: float = Field(4.0, ge=0.2, le=60)
    connect_timeout_s: float = Field(2.0, gt=0, le=30)
    max_concurrent: int = Field(20, ge=1, le=10_000)
    max_audio_s: float = Field(60.0, ge=1, le=600)
    max_text_chars: int = Field(2000, ge=10, le=100_000)
    failures: int = Field(2, ge=1, le=1000)
    retry_after_s: float = Field(30.0, ge=0, le=3600)
    early_decode: bool = False


class OpenAIAsrSettings(EngineSettings):
    """Any transcription server that speaks OpenAI's `/audio/transcriptions`."""

    implementation = "xiaozhi.stages.asr.openai_transcription:OpenAITranscription"
    title = ("识别：OpenAI 接口", "Recognition: OpenAI")

    base_url: Address = "https://api.openai.com/v1"
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = Field("whisper-1", min_length=1, max_length=200)
    prompt: str = Field("", max_length=1000)

    @property
    def needs_credentials(self) -> bool:
        """Services on the internet do."""
        return self.base_url.startswith("https://")


class FunasrSettings(EngineSettings):
    """A FunASR runtime, over its WebSocket."""

    implementation = "xiaozhi.stages.asr.funasr:Funasr"
    title = ("识别：FunASR", "Recognition: FunASR")

    url: SocketAddress = "ws://127.0.0.1:10095"
    mode: Literal["offline", "2pass"] = "offline"
    verify_tls: bool = True
    hotwords: dict[str, int] = Field(default_factory=dict, max_length=1000)

    @field_validator("url")
    @classmethod
    def _websocket(cls, url: str) -> str:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError('must begin with "ws://" or "wss://"')
        return url


class RecognizerTables(Section):
    """The recognisers that have a table of their own: a line here, or an entry point, registers one."""

    openai: OpenAIAsrSettings = OpenAIAsrSettings()
    funasr: FunasrSettings = FunasrSettings()


if not TYPE_CHECKING:
    RecognizerTables = with_plugins("xiaozhi.recognisers", RecognizerTables)

RECOGNIZERS: Final[Mapping[str, str]] = {
    "sense-voice": "xiaozhi.stages.asr.sense_voice:SenseVoice",
    "zipformer": "xiaozhi.stages.asr.zipformer:Zipformer",
    "two-pass": "xiaozhi.stages.asr.two_pass:TwoPass",
    "pocketsphinx": "xiaozhi.stages.asr.pocketsphinx_engine:Pocketsphinx",
} | {name: kind.implementation for name, kind in tables_of(RecognizerTables).items()}
"""The class of each recogniser; the first four go by the settings that all have."""

if TYPE_CHECKING:
    EngineName: TypeAlias = str
else:
    EngineName = Literal["auto", *RECOGNIZERS]


class AsrSettings(RecognizerTables):
    """Speech to text."""

    engine: EngineName = "auto"
    fallback: Literal["auto", "sense-voice", "zipformer", "pocketsphinx"] = "auto"
    model_dir: Path | None = None
    streaming_model_dir: Path | None = None
    language: Language = "auto"
    itn: bool = True
    early_decode: bool = True
    partials: bool = False
    workers: int = Field(2, ge=1, le=64)
    threads: int = Field(1, ge=1, le=64)
    niceness: int = Field(4, ge=0, le=19)
    max_concurrent: int = Field(40, ge=1, le=10_000)
    batch_size: int = Field(1, ge=1, le=64)
    provider: Provider = "cpu"
    precision: Precision = "auto"
    rewrite: bool = True  # made once and compared with the original; see stages/asr/rewritten.py
    timeout_s: float = Field(10.0, ge=0.5, le=120)
    remote: RemoteAsrSettings = RemoteAsrSettings()
