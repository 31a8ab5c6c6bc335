"""`[llm]`: the reply."""

import re
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, KeyedSection, is_near
from xiaozhi.settings.presets import PresetName, begins_in_thought, with_preset
from xiaozhi.settings.section import AtOnce, NextConnection, Section

# A token of RFC 9110.
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
# What decides how a request is read is not for the settings.
_OWN_HEADERS: Final = frozenset(
    "content-type content-length transfer-encoding connection host accept-encoding expect upgrade".split()
)
MAX_HEADER_CHARS: Final = 4000
"""Of one value of `extra_headers`; servers refuse heads above 8 KB."""


EndpointKind: TypeAlias = Literal["openai", "responses", "dify", "coze", "fastgpt", "ragflow", "home-assistant"]
"""What an endpoint speaks."""
# Those whose prompt, model, tools and memory are their own.
_PLATFORMS: Final = frozenset({"dify", "coze", "fastgpt", "ragflow", "home-assistant"})
# What the name of the model stands for where only its owner knows it.
_IDS: Final = {"coze": "the id of the bot", "ragflow": "the id of the chat assistant"}


class LlmEndpoint(KeyedSection):
    """Endpoints: anything that speaks OpenAI's chat completions, and agent platforms.

    Take away the # of one of them, or of several: then they stand in for each other.

    preset fills base_url, model, api_key_env and extra_body (thinking off, where a service lets it: it costs seconds),
    and name; what is written beside it wins. Presets:
      OpenAI, Anthropic, Google, others  "openai", "claude", "gemini", "mistral", "groq", "openrouter"
      China                              "qwen" (百炼), "deepseek", "zhipu" (智谱), "moonshot" (Kimi), "doubao" (火山),
                                         "baichuan" (百川), "hunyuan" (混元), "qianfan" (千帆), "minimax", "stepfun"
                                         (阶跃), "siliconflow" (硅基流动); "qwen-intl" is Alibaba Cloud outside China
      your own machine                   "ollama", "vllm", "lmstudio", "llamacpp"
      OpenAI's other language            "responses"
      agent platforms                    "dify", "coze", "fastgpt", "ragflow", "home-assistant"

    kind is what an endpoint speaks: "openai", or one of the last two lines; their presets set it. A platform has its
    own prompt, tools and memory: it is asked only when the user has certainly ended, with the newest text alone, never
    twice, and its answers are not cached. model is the bot's id for coze, the chat's for ragflow, the conversation
    agent's for home-assistant; dify and fastgpt know the app by its key.

    A key is read from the environment variable api_key_env, or written down as api_key (then keep this file private).
    max_tokens (1 to 100000) and temperature (0 to 2) are the endpoint's own when not set; extra_body is sent as it is,
    and so are extra_headers, which are kept as secret as a key.

    With several: weight (above 0, to 1000) is an endpoint's share of the questions, besides how quick it is and how
    many of its max_concurrent answers (1 to 10000; [llm] max_concurrent when not set) are being given. tier is "edge",
    "cloud" or "auto": edge when the address is in this network. price (0 to 100000, in any unit; 0 is free; when not
    set, free means edge by address) decides whether a question may be put twice, see [llm.hedge]. vision = true says
    that the model sees: questions about pictures go only to such endpoints.

    Thoughts are never spoken: not those a server sends apart, nor <think>…</think>. Some servers send the end of a
    thought alone, because the model's template has opened it: thinks = true holds everything back until then, false
    nothing. When not set, the model's name decides (DeepSeek-R1, QwQ, Qwen's Thinking …), and then what its answers
    look like.
    """

    preset: PresetName | None = None
    kind: EndpointKind = "openai"
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
        if not isinstance(values, dict):
            return values
        values = with_preset(values)
        kind = values.get("kind")
        if not values.get("model") and isinstance(kind, str) and kind in _IDS:
            raise ValueError(f'model is missing: with the kind "{kind}" it is {_IDS[kind]}')
        return values

    @model_validator(mode="after")
    def _sees(self) -> "LlmEndpoint":
        if self.vision and self.kind == "home-assistant":
            raise ValueError('vision: an endpoint of the kind "home-assistant" takes no pictures')
        return self

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

    def headers(self) -> dict[str, str]:
        """What goes along with every request besides the key."""
        return {name: value.get_secret_value() for name, value in self.extra_headers.items()}

    @property
    def begins_in_thought(self) -> bool:
        """Whether nothing is spoken of an answer before the end of the thought in it; without `thinks` by the name."""
        return begins_in_thought(self.model, self.extra_body) if self.thinks is None else self.thinks

    @property
    def is_platform(self) -> bool:
        """Whether it acts and remembers by itself; see `xiaozhi.stages.llm.platform`."""
        return self.kind in _PLATFORMS

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
    """Circuit breaker: when an endpoint that fails is left alone.

    zh: 熔断：出错的端点什么时候暂停使用。服务自己说了何时再来（Retry-After）的，就等到那时。
    """

    failures: int = Field(5, ge=1, le=1000)
    """An endpoint that failed so many times in a row, or this share of at least window_min requests of the last
    window_s, is left alone for open_s, then tried with one question. One that says when to come back (Retry-After) is
    left alone until then.
    zh: 连续失败这么多次就暂停使用。"""
    open_s: float = Field(30.0, ge=1, le=3600)
    """zh: 暂停这么久（秒），再用一个问题试探。"""
    window_s: float = Field(30.0, ge=1, le=3600)
    """zh: 按最近这么久（秒）统计失败率。"""
    window_min: int = Field(10, ge=1, le=10_000)
    """zh: 这段时间里至少有这么多请求，才看失败率。"""
    error_rate: float = Field(0.5, gt=0, le=1)
    """zh: 失败的比例达到这个值就暂停使用（1 是全部失败）。"""


