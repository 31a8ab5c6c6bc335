"""`[tools]`: what the model may call."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, KeyedSection, key_of
from xiaozhi.settings.section import Section


class McpServer(Section):
    """One external MCP server: a command that speaks over its standard input and output, or an address."""

    name: str = Field(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_-]+$")
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    cwd: str = ""
    url: str = ""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    timeout_s: float = Field(15.0, gt=0, le=600)
    dangerous: tuple[str, ...] = ()
    enabled: bool = True

    @model_validator(mode="after")
    def _one_way(self) -> "McpServer":
        if bool(self.command) == bool(self.url):
            raise ValueError("needs either command or url")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError('url must begin with "http://" or "https://"')
        return self


# A row for `settings.toml`.
_SERVER: Final = """
name = "files"                  # 1 to 32 letters, digits, _ and -
command = "npx"                 # a command that speaks over its standard input and output,
args = ["-y", "@modelcontextprotocol/server-filesystem", "/srv/music"]
env = {}
cwd = ""
url = ""                        # or an address instead: "http://127.0.0.1:9000/mcp" (streamable HTTP)
headers = {}                    # for example { Authorization = "Bearer ..." }
timeout_s = 15.0                # above 0, to 600
dangerous = []                  # names of its tools that need a yes, with * and ?
enabled = true
"""


class DeviceToolSettings(Section):
    """Tools of devices: the device's own tools. zh: 设备工具：设备自己的工具。"""

    timeout_s: float = Field(10.0, gt=0, le=120)
    """Time for a call to the device, and for its camera, which waits for a model. zh: 调用设备的时间（秒）。"""
    camera_timeout_s: float = Field(60.0, gt=0, le=300)
    """zh: 调用设备摄像头的时间（秒），要等模型看图。"""
    max_tools: int = Field(64, ge=0, le=1000)
    """Tools taken from one device. zh: 从一台设备最多取这么多工具。"""


