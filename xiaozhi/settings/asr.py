"""`[asr]`: speech to text."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import Field, SecretStr

from xiaozhi.settings.accounts import IflytekAccount, TencentAccount
from xiaozhi.settings.engines import EngineSettings, tables_of, with_plugins
from xiaozhi.settings.pasted import Address, ApiKey, KeyedSection, SocketAddress
from xiaozhi.settings.section import AtOnce, Language, NextConnection, OnRestart, Precision, Provider, Section

# No separators of Tencent's list, which has no escape.
HotWord: TypeAlias = Annotated[str, Field(pattern=r"^[^|,\s][^|,]{0,29}$")]
TencentWeight: TypeAlias = Literal[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 100]


class RemoteAsrSettings(Section):
    """Remote recognition: what holds for every recogniser on another machine. zh: 远程识别：所有远程识别共用的设置。"""

    timeout_s: float = Field(4.0, ge=0.2, le=60)
    """When the answer of a recogniser on another machine is not there after timeout_s, or there is no connection after
    connect_timeout_s, the fallback recognises the sentence.
    zh: 等结果的时间（秒），超过就由后备引擎识别这句话。"""
    connect_timeout_s: float = Field(2.0, gt=0, le=30)
    """zh: 建立连接的时间（秒），超过就由后备引擎识别这句话。"""
    max_concurrent: int = Field(20, ge=1, le=10_000)
    """Requests at the same time, over all devices; what is above goes to the fallback at once.
    zh: 所有设备合计同时进行的请求数，超出的直接交给后备引擎。"""
    max_audio_s: float = Field(60.0, ge=1, le=600)
    """Longer sentences go to the fallback, longer texts are cut. zh: 比这更长（秒）的话交给后备引擎。"""
    max_text_chars: int = Field(2000, ge=10, le=100_000)
    """zh: 更长的文字会被截断（字符）。"""
    failures: int = Field(2, ge=1, le=1000)
    """After so many failures in a row the server is left alone for retry_after_s, then tried by one request.
    zh: 连续失败这么多次后，暂停使用这个服务。"""
    retry_after_s: float = Field(30.0, ge=0, le=3600)
    """zh: 暂停这么久（秒）后，用一个请求试试它好了没有。"""
    early_decode: bool = False
    """Ask as soon as the voice falls silent, in case the sentence is over. 60 to 100 ms sooner, but a request that
    costs money for every pause in which somebody goes on. Partial texts are never asked for.
    zh: 声音一停就先请求识别。能快 60 到 100 毫秒，但每次中途停顿都多一次收费的请求。不会为边说边显示而请求。"""
    send_names: bool = True
    """Tell services that take hot words the names of agents, devices and their owners, so that they are recognised;
    behind the hot words of the service's own table, as many as it takes. false: no name leaves this machine.
    zh: 把角色、设备和主人的名字作为热词告诉支持热词的服务，这样更容易听准；排在服务自己的热词后面，放得下多少就给多少。
    关闭后名字不会发出去。"""


class OpenAIAsrSettings(EngineSettings, KeyedSection):
    """Recognition, OpenAI: any transcription server that speaks OpenAI's `/audio/transcriptions`.

    zh: 识别 · OpenAI 接口：任何有 OpenAI /audio/transcriptions 接口的识别服务。
    """

    implementation = "xiaozhi.stages.asr.openai_transcription:OpenAITranscription"

    base_url: Address = "https://api.openai.com/v1"
    """Address of the service, to its /v1. zh: 服务的地址，以 /v1 结尾，例如“https://api.siliconflow.cn/v1”。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = Field("whisper-1", min_length=1, max_length=200)
    """Groq: whisper-large-v3-turbo. SiliconFlow: FunAudioLLM/SenseVoiceSmall. OpenAI: gpt-4o-mini-transcribe,
    whisper-1.
    zh: 模型名称。Groq：whisper-large-v3-turbo；SiliconFlow：FunAudioLLM/SenseVoiceSmall；OpenAI：
    gpt-4o-mini-transcribe、whisper-1。"""
    prompt: str = Field("", max_length=1000)
    """Names and words that should be recognised; empty for none.
    zh: 希望识别准的人名和词语，最多 1000 字；没有就留空。"""

    @property
    def needs_credentials(self) -> bool:
        """Services on the internet do."""
        return self.base_url.startswith("https://")


