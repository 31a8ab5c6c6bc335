"""`[tts]`: text to speech."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.accounts import IflytekAccount, TencentAccount
from xiaozhi.settings.engines import EngineSettings, KnownVoice, tables_of, with_plugins
from xiaozhi.settings.http_voices import HTTP_PRESETS, PLACEHOLDERS, HttpPresetName, HttpRequest, placeholders
from xiaozhi.settings.pasted import Address, ApiKey, KeyedSection, SocketAddress, WholeAddress
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
# System voices; each speaks every language of the service.
_MINIMAX: Final = (
    KnownVoice("female-shaonv", "*", "female"),
    KnownVoice("female-yujie", "*", "female"),
    KnownVoice("female-chengshu", "*", "female"),
    KnownVoice("female-tianmei", "*", "female"),
    KnownVoice("male-qn-qingse", "*", "male"),
    KnownVoice("male-qn-jingying", "*", "male"),
    KnownVoice("male-qn-daxuesheng", "*", "male"),
)
_TENCENT: Final = (
    KnownVoice("101001", "zh", "female"),
    KnownVoice("101016", "zh", "female"),
    KnownVoice("101004", "zh", "male"),
    KnownVoice("101051", "en", "female"),
    KnownVoice("101050", "en", "male"),
)
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")  # RFC 9110, 5.1
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"})
_ESPEAK: Final = (
    KnownVoice("cmn+f2", "zh", "female"),
    KnownVoice("cmn+m3", "zh", "male"),
    KnownVoice("en-us+f2", "en", "female"),
    KnownVoice("en-us+m3", "en", "male"),
)


# Of the second generation, all with Chinese and English; those of the first belong to another resource.
_VOLCENGINE: Final = (
    KnownVoice("zh_female_vv_uranus_bigtts", "zh", "female"),
    KnownVoice("zh_female_xiaohe_uranus_bigtts", "zh", "female"),
    KnownVoice("zh_male_m191_uranus_bigtts", "zh", "male"),
    KnownVoice("zh_male_taocheng_uranus_bigtts", "zh", "male"),
)


# Of cosyvoice-v2: each model has voices of its own. They read English words within Chinese.
_COSYVOICE_V2: Final = (
    KnownVoice("longxiaochun_v2", "zh", "female"),
    KnownVoice("longxiaoxia_v2", "zh", "female"),
    KnownVoice("longyue_v2", "zh", "female"),
    KnownVoice("longmiao_v2", "zh", "female"),
    KnownVoice("longcheng_v2", "zh", "male"),
    KnownVoice("longshu_v2", "zh", "male"),
    KnownVoice("longshuo_v2", "zh", "male"),
    KnownVoice("longxiu_v2", "zh", "male"),
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


class IflytekVoiceSettings(IflytekAccount):
    """Voice, iFlytek: natural Chinese, streamed, needs an application with key and secret.

    zh: 声音 · 讯飞：讯飞在线语音合成：中文自然、流式，要应用的密钥。
    """

    implementation = "xiaozhi.stages.tts.iflytek:IflytekVoice"
    known_voices = _IFLYTEK

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


class MinimaxVoiceSettings(EngineSettings, KeyedSection):
    """Voice, MiniMax: very natural, many languages, one connection for a whole reply, needs a key.

    zh: 声音 · MiniMax：非常自然，支持多种语言，一个回答用一个连接，要密钥。
    """

    implementation = "xiaozhi.stages.tts.minimax:MinimaxVoice"
    known_voices = _MINIMAX

    api_key: ApiKey = SecretStr("")
    api_key_env: str = "MINIMAX_API_KEY"
    model: str = Field("speech-2.6-turbo", min_length=1, max_length=100)
    """speech-2.8-turbo, speech-2.6-turbo, speech-02-turbo (quick), or the same with -hd (finer).
    zh: 模型：speech-2.8-turbo、speech-2.6-turbo、speech-02-turbo（快），或对应的 -hd（更细腻）。"""
    voice: str = Field("female-shaonv", min_length=1, max_length=200)
    """A system voice, such as female-shaonv or male-qn-qingse, or one that you have cloned.
    zh: 系统音色，例如 female-shaonv、male-qn-qingse，也可以是自己复刻的音色。"""
    emotion: str = Field("", max_length=60)
    """happy, sad, calm …; empty: the service decides by the text.
    zh: 情绪，例如 happy、sad、calm；留空由服务按文字决定。"""
    language: str = Field("auto", min_length=1, max_length=60)
    """Which language is read best: auto, Chinese, "Chinese,Yue", English …
    zh: 优先读准哪种语言：auto、Chinese、“Chinese,Yue”（粤语）、English 等。"""
    rate_percent: int = Field(0, ge=-50, le=100)
    """Slower or faster. zh: 语速加快或放慢的百分比。"""
    url: SocketAddress = "wss://api.minimaxi.com/ws/v1/t2a_v2"
    """Keys of minimaxi.com (China) are not taken elsewhere; those of minimax.io need wss://api.minimax.io/ws/v1/t2a_v2.
    zh: 服务的 WebSocket 地址。minimaxi.com（中国）的密钥不能用在别处；minimax.io 的密钥要用
    wss://api.minimax.io/ws/v1/t2a_v2。"""