class WeatherSettings(KeyedSection):
    """Weather: where the weather comes from. zh: 天气：天气从哪里来。"""

    provider: Literal["open-meteo", "qweather"] = "open-meteo"
    """The service: "open-meteo" needs no key. "qweather" (和风天气) needs one, and as url the API host of your account.
    zh: open-meteo 不要密钥；qweather（和风天气）要密钥，并在 url 里填你账号的 API Host。"""
    city: str = ""
    """The place that is meant when none is named, for example "Shanghai". Empty: the user is asked.
    zh: 没说地点时指哪里，例如“上海”。留空会反问。"""
    url: str = ""
    """Other addresses than the provider's own. zh: 天气服务的地址，不用服务商默认的时填写。"""
    geocoding_url: str = ""
    """zh: 地名查询的地址，不用服务商默认的时填写。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "QWEATHER_API_KEY"
    cache_s: float = Field(600.0, ge=0, le=86_400)
    """An answer is used again for this long. zh: 结果在这么久（秒）之内重复使用。"""

    @model_validator(mode="after")
    def _host(self) -> "WeatherSettings":
        if self.provider == "qweather" and not self.url:
            raise ValueError('provider "qweather" needs url, the API host of the account')
        return self


class ReminderSettings(Section):
    """Reminders: timers and alarms, too. zh: 提醒：计时、闹钟和提醒。"""

    max_per_device: int = Field(50, ge=1, le=1000)
    """Timers, alarms and reminders that one device may have at a time.
    zh: 一台设备最多同时有这么多个计时、闹钟和提醒。"""
    late_s: float = Field(86_400.0, ge=0, le=31_536_000)
    """One that was missed because the server or the device was off is still told so long afterwards.
    zh: 服务器或设备关着而错过的，在这么久（秒）之内补说。"""


class MusicSettings(Section):
    """Music: from a folder of yours. zh: 音乐：播放文件夹里的音乐。"""

    folder: Path | None = Field(None, examples=["music"])
    """Folder with music (MP3, FLAC, Ogg, M4A, WAV …), sub-folders as well. Found by title, artist, album and file name.
    zh: 音乐文件夹（MP3、FLAC、Ogg、M4A、WAV 等），含子文件夹。按歌名、歌手、专辑和文件名查找。"""
    max_tracks: int = Field(20_000, ge=1, le=1_000_000)
    """At most so many files are looked at. zh: 最多查看这么多个文件。"""
    ahead_s: float = Field(3.0, ge=0.5, le=30)
    """So much is decoded ahead, by so many threads for all devices. zh: 提前解码这么久（秒）。"""
    workers: int = Field(2, ge=1, le=16)
    """zh: 所有设备共用的解码线程数。"""


class NewsSettings(Section):
    """News: from RSS or Atom feeds. zh: 新闻：RSS 或 Atom 新闻。"""

    feeds: tuple[str, ...] = ("https://www.chinanews.com.cn/rss/scroll-news.xml",)
    """RSS or Atom feeds for users of Chinese, and for all others. zh: 给说中文的人的 RSS 或 Atom 源。"""
    feeds_en: tuple[str, ...] = ("https://feeds.bbci.co.uk/news/world/rss.xml",)
    """zh: 给其他人的 RSS 或 Atom 源。"""
    items: int = Field(5, ge=1, le=30)
    """Headlines in one answer. zh: 一次说几条标题。"""
    cache_s: float = Field(600.0, ge=0, le=86_400)
    """A feed is fetched again after this time. zh: 过这么久（秒）重新抓取。"""


class SearchSettings(KeyedSection):
    """Search: on the web. zh: 搜索：上网搜索。"""

    provider: Literal["none", "searxng", "tavily"] = "none"
    """The service: "none", "searxng" (your own instance, its JSON format switched on: its url is
    needed) or "tavily" (a key is needed).
    zh: none；searxng（你自己的，要填 url，并打开 JSON 格式）；tavily（要密钥）。"""
    url: str = ""
    """zh: 搜索服务的地址。"""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "TAVILY_API_KEY"
    results: int = Field(5, ge=1, le=20)
    """Hits in one answer. zh: 一次给模型几条结果。"""

    @model_validator(mode="after")
    def _address(self) -> "SearchSettings":
        if self.provider == "searxng" and not self.url:
            raise ValueError('provider "searxng" needs url, for example "http://127.0.0.1:8080"')
        return self


class HomeAssistantSettings(Section):
    """Home Assistant: by its REST interface; off while `url` is empty.

    zh: 智能家居：通过 REST 接口控制 Home Assistant；url 留空则关闭。
    """

    url: Address = ""
    """Address of Home Assistant, for example "http://homeassistant.local:8123". Empty: off. The token is a long-lived
    access token of a user (profile, security), from the variable token_env or written down here.
    zh: Home Assistant 的地址，例如“http://homeassistant.local:8123”。留空则关闭。"""
    token: ApiKey = SecretStr("")
    """zh: 用户的长期访问令牌（个人资料 → 安全），直接写在这里；也可以用环境变量。"""
    token_env: str = "HOME_ASSISTANT_TOKEN"
    """zh: 存放令牌的环境变量名。"""
    domains: tuple[str, ...] = (
        "light", "switch", "fan", "cover", "climate", "media_player", "scene", "script", "vacuum", "input_boolean",
        "sensor", "binary_sensor", "lock", "alarm_control_panel",
    )  # fmt: skip
    """Kinds of entities that are used, and those that need a yes before they are switched. zh: 使用哪几类实体。"""
    dangerous_domains: tuple[str, ...] = ("lock", "alarm_control_panel")
    """zh: 哪几类实体要先得到答应才能操作。"""
    cache_s: float = Field(10.0, ge=0, le=3600)
    """States are asked for again after this time. zh: 过这么久（秒）重新读取状态。"""

    def key(self) -> str:
        """The access token, from the file or from the environment; empty when neither is set."""
        return key_of(self.token, self.token_env)