class FunasrSettings(EngineSettings):
    """Recognition, FunASR: a FunASR runtime, over its WebSocket. zh: 识别 · FunASR：FunASR 服务，走它的 WebSocket。"""

    implementation = "xiaozhi.stages.asr.funasr:Funasr"

    url: SocketAddress = "ws://127.0.0.1:10095"
    """Its address: "wss://…" for a server with TLS, which a FunASR runtime has unless it was started with --certfile 0.
    Its own certificate is signed by nobody: then verify_tls = false, in your own network only.
    zh: 服务的地址。FunASR 默认开 TLS，用“wss://…”；用 --certfile 0 启动的才用“ws://…”。"""
    verify_tls: bool = True
    """zh: 检查证书。FunASR 自带的证书没有机构签名，在自己的内网里可以关闭检查。"""
    mode: Literal["offline", "2pass"] = "offline"
    """How it recognises. "2pass", for a server that was started as such: the sound goes up while one speaks, its first
    texts are shown where partials are on, and what it makes of the whole is the text. "offline": one text, at the end.
    zh: 服务以 2pass 启动的，可用 2pass：边说边上传，打开 partials 就边说边显示，最后以整句重新识别的结果为准。offline：
    边说边上传，说完才出文字。"""
    hotwords: dict[str, int] = Field(default_factory=dict, max_length=1000)
    """Words that should be recognised, with a weight each: { "小智" = 20 }
    zh: 希望识别准的词及其权重，最多 1000 个：{ "小智" = 20 }"""


class TencentAsrSettings(TencentAccount):
    """Recognition, Tencent Cloud: streamed while one speaks. zh: 识别 · 腾讯云：实时语音识别，边说边识别。"""

    implementation = "xiaozhi.stages.asr.tencent:Tencent"

    model: str = Field("16k_zh", pattern=r"^[A-Za-z0-9_-]{1,60}$")
    """16k_zh, 16k_zh_large, 16k_zh_en (both languages), 16k_multi_lang, 16k_en, 16k_yue, 16k_zh_dialect …
    zh: 引擎模型：16k_zh、16k_zh_large、16k_zh_en（中英）、16k_multi_lang、16k_en、16k_yue、16k_zh_dialect 等。"""
    hotwords: dict[HotWord, TencentWeight] = Field(default_factory=dict, max_length=128)
    """Words that should be recognised, with a weight of 1 to 11 each, or 100: { "小智" = 11 }
    zh: 希望识别准的词及其权重（1 到 11，或 100），最多 128 个：{ "小智" = 11 }"""
    url: SocketAddress = "wss://asr.cloud.tencent.com/asr/v2"
    """Address of the service, without the application's id; it is signed as well.
    zh: 服务的 WebSocket 地址，不含 APPID；签名里也有它。"""


class IflytekAsrSettings(IflytekAccount):
    """Recognition, iFlytek: dictation with its large model, streamed while one speaks.

    zh: 识别 · 讯飞：语音听写大模型，边说边识别。
    """

    implementation = "xiaozhi.stages.asr.iflytek:Iflytek"

    domain: str = Field("slm", min_length=1, max_length=60)
    """zh: 领域，语音听写大模型是 slm。"""
    language: str = Field("zh_cn", min_length=1, max_length=60)
    """What is spoken; zh_cn knows English words as well. zh: 说的语言，zh_cn 也认得英文词。"""
    accent: str = Field("mandarin", min_length=1, max_length=60)
    """zh: 口音，普通话是 mandarin。"""
    url: SocketAddress = "wss://iat.xf-yun.com/v1"
    """Address of the service; some applications have wss://iat.cn-huabei-1.xf-yun.com/v1 instead.
    zh: 服务的 WebSocket 地址；有些应用的是 wss://iat.cn-huabei-1.xf-yun.com/v1。"""


