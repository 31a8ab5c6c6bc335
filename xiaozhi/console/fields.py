"""Every setting as the pages show it: value, default, limits, what it means, where it comes from, when it applies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from xiaozhi.program import as_called
from xiaozhi.settings import Settings
from xiaozhi.settings.applies import applies
from xiaozhi.settings.chinese import in_chinese
from xiaozhi.settings.documentation import Documentation
from xiaozhi.settings.engines import EngineSettings
from xiaozhi.settings.load import Origin
from xiaozhi.settings.schema import Key, dotted, keys

TITLES: Final[Mapping[str, tuple[str, str]]] = {
    "server": ("服务器", "Server"),
    "auth": ("设备接入", "Who may connect"),
    "ota": ("设备升级", "Device updates"),
    "log": ("日志", "Log"),
    "models": ("本地模型", "Local models"),
    "audio": ("下行声音", "Sound to devices"),
    "vad": ("语音检测 VAD", "Voice activity"),
    "turn": ("对话节奏", "Turn taking"),
    "asr": ("语音识别 ASR", "Speech recognition"),
    "asr.remote": ("远程识别", "Remote recognition"),
    "llm": ("语言模型 LLM", "Language model"),
    "llm.breaker": ("熔断", "Circuit breaker"),
    "llm.hedge": ("抢答请求", "Second requests"),
    "llm.routing": ("问题分流", "Routing of questions"),
    "tts": ("语音合成 TTS", "Voices"),
    "cache": ("缓存", "Caches"),
    "cache.embeddings": ("语义匹配", "Likeness of questions"),
    "tools": ("工具", "Tools"),
    "tools.device": ("设备工具", "Tools of devices"),
    "tools.weather": ("天气", "Weather"),
    "tools.reminders": ("提醒", "Reminders"),
    "tools.music": ("音乐", "Music"),
    "tools.news": ("新闻", "News"),
    "tools.search": ("搜索", "Search"),
    "tools.home_assistant": ("智能家居", "Home Assistant"),
    "store": ("存储", "Store"),
    "agents": ("角色", "Agents"),
    "load": ("过载保护", "Under load"),
    "load.extras": ("先放弃：附加计算", "Given up: extras"),
    "load.speculation": ("再放弃：抢先回答", "Given up: speculation"),
    "load.quality": ("再放弃：音质", "Given up: quality of sound"),
    "load.hedging": ("再放弃：抢答请求", "Given up: second requests"),
    "load.turns": ("再放弃：立即回答", "Given up: answering at once"),
    "load.devices": ("最后：拒绝新设备", "Last: new devices"),
    "metrics": ("指标", "Metrics"),
    "memory": ("长期记忆", "Long-term memory"),
    "vision": ("图片", "Pictures"),
    "push": ("主动播报", "Announcements"),
    "mcp_server": ("MCP 服务", "MCP server"),
    "cluster": ("集群", "Cluster"),
    "alerts": ("告警", "Alerts"),
    "tracing": ("链路跟踪", "Traces"),
    "console": ("控制台", "Console"),
}
"""Names of tables in Chinese and English."""

READ_ONLY: Final = frozenset(
    {"server.data_dir", "models.dir", "tools.servers", "tools.mcp_config", "console.password_file", "llm.endpoints"}
)
"""Not changed one by one: they start programs, say what other paths are measured by, or have an editor of their own."""


def can_be_changed(name: str, key: Key) -> bool:
    """Whether the pages may give a setting another value; if not it is changed in its file, or elsewhere."""
    return not (name in READ_ONLY or key.kind == "sections" or key.item == "secret")


def tables(
    settings: Settings, from_where: Mapping[str, Origin], overridden: Mapping[str, Any], documents: Documentation
) -> list[dict[str, Any]]:
    """All tables with their fields, in the order of the model; lists of tables are named, their contents are not shown.

    Each carries what is said about it in English, `doc`, and in Chinese, `doc_zh`. Blocking at the first call.

    Args:
        settings: the values that hold.
        from_where: where those come from that are not at their default.
        overridden: what the owner's file says of those for which the console's says something else.
        documents: what the default file says.
    """
    found: dict[str, dict[str, Any]] = {}
    for key in keys().values():
        if "*" in key.path or key.kind == "section":
            continue
        table = dotted(key.path[:-1])
        if table not in found:
            section = _section(settings, key.path[:-1])
            own = section.title if isinstance(section, EngineSettings) else ("", "")
            chinese, english = TITLES.get(table) or (own if all(own) else (table, table))
            found[table] = {
                "name": table,
                "title_zh": chinese,
                "title_en": english,
                "doc": as_called(documents.tables.get(table) or _first_line(type(section))),
                "doc_zh": as_called(in_chinese(table)),
                "fields": [],
            }
        found[table]["fields"].append(_field(settings, key, from_where, overridden, documents))
    return list(found.values())


def _field(
    settings: Settings,
    key: Key,
    from_where: Mapping[str, Origin],
    overridden: Mapping[str, Any],
    documents: Documentation,
) -> dict[str, Any]:
    name = dotted(key.path)
    section = _section(settings, key.path[:-1])
    about = type(section).model_fields[key.path[-1]]
    low, high, open_low, open_high = _bounds(about)
    value = getattr(section, key.path[-1])
    return {
        "key": name,
        "value": shown(value) if key.kind != "sections" else len(value),
        "default": shown(_default(key)) if key.kind != "sections" else 0,
        "type": "tables" if key.kind == "sections" else key.kind,
        "min": low,
        "max": high,
        "min_exclusive": open_low,
        "max_exclusive": open_high,
        "max_length": next((m.max_length for m in about.metadata if isinstance(m, annotated_types.MaxLen)), None),
        "choices": list(key.choices),
        "item": key.item,
        "optional": key.optional,
        "doc": as_called(documents.settings.get(name) or about.description or _of_rows(key, about)),
        "doc_zh": as_called(in_chinese(name)),
        "set_by": from_where.get(name, "default"),
        "overrides": name in overridden,
        "file_value": _told(key, overridden.get(name)),
        "applies": applies(name),
        "editable": can_be_changed(name, key),
    }


def shown(value: Any) -> Any:
    """A value as JSON; of a secret only whether there is one."""
    match value:
        case SecretStr():
            return "set" if value.get_secret_value() else None
        case Path():
            return str(value)
        case BaseModel():
            return {name: shown(getattr(value, name)) for name in type(value).model_fields}
        case tuple() | list():
            return [shown(item) for item in value]
        case dict():
            return {str(name): shown(item) for name, item in value.items()}
        case _:
            return value


def _of_rows(key: Key, about: FieldInfo) -> str:
    """What the rows of a list of tables are; empty for all else."""
    rows = get_args(about.annotation) if key.kind == "sections" else ()
    return _first_line(rows[0]) if rows else ""


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _told(key: Key, value: Any) -> Any:
    """What the owner's file says, as far as it may be shown."""
    if key.kind == "sections":
        return len(value) if isinstance(value, list) else 0
    return None if key.kind == "secret" or key.item == "secret" else value


def _section(settings: Settings, path: tuple[str, ...]) -> BaseModel:
    section: BaseModel = settings
    for part in path:
        section = getattr(section, part)
    return section


def _default(key: Key) -> Any:
    value: Any = _DEFAULTS
    for part in key.path:
        value = getattr(value, part)
    return value


_DEFAULTS: Final = Settings()


def _bounds(about: FieldInfo) -> tuple[float | None, float | None, bool, bool]:
    low: Any = None
    high: Any = None
    open_low = open_high = False
    for limit in about.metadata:
        match limit:
            case annotated_types.Ge(ge=bound):
                low = bound
            case annotated_types.Gt(gt=bound):
                low, open_low = bound, True
            case annotated_types.Le(le=bound):
                high = bound
            case annotated_types.Lt(lt=bound):
                high, open_high = bound, True
            case _:
                pass
    return low, high, open_low, open_high