class TencentVoiceSettings(TencentAccount):
    """Voice, Tencent Cloud: natural, streamed, needs the keys of an account.

    zh: 声音 · 腾讯云：自然、流式，要账号的密钥。
    """

    implementation = "xiaozhi.stages.tts.tencent:TencentVoice"
    known_voices = _TENCENT

    voice: str = Field("101001", pattern=r"^[0-9]{1,12}$")
    """The number of a voice: 101001 (woman), 101004 (man), and what else the console has. voice_en speaks sentences
    that are English; empty: voice speaks them as well.
    zh: 音色编号：101001（女）、101004（男），以及控制台里的其他音色。"""
    voice_en: str = Field("", pattern=r"^[0-9]{0,12}$")
    """zh: 说英文句子用的音色编号；留空则都用 voice。"""
    rate_percent: int = Field(0, ge=-40, le=100)
    """Slower or faster. zh: 语速加快或放慢的百分比。"""
    volume: int = Field(0, ge=-10, le=10)
    """zh: 音量，-10 到 10。"""
    url: SocketAddress = "wss://tts.cloud.tencent.com/stream_wsv2"
    """Address of the service; it is signed as well. zh: 服务的 WebSocket 地址；签名里也有它。"""


class HttpVoiceSettings(EngineSettings, KeyedSection):
    """Voice, HTTP: any server that is sent a text in one request and answers with its sound.

    zh: 声音 · HTTP：任何用一个请求接收文字、以声音回答的语音服务。
    """

    implementation = "xiaozhi.stages.tts.http:HttpVoice"

    preset: Literal["", HttpPresetName] = ""
    """What is known of a server; all that is written beside it wins, and what is left empty or 0 is the preset's.
      "siliconflow"  硅基流动, the cloud: CosyVoice 2, streamed; needs a key alone
      "gpt-sovits"   api_v2.py on port 9880, streamed; voice is the path of the reference sound on that server, and
                     body = { prompt_text = "what is said in it" }
      "cosyvoice"    its FastAPI server on port 50000, streamed, with voices that its model has: "中文女" and others of
                     the first CosyVoice, which also needs pcm_rate_hz = 22050, or what was added to a later one
      "indextts"     index-tts-vllm on port 6006; voice is a character of that server. A sentence comes as a whole
      "fish-speech"  on port 8080, streamed; voice is a reference_id of that server, or empty
    A server that thinks long before the first sound needs a longer tts.first_audio_timeout_s as well.
    zh: 预设的服务；旁边写的优先，留空或为 0 的用预设的值。
      siliconflow：硅基流动，云端 CosyVoice 2，流式；只要密钥
      gpt-sovits：api_v2.py，端口 9880，流式；voice 填参考音频在那台服务器上的路径，并写 body = { prompt_text = "参考
          音频里说的话" }
      cosyvoice：它的 FastAPI 服务，端口 50000，流式，用模型里有的声音：第一代 CosyVoice 有“中文女”等，还要写
          pcm_rate_hz = 22050；后来的版本用自己加进去的声音
      indextts：index-tts-vllm，端口 6006；voice 填那台服务器上的角色名。整句一起返回
      fish-speech：端口 8080，流式；voice 填那台服务器上的 reference_id，可以留空
    出第一个声音较慢的服务，还要把 tts.first_audio_timeout_s 调大。"""
    url: WholeAddress = ""
    """The whole address that is asked. A redirect is not followed: the key goes nowhere else.
    zh: 请求的完整地址。不跟随重定向，密钥不会送往别处。"""
    api_key: ApiKey = SecretStr("")
    """The key: from an environment variable (of preset "siliconflow": SILICONFLOW_API_KEY), or written down here; sent
    where "{key}" stands in a header.
    zh: 密钥，放在请求头里 {key} 的位置；不想写进文件，就用环境变量。"""
    api_key_env: str = ""
    """zh: 存放密钥的环境变量名；siliconflow 默认是 SILICONFLOW_API_KEY。"""
    voice: str = Field("", max_length=500)
    """zh: 声音的名称，含义见各预设。"""
    speed: float = Field(1.0, ge=0.25, le=4.0)
    """zh: 语速，1 是正常。"""
    body: dict[str, Any] = Field(default_factory=dict, max_length=60)
    """What is sent, beside or instead of the preset's fields: { "text" = "{text}", "speaker" = "{voice}", "top_k" = 5 }
    {text}, {voice}, {language} (zh, en, ja …) and {speed} stand for their values; a field that is empty is not sent.
    zh: 发送的字段，补充或代替预设的字段：{ "text" = "{text}", "speaker" = "{voice}", "top_k" = 5 }。{text}、{voice}、
    {language}（zh、en、ja 等）、{speed} 会换成实际的值；空的字段不发送。"""
    method: Literal["", "POST", "GET"] = ""
    """POST where nothing is said; with GET the fields stand in the address. sent_as: "json" or a "form".
    zh: 请求方法，默认 POST；用 GET 时字段放在地址里。"""
    sent_as: Literal["", "json", "form"] = ""
    """zh: 字段的格式：json（默认）或 form。"""
    headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=20)
    """Headers beside the usual { Authorization = "Bearer {key}" }, which is not sent where there is no key. They are
    kept as secret as a key.
    zh: 请求头，默认 { Authorization = "Bearer {key}" }，没有密钥时不发送；与密钥一样保密。"""
    sound_at: str = Field("", max_length=200, pattern=r"^[^\s]*$")
    """Where the sound is. Empty: the answer is the sound, in any usual format, heard as it comes. Otherwise the place
    in an answer of JSON, such as "data.0.audio", of the sound in base64 or of its address on the same server.
    zh: 声音在哪里。留空：回答本身就是声音，常见格式都可以，边收边播。否则填它在 JSON 回答里的位置，例如
    data.0.audio；那里是 base64 的声音，或同一服务器上的声音地址。"""
    pcm_rate_hz: int = Field(0, ge=0, le=96_000)
    """Samples a second of bare samples, where the server does not say it; 0: the preset's, or 24000.
    zh: 裸采样的采样率，服务器没有说明时用它；0 则用预设的值或 24000。"""

    @property
    def request(self) -> HttpRequest:
        """What is given, over the preset."""
        known = HTTP_PRESETS[self.preset] if self.preset else HttpRequest()
        return known.with_given(
            self.body,
            {name: value.get_secret_value() for name, value in self.headers.items()},
            url=self.url,
            voice=self.voice,
            method=self.method,
            sent_as=self.sent_as,
            sound_at=self.sound_at,
            pcm_rate_hz=self.pcm_rate_hz,
        )

    @property
    def needs_credentials(self) -> bool:
        """Services on the internet do, where a header has a place for it."""
        request = self.request
        return request.url.startswith("https://") and "key" in placeholders(request.headers)

    @model_validator(mode="before")
    @classmethod
    def _own_variable(cls, values: Any) -> Any:
        name = values.get("preset") if isinstance(values, dict) else None
        known = [preset for title, preset in HTTP_PRESETS.items() if title == name]
        return values | {"api_key_env": values.get("api_key_env") or known[0].api_key_env} if known else values

    @model_validator(mode="after")
    def _fits(self) -> "HttpVoiceSettings":
        request = self.request
        names = set(placeholders(request.body))
        if unknown := sorted(names - set(PLACEHOLDERS)):
            places = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"body: knows no {{{unknown[0]}}}; what may stand in braces is {places}")
        if request.url and "text" not in names:
            raise ValueError('body: has no place for the text, such as text = "{text}"')
        as_json = request.method == "POST" and request.sent_as == "json"
        if not as_json and any(isinstance(value, dict | list) for value in request.body.values()):
            raise ValueError("body: fields of a form or an address hold no lists and tables")
        for name, value in request.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _FRAMING:
                raise ValueError(f"headers: {name!a} cannot be set")
            if not all(" " <= char <= "~" for char in value):
                raise ValueError(f"headers: {name} holds characters that no header has")
        return self


