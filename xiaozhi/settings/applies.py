"""When a change of a setting takes effect in a running server: one table for the console, the reload and the README."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from xiaozhi.settings.model import Settings

Applies: TypeAlias = Literal["next turn", "next connection", "restart"]
"""`next turn`: of every device, those that are connected as well. `next connection`: when a device connects again."""

APPLIES: Final[Mapping[str, Applies]] = {
    "server": "restart",
    "server.max_devices": "next connection",
    "server.hello_timeout_s": "next turn",
    "server.idle_close_s": "next turn",
    "server.keepalive_s": "next turn",
    "server.drain_s": "next turn",
    "server.requests_per_minute": "next turn",
    "server.send_timeout_s": "next connection",
    "server.max_message_bytes": "next connection",
    "server.origins": "next connection",
    "auth": "restart",
    "ota": "restart",
    "mqtt": "restart",
    "log": "next turn",
    "log.format": "restart",
    "models": "restart",
    "audio": "next turn",
    "audio.codec_workers": "restart",
    "vad": "next turn",
    "vad.threshold": "next connection",
    "vad.release_threshold": "next connection",
    "vad.min_speech_ms": "next connection",
    "vad.pre_roll_ms": "next connection",
    "turn": "next turn",
    "turn.wake_reply": "next connection",
    "turn.greeting": "next connection",
    "turn.goodbye": "next connection",
    "turn.exit_phrases": "next connection",
    "asr": "next turn",
    "asr.timeout_s": "next connection",
    "asr.workers": "restart",
    "asr.niceness": "restart",
    "llm": "next turn",
    "llm.history_turns": "next connection",
    "llm.history_max_tokens": "next connection",
    "tts": "next turn",
    "cache": "next turn",
    "cache.recognition": "restart",
    "tools": "restart",
    "memory": "restart",
    "vision": "restart",
    "push": "restart",
    "mcp_server": "restart",
    "store": "restart",
    "agents": "next turn",
    "agents.feelings": "next connection",
    "cluster": "restart",
    "load": "next turn",
    "load.blame_ms": "restart",
    "metrics": "restart",
    "alerts": "next turn",
    "tracing": "restart",
    "console": "restart",
}
"""By table or setting, the longest name that fits counts; what is not named needs a restart."""


def applies(key: str) -> Applies:
    """When a change of `key`, such as `asr.workers` or `llm.endpoints[0].model`, takes effect."""
    name = key.partition("[")[0]
    while name:
        if name in APPLIES:
            return APPLIES[name]
        name = name.rpartition(".")[0]
    return "restart"


def need_restart(keys: Iterable[str]) -> list[str]:
    """Those of `keys` that take effect only after a restart, in their order."""
    return [key for key in keys if applies(key) == "restart"]


def readme_table() -> str:
    """The table of the README, in Markdown: what applies when, a row for each table of `settings.toml`."""
    rows: list[str] = []
    for table in Settings.model_fields:
        columns: dict[Applies, list[str]] = {"next turn": [], "next connection": [], "restart": []}
        rule = APPLIES.get(table, "restart")
        columns[rule].append("all others")
        for key, when in APPLIES.items():
            if key.startswith(f"{table}.") and when != rule:
                columns[when].append(f"`{key.partition('.')[2]}`")
        if all(len(names) == 0 for when, names in columns.items() if when != rule):
            columns[rule] = ["everything"]
        cells = (", ".join(sorted(columns[when])) for when in ("next turn", "next connection", "restart"))
        rows.append(f"| `[{table}]` | " + " | ".join(cells) + " |")
    head = "| table | from the next turn | when a device connects | after a restart |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"
