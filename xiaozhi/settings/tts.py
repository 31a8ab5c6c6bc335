"""`[tts]`: text to speech."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.engines import EngineSettings, KnownVoice, tables_of, with_plugins
from xiaozhi.settings.pasted import Address, ApiKey, KeyedSection, SocketAddress
from xiaozhi.settings.section import AtOnce, Provider, Section

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
# Sonic's voices speak every language of the model; these two are those that Cartesia suggests for agents.
_CARTESIA: Final = (
    KnownVoice("f786b574-daa5-4673-aa0c-cbe3e8534c02", "*", "female"),
    KnownVoice("228fca29-3a0a-435c-8728-5cb483251068", "*", "male"),
)
# Of the voices that every account has; they speak every language of the model.
_ELEVENLABS: Final = (
    KnownVoice("EXAVITQu4vr4xnSDxMaL", "*", "female"),
    KnownVoice("JBFqnCBsd6RMkjVDRZzb", "*", "male"),
)
_ESPEAK: Final = (
    KnownVoice("cmn+f2", "zh", "female"),
    KnownVoice("cmn+m3", "zh", "male"),
    KnownVoice("en-us+f2", "en", "female"),
    KnownVoice("en-us+m3", "en", "male"),
)


class EdgeVoiceSettings(EngineSettings):
    """Voice, Edge: Microsoft Edge's read-aloud service: free, needs internet.

    zh: 声音 · Edge：微软 Edge 的朗读服务：免费，要联网。
    """

    implementation = "xiaozhi.stages.tts.edge:EdgeVoice"
    known_voices = MICROSOFT

    voice: str = "zh-CN-XiaoxiaoNeural"
    """Chinese: zh-CN-XiaoxiaoNeural, zh-CN-XiaoyiNeural (women), zh-CN-YunxiNeural, zh-CN-YunyangNeural (men), and
    about 400 more in all languages: `edge-tts --list-voices`. voice_en speaks sentences that are English.
    zh: 中文有 zh-CN-XiaoxiaoNeural、zh-CN-XiaoyiNeural（女声），zh-CN-YunxiNeural、zh-CN-YunyangNeural（男声），各种
    语言共约 400 种：`edge-tts --list-voices`。"""
    voice_en: str = "en-US-EmmaMultilingualNeural"
    """zh: 说英文句子用的声音。"""
    rate_percent: int = Field(0, ge=-50, le=100)
    """Faster or slower. zh: 语速加快或放慢的百分比。"""
    url: SocketAddress = ""
    """Another address of the service (a proxy, a stand-in). Empty: Microsoft's.
    zh: 服务的另一个地址（例如代理）。留空用微软的。"""


class OpenAIVoiceSettings(EngineSettings, KeyedSection):
    """Voice, OpenAI: any server that speaks OpenAI's `/audio/speech`.

    zh: 声音 · OpenAI 接口：任何有 OpenAI /audio/speech 接口的语音服务。
    """

    implementation = "xiaozhi.stages.tts.openai_speech:OpenAIVoice"
    known_voices = _OPENAI

    base_url: Address = "https://api.openai.com/v1"
    """Address of the service, to its /v1. zh: 服务的地址，以 /v1 结尾。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = "tts-1"
    """The model and one of its voices, as the service names them. zh: 语音模型的名称。"""
    voice: str = "alloy"
    """zh: 声音的名称。"""
    format: Literal["pcm", "wav", "mp3", "opus"] = "pcm"
    """How it sends sound; "pcm" is streamed and quickest. A server that answers something else is understood all the
    same.
    zh: 声音的格式：pcm（流式，最快）、wav、mp3 或 opus。服务器用别的格式回答也听得懂。"""
    pcm_rate_hz: int = Field(24_000, ge=8000, le=48_000)
    """Samples a second of "pcm", where the server does not say it: OpenAI's are 24000, some local servers' 16000 or
    22050.
    zh: pcm 的采样率，服务器没有说明时用它：OpenAI 是 24000，有的本地服务是 16000 或 22050。"""
    speed: float = Field(1.0, ge=0.25, le=4.0)
    """zh: 语速，1 是正常。"""

    @property
    def needs_credentials(self) -> bool:
        """Services on the internet do."""
        return self.base_url.startswith("https://")