class VolcengineVoiceSettings(EngineSettings, KeyedSection):
    """Voice, Volcengine: Doubao's voices: natural Chinese, streamed, needs a key.

    zh: 声音 · 火山引擎：豆包语音合成大模型（双向流式）：中文自然、流式，要密钥。
    """

    implementation = "xiaozhi.stages.tts.volcengine:VolcengineVoice"
    known_voices = _VOLCENGINE
    optional = frozenset({"app_id"})

    api_key: ApiKey = SecretStr("")
    """The API key of the new console (https://console.volcengine.com/speech); or the access token of an application of
    the old one, whose number goes into app_id then. Both from environment variables, or written down here.
    zh: 新版控制台（https://console.volcengine.com/speech）的 API Key；旧版控制台填应用的 Access Token，并在 app_id 里填
    APP ID。可以直接写在这里，也可以用环境变量。"""
    api_key_env: str = "VOLCENGINE_API_KEY"
    app_id: str = Field("", max_length=100)
    """zh: 旧版控制台应用的 APP ID；新版控制台留空。"""
    app_id_env: str = "VOLCENGINE_APP_ID"
    """zh: 存放 APP ID 的环境变量名。"""
    resource_id: str = Field("seed-tts-2.0", pattern=r"^[\w.-]{1,100}$")
    """What the account has bought, and the voice with it: seed-tts-2.0 for voices that end in uranus_bigtts,
    seed-tts-1.0 or seed-tts-1.0-concurr for those that end in moon_bigtts, seed-icl-2.0 or seed-icl-1.0 for your own. A
    voice of another resource is refused.
    zh: 账号开通的资源，要与声音相配：seed-tts-2.0 配 uranus_bigtts 结尾的声音，seed-tts-1.0 或 seed-tts-1.0-concurr 配
    moon_bigtts 结尾的声音，seed-icl-2.0 或 seed-icl-1.0 配自己复刻的声音。不相配会被拒绝。"""
    voice: str = Field("zh_female_vv_uranus_bigtts", min_length=1, max_length=100)
    """zh: 声音的名称（voice_type），在控制台的音色列表里。"""
    rate_percent: int = Field(0, ge=-50, le=100)
    """Slower or faster. zh: 语速加快或放慢的百分比。"""
    keep_s: int = Field(30, ge=0, le=600)
    """A connection is kept for the next reply for so long: it begins some 0.1 s sooner. One that is kept counts as one
    of those that were bought; 0 keeps none.
    zh: 连接保留这么久（秒）给下一个回答用，能早约 0.1 秒出声。保留的连接占用购买的并发数；0 不保留。"""
    url: SocketAddress = "wss://openspeech.bytedance.com/api/v3/tts/bidirection"
    """Address of the service; to be changed for a proxy only. zh: 服务的 WebSocket 地址；除非走代理，否则不用改。"""