class VolcengineAsrSettings(EngineSettings, KeyedSection):
    """Recognition, Volcengine: Doubao's streaming recognition: sound goes up while somebody speaks.

    zh: 识别 · 火山引擎：豆包流式语音识别：边说边上传，说完很快就有文字。
    """

    implementation = "xiaozhi.stages.asr.volcengine:Volcengine"
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
    resource_id: str = Field("volc.seedasr.sauc.duration", pattern=r"^[\w.-]{1,100}$")
    """What the account has bought: volc.seedasr.sauc.duration (2.0, by the hour), volc.seedasr.sauc.concurrent (2.0, by
    connections), volc.bigasr.sauc.duration or volc.bigasr.sauc.concurrent (1.0). Another one is refused.
    zh: 账号开通的资源：volc.seedasr.sauc.duration（2.0 小时版）、volc.seedasr.sauc.concurrent（2.0 并发版）、
    volc.bigasr.sauc.duration 或 volc.bigasr.sauc.concurrent（1.0）。填错会被拒绝。"""
    url: SocketAddress = "wss://openspeech.bytedance.com/api/v3/sauc/bigmodel_async"
    """Its end says how: bigmodel_async and bigmodel have texts while somebody speaks, bigmodel_nostream only the last
    one, which is more exact, somewhat later, and in the language of asr.language.
    zh: 服务的地址，结尾决定方式：bigmodel_async 和 bigmodel 边说边出字；bigmodel_nostream 只给最后的文字，更准、稍慢，
    并按 asr.language 指定的语言识别。"""
    hotwords: tuple[str, ...] = Field((), max_length=100)
    """Words that should be recognised, such as names; the service takes about 100 characters of them. Or tables of the
    console, by their names: words to be recognised, and words to be replaced.
    zh: 希望识别准的词，例如人名，一共约 100 字。也可以用控制台里的热词表。"""
    boosting_table: str = Field("", max_length=200)
    """zh: 控制台里热词表的名称。"""
    correct_table: str = Field("", max_length=200)
    """zh: 控制台里替换词表的名称。"""


class DashscopeAsrSettings(EngineSettings, KeyedSection):
    """Recognition, Alibaba: DashScope (Bailian): recognises while one speaks; needs a key.

    zh: 识别 · 阿里云百炼：DashScope 实时语音识别，边说边识别，要密钥。
    """

    implementation = "xiaozhi.stages.asr.dashscope:DashscopeRecognizer"

    url: SocketAddress = "wss://dashscope.aliyuncs.com/api-ws/v1/inference"
    """Address of the service. A key is good for its own region: Singapore has
    "wss://dashscope-intl.aliyuncs.com/api-ws/v1/inference".
    zh: 服务地址。密钥只在所属地域有效；新加坡是“wss://dashscope-intl.aliyuncs.com/api-ws/v1/inference”。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "DASHSCOPE_API_KEY"
    workspace: str = Field("", max_length=100, pattern=r"^[\w-]*$")
    """A workspace of Model Studio; empty for the key's own. zh: 百炼业务空间的 ID；留空用密钥所属的。"""
    model: str = Field("paraformer-realtime-v2", min_length=1, max_length=200)
    """paraformer-realtime-v2, fun-asr-realtime, which is better in noise and with dialects, or
    qwen3-asr-flash-realtime, which takes words as a text.
    zh: 模型：paraformer-realtime-v2；fun-asr-realtime 抗噪声、懂方言更好；qwen3-asr-flash-realtime 可直接写热词。"""
    vocabulary_id: str = Field("", max_length=200)
    """A list of hot words that was made at the service, for paraformer and fun-asr; empty for none.
    zh: 在百炼创建的热词表的 ID，用于 paraformer 和 fun-asr；没有就留空。"""
    context: str = Field("", max_length=2000)
    """Names and words that should be recognised, for qwen3-asr. zh: 希望识别准的人名和词语，用于 qwen3-asr。"""
    max_sentence_silence_ms: int = Field(800, ge=200, le=6000)
    """After so much silence the service begins another sentence; when the user is done is decided here.
    zh: 静音这么久，服务就另起一句；用户是否说完由本机判断。"""
    remove_fillers: bool = False
    """Leave out "um" and "er". zh: 去掉“嗯”“啊”之类的语气词。"""

    @property
    def is_realtime(self) -> bool:
        """The model speaks the events of the realtime WebSocket, not the tasks of the inference one."""
        return self.model.startswith("qwen") and "realtime" in self.model