class HedgeSettings(Section):
    """Second requests: asking a second endpoint when the first is late.

    zh: 抢答请求：第一个端点慢的时候，同时问第二个。
    """

    mode: Literal["off", "free", "all"] = "free"
    """Put a question to a second endpoint as well when the first is late; the quicker one answers, the other is closed.
      "off"    never
      "free"   only to endpoints that cost nothing
      "all"    to paid ones as well
    zh: 第一个慢的时候再问第二个，谁快用谁，另一个关掉。
      off：从不
      free：只问免费的
      all：收费的也问"""
    share: float = Field(0.05, ge=0, le=1)
    """At most this share of extra questions. zh: 多问的比例最多是这么多（1 是每个问题）。"""
    from_s: float = Field(0.6, ge=0.05, le=60)
    """Late is later than nine out of ten answers of the last minutes, but not sooner than from_s and not later than
    to_s.
    zh: 比最近几分钟里九成的回答还慢就算慢；但至少要等这么久（秒）。"""
    to_s: float = Field(1.5, ge=0.05, le=60)
    """zh: 最晚等到这么久（秒）就算慢，不小于 from_s。"""

    @model_validator(mode="after")
    def _order(self) -> "HedgeSettings":
        if self.to_s < self.from_s:
            raise ValueError("to_s must not be below from_s")
        return self