class DashscopeVoiceSettings(EngineSettings, KeyedSection):
    """Voice, Alibaba: CosyVoice and Qwen on DashScope (Bailian): speak while the reply is still written; need a key.

    zh: 声音 · 阿里云百炼：CosyVoice 和 Qwen，边写边说，要密钥。
    """

    implementation = "xiaozhi.stages.tts.dashscope:DashscopeVoice"
    known_voices = _COSYVOICE_V2

    url: SocketAddress = "wss://dashscope.aliyuncs.com/api-ws/v1/inference"
    """Address of the service. A key is good for its own region: Singapore has
    "wss://dashscope-intl.aliyuncs.com/api-ws/v1/inference".
    zh: 服务地址。密钥只在所属地域有效；新加坡是“wss://dashscope-intl.aliyuncs.com/api-ws/v1/inference”。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "DASHSCOPE_API_KEY"
    workspace: str = Field("", max_length=100, pattern=r"^[\w-]*$")
    """A workspace of Model Studio; empty for the key's own. zh: 百炼业务空间的 ID；留空用密钥所属的。"""
    model: str = Field("cosyvoice-v2", min_length=1, max_length=200)
    """cosyvoice-v2, cosyvoice-v3-flash, cosyvoice-v3-plus, or qwen3-tts-flash-realtime.
    zh: 模型：cosyvoice-v2、cosyvoice-v3-flash、cosyvoice-v3-plus 或 qwen3-tts-flash-realtime。"""
    voice: str = Field("", max_length=200)
    """One of the model's own voices: those of cosyvoice-v2 end in "_v2"; a cloned voice belongs to the model that it
    was made with. Empty: longxiaochun_v2, longanyang or Cherry, as the model wants.
    zh: 该模型自己的音色：cosyvoice-v2 的以 _v2 结尾；复刻的音色只能配复刻时用的模型。留空：按模型用
    longxiaochun_v2、longanyang 或 Cherry。"""
    rate_percent: int = Field(0, ge=-50, le=100)
    """Slower or faster. zh: 语速加快或放慢的百分比。"""

    @property
    def has_known_voices(self) -> bool:
        """The model is the one whose voices are known."""
        return self.model == "cosyvoice-v2"

    @property
    def is_realtime(self) -> bool:
        """The model speaks the events of the realtime WebSocket, not the tasks of the inference one."""
        return self.model.startswith("qwen")

    @property
    def speaker(self) -> str:
        """The voice, or the model's usual one."""
        usual = "Cherry" if self.is_realtime else "longxiaochun_v2" if self.has_known_voices else "longanyang"
        return self.voice or usual


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
    minimax: MinimaxVoiceSettings = MinimaxVoiceSettings()
    tencent: TencentVoiceSettings = TencentVoiceSettings()
    http: HttpVoiceSettings = HttpVoiceSettings()
    volcengine: VolcengineVoiceSettings = VolcengineVoiceSettings()
    dashscope: DashscopeVoiceSettings = DashscopeVoiceSettings()
    cartesia: CartesiaVoiceSettings = CartesiaVoiceSettings()
    elevenlabs: ElevenLabsVoiceSettings = ElevenLabsVoiceSettings()
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


