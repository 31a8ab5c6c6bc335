"""`[console]`: the pages for owners under `/console/`."""

from typing import Final

from pydantic import Field, field_validator

from xiaozhi.settings.section import Section, networks

SELF: Final = "self"
"""In `allow`: this machine, by whichever of its addresses it is asked."""


class ConsoleSettings(Section, applies="restart"):
    """Console: pages for owners under /console/. zh: 控制台：给主人用的网页。"""

    enabled: bool = True
    """Pages for owners at /console/ on the port of the devices: what happens now, every turn, models, devices, agents,
    logs.
    zh: 在设备端口的 /console/ 提供网页：现在的情况、每轮对话、模型、设备、角色、日志。"""
    allow: tuple[str, ...] = (
        SELF, "127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fd00::/8",
        "fe80::/10",
    )  # fmt: skip
    """Networks that may open them, see also server.trusted_proxies. Everybody else is answered 403. "self" is this
    machine by any of its addresses; 100.64.0.0/10 is Tailscale and the like.
    zh: 可以打开网页的网段，另见 server.trusted_proxies。其他人得到 403。“self”表示本机的任何地址；100.64.0.0/10 是
    Tailscale 之类的内网。"""
    password_file: str = Field("console-password", min_length=1, max_length=400)
    """The password is made on the first start and printed once, on a terminal; where there is none, it is kept in a
    file of this name with "-first" behind it until somebody has signed in (`xiaozhi console password --show`). `xiaozhi
    console password` sets another. Here lies what it is recognised by (not the password itself): a file in
    server.data_dir, or the path of a file elsewhere.
    zh: 密码在第一次启动时生成，在终端上显示一次；没有终端时存在同名加“-first”的文件里，直到有人登录（用 `xiaozhi
    console password --show` 查看）。`xiaozhi console password` 可以另设。这里存的不是密码本身，而是核对密码用的内
    容：server.data_dir 里的文件，或别处的路径。"""
    session_hours: float = Field(12.0, ge=0.1, le=720)
    """A sign-in holds so long, and ends earlier when no page has been open for idle_minutes.
    zh: 登录最多保持这么多小时。"""
    idle_minutes: float = Field(60.0, ge=1, le=43_200)
    """zh: 这么多分钟没有打开任何页面，就要重新登录。"""
    transcripts: bool = True
    """Show on the console what was heard and said. Off, it shows only the times of turns.
    zh: 在控制台显示听到和回答的文字。关闭则只显示各轮的时间。"""
    turns: int = Field(500, ge=10, le=10_000)
    """The newest turns and log lines that are kept in memory for the pages. zh: 为网页在内存里保留最近这么多轮对话。"""
    log_lines: int = Field(2000, ge=100, le=50_000)
    """zh: 为网页在内存里保留最近这么多行日志。"""

    @field_validator("allow")
    @classmethod
    def _networks(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        try:
            networks(tuple(text for text in allow if text != SELF))
        except ValueError as error:
            raise ValueError(str(error).replace("must be", f'must be "{SELF}",', 1)) from None
        return allow