class OpenAIRealtimeAsrSettings(EngineSettings, KeyedSection):
    """Recognition, OpenAI Realtime: OpenAI's transcription sessions, recognised while somebody speaks.

    zh: 识别 · OpenAI 实时：OpenAI 的实时转写，边说边识别。
    """

    implementation = "xiaozhi.stages.asr.openai_realtime:OpenAIRealtime"

    url: SocketAddress = "wss://api.openai.com/v1/realtime?intent=transcription"
    """Address of the service. zh: 服务的地址，一般不用改。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "OPENAI_API_KEY"
    model: str = Field("gpt-live-transcribe", min_length=1, max_length=200)
    """gpt-live-transcribe, gpt-realtime-whisper (texts while one speaks), gpt-transcribe. The gpt-4o models end in
    February 2027.
    zh: 模型名称：gpt-live-transcribe、gpt-realtime-whisper（边说边出文字）、gpt-transcribe。gpt-4o 系列在 2027 年 2 月
    停用。"""
    hotwords: tuple[HotWord, ...] = Field((), max_length=100)
    """Names and words that should be recognised. zh: 希望识别准的人名和词语，最多 100 个。"""
    noise_reduction: Literal["off", "near_field", "far_field"] = "far_field"
    """What the service filters before it recognises: far_field for a board on a table.
    zh: 服务在识别前的降噪：桌上的设备用 far_field，贴近嘴边用 near_field。"""

    @property
    def needs_credentials(self) -> bool:
        """Services on the internet do."""
        return self.url.startswith("wss://")


class DeepgramAsrSettings(EngineSettings, KeyedSection):
    """Recognition, Deepgram: recognised while somebody speaks; English and European languages above all.

    zh: 识别 · Deepgram：边说边识别，擅长英语和欧洲语言。
    """

    implementation = "xiaozhi.stages.asr.deepgram:Deepgram"

    url: SocketAddress = "wss://api.deepgram.com/v1/listen"
    """Address of the service; wss://api.eu.deepgram.com/v1/listen keeps the sound in Europe.
    zh: 服务的地址；要在欧洲处理就用 wss://api.eu.deepgram.com/v1/listen。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "DEEPGRAM_API_KEY"
    model: str = Field("nova-3", min_length=1, max_length=100)
    """nova-3, or nova-2 for languages that nova-3 does not know.
    zh: 模型名称；nova-3 不会的语言（如中文）用 nova-2。"""
    language: str = Field("", max_length=20, pattern=r"^[A-Za-z-]*$")
    """As Deepgram names it ("en-GB", "zh-CN"). Empty: that of asr.language, and "multi" for "auto".
    zh: Deepgram 的语言代码，例如 zh-CN；留空则用 asr.language，自动时为 multi。"""
    hotwords: tuple[HotWord, ...] = Field((), max_length=100)
    """Names and words that should be recognised. zh: 希望识别准的人名和词语，最多 100 个。"""

    @property
    def needs_credentials(self) -> bool:
        """Services on the internet do."""
        return self.url.startswith("wss://")


class RecognizerTables(Section):
    """The recognisers that have a table of their own: a line here, or an entry point, registers one."""

    openai: OpenAIAsrSettings = OpenAIAsrSettings()
    funasr: FunasrSettings = FunasrSettings()
    deepgram: DeepgramAsrSettings = DeepgramAsrSettings()
    openai_realtime: OpenAIRealtimeAsrSettings = OpenAIRealtimeAsrSettings()
    dashscope: DashscopeAsrSettings = DashscopeAsrSettings()
    volcengine: VolcengineAsrSettings = VolcengineAsrSettings()
    tencent: TencentAsrSettings = TencentAsrSettings()
    iflytek: IflytekAsrSettings = IflytekAsrSettings()


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