class TtsSettings(VoiceTables, applies="next turn"):
    """Voices: who speaks. zh: 语音合成 TTS：把文字说出来：按顺序使用的引擎。"""

    engines: tuple[VoiceName, ...] = Field(("edge", "espeak"), min_length=1)
    """Voices in order of preference. One that fails or is late is passed over for the same sentence and left alone for
    retry_after_s; the next one speaks with its closest voice (language, woman or man). Keep "espeak" last: then a
    device is never mute. "edge" is free and needs internet, "sherpa" is a local model, "espeak" is embedded, robotic,
    and always works; "openai" is any server with OpenAI's /audio/speech, "http" any other (SiliconFlow, GPT-SoVITS,
    CosyVoice, IndexTTS, Fish-Speech); the clouds need keys.
    zh: 声音引擎，按优先顺序。失败或太慢时，同一句话由下一个用最接近的声音（语言、男女）来说。请把 espeak 留在最后，这样
    设备永远不会哑。edge 免费，要联网；sherpa 是本地模型；espeak 内置，像机器人，永远可用；openai 是任何有 /audio/speech
    接口的服务；http 是其他服务（硅基流动、GPT-SoVITS、CosyVoice、IndexTTS、Fish-Speech）；各家云服务要密钥。"""
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
    first_clause_min_chars, is cut after first_clause_max_chars, or first_clause_wait_ms after the first word of the
    language model. Smaller is sooner, larger sounds smoother. No device needs any of it.
    zh: 回答的第一段至少这么多字，到逗号之类就开始说。小则更快，大则更顺。"""
    first_clause_max_chars: AtOnce[int] = Field(24, ge=4, le=200)
    """zh: 第一段最多这么多字，没有标点也会切开。"""
    first_clause_wait_ms: AtOnce[int] = Field(250, ge=0, le=5000)
    """zh: 语言模型说出第一个字之后这么久（毫秒）还没有一段，就先把已有的说出来。设备对此没有要求，只关系到听起来是否
    自然。"""

    @model_validator(mode="after")
    def _distinct(self) -> "TtsSettings":
        if len(set(self.engines)) != len(self.engines):
            raise ValueError("engines must not name one engine twice")
        if self.first_clause_max_chars < self.first_clause_min_chars:
            raise ValueError("first_clause_max_chars must not be below first_clause_min_chars")
        return self