class RoutingSettings(Section):
    """Routing of questions: which questions go to which tier. zh: 问题分流：哪些问题交给本地，哪些交给云端。"""

    enabled: bool = True
    """With endpoints of both tiers: simple questions go to the edge, which is quick and free, hard ones to the cloud;
    each stands in for the other. `xiaozhi route "text"` tells what would happen and why. Off: weights alone decide.
    zh: 本地和云端的端点都有时：简单的问题给本地（又快又免费），难的给云端，互为后备。`xiaozhi route "问题"` 会说明怎
    么分、为什么。关闭则只看权重。"""
    long_chars: int = Field(40, ge=1, le=100_000)
    """A question is hard when it is longer than this (Chinese characters, or words times 2), or has one of these words
    in it.
    zh: 比这更长的问题算难题（一个汉字算 1，一个英文单词算 2）。"""
    hard_words: tuple[str, ...] = (
        "为什么", "怎么做", "如何", "解释", "分析", "比较", "区别", "总结", "翻译", "推荐", "建议", "计划", "写一",
        "why", "how do", "how does", "how can", "explain", "analyse", "analyze", "compare", "difference", "summarize",
        "summarise", "translate", "recommend", "suggest", "plan", "write",
    )  # fmt: skip
    """zh: 含有这些词的问题算难题。"""
    code_and_maths: Literal["edge", "cloud", "any"] = "cloud"
    """Where programming and mathematics, questions for which a tool may be needed, and pictures go: "edge", "cloud", or
    "any" to let the other rules decide.
    zh: 编程和数学问题给谁：edge 本地，cloud 云端，any 由其他规则决定。"""
    tools: Literal["edge", "cloud", "any"] = "any"
    """zh: 可能要用工具的问题给谁。"""
    images: Literal["edge", "cloud", "any"] = "cloud"
    """zh: 带图片的问题给谁。"""
    obey_device: bool = True
    """A device or an agent that prefers a tier gets it. zh: 设备或角色指定了本地或云端时，听它的。"""
    busy_share: float = Field(0.9, gt=0, le=1)
    """A tier with more than this share of its slots taken passes questions to the other.
    zh: 一边的并发用掉超过这个比例，问题就转给另一边。"""


# Rows for `settings.toml`.
_ENDPOINTS: Final = """
# OpenAI: the key from the environment variable OPENAI_API_KEY
preset = "openai"
max_tokens = 300
temperature = 0.7

# DeepSeek, with the key written down
preset = "deepseek"
api_key = "sk-…"

# Qwen at Alibaba Cloud (百炼); the key from DASHSCOPE_API_KEY
preset = "qwen"
model = "qwen-turbo"
weight = 2.0
max_concurrent = 20

# Ollama on this machine: `ollama pull qwen2.5:7b`
preset = "ollama"

# Dify: the app's key; https://dify.example.com/v1 for a server of your own
preset = "dify"
api_key = "app-…"

# Coze (扣子): the bot's id and a personal access token
preset = "coze"
model = "7400000000000000000"
api_key = "pat_…"

# Home Assistant: a long-lived access token
preset = "home-assistant"
base_url = "http://homeassistant.local:8123"
model = "conversation.home_assistant"
api_key = "…"

# any other
name = "my-server"
kind = "openai"
base_url = "http://192.168.1.10:8000/v1"
api_key_env = "MY_KEY"
model = "my-model"
extra_body = { enable_thinking = false }
extra_headers = { X-Team = "home" }
tier = "edge"
price = 0
vision = true
thinks = true
"""

DEFAULT_SYSTEM_PROMPT = (
    "你是小智，一个温暖、机灵的语音伙伴，住在用户身边的小设备里。用对方说的语言回答，口语化，简短，通常一到三句话。"
    "每次回答以一个表情符号开头来表达情绪，之后不再用表情。不要使用 Markdown、列表、代码或网址，因为你的话会被读出来。"
)