class AsrSettings(RecognizerTables, applies="next turn"):
    """Speech recognition: speech to text. zh: 语音识别 ASR：把语音变成文字。"""

    engine: EngineName = "auto"
    """Who recognises.
      "auto"         SenseVoice or else a zipformer where a model is found in [models] dir, otherwise pocketsphinx;
                     "two-pass" where both are there and the zipformer knows asr.language, or Chinese and English
      "sense-voice"  Chinese, English, Japanese, Korean, Cantonese; the best of them. `xiaozhi models pull sense-voice`
      "zipformer"    recognises while one speaks, final text at once. `xiaozhi models pull zipformer`
      "two-pass"     both of these: the reply is prepared on what the zipformer has heard, and spoken when SenseVoice
                     has heard the same; otherwise it is prepared again. Soonest, at the cost of running two models
      "pocketsphinx" embedded, English only, plain: for trying the server without any download
      "openai"       any server with OpenAI's /audio/transcriptions: OpenAI, Groq, SiliconFlow, faster-whisper
      "funasr"       a FunASR runtime, over its WebSocket; in mode "2pass" while one speaks
    All others are clouds that recognise while one speaks, each with a table of its name below.
    zh: 识别引擎。
      auto：[models] dir 里有 SenseVoice 或 zipformer 就用，否则用 pocketsphinx；两者都有，而且 zipformer 会
          asr.language（自动时为中英文），就用 two-pass
      sense-voice：中、英、日、韩、粤语，效果最好；`xiaozhi models pull sense-voice`
      zipformer：边说边识别，说完立刻有文字；`xiaozhi models pull zipformer`
      two-pass：两者都用，先按 zipformer 听到的准备回答，SenseVoice 听到的相同就说出来，不同就重新准备；最快，代价是
          跑两个模型
      pocketsphinx：内置，只会英语，效果一般，不用下载就能试
      openai：任何有 /audio/transcriptions 接口的服务，见 [asr.openai]
      funasr：FunASR 服务（WebSocket），见 [asr.funasr]；2pass 模式边说边识别
    其余的是边说边识别的云服务，各有一个同名的表。"""
    fallback: Literal["auto", "sense-voice", "zipformer", "pocketsphinx"] = "auto"
    """What takes over for the same sentence when a recogniser on another machine fails or is late. It runs here, so
    nobody goes unheard when the network does.
    zh: 远程识别失败、太慢时，由谁来识别同一句话。它在本机运行，断网时也不会听不见。"""
    model_dir: Path | None = Field(None, examples=["models/sense-voice"])
    """Folder of the model. Not set: [models] dir and the name of the engine.
      sense-voice    model.int8.onnx or model.onnx, tokens.txt
      zipformer      encoder*.onnx, decoder*.onnx, joiner*.onnx (int8 preferred), tokens.txt
    With "two-pass" model_dir is the folder of SenseVoice and streaming_model_dir that of the zipformer.
    zh: 模型文件夹。不填则用 [models] dir 下与引擎同名的文件夹。sense-voice 需要 model.int8.onnx 或 model.onnx 和
    tokens.txt；zipformer 需要 encoder*.onnx、decoder*.onnx、joiner*.onnx（优先 int8）和 tokens.txt。two-pass 时这里
    是 SenseVoice 的文件夹。"""
    streaming_model_dir: Path | None = Field(None, examples=["models/zipformer"])
    """zh: 使用 two-pass 时 zipformer 的文件夹。"""
    language: Language = "auto"
    """Which language is spoken. One language keeps short Chinese from being heard as Korean or Japanese.
    zh: 说的是哪种语言。只用一种语言时请选定，免得很短的中文被听成韩语或日语。"""
    itn: bool = True
    """Write numbers as digits and set punctuation. zh: 把数字写成阿拉伯数字，并加上标点。"""
    early_decode: AtOnce[bool] = True
    """Decode as soon as the voice falls silent, in case the sentence is over, when a worker has nothing else to do: the
    text is then there at the soft end ([turn] soft_end_ms). Costs a decode for each pause in which somebody goes on.
    zh: 声音一停、又有空闲线程时就先识别，这样 [turn] soft_end_ms 到的时候文字已经有了。代价是每次中途停顿都多识别一
    次。"""
    partials: AtOnce[bool] = False
    """Send the device what has been heard so far while somebody speaks, as "stt" messages; the last one has the whole
    text. A zipformer has these texts anyway. SenseVoice decodes for them when a worker has nothing else to do (with two
    or more workers one is always left to those who wait for an answer), each time 0.6 s or more have been said since
    the last; the newest of them often is the answer as well. Turned off by itself under load. Firmware shows an "stt"
    in every state and it disturbs nothing else: no sound, no change of state. Boards that show the conversation as chat
    bubbles put each one into a bubble of its own, though, so: off, unless the screen has one line for what was heard.
    zh: 边说边把已听到的文字作为 stt 消息发给设备，最后一条是全文。zipformer 本来就有这些文字；SenseVoice 会在空闲时
    识别（至少新说了 0.6 秒；线程多于一个时总留一个给等回答的人）。负载高时自动停止。固件在任何状态都会显示 stt，不影
    响别的；但用聊天气泡显示的板子会让每条各占一个气泡，所以默认关闭，除非屏幕只有一行字幕。"""
    workers: OnRestart[int] = Field(2, ge=1, le=64)
    """Recognitions at the same time and threads of each. One SenseVoice decode of 3 s of speech takes 0.1 to 0.2 s of a
    core; two threads in one decode cost 20-90 % more CPU than they save. So: workers = cores - 1 (at least 1), and
    threads = 1.
    zh: 同时识别的数量。SenseVoice 识别 3 秒语音要一个核 0.1 到 0.2 秒。建议：workers = 核数 − 1（至少 1），threads =
    1。"""
    threads: int = Field(1, ge=1, le=64)
    """zh: 每个识别用的线程数。一个识别用两个线程，会多花 20% 到 90% 的 CPU，得不偿失。"""
    lone_threads: int = Field(0, ge=0, le=64)
    """Threads of a SenseVoice decode while nobody else is being recognised: a sooner answer for more CPU and for a
    second copy of the model in memory (75 to 250 MB). 0: all cores where this box was measured to be clearly quicker
    with them (asr.calibrate); 1: never more than asr.threads.
    zh: 没有别人在识别时，SenseVoice 一次识别用的线程数：多花 CPU，更快有结果；要多占一份模型的内存（75 到 250 MB）。
    0：实测（asr.calibrate）明显更快时用上所有的核；1：不多用。"""
    calibrate: OnRestart[bool] = True
    """Measure in the background, once, how quick this box is with the models that are here, and use what is quickest.
    Kept in calibration.json of server.data_dir; `xiaozhi check` shows it, `xiaozhi plan` plans with it. Measured again
    when a model, the CPU or onnxruntime is another one, or the file is deleted.
    zh: 在后台测一次这台机器跑已有模型有多快，用最快的方式。结果存在 server.data_dir 的 calibration.json 里，`xiaozhi
    check` 会显示，`xiaozhi plan` 用它来规划。模型、CPU 或 onnxruntime 换了，或删掉这个文件，就再测一次。"""
    niceness: OnRestart[int] = Field(4, ge=0, le=19)
    """Recognition gives way to everything else that wants a core, so that speech is never choppy while somebody else is
    being recognised (Linux). Measured with 100 devices on two cores: 3.9 % of replies with gaps at 0, none at 4 and at
    10; the slowest answers after 2.1 s, 1.26 s and 1.33 s (p95).
    zh: 识别让出 CPU 的程度（Linux），避免别人说话被识别时这边的回答断断续续。100 台设备、两个核的实测：为 0 时 3.9%
    的回答有停顿，4 和 10 时没有；最慢的回答（p95）分别是 2.1、1.26、1.33 秒。"""
    max_concurrent: AtOnce[int] = Field(40, ge=1, le=10_000)
    """Recognitions that may wait for a worker; above, an utterance counts as not understood. Also:
    SENSEVOICE_MAX_CONCURRENT.
    zh: 最多有多少句话排队等识别，超出的算没听清。也可以用环境变量 SENSEVOICE_MAX_CONCURRENT。"""
    max_wait_s: AtOnce[float] = Field(6.0, ge=0.5, le=120)
    """An utterance that no worker has begun on by then counts as not understood: whoever said it has given up, or says
    it again. Of those that wait, the shortest goes first.
    zh: 一句话排队这么久（秒）还没开始识别，就算没听清：说话的人多半已经放弃，或重说了一遍。排队时短的优先。"""
    second_pass_wait_ms: AtOnce[int] = Field(200, ge=0, le=10_000)
    """With "two-pass": when no worker is free within this time for SenseVoice to hear the sentence again, the answer is
    to what the zipformer has heard. Under load ([load.second_pass]) it is so for every sentence.
    zh: two-pass 时，这么久（毫秒）内没有空闲线程让 SenseVoice 再听一遍，就按 zipformer 听到的回答；负载高时（见
    [load.second_pass]）每句都这样。"""
    batch_size: AtOnce[int] = Field(1, ge=1, le=64)
    """Utterances that SenseVoice decodes as one, when that many wait for a worker; nobody waits for others to come. On
    a CPU 1 is best (measured: 4 utterances of the same length cost 23 % less together, but of 1 to 5 s 17 % more,
    because all are padded to the longest, and the first has to wait for the last); on a GPU 8 to 16. Also:
    SENSEVOICE_BATCH_SIZE.
    zh: 排队够多时，SenseVoice 一次识别这么多句；不会为了凑数而等。CPU 上取 1 最好（实测：4 句一样长时一起省 23%，1
    到 5 秒不等时反而多 17%，因为都要补齐到最长，先来的还要等后来的）；GPU 上取 8 到 16。也可以用环境变量
    SENSEVOICE_BATCH_SIZE。"""
    provider: Provider = "cpu"
    """The processor, or "cuda" (needs a sherpa-onnx built for it; the refusal names the wheel to install).
    zh: 用 cpu 还是 cuda（需要带 CUDA 的 sherpa-onnx，没有时会告诉你装哪个包）。"""
    precision: Precision = "auto"
    """Which of a model's files is taken: "int8" (model.int8.onnx, encoder*.int8.onnx), "fp16" (….fp16.onnx) or "fp32".
    One that is missing is an error that names it. "auto": int8, then fp32, then fp16 on a CPU; fp16, then fp32, then
    int8 with CUDA, where int8 is no faster.
    zh: 用模型的哪种文件：int8（model.int8.onnx、encoder*.int8.onnx）、fp16（….fp16.onnx）或 fp32；缺了会报出文件名。
    auto：CPU 上依次 int8、fp32、fp16；CUDA 上依次 fp16、fp32、int8，因为那里 int8 并不快。"""
    rewrite: bool = True
    """Keep a copy of an int8 SenseVoice model, beside it or in the cache folder, that is rewritten for this CPU: more
    than twice as fast on a CPU with VNNI, a few per cent elsewhere. Made once, in some seconds, and compared with the
    original before it is used.
    zh: 为 int8 的 SenseVoice 另存一份适合本机 CPU 的模型，放在原模型旁边或缓存文件夹里：CPU 支持 VNNI 时快两倍以上，
    其他 CPU 也快一些。只做一次，用几秒钟，用之前会与原模型比对。"""
    timeout_s: NextConnection[float] = Field(10.0, ge=0.5, le=120)
    """An utterance that is not recognised by then is given up. zh: 这么久（秒）还没识别出来就放弃这句话。"""
    remote: RemoteAsrSettings = RemoteAsrSettings()
