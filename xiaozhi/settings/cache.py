"""`[cache]`: what is kept."""

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, KeyedSection
from xiaozhi.settings.section import OnRestart, Section


class EmbeddingsSettings(KeyedSection):
    """Likeness of questions: told by an endpoint, or else by a built-in measure.

    zh: 语义匹配：用一个服务判断两个问题有多像；没有就用内置的算法。
    """

    base_url: Address = ""
    """A server with OpenAI's /embeddings that judges how alike two questions are, better than the built-in measure.
    Empty: the built-in one, which is also taken when there is no answer within timeout_ms. threshold as above, but for
    this model.
    zh: 有 OpenAI /embeddings 接口的服务地址，判断得比内置算法好。留空用内置的；超时没有结果时也用内置的。"""
    model: str = ""
    """zh: 向量模型的名称。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = ""
    timeout_ms: int = Field(150, ge=10, le=5000)
    """zh: 等结果的时间（毫秒），超过就用内置算法。"""
    threshold: float = Field(0.92, gt=0, le=1)
    """zh: 用这个模型时，两个问题至少要这么像（1 是完全一样）。"""

    @model_validator(mode="after")
    def _whole(self) -> "EmbeddingsSettings":
        if self.base_url and not self.model:
            raise ValueError("model must be given together with base_url")
        return self


class CacheSettings(Section, applies="next turn"):
    """Caches: what is not made twice.

    What has been answered, spoken or recognised once need not be made again. `xiaozhi cache stats` shows what is kept,
    `xiaozhi cache clear` throws it away.

    zh: 缓存：答过、说过、听过一次的，不必再做一遍。`xiaozhi cache stats` 查看，`xiaozhi cache clear` 清空。
    """

    answers: bool = True
    """Answers of the language model: the same question is answered at once, without asking it. Never an answer that
    depends on the time, the user, what was said before, a picture or a tool, and never jokes and stories.
    zh: 缓存语言模型的回答：同样的问题立刻回答，不再问模型。与时间、说话人、上下文、图片或工具有关的，以及笑话和故
    事，绝不缓存。"""
    similar: bool = True
    """Also for questions that are only worded differently ("what is the capital of France", "tell me the capital of
    France"). Two questions match when they are at least so alike (threshold) and differ in no number, name, place,
    unit, date or "not". Higher is more careful and finds less.
    zh: 只是说法不同的问题也算（“法国的首都是哪里”“告诉我法国的首都”）。数字、名字、地点、单位、日期或“不”有差别的不
    算。"""
    threshold: float = Field(0.5, gt=0, le=1)
    """zh: 两个问题至少要这么像（1 是完全一样）。越高越谨慎，命中也越少。"""
    ttl_s: float = Field(1800.0, ge=1, le=604_800)
    """An answer is used for this long. At most so many answers and so much memory. zh: 一个回答用这么久（秒）。"""
    max_entries: int = Field(1000, ge=1, le=20_000)
    """zh: 最多保存这么多个回答。"""
    max_mb: int = Field(8, ge=1, le=1024)
    """zh: 回答最多占这么多内存（MB）。"""
    common_replies: bool = True
    """Replies that are there from the start: built-in ones to greetings and thanks, as long as llm.system_prompt is the
    built-in one (common_replies), and those of a file of your own. It holds blocks of

      [[reply]]
      questions = ["你们几点开门", "when do you open"]
      answer = "🙂 我们每天早上九点开门。"

    zh: 用内置的答复回应问候和道谢；llm.system_prompt 改过之后就不用了。"""
    preload: Path | None = Field(None, examples=["replies.toml"])
    """zh: 启动时装入自己写的答复：一个 TOML 文件，里面是一段段 [[reply]]，每段有 questions（问法）和 answer（答
    复）。"""
    speech: bool = True
    """Speech: a sentence of at most speech_max_chars characters is synthesised and encoded once. Held in memory, and on
    disk in [server] data_dir (0 MB is none).
    zh: 缓存说过的句子：同一句只合成和编码一次。"""
    speech_max_chars: int = Field(100, ge=1, le=300)
    """zh: 不超过这么多字的句子才缓存。"""
    speech_memory_mb: int = Field(32, ge=1, le=65_536)
    """zh: 语音缓存最多占这么多内存（MB）。"""
    speech_memory_ttl_s: float = Field(3600.0, ge=1, le=604_800)
    """zh: 在内存里保留这么久（秒）。"""
    disk_mb: int = Field(256, ge=0, le=1_048_576)
    """zh: 语音缓存在 [server] data_dir 里最多占这么多磁盘（MB）；0 表示不存盘。"""
    disk_ttl_s: float = Field(86_400.0, ge=60, le=31_536_000)
    """zh: 在磁盘上保留这么久（秒）。"""
    premake: bool = True
    """Have the sentences that the server says of its own accord, and the common replies, made in the background at
    start.
    zh: 启动后在后台把服务器自己要说的话和常见答复先合成好。"""
    recognition: OnRestart[bool] = True
    """Audio that is exactly the same is recognised once: so many results for so long. zh: 完全相同的声音只识别一次。"""
    recognition_ttl_s: float = Field(1800.0, ge=1, le=604_800)
    """zh: 识别结果保留这么久（秒）。"""
    recognition_entries: int = Field(1000, ge=1, le=1_000_000)
    """zh: 最多保存这么多个识别结果。"""
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
