"""`[store]`, `[agents]`, `[memory]`: what survives a restart, who answers, what is kept in mind of users."""

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, KeyedSection
from xiaozhi.settings.section import NextConnection, Section


class StoreSettings(Section, applies="restart"):
    """Store: what is kept of devices and conversations. zh: 存储：保存设备和对话。"""

    file: str = Field("xiaozhi.db", min_length=1, max_length=200)
    """What survives a restart: devices and their names, agents, conversations, memories, reminders. One SQLite file in
    server.data_dir (or the path of a file elsewhere). A damaged file is set aside by itself and a new one begun.
    `xiaozhi devices`, `agents`, `history`, `export` and `import` work on it, also while the server runs.
    zh: 重启后仍要保留的内容：设备及其名字、角色、对话、记忆、提醒。是 server.data_dir 里的一个 SQLite 文件（也可以填
    别处的路径）。损坏时自动移开、重新开始。`xiaozhi devices`、`agents`、`history`、`export`、`import` 在服务器运行时
    也能用它。"""
    conversations: bool = True
    """Write down what is said, so that a conversation goes on after a break or a restart. Off, nothing that was said
    leaves the memory of the process, and a device that comes back begins anew.
    zh: 把说过的话存下来，停顿或重启后能接着聊。关闭后，说过的话不会离开进程内存，设备重新连上就从头开始。"""
    keep_days: float = Field(90.0, ge=0, le=36_500)
    """What is older is deleted; 0 keeps it for ever. And of each device no more than so many turns; a turn takes about
    2 KB.
    zh: 更早的会被删除（天）；0 表示永远保留。"""
    keep_turns_per_device: int = Field(2000, ge=1, le=1_000_000)
    """zh: 每台设备最多保留这么多轮；一轮大约 2 KB。"""


class AgentsSettings(Section, applies="next turn"):
    """Agents: who answers.

    What an agent itself says when it is woken, at the first hello and at the end takes the place of turn.wake_reply,
    turn.greeting and turn.goodbye, unless these are empty.

    zh: 角色：谁在回答。
    """

    default: str = Field("xiaozhi", min_length=1, max_length=40)
    """Who answers: agents with a prompt, a voice and a language. `xiaozhi agents list` shows the dozen that come along,
    `xiaozhi agents assign DEVICE NAME` gives one to a device. This one is for devices that have none. The prompt of
    "xiaozhi" is llm.system_prompt.
    zh: 没有指定角色的设备用哪个角色。角色有提示词、声音和语言；`xiaozhi agents list` 列出自带的十几个，`xiaozhi
    agents assign 设备 名称` 给设备指定。“xiaozhi”的提示词就是 llm.system_prompt。"""
    switch_by_voice: bool = True
    """Whether "换成…", "切换到…", "switch to …" and "talk to …" with the name of an agent change it, without asking the
    model.
    zh: 说“换成……”“切换到……”加角色的名字就能换角色，不用问模型。"""
    feelings: NextConnection[bool] = True
    """Tell the model when somebody sounds sad, angry or cheerful, or laughs or coughs, where the recogniser hears it
    (SenseVoice does). It is told in a side note and does not speak of it.
    zh: 识别引擎能听出来时（SenseVoice 可以），把说话人是难过、生气还是高兴，有没有笑或咳嗽，悄悄告诉模型；模型不会说
    出来。"""


class MemorySettings(KeyedSection, applies="restart"):
    """Long-term memory: what is kept in mind about the users of each device.

    zh: 长期记忆：记住每台设备前的人，设备之间互不共享。
    """

    engine: Literal["local", "mem0", "off"] = "local"
    """What is kept in mind about the people at each device, never shared between devices. After a conversation the chat
    model is asked in the background for lasting facts ("is allergic to nuts"); they go along with later questions.
    "local" keeps them in the store, "mem0" asks a mem0 service for them (and the chat model while that is away), "off"
    extracts nothing. Without a chat endpoint, or with store.conversations off, nothing is extracted either; "remember
    that …" always works. `xiaozhi memories` lists and erases.
    zh: 对话之后，在后台请语言模型找出值得长期记住的事（“对坚果过敏”），以后提问时带上。local：存在本机；mem0：交给
    mem0 服务（它不在时仍用语言模型）；off：不提取。没有语言模型端点或 store.conversations 关闭时也不提取；对它说“记
    住……”始终有效。`xiaozhi memories` 可以查看和删除。"""
    min_turns: int = Field(2, ge=1, le=50)
    """Not before the user has said something so many times; shorter conversations are added up.
    zh: 说话人至少说了这么多次才提取；较短的对话会累计。"""
    max_facts: int = Field(60, ge=1, le=200)
    """Facts for a device, and characters of one. They are part of every question: more makes the first word later. The
    oldest goes first.
    zh: 每台设备最多记这么多条，先忘最旧的。每次提问都会带上，越多第一个字越晚。"""
    max_fact_chars: int = Field(120, ge=20, le=500)
    """zh: 一条最多这么多字。"""
    timeout_s: float = Field(30.0, ge=1, le=300)
    """The chat model may take so long; nobody waits for it. zh: 语言模型最多用这么久（秒）；没有人在等它。"""
    base_url: Address = ""
    """The mem0 service (its self-hosted REST server): the address, the key or the variable that holds it (sent as
    X-API-Key), and how long one request may take.
    zh: mem0 服务（自建的 REST 服务）的地址。"""
    api_key: ApiKey = SecretStr("")
    """zh: mem0 的密钥（作为 X-API-Key 发送），直接写在这里；也可以用环境变量。"""
    api_key_env: str = "MEM0_API_KEY"
    service_timeout_s: float = Field(10.0, ge=0.5, le=120)
    """zh: 向 mem0 请求一次的时间（秒）。"""

    @model_validator(mode="after")
    def _address(self) -> "MemorySettings":
        if self.engine == "mem0" and not self.base_url:
            raise ValueError('engine "mem0" needs base_url, for example "http://127.0.0.1:8888"')
        return self
