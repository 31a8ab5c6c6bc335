"""Which external MCP servers there are: from the settings, and from a JSON file as other programs use it."""

import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from xiaozhi.program import PlainError
from xiaozhi.settings import ToolsSettings
from xiaozhi.settings.tools import McpServer

_MAX_BYTES: Final = 1_048_576
_OTHER: Final = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME_CHARS: Final = 32


class McpConfigError(PlainError):
    """The file cannot be used; one line that names it and the place."""


def configured_servers(settings: ToolsSettings) -> list[McpServer]:
    """Every server that is switched on; those of the settings win over those of the file with the same name.

    Raises:
        McpConfigError: the file is missing or wrong.
    """
    servers = {server.name: server for server in read_config(settings.mcp_config)} if settings.mcp_config else {}
    servers |= {server.name: server for server in settings.servers}
    return [server for server in servers.values() if server.enabled]


def read_config(path: Path) -> list[McpServer]:
    """The servers of `{"mcpServers": {"name": {"command": …, "args": […], "env": {…}} or {"url": …}}}`.

    Keys of other programs that mean nothing here are ignored; `disabled` and `headers` are understood.

    Raises:
        McpConfigError: the file is missing or wrong.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise McpConfigError(f"{path}: larger than {_MAX_BYTES} bytes")
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise McpConfigError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise McpConfigError(f"{path}: not valid JSON: {error}") from None
    table = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise McpConfigError(f'{path}: "mcpServers" must be an object of servers')
    return [_server(path, str(name), entry) for name, entry in table.items()]


def _server(path: Path, name: str, entry: Any) -> McpServer:
    place = f"{path}: mcpServers.{name[:60]}"
    if not isinstance(entry, dict):
        raise McpConfigError(f"{place}: must be an object")
    kind = entry.get("type", entry.get("transport", ""))
    if kind == "sse":
        raise McpConfigError(
            f"{place}: the old SSE transport is not supported; use the server's streamable HTTP address"
        )
    values: dict[str, Any] = {
        "name": _OTHER.sub("_", name).strip("_")[:_MAX_NAME_CHARS],
        "command": entry.get("command", ""),
        "args": entry.get("args", ()),
        "env": entry.get("env") or {},
        "cwd": entry.get("cwd") or "",
        "url": entry.get("url", entry.get("serverUrl", "")),
        "enabled": entry.get("disabled") is not True,
    }
    headers = entry.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise McpConfigError(f"{place}: headers must be texts")
    values["headers"] = {str(key): SecretStr(value) for key, value in headers.items()}
    try:
        return McpServer.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise McpConfigError(f"{place}{'.' + where if where else ''}: {message}") from None
