"""`[tools]`: what the model may call."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from xiaozhi.settings.pasted import Address, ApiKey, key_of
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


class DeviceToolSettings(Section):
    """The device's own tools."""

    timeout_s: float = Field(10.0, gt=0, le=120)
    camera_timeout_s: float = Field(60.0, gt=0, le=300)
    max_tools: int = Field(64, ge=0, le=1000)


class WeatherSettings(Section):
    """Where the weather comes from."""

    provider: Literal["open-meteo", "qweather"] = "open-meteo"
    city: str = ""
    url: str = ""
    geocoding_url: str = ""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "QWEATHER_API_KEY"
    cache_s: float = Field(600.0, ge=0, le=86_400)

    @model_validator(mode="after")
    def _host(self) -> "WeatherSettings":
        if self.provider == "qweather" and not self.url:
            raise ValueError('provider "qweather" needs url, the API host of the account')
        return self

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return key_of(self.api_key, self.api_key_env)


class ReminderSettings(Section):
    """Timers, alarms and reminders."""

    max_per_device: int = Field(50, ge=1, le=1000)
    late_s: float = Field(86_400.0, ge=0, le=31_536_000)


class MusicSettings(Section):
    """Music from a folder."""

    folder: Path | None = None
    max_tracks: int = Field(20_000, ge=1, le=1_000_000)
    ahead_s: float = Field(3.0, ge=0.5, le=30)
    workers: int = Field(2, ge=1, le=16)


class NewsSettings(Section):
    """News by RSS or Atom."""

    feeds: tuple[str, ...] = ("https://www.chinanews.com.cn/rss/scroll-news.xml",)
    feeds_en: tuple[str, ...] = ("https://feeds.bbci.co.uk/news/world/rss.xml",)
    items: int = Field(5, ge=1, le=30)
    cache_s: float = Field(600.0, ge=0, le=86_400)


class SearchSettings(Section):
    """Search on the web."""

    provider: Literal["none", "searxng", "tavily"] = "none"
    url: str = ""
    api_key: ApiKey = SecretStr("")
    api_key_env: str = "TAVILY_API_KEY"
    results: int = Field(5, ge=1, le=20)

    @model_validator(mode="after")
    def _address(self) -> "SearchSettings":
        if self.provider == "searxng" and not self.url:
            raise ValueError('provider "searxng" needs url, for example "http://127.0.0.1:8080"')
        return self

    def key(self) -> str:
        """The API key, from the file or from the environment; empty when neither is set."""
        return key_of(self.api_key, self.api_key_env)


class HomeAssistantSettings(Section):
    """Home Assistant by its REST interface; off while `url` is empty."""

    url: Address = ""
    token: ApiKey = SecretStr("")
    token_env: str = "HOME_ASSISTANT_TOKEN"
    domains: tuple[str, ...] = (
        "light",
        "switch",
        "fan",
        "cover",
        "climate",
        "media_player",
        "scene",
        "script",
        "vacuum",
        "input_boolean",
        "sensor",
        "binary_sensor",
        "lock",
        "alarm_control_panel",
    )
    dangerous_domains: tuple[str, ...] = ("lock", "alarm_control_panel")
    cache_s: float = Field(10.0, ge=0, le=3600)

    def key(self) -> str:
        """The access token, from the file or from the environment; empty when neither is set."""
        return key_of(self.token, self.token_env)


class ToolsSettings(Section):
    """What the model may call."""

    enabled: bool = True
    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    confirm: bool = True
    dangerous: tuple[str, ...] = ("self.system.reconfigure_wifi", "self.reboot", "self.upgrade_firmware")
    timeout_s: float = Field(15.0, gt=0, le=600)
    result_max_chars: int = Field(4000, ge=200, le=100_000)
    max_rounds: int = Field(5, ge=1, le=20)
    max_calls: int = Field(8, ge=1, le=64)
    max_tools: int = Field(96, ge=1, le=512)
    filler_after_s: float = Field(1.2, ge=0, le=30)
    http_timeout_s: float = Field(6.0, gt=0, le=60)
    http_max_kb: int = Field(2048, ge=16, le=65_536)
    private_redirects: bool = False
    mcp_config: Path | None = None
    servers: tuple[McpServer, ...] = ()
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