class SherpaVoiceSettings(EngineSettings):
    """Voice, local model: through sherpa-onnx (Matcha, VITS or Kokoro).

    zh: 声音 · 本地模型：用 sherpa-onnx 运行的本地声音（Matcha、VITS 或 Kokoro）。
    """

    implementation = "xiaozhi.stages.tts.sherpa:SherpaVoice"
    needs_network = False

    model_dir: Path | None = Field(None, examples=["models/matcha-zh"])
    """Folder of a Matcha, VITS or Kokoro model for sherpa-onnx. Not set: the first one found in [models] dir.
    zh: 模型文件夹。不填则用 [models] dir 里找到的第一个。"""
    speaker: int = Field(0, ge=0, le=10_000)
    """Which of the model's voices, and how fast it speaks. zh: 用模型里的第几个声音。"""
    speed: float = Field(1.0, ge=0.5, le=2.0)
    """zh: 语速，1 是正常。"""
    threads: int = Field(1, ge=1, le=64)
    """Threads of one synthesis. zh: 合成一句用的线程数。"""
    provider: Provider = "cpu"
    """The processor, or "cuda" (needs a sherpa-onnx built for it; the refusal names the wheel to install).
    zh: 用 cpu 还是 cuda（需要带 CUDA 的 sherpa-onnx，没有时会告诉你装哪个包）。"""


class EspeakVoiceSettings(EngineSettings):
    """Voice, embedded: always there, plain. zh: 声音 · 内置：永远可用，不加修饰。"""

    implementation = "xiaozhi.stages.tts.espeak:EspeakVoice"
    needs_network = False
    known_voices = _ESPEAK

    voice: str = "cmn"
    """espeak-ng voices; "cmn" is Mandarin. A variant is added with a plus sign: "cmn+f2", "en-us+m3". voice_en speaks
    sentences that are English; the rate is in words a minute.
    zh: espeak-ng 的声音，cmn 是普通话；可以用加号加变体，例如 cmn+f2。"""
    voice_en: str = "en-us+f2"
    """zh: 说英文句子用的声音，例如 en-us+m3。"""
    rate_wpm: int = Field(160, ge=80, le=450)
    """zh: 语速，每分钟词数。"""