class LlmSettings(Section, applies="next turn"):
    """Language model: the reply.

    Without an endpoint a built-in responder tells the time, the date and jokes, calculates, and says what to configure.

    zh: 语言模型 LLM：由谁来想回答。没有端点时，内置应答器能报时间、日期、讲笑话、算数，并告诉你该配置什么。
    """

    system_prompt: AtOnce[str] = DEFAULT_SYSTEM_PROMPT
    """Who speaks. Keep it short, it is sent with every question; ask for brevity, and for one emoji at the beginning:
    devices show it as a face.
    zh: 提示词：它是谁、怎么说话。每次提问都会带上，所以要短；要求回答简短，开头带一个表情，设备会把它显示成脸。"""
    max_concurrent: int = Field(100, ge=1, le=10_000)
    """Replies being generated at the same time, over all endpoints. Also: LLM_MAX_CONCURRENT.
    zh: 所有端点合计同时生成的回答数。也可以用环境变量 LLM_MAX_CONCURRENT。"""
    connect_timeout_s: float = Field(3.0, gt=0, le=60)
    """Time to connect, to the first token and between two pieces of the stream. After that the device hears an excuse.
    Local models that must be loaded first: raise first_token_timeout_s.
    zh: 建立连接的时间（秒），超时设备会听到一句抱歉。"""
    first_token_timeout_s: float = Field(8.0, gt=0, le=120)
    """zh: 等第一个字的时间（秒）。要先加载模型的本地服务，请调大。"""
    idle_timeout_s: float = Field(8.0, gt=0, le=120)
    """zh: 流中断后最多等下一段的时间（秒）。"""
    thinking_timeout_s: float = Field(20.0, gt=0, le=600)
    """A model that thinks first, or in between, is given up after so long without a word to be spoken: then the next
    endpoint is asked, or the device hears an excuse. Models that reason for long on slow machines: raise it.
    zh: 模型一直在思考、这么久（秒）没有说出一个字，就换下一个端点，或者让设备说声抱歉。慢机器上的推理模型请调大。"""
    reply_max_chars: AtOnce[int] = Field(2000, ge=50, le=100_000)
    """A reply is ended here: characters, seconds in which it has been spoken. It ends behind a whole sentence, and so
    does one that says the same again and again for 20 s.
    zh: 回答到这么长（字符）就结束，停在一句话的末尾。反复说同样的话满 20 秒也会结束。"""
    reply_max_s: AtOnce[float] = Field(480.0, ge=5, le=7200)
    """zh: 回答说到这么久（秒）就结束，停在一句话的末尾。音乐不算在内。"""
    history_turns: NextConnection[int] = Field(12, ge=0, le=200)
    """How much of the conversation goes along with each question: turns and tokens, whichever is less. More remembers
    more and makes the first word later.
    zh: 每次提问带上前面几轮对话。越多记得越多，第一个字也越晚。"""
    history_max_tokens: NextConnection[int] = Field(3000, ge=0, le=1_000_000)
    """zh: 带上的对话最多这么多 token（一个汉字或一个短单词大约算一个）；与轮数取较少的。"""
    history_summary: AtOnce[bool] = True
    """Have the model sum up what grows too old for that, in the background after a reply, so that it is not forgotten.
    Costs a short request every few turns.
    zh: 太旧、带不上的对话，让模型在回答之后悄悄做个摘要，免得忘掉。每几轮多一次短请求。"""
    failover_first_token_s: float = Field(2.5, gt=0, le=120)
    """With several endpoints: one that has sent no first token by failover_first_token_s, or has stopped for
    failover_idle_s in the middle, is given up for another that is well; the other goes on where it stopped.
    zh: 有多个端点时，这么久（秒）没有第一个字，就换一个正常的端点。"""
    failover_idle_s: float = Field(2.5, gt=0, le=120)
    """zh: 有多个端点时，中途停了这么久（秒），就由另一个接着往下说。"""
    health_check_s: float = Field(10.0, ge=1, le=3600)
    """Every health_check_s each endpoint is asked whether it is there, without spending tokens; one that is not well
    five times as often.
    zh: 每隔这么久（秒）问一次每个端点在不在，不花 token；不正常的问得勤五倍。"""
    max_connections: int = Field(300, ge=1, le=10_000)
    """Connections kept open, over all endpoints and to one host. zh: 所有端点合计保持的连接数。"""
    max_connections_per_host: int = Field(100, ge=1, le=10_000)
    """zh: 对同一台主机保持的连接数。"""
    endpoints: tuple[LlmEndpoint, ...] = Field((), examples=_ENDPOINTS.strip().split("\n\n"))
    """zh: 语言模型的端点，请在“模型”页的“语言模型”里编辑。"""
    breaker: BreakerSettings = BreakerSettings()
    hedge: HedgeSettings = HedgeSettings()
    routing: RoutingSettings = RoutingSettings()

    @property
    def has_model(self) -> bool:
        """Whether some endpoint may be asked for a summary or for facts, which is nothing for a platform."""
        return any(not endpoint.is_platform for endpoint in self.endpoints)

    @model_validator(mode="after")
    def _distinct(self) -> "LlmSettings":
        names = [endpoint.name for endpoint in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("endpoints must not have the same name twice")
        return self
