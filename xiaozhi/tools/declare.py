"""A tool from a typed coroutine: its schema from the type hints, its words from the docstring."""

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from xiaozhi.tools.arguments import BadArguments
from xiaozhi.tools.plain_schema import plain_schema
from xiaozhi.tools.tool import Tool, ToolContext, ToolResult

_ARGUMENT = re.compile(r"^ {4,8}(\w+): (.*)$")


def tool(
    *, name: str = "", describe: dict[str, str] | None = None, **flags: Any
) -> Callable[[Callable[..., Awaitable[ToolResult | str]]], Tool]:
    """Make a tool of `async def do(context: ToolContext, argument: Kind = default) -> ToolResult | str`.

    The first paragraph of the docstring is what the model reads, the section `Takes:` describes the arguments. Bounds
    and choices come from the hints (`Annotated[int, Field(ge=0)]`, `Literal[...]`).

    Args:
        name: the tool's name; that of the function when empty.
        describe: further words per argument that are known only at run time.
        flags: attributes of `Tool`, such as `repeats=True`.

    Raises:
        TypeError: the coroutine does not take a context first, or an argument has no type.
    """

    def declare(function: Callable[..., Awaitable[ToolResult | str]]) -> Tool:
        own_name: str = name or getattr(function, "__name__", "")
        purpose, words = _docstring(inspect.getdoc(function) or "")
        words |= describe or {}
        model = _model(own_name, function, words)

        async def run(arguments: dict[str, Any], context: ToolContext) -> ToolResult:
            result = await function(context, **arguments)
            return ToolResult(result) if isinstance(result, str) else result

        def check(arguments: dict[str, Any]) -> dict[str, Any]:
            try:
                checked = model.model_validate(arguments)
            except ValidationError as error:
                raise BadArguments(_sentence(error)) from None
            return {key: getattr(checked, key) for key in type(checked).model_fields}

        return Tool(own_name, purpose, _schema(model), run, check, **flags)

    return declare


def _model(name: str, function: Callable[..., Any], words: dict[str, str]) -> type[BaseModel]:
    """A model of the arguments behind the context."""
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or hints.get(parameters[0].name) is not ToolContext:
        raise TypeError(f"{name}: the first argument must be a ToolContext")
    fields: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.name not in hints:
            raise TypeError(f"{name}: argument {parameter.name} has no type")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        said = Field(description=words.get(parameter.name))
        fields[parameter.name] = (Annotated[hints[parameter.name], said], default)
    made: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    return made


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema without the titles pydantic adds: they cost tokens and say nothing."""
    return plain_schema(_untitled(model.model_json_schema()))


def _untitled(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: {name: _untitled(inner) for name, inner in value.items()} if key == "properties" else _untitled(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_untitled(item) for item in node] if isinstance(node, list) else node


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph as one line, and the words for each argument."""
    head, _, rest = text.partition("\n\n")
    words: dict[str, str] = {}
    current = ""
    in_arguments = False
    for line in rest.splitlines():
        if line.strip() == "Takes:":
            in_arguments = True
        elif in_arguments and (match := _ARGUMENT.match(line)):
            current = match[1]
            words[current] = match[2].strip()
        elif in_arguments and current and line.startswith(" " * 8):
            words[current] += " " + line.strip()
        elif line.strip():
            in_arguments, current = False, ""
    return " ".join(head.split()), words


def _sentence(error: ValidationError) -> str:
    """The first mistake as pydantic words it, with its place."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"Argument {place!r} is missing."
    if first["type"] == "extra_forbidden":
        return f"There is no argument {place!r}."
    return f"Argument {place!r}: {first['msg']}."