class ToolsSettings(Section, applies="restart"):
    """Tools: what the model may call. zh: 工具：模型可以调用什么。"""

    enabled: bool = True
    """What the model may call: built-in tools, the device's own (volume, screen, camera), and those of external MCP
    servers. `xiaozhi tools list` shows them, `xiaozhi tools call NAME` tries one, `xiaozhi tools check` tries every
    server.
    zh: 让模型使用工具：内置的、设备自己的（音量、屏幕、摄像头）和外部 MCP 服务的。`xiaozhi tools list` 列出，
    `xiaozhi tools call 名称` 试一个，`xiaozhi tools check` 检查所有服务。"""
    allow: tuple[str, ...] = ("*",)
    """Which are offered, and which never: names with * and ?, or SOURCE/NAME, where the source is "built-in", "device"
    or the name of a server. For example deny = ["device/*", "search_web"].
    zh: 提供哪些工具：名称，可用 * 和 ?，或者“来源/名称”，来源是 built-in、device 或服务名。"""
    deny: tuple[str, ...] = ()
    """zh: 不提供哪些工具，写法同上，例如“device/*”“search_web”。"""
    confirm: bool = True
    """Dangerous ones (locks, alarm systems, and all named here) are done only after the user has said yes.
    zh: 危险的操作（门锁、安防等，以及下面列出的）要等说话人答应才做。"""
    dangerous: tuple[str, ...] = ("self.system.reconfigure_wifi", "self.reboot", "self.upgrade_firmware")
    """zh: 另外哪些工具算危险。"""
    timeout_s: float = Field(15.0, gt=0, le=600)
    """Time for one call, and how much of its result the model gets. zh: 一次调用的时间（秒）。"""
    result_max_chars: int = Field(4000, ge=200, le=100_000)
    """zh: 结果最多给模型看这么多字符。"""
    max_rounds: int = Field(5, ge=1, le=20)
    """In one turn a model may call so many times, so many tools at once, chosen from so many. Every tool costs tokens
    with every question.
    zh: 一轮对话里，模型最多来回调用这么多次。"""
    max_calls: int = Field(8, ge=1, le=64)
    """zh: 每次最多同时调用这么多个工具。"""
    max_tools: int = Field(96, ge=1, le=512)
    """zh: 最多给模型这么多工具可选。每个工具在每次提问时都要花 token。"""
    filler_after_s: float = Field(1.2, ge=0, le=30)
    """When a call takes longer than this, the user hears a short sentence meanwhile.
    zh: 调用超过这么久（秒），先说一句短话让人知道在办。"""
    http_timeout_s: float = Field(6.0, gt=0, le=60)
    """Requests of the built-in tools to the internet: time and size. Answers that lead on to an address of a private
    network are not followed, unless private_redirects.
    zh: 内置工具上网的时间（秒）。"""
    http_max_kb: int = Field(2048, ge=16, le=65_536)
    """zh: 内置工具一次最多下载这么多（KB）。"""
    private_redirects: bool = False
    """zh: 是否跟随跳转到内网地址的链接。为安全起见默认不跟随。"""
    mcp_config: Path | None = Field(None, examples=["mcp.json"])
    """External MCP servers: a JSON file with "mcpServers", as other programs use it, or tables here. Started once for
    all devices, started again when they end. Their tools are called SERVER_NAME.
    zh: 外部 MCP 服务的 JSON 文件（含“mcpServers”，格式与其他程序相同）。所有设备共用，只启动一次，退出后自动重启；工
    具名是“服务名_工具名”。"""
    servers: tuple[McpServer, ...] = Field((), examples=[_SERVER.strip()])
    """zh: 直接写在设置文件里的外部 MCP 服务（[[tools.servers]]）。它们会启动程序，所以只能在文件里改。"""
    device: DeviceToolSettings = DeviceToolSettings()
    weather: WeatherSettings = WeatherSettings()
    reminders: ReminderSettings = ReminderSettings()
    music: MusicSettings = MusicSettings()
    news: NewsSettings = NewsSettings()
    search: SearchSettings = SearchSettings()
    home_assistant: HomeAssistantSettings = HomeAssistantSettings()

    @model_validator(mode="after")
    def _distinct(self) -> "ToolsSettings":
        names = [server.name for server in self.servers]
        if len(set(names)) != len(names):
            raise ValueError("servers must not have the same name twice")
        return self