class AzureVoiceSettings(EngineSettings, KeyedSection):
    """Voice, Azure: Microsoft's speech service: natural, streamed, needs a key.

    zh: 声音 · Azure：Azure 语音服务：自然、流式，要密钥。
    """

    implementation = "xiaozhi.stages.tts.azure:AzureVoice"
    known_voices = MICROSOFT

    region: str = Field("eastasia", pattern=r"^[a-z0-9-]{0,40}$")
    """The region of your speech resource ("eastasia", "westeurope", "chinaeast2" …), or its endpoint instead, where it
    has a domain of its own: https://NAME.cognitiveservices.azure.com.
    zh: 语音资源所在的区域，例如 eastasia、westeurope。"""
    endpoint: Address = ""
    """zh: 一般留空；资源有自己的域名时填完整地址，例如 https://名字.cognitiveservices.azure.com。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "AZURE_SPEECH_KEY"
    voice: str = Field("zh-CN-XiaoxiaoNeural", min_length=1, max_length=100)
    """As for edge. style: "cheerful", "chat", "gentle" … where the voice has it; empty for none.
    zh: 声音的名称，与 Edge 的相同。"""
    voice_en: str = Field("en-US-EmmaMultilingualNeural", max_length=100)
    """zh: 说英文句子用的声音。"""
    style: str = Field("", max_length=60)
    """zh: 说话风格，例如 cheerful、chat、gentle（要声音支持）；留空则没有。"""
    rate_percent: int = Field(0, ge=-50, le=100)
    """zh: 语速加快或放慢的百分比。"""

    @model_validator(mode="after")
    def _address(self) -> "AzureVoiceSettings":
        if not self.endpoint and not self.region:
            raise ValueError("needs a region or an endpoint")
        return self


class IflytekVoiceSettings(EngineSettings, KeyedSection):
    """Voice, iFlytek: natural Chinese, streamed, needs an application with key and secret.

    zh: 声音 · 讯飞：讯飞在线语音合成：中文自然、流式，要应用的密钥。
    """

    implementation = "xiaozhi.stages.tts.iflytek:IflytekVoice"
    known_voices = _IFLYTEK

    app_id: str = Field("", max_length=100)
    """From the console of the application (https://console.xfyun.cn, online speech synthesis): from environment
    variables, or written down here. The clock of this machine must be right within five minutes.
    zh: 应用的 APPID，在 https://console.xfyun.cn 的“在线语音合成”里；可以写在这里，也可以用环境变量。本机时钟的误差
    不能超过五分钟。"""
    app_id_env: str = "IFLYTEK_APP_ID"
    """zh: 存放 APPID 的环境变量名。"""
    api_key: ApiKey = SecretStr("")
    """zh: 应用的 APIKey。"""
    api_key_env: str = "IFLYTEK_API_KEY"
    """zh: 存放 APIKey 的环境变量名。"""
    api_secret: ApiKey = SecretStr("")
    """zh: 应用的 APISecret。"""
    api_secret_env: str = "IFLYTEK_API_SECRET"
    """zh: 存放 APISecret 的环境变量名。"""
    voice: str = Field("xiaoyan", min_length=1, max_length=100)
    """xiaoyan (woman), aisjiuxu (man), and what else the console has enabled. voice_en speaks sentences that are
    English; empty: voice speaks them as well.
    zh: 发音人：xiaoyan（女）、aisjiuxu（男），以及讯飞控制台里开通的其他发音人。"""
    voice_en: str = Field("", max_length=100)
    """zh: 说英文句子用的发音人；留空则都用 voice。"""
    rate_percent: int = Field(0, ge=-50, le=100)
    """Slower or faster. zh: 语速加快或放慢的百分比。"""
    url: SocketAddress = "wss://tts-api.xfyun.cn/v2/tts"
    """Address of the service; to be changed for a proxy only. zh: 服务的 WebSocket 地址；除非走代理，否则不用改。"""


class CartesiaVoiceSettings(EngineSettings, KeyedSection):
    """Voice, Cartesia: takes the reply as it is written; very quick, needs a key.

    zh: 声音 · Cartesia：边写边说，非常快，要密钥。
    """

    implementation = "xiaozhi.stages.tts.cartesia:CartesiaVoice"
    known_voices = _CARTESIA

    api_key: ApiKey = SecretStr("")
    api_key_env: str = "CARTESIA_API_KEY"
    model: str = Field("sonic-3", min_length=1, max_length=100)
    """zh: 语音模型的名称。"""
    voice: str = Field("f786b574-daa5-4673-aa0c-cbe3e8534c02", min_length=1, max_length=100)
    """The id of a voice (https://play.cartesia.ai/voices). voice_en speaks replies that begin in English; empty: voice
    speaks them as well.
    zh: 声音的 id，见 https://play.cartesia.ai/voices。"""
    voice_en: str = Field("", max_length=100)
    """zh: 说以英文开头的回答用的声音；留空则都用 voice。"""
    rate_percent: int = Field(0, ge=-40, le=50)
    """Slower or faster. zh: 语速加快或放慢的百分比。"""
    url: SocketAddress = "wss://api.cartesia.ai/tts/websocket"
    """Address of the service; to be changed for a proxy only. zh: 服务的 WebSocket 地址；除非走代理，否则不用改。"""


class ElevenLabsVoiceSettings(EngineSettings, KeyedSection):
    """Voice, ElevenLabs: takes the reply as it is written; the most natural English, needs a key.

    zh: 声音 · ElevenLabs：边写边说，英语最自然，要密钥。
    """

    implementation = "xiaozhi.stages.tts.elevenlabs:ElevenLabsVoice"
    known_voices = _ELEVENLABS

    api_key: ApiKey = SecretStr("")
    api_key_env: str = "ELEVENLABS_API_KEY"
    model: str = Field("eleven_flash_v2_5", min_length=1, max_length=100)
    """eleven_flash_v2_5 is quick and speaks 32 languages. zh: 语音模型的名称；eleven_flash_v2_5 最快，会 32 种语言。"""
    voice: str = Field("EXAVITQu4vr4xnSDxMaL", pattern=r"^[A-Za-z0-9_-]{1,60}$")
    """The id of a voice of your account. zh: 声音的 id，在 ElevenLabs 的 Voices 页面里。"""
    rate_percent: int = Field(0, ge=-30, le=20)
    """Slower or faster. zh: 语速加快或放慢的百分比。"""
    url: SocketAddress = "wss://api.elevenlabs.io"
    """Address of the service, without a path; accounts that are bound to Europe have one of their own.
    zh: 服务的地址，不带路径；一般不用改。"""


class VoiceTables(Section):
    """The voices: a line here, or an entry point, registers one."""

    edge: EdgeVoiceSettings = EdgeVoiceSettings()
    openai: OpenAIVoiceSettings = OpenAIVoiceSettings()
    azure: AzureVoiceSettings = AzureVoiceSettings()
    iflytek: IflytekVoiceSettings = IflytekVoiceSettings()
    sherpa: SherpaVoiceSettings = SherpaVoiceSettings()
    espeak: EspeakVoiceSettings = EspeakVoiceSettings()
    cartesia: CartesiaVoiceSettings = CartesiaVoiceSettings()
    elevenlabs: ElevenLabsVoiceSettings = ElevenLabsVoiceSettings()


if not TYPE_CHECKING:
    VoiceTables = with_plugins("xiaozhi.voices", VoiceTables)

VOICES: Final[Mapping[str, type[EngineSettings]]] = tables_of(VoiceTables)
"""The settings of each voice, by its name."""

if TYPE_CHECKING:
    VoiceName: TypeAlias = str
else:
    VoiceName = Literal[tuple(VOICES)]


class TtsSettings(VoiceTables, applies="next turn"):
    """Voices: who speaks. zh: 语音合成 TTS：把文字说出来：按顺序使用的引擎。"""

    engines: tuple[VoiceName, ...] = Field(("edge", "espeak"), min_length=1)
    """Voices in order of preference: "edge" (free, needs internet), "openai" (any server with OpenAI's /audio/speech),
    "azure" and "iflytek" (natural, need keys), "cartesia" and "elevenlabs" (take the reply as it is written, need
    keys), "sherpa" (local model), "espeak" (embedded, robotic, always works). One that fails or is late is passed over
    for the same sentence and left alone for retry_after_s; the next one speaks with its closest voice (language, woman
    or man). Keep "espeak" last: then a device is never mute.
    zh: 声音引擎，按优先顺序：edge（免费，要联网）、openai（任何有 /audio/speech 接口的服务）、azure 和 iflytek（自
    然，要密钥）、cartesia 和 elevenlabs（边写边说，要密钥）、sherpa（本地模型）、espeak（内置，像机器人，永远可用）。
    失败或太慢时，同一句话由下一个用最接近的声音（语言、男女）来说。请把 espeak 留在最后，这样设备永远不会哑。"""
    first_audio_timeout_s: float = Field(2.0, gt=0, le=30)
    """Time to the first sound of a sentence, then between two pieces. zh: 等一句话第一个声音的时间（秒）。"""
    idle_timeout_s: float = Field(5.0, gt=0, le=60)
    """zh: 等下一段声音的时间（秒）。"""
    retry_after_s: float = Field(30.0, ge=0, le=3600)
    """A voice that failed is tried again after this time, by one sentence first.
    zh: 失败的声音过这么久（秒）再用一句话试试。"""
    max_concurrent: int = Field(40, ge=1, le=10_000)
    """Sentences being synthesised at the same time, over all devices; the first of a reply go first. Also:
    TTS_MAX_CONCURRENT.
    zh: 所有设备合计同时合成的句子数；每个回答的第一句优先。也可以用环境变量 TTS_MAX_CONCURRENT。"""
    parallel_clauses: AtOnce[int] = Field(2, ge=1, le=8)
    """Sentences of one reply synthesised ahead of the one being spoken.
    zh: 一个回答里，在正说的句子之外提前合成几句。"""
    first_clause_min_chars: AtOnce[int] = Field(2, ge=1, le=40)
    """The first piece of a reply is spoken as soon as it is a clause: it ends at a comma or the like after at least
    first_clause_min_chars, is cut after first_clause_max_chars, or when the language model has paused for
    first_clause_wait_ms. Smaller is sooner, larger sounds smoother.
    zh: 回答的第一段至少这么多字，到逗号之类就开始说。小则更快，大则更顺。"""
    first_clause_max_chars: AtOnce[int] = Field(24, ge=4, le=200)
    """zh: 第一段最多这么多字，没有标点也会切开。"""
    first_clause_wait_ms: AtOnce[int] = Field(250, ge=0, le=5000)
    """zh: 语言模型停了这么久（毫秒），就先把已有的说出来。"""

    @model_validator(mode="after")
    def _distinct(self) -> "TtsSettings":
        if len(set(self.engines)) != len(self.engines):
            raise ValueError("engines must not name one engine twice")
        if self.first_clause_max_chars < self.first_clause_min_chars:
            raise ValueError("first_clause_max_chars must not be below first_clause_min_chars")
        return self
