"""The device's own tools, as the firmware's MCP server answers for them. Pure: a JSON-RPC message in, one out.

The firmware is strict where it is silent: an id that is not a number, `params` that are no object, another JSON-RPC
version are logged and never answered. Its errors have no code.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

# Firmware 2.4.2: a page of tools is at most this long.
PAGE_BYTES: Final = 8000
CAMERA: Final = "self.camera.take_photo"

Result = str | bool | int | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a tool; `kind` is `integer`, `string` or `boolean`; without a default it is required."""

    name: str
    kind: str
    default: Result | None = None
    minimum: int | None = None
    maximum: int | None = None

    def schema(self) -> dict[str, object]:
        """As JSON schema, without what is not set."""
        limits = {"default": self.default, "minimum": self.minimum, "maximum": self.maximum}
        return {"type": self.kind, **{key: value for key, value in limits.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class DeviceTool:
    """Something the device can do; `call` takes the arguments by name, already checked."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    call: Callable[..., Result]
    user_only: bool = False

    def listing(self) -> dict[str, object]:
        """The tool's entry in `tools/list`."""
        schema: dict[str, object] = {"type": "object", "properties": {p.name: p.schema() for p in self.parameters}}
        required = [parameter.name for parameter in self.parameters if parameter.default is None]
        if required:
            schema["required"] = required
        entry: dict[str, object] = {"name": self.name, "description": self.description, "inputSchema": schema}
        if self.user_only:
            entry["annotations"] = {"audience": ["user"]}
        return entry


class _Refused(Exception):
    """Answered with a JSON-RPC error of this message."""


@dataclass(slots=True)
class DeviceMcpServer:
    """The tools that all boards have, and the state they act on.

    Attributes:
        volume, brightness: 0 to 100.
        calls: every call that was carried out: name and arguments.
        vision: what `initialize` said about the camera's endpoint.
        photo: what its camera sees, a JPEG or PNG file; empty for a device without a camera.
    """

    board: str = "software"
    version: str = "2.4.2"
    page_bytes: int = PAGE_BYTES
    volume: int = 70
    brightness: int = 100
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    vision: dict[str, Any] = field(default_factory=dict)
    photo: bytes = b""
    tools: dict[str, DeviceTool] = field(init=False)

    def __post_init__(self) -> None:
        percent = {"kind": "integer", "minimum": 0, "maximum": 100}
        tools = (
            DeviceTool(
                "self.get_device_status", "Volume, screen, battery and network of the device now.", (), self._status
            ),
            DeviceTool(
                "self.audio_speaker.set_volume",
                "Set the volume of the speaker. To change it relatively, read the device status first.",
                (Parameter("volume", **percent),),  # type: ignore[arg-type]  # one dictionary of mixed types
                self._set_volume,
            ),
            DeviceTool(
                "self.screen.set_brightness",
                "Set the brightness of the screen.",
                (Parameter("brightness", **percent),),  # type: ignore[arg-type]  # as above
                self._set_brightness,
            ),
            DeviceTool("self.get_system_info", "System information.", (), self._system_info, user_only=True),
        )
        self.tools = {tool.name: tool for tool in tools}
        if self.photo:
            words = "Take a photo and answer a question about it."
            self.tools[CAMERA] = DeviceTool(
                CAMERA, words, (Parameter("question", "string"),), lambda question: question
            )

    def photo_wanted(self, payload: dict[str, Any]) -> str | None:
        """The question, if this message asks the camera in a way the firmware would answer; it is answered later."""
        params = payload.get("params")
        if payload.get("method") != "tools/call" or not isinstance(params, dict) or params.get("name") != CAMERA:
            return None
        reply = self.answer(payload) or {}
        result = reply.get("result")
        return str(result["content"][0]["text"]) if isinstance(result, dict) else None

    def answer(self, payload: dict[str, Any]) -> dict[str, object] | None:
        """The reply to one JSON-RPC message; None where the firmware stays silent."""
        method, number, params = payload.get("method"), payload.get("id"), payload.get("params", {})
        if payload.get("jsonrpc") != "2.0" or not isinstance(method, str) or method.startswith("notifications"):
            return None
        if isinstance(number, bool) or not isinstance(number, int | float) or not isinstance(params, dict):
            return None
        reply: dict[str, object] = {"jsonrpc": "2.0", "id": int(number)}
        try:
            match method:
                case "initialize":
                    return {**reply, "result": self._initialize(params)}
                case "tools/list":
                    return {**reply, "result": self._list(params)}
                case "tools/call":
                    return {**reply, "result": self._call(params)}
                case _:
                    raise _Refused(f"Method not implemented: {method}")
        except _Refused as refused:
            return {**reply, "error": {"message": str(refused)}}

    def _initialize(self, params: dict[str, Any]) -> dict[str, object]:
        capabilities = params.get("capabilities")
        vision = capabilities.get("vision") if isinstance(capabilities, dict) else None
        if isinstance(vision, dict):
            self.vision = vision
        return {
            "protocolVersion": "2024-11-05",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": self.board, "version": self.version},
        }

    def _list(self, params: dict[str, Any]) -> dict[str, object]:
        cursor = params.get("cursor", "")
        offered = [tool for tool in self.tools.values() if params.get("withUserTools") is True or not tool.user_only]
        names = [tool.name for tool in offered]
        first = 0 if not cursor else names.index(cursor) if cursor in names else len(names)
        page: list[dict[str, object]] = []
        size = 0
        for tool in offered[first:]:
            entry = tool.listing()
            size += len(orjson.dumps(entry)) + 1
            if size > self.page_bytes:
                if not page:
                    break
                return {"tools": page, "nextCursor": tool.name}
            page.append(entry)
        if not page:
            raise _Refused("Failed to add tool  because of payload size limit")
        return {"tools": page}

    def _call(self, params: dict[str, Any]) -> dict[str, object]:
        name, given = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str):
            raise _Refused("Missing name")
        tool = self.tools.get(name)
        if tool is None:
            raise _Refused(f"Unknown tool: {name}")
        if not isinstance(given, dict):
            raise _Refused("Invalid arguments")
        arguments = {parameter.name: _argument(parameter, given) for parameter in tool.parameters}
        result = tool.call(**arguments)
        self.calls.append((name, arguments))
        text = result if isinstance(result, str) else orjson.dumps(result).decode()
        return {"content": [{"type": "text", "text": text}], "isError": False}

    def _status(self) -> Result:
        return {
            "audio_speaker": {"volume": self.volume},
            "screen": {"brightness": self.brightness, "theme": "light"},
            "battery": {"level": 80, "charging": False},
            "network": {"type": "wifi", "ssid": "ap", "signal": "strong"},
        }

    def _system_info(self) -> Result:
        return {"board": self.board, "version": self.version}

    def _set_volume(self, volume: int) -> Result:
        self.volume = volume
        return True

    def _set_brightness(self, brightness: int) -> Result:
        self.brightness = brightness
        return True


def _argument(parameter: Parameter, given: dict[str, Any]) -> Result:
    """One argument as strictly as the firmware takes it: `"50"` is no integer, 50.9 is 50."""
    value = given.get(parameter.name, parameter.default)
    match parameter.kind, value:
        case "boolean", bool():
            return value
        case "string", str():
            return value
        case "integer", (int() | float()) if not isinstance(value, bool):
            number = int(value)
            if parameter.minimum is not None and number < parameter.minimum:
                raise _Refused(f"Value is below minimum allowed: {parameter.minimum}")
            if parameter.maximum is not None and number > parameter.maximum:
                raise _Refused(f"Value exceeds maximum allowed: {parameter.maximum}")
            return number
        case _:
            raise _Refused(f"Missing valid argument: {parameter.name}")
