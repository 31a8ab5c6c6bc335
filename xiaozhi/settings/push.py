"""`[vision]`, `[push]`, `[mcp_server]`: pictures from devices, what is said to them from outside, other programs."""

import re
from typing import Final

from pydantic import Field, SecretStr, field_validator

from xiaozhi.settings.section import Section

_SPAN: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")
# A token that can be guessed in an afternoon is none; 16 random letters hold for longer than any device.
_SHORTEST_TOKEN: Final = 16


def minutes_of(span: str) -> tuple[int, int] | None:
    """`"22:00-07:00"` as minutes of the day, from and to; None for an empty text.

    Raises:
        ValueError: it is no such span.
    """
    if not span.strip():
        return None
    match = _SPAN.fullmatch(span.strip())
    if match is None:
        raise ValueError('must be a span such as "22:00-07:00", or empty')
    hours = [int(part) for part in match.groups()]
    return hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]


def _long_enough(token: SecretStr) -> SecretStr:
    if 0 < len(token.get_secret_value()) < _SHORTEST_TOKEN:
        raise ValueError(f"must have at least {_SHORTEST_TOKEN} characters, or be empty")
    return token


class VisionSettings(Section, applies="restart"):
    """Pictures: what devices with a camera send. zh: 图片：设备发来的图片。"""

    enabled: bool = True
    """Pictures from devices with a camera ("what do you see?"), answered by an endpoint of [llm] with vision = true.
    zh: 让有摄像头的设备“看”（“你看到了什么？”），由设了 vision = true 的 [llm] 端点回答。"""
    max_mb: float = Field(5.0, ge=0.1, le=20)
    """The largest picture in megabytes, and in pixels. JPEG and PNG. zh: 图片最大多少 MB，JPEG 或 PNG。"""
    max_pixels: int = Field(16_000_000, ge=100_000, le=100_000_000)
    """zh: 图片最多多少像素。"""
    side: int = Field(1024, ge=128, le=4096)
    """Pictures are made smaller until their longer side has so many pixels. zh: 图片缩小到长边这么多像素。"""
    max_concurrent: int = Field(4, ge=1, le=100)
    """Pictures looked at together, and how long an answer may take (firmware waits 30 s). zh: 同时看这么多张图片。"""
    timeout_s: float = Field(25.0, ge=1, le=120)
    """zh: 看一张图的时间（秒）；固件最多等 30 秒。"""
    token_hours: float = Field(12.0, ge=0.1, le=720)
    """The token that a device gets with its connection holds so long. zh: 设备连接时领到的图片令牌有效多少小时。"""


class PushSettings(Section, applies="restart"):
    """Announcements: what is said on devices from outside, and reminders.

    zh: 主动播报：由外部发起、在设备上说的话，以及提醒。
    """

    enabled: bool = True
    """Say something on devices from outside: `xiaozhi say "dinner is ready" --all`, or POST /api/announce with
    "Authorization: Bearer TOKEN". The token is made on the first start and lies in server.data_dir as push-token,
    unless one is given here (at least 16 characters).
    zh: 从外部让设备说话：`xiaozhi say "吃饭了" --all`，或 POST /api/announce（带“Authorization: Bearer 令牌”）。"""
    token: SecretStr = SecretStr("")
    """zh: 令牌，至少 16 个字符。不填则第一次启动时生成，存在 server.data_dir 的 push-token 里。"""
    patience_s: float = Field(60.0, ge=1, le=3600)
    """While somebody talks, an announcement waits so long. Of one device at most max_waiting wait, each of at most
    max_chars characters.
    zh: 有人在说话时，播报最多等这么久（秒）。"""
    max_waiting: int = Field(8, ge=1, le=100)
    """zh: 一台设备最多有这么多条播报在等。"""
    max_chars: int = Field(500, ge=20, le=5000)
    """zh: 一条播报最多这么多字。"""
    quiet_hours: str = ""
    """No announcements in these hours, such as "22:00-07:00", in server.timezone; urgent ones and reminders come all
    the same.
    zh: 这段时间不播报，例如“22:00-07:00”，按 server.timezone；紧急的和提醒照样会说。"""
    tool: bool = False
    """Give the model a tool to announce something on other devices; an agent's list of tools may still deny it.
    zh: 给模型一个在别的设备上播报的工具；角色的工具列表仍可禁止它。"""
    calls: bool = False
    """"Call the kitchen": give the model a tool to ring on another device, where whoever is there is asked whether to
    take the call. Both talk like by radio, one after the other. "Hang up" or a key ends it. Not in quiet hours,
    and only between devices of one owner (`xiaozhi devices set`).
    zh: “呼叫厨房”：给模型一个呼叫另一台设备的工具，对方同意后才接通，像对讲机一样轮流说话。说“挂断”或按键结束；安静
    时段不可用，只在同一个主人的设备之间（`xiaozhi devices set`）。"""
    alarm_repeats: int = Field(3, ge=0, le=20)
    """An alarm or timer rings again when nobody reacts: so many times, every so many seconds.
    zh: 闹钟或计时没人理时，再响这么多次。"""
    alarm_every_s: float = Field(60.0, ge=5, le=3600)
    """zh: 每隔这么久（秒）再响一次。"""

    _token = field_validator("token")(_long_enough)

    @field_validator("quiet_hours")
    @classmethod
    def _span(cls, span: str) -> str:
        minutes_of(span)
        return span.strip()


class McpServerSettings(Section, applies="restart"):
    """MCP server: for other programs. zh: MCP 服务：把本服务器作为 MCP 服务给其他程序用。"""

    enabled: bool = False
    """Let other programs use this server by MCP at /mcp: say something on a device, list devices, read the history and
    the reminders. They show a token as "Authorization: Bearer …": this one (at least 16 characters), or the one that is
    made on the first start and lies in server.data_dir as mcp-token.
    zh: 其他程序可以在 /mcp 通过 MCP 使用本服务器：让设备说话、列出设备、读对话和提醒。它们要带“Authorization: Bearer
    令牌”。"""
    token: SecretStr = SecretStr("")
    """zh: 令牌，至少 16 个字符。不填则第一次启动时生成，存在 server.data_dir 的 mcp-token 里。"""
    origins: tuple[str, ...] = ()
    """Web pages that may ask, such as "https://chat.example.com"; programs that are no web pages send no origin.
    zh: 允许访问的网页，例如“https://chat.example.com”；不是网页的程序不受影响。"""
    max_kb: int = Field(256, ge=16, le=4096)
    """The largest request in kB. zh: 一个请求最大多少 KB。"""

    _token = field_validator("token")(_long_enough)
