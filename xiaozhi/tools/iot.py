"""The things of firmware before 1.8, `iot` descriptors, as tools, and calls of them as `iot` commands. Pure.

A descriptor names a thing with properties (which the device reports as `states`) and methods with parameters. From
firmware 1.6.6 on devices offer MCP instead, and `iot` was taken out in 1.8.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from xiaozhi.events import ToolSpec

MAX_THINGS: Final = 32
MAX_METHODS: Final = 16
_MAX_PARAMETERS: Final = 16
_MAX_PROPERTIES: Final = 32
_LONGEST_DESCRIPTION: Final = 300
_LONGEST_VALUE: Final = 300
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,27}", re.ASCII)
# What the firmware's `iot/thing.h` knows, in the words of JSON schema.
_TYPES: Final[Mapping[str, str]] = {"boolean": "boolean", "number": "integer", "string": "string"}
_PREFIX: Final = "iot"


class IotError(ValueError):
    """A call that no thing of this device understands; one line for the model."""


@dataclass(frozen=True, slots=True)
class Method:
    """Something a thing can do; `parameters` are names with their JSON schema types and whether they are needed."""

    name: str
    description: str
    parameters: Mapping[str, tuple[str, str, bool]]


@dataclass(slots=True)
class Thing:
    """One thing of a device, such as its loudspeaker or a lamp.

    Attributes:
        name, description: the device's own words.
        properties: names with descriptions.
        methods: by name.
        state: what the device last reported.
    """

    name: str
    description: str
    properties: Mapping[str, str]
    methods: Mapping[str, Method]
    state: dict[str, object]


class IotThings:
    """All things of one connection: a bounded number, whatever the device sends.

    A device sends each descriptor in a message of its own; one that comes again replaces the earlier one.
    """

    def __init__(self) -> None:
        self._things: dict[str, Thing] = {}
        self.ignored = 0
        """Descriptors and states that could not be understood, or were too many."""

    def __len__(self) -> int:
        """How many things there are."""
        return len(self._things)

    def receive(self, message: Mapping[str, Any]) -> None:
        """Take an `iot` message with `descriptors` or `states`. Never raises."""
        for described in _objects(message.get("descriptors")):
            thing = _thing(described)
            if thing is None or (thing.name not in self._things and len(self._things) >= MAX_THINGS):
                self.ignored += 1
                continue
            self._things[thing.name] = thing
        for reported in _objects(message.get("states")):
            name = reported.get("name")
            known = self._things.get(name) if isinstance(name, str) else None
            state = reported.get("state")
            if known is None or not isinstance(state, dict):
                self.ignored += 1
                continue
            known.state.update({key: _value(state[key]) for key in known.properties if key in state})

    def tools(self) -> list[ToolSpec]:
        """What a model may call: one tool for each method, and one that reads what the things have reported."""
        specs = [
            ToolSpec(
                name,
                f"{thing.description}: {method.description}" if thing.description else method.description,
                _schema(method),
            )
            for name, (thing, method) in self._methods().items()
        ]
        if any(thing.properties for thing in self._things.values()):
            about = "; ".join(
                f"{thing.name}: {', '.join(f'{name} ({text})' for name, text in thing.properties.items())}"
                for thing in self._things.values()
                if thing.properties
            )
            reading = f"The present state of the device. {about}"[:1000]
            specs.append(ToolSpec(f"{_PREFIX}_get_state", reading, {"type": "object", "properties": {}}))
        return specs

    def _methods(self) -> dict[str, tuple[Thing, Method]]:
        """Every method by its tool's name; of two that would be called alike the first."""
        found: dict[str, tuple[Thing, Method]] = {}
        for thing in self._things.values():
            for method in thing.methods.values():
                found.setdefault(f"{_PREFIX}_{thing.name}_{method.name}", (thing, method))
        return found

    def state(self) -> dict[str, dict[str, object]]:
        """What the things have reported last, by thing; the answer of the tool `iot_get_state`."""
        return {thing.name: dict(thing.state) for thing in self._things.values() if thing.state}

    def command(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, object]:
        """The `iot` message that calls a tool of `tools`. The device sends no answer; its next `states` tells.

        Raises:
            IotError: no such tool, or arguments that are missing or of another type.
        """
        method_of = self._methods()
        if tool not in method_of:
            raise IotError(f"this device has no {tool}")
        thing, method = method_of[tool]
        values = {
            name: _argument(name, kind, arguments[name])
            for name, (kind, _, _) in method.parameters.items()
            if name in arguments
        }
        missing = [name for name, (_, _, needed) in method.parameters.items() if needed and name not in values]
        if missing:
            raise IotError(f"{tool} needs {', '.join(missing)}")
        return {"type": "iot", "commands": [{"name": thing.name, "method": method.name, "parameters": values}]}


def _thing(described: Mapping[str, Any]) -> Thing | None:
    name = described.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    methods: dict[str, Method] = {}
    for method_name, about in list(_members(described.get("methods")).items())[:MAX_METHODS]:
        if not _NAME.fullmatch(method_name):
            continue
        parameters = {
            parameter: (
                _TYPES.get(str(one.get("type")), "string"),
                _text(one.get("description")),
                one.get("required") is not False,
            )
            for parameter, one in list(_members(about.get("parameters")).items())[:_MAX_PARAMETERS]
            if _NAME.fullmatch(parameter)
        }
        methods[method_name] = Method(method_name, _text(about.get("description")) or method_name, parameters)
    properties = {
        key: _text(one.get("description"))
        for key, one in list(_members(described.get("properties")).items())[:_MAX_PROPERTIES]
        if _NAME.fullmatch(key)
    }
    return Thing(name, _text(described.get("description")), properties, methods, {})


def _schema(method: Method) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {
            name: {"type": kind, **({"description": text} if text else {})}
            for name, (kind, text, _) in method.parameters.items()
        },
        "required": [name for name, (_, _, needed) in method.parameters.items() if needed],
    }


def _argument(name: str, kind: str, value: object) -> object:
    """A model's value in the type the firmware reads, which takes nothing else."""
    if kind == "boolean":
        if isinstance(value, bool):
            return value
    elif kind == "integer":
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**31:
            return int(value)
    elif isinstance(value, str):
        return value[:_LONGEST_VALUE]
    raise IotError(f"{name} must be of the type {kind}")


def _objects(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        return []
    return [one for one in value[:MAX_THINGS] if isinstance(one, dict)]


def _members(value: object) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, dict):
        return {}
    return {key: one for key, one in value.items() if isinstance(one, dict)}


def _text(value: object) -> str:
    return " ".join(value.split())[:_LONGEST_DESCRIPTION] if isinstance(value, str) else ""


def _value(value: object) -> object:
    if isinstance(value, str):
        return value[:_LONGEST_VALUE]
    return value if isinstance(value, bool | int | float) else None
