"""Tool calls that a model has written as text, in the dialects of the models that do. Pure.

Servers that know a model's dialect hand its calls over apart; others, and quantised or mis-prompted models, leave them
in the text. What is read here stands between the marks of such a call, which `xiaozhi.text.hidden` finds.
"""

import ast
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

# Of a call, and what holds one: {"function": {"name": ...}}.
_NAME_KEYS: Final = ("name", "tool_name", "function_name", "recipient_name", "function", "tool")
_ARGUMENT_KEYS: Final = ("arguments", "parameters", "args", "tool_input")
_HOLDER_KEYS: Final = ("tool_calls", "function_call", "tool_call", "function", "tool_uses")
_IDLE_KEYS: Final = frozenset({"id", "type", "index", "call_id"})
FIRST_KEYS: Final = frozenset((*_NAME_KEYS, *_ARGUMENT_KEYS, *_HOLDER_KEYS, *_IDLE_KEYS))
"""With which an object begins that may be a call."""

_NAME: Final = re.compile(r"[A-Za-z_][\w.:-]{0,80}", re.ASCII)
_FENCE: Final = re.compile(r"```[a-z_]*|<escape>|\x1f|\[ARGS\]|\[CALL_ID\]\w*")
_NAMESPACE: Final = re.compile(r"(?<=[</])(?:[|｜]\w{1,16}[|｜]|\w{1,16}:)(?=\w)")
_INVOKE: Final = re.compile(r"<(?:invoke\s+name=[\"']?|function=[\"']?|function\s+name=[\"']?)([\w.-]+)[\"']?\s*>")
_PARAMETER: Final = re.compile(
    r"<parameter(?:=|\s+name=)[\"']?([\w.-]+)[\"']?[^<>]*>(.*?)(?:</parameter>|(?=<parameter[=\s])|\Z)",
    re.DOTALL,
)
_NAME_BEFORE: Final = re.compile(r"([A-Za-z_][\w.-]*)(?::\d+)?[\s:>]*\Z", re.ASCII)
_BROKEN_NAME: Final = re.compile(r"[\"']name[\"']\s*:\s*[\"']([\w.-]+)[\"']")
_BROKEN_ARGUMENTS: Final = re.compile(r"[\"'](?:arguments|parameters)[\"']\s*:\s*")
_BRACKET: Final = re.compile(r"[{\[]")
_PREFIX: Final = re.compile(r"(?:functions|default_api|tools)\.")
_MAX_PYTHON_CHARS: Final = 4000
_MAX_DEPTH: Final = 4
_MAX_CALLS: Final = 64
_DECODER: Final = json.JSONDecoder(strict=False)


class WrittenCall(NamedTuple):
    """A call: the tool's name and the JSON text of its arguments, which need not be valid."""

    name: str
    arguments: str


def calls_in_block(block: str, tools: Collection[str] = ()) -> tuple[list[WrittenCall], str]:
    r"""The calls in what stood between the marks of calls, and what follows behind the last of them.

    Args:
        block: the text between the marks; other special tokens in it are written as `\x1f`.
        tools: names of those that are offered: in the form `name(key="value")` no other is looked for.
    """
    block = _NAMESPACE.sub("", block)
    if invoked := list(_invoked(block)):
        return invoked, ""
    block = _FENCE.sub(" ", block)
    if "<arg_key>" in block:
        return _keyed(block), ""
    calls, rest = _json_calls(block)
    if calls:
        return calls, rest
    if broken := _broken(block):
        return [broken], ""
    if calls := python_calls(block, tools):
        return calls, ""
    name = _NAME.fullmatch(block.strip())
    return ([WrittenCall(_bare(name[0]), "{}")] if name and _bare(name[0]) in tools else []), block


def calls_in_json(text: str) -> list[WrittenCall]:
    """The calls in a text that is JSON and says of itself that it is calls, and nothing else; empty otherwise."""
    for decode in (_DECODER.decode, _python_value):  # {'name': ...}
        try:
            return list(_calls_of(decode(text), strict=True))
        except (ValueError, RecursionError):
            continue
    return []


def python_calls(text: str, tools: Collection[str]) -> list[WrittenCall]:
    """The calls in the form `name(key="value")`, of tools that are offered."""
    if len(text) > _MAX_PYTHON_CHARS or not any(name in text for name in tools):
        return []
    try:
        nodes = list(ast.walk(ast.parse(text.strip())))
        return [
            _call(name, {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg})
            for node in nodes
            if isinstance(node, ast.Call) and (name := _bare(ast.unparse(node.func))) in tools
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _python_value(text: str) -> Any:
    """A dict or a list as Python writes it.

    Raises:
        ValueError: it is none, or too long.
    """
    try:
        return ast.literal_eval(text.strip()) if len(text) <= _MAX_PYTHON_CHARS else None
    except (SyntaxError, MemoryError) as error:
        raise ValueError from error


def _bare(name: str) -> str:
    return _PREFIX.sub("", name).removesuffix(".call")


def _call(name: str, arguments: Mapping[Any, Any]) -> WrittenCall:
    return WrittenCall(_bare(name), json.dumps(arguments, ensure_ascii=False))


def _value(text: str) -> Any:
    """A value in markup: JSON where it is any, otherwise a text."""
    text = text.strip()
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return text


def _invoked(block: str) -> Iterator[WrittenCall]:
    """Calls in markup: `<invoke name="x"><parameter name="y">z</parameter></invoke>`, `<function=x>...`."""
    found = list(_INVOKE.finditer(block))
    for index, match in enumerate(found):
        end = found[index + 1].start() if index + 1 < len(found) else len(block)
        body = block[match.end() : end]
        parameters = {key: _value(value) for key, value in _PARAMETER.findall(body)}
        brace = body.find("{")
        if not parameters and brace >= 0:  # <function=x>{"y": 1}</function>
            yield WrittenCall(_bare(match[1]), body[brace : body.rfind("}") + 1])
        else:
            yield _call(match[1], parameters)


def _keyed(block: str) -> list[WrittenCall]:
    """GLM's form: the name, then `<arg_key>x</arg_key><arg_value>1</arg_value>`."""
    head, *pairs = block.split("<arg_key>")
    name = _NAME.search(head)
    arguments = {}
    for pair in pairs:
        key, _, value = pair.partition("</arg_key>")
        arguments[key.strip()] = _value(value.partition("<arg_value>")[2].partition("</arg_value>")[0])
    return [_call(name[0], arguments)] if name else []


def _broken(block: str) -> WrittenCall | None:
    """A call in JSON that has a fault; whoever reads the arguments may mend it."""
    name = _BROKEN_NAME.search(block)
    begin = _BROKEN_ARGUMENTS.search(block, name.end()) if name else None
    if name is None or begin is None:
        return None
    arguments = block[begin.end() :]
    try:
        end = _DECODER.raw_decode(arguments)[1]
    except (ValueError, RecursionError):
        end = arguments.rfind("}")
    return WrittenCall(_bare(name[1]), arguments[:end].strip() or "{}")


def _json_calls(block: str) -> tuple[list[WrittenCall], str]:
    """Calls in JSON values one behind another, each perhaps with the name in front of it."""
    calls: list[WrittenCall] = []
    at = 0
    while (bracket := _BRACKET.search(block, at)) and len(calls) < _MAX_CALLS:
        begin = bracket.start()
        try:
            value, end = _DECODER.raw_decode(block, begin)
        except (ValueError, RecursionError):
            break
        named = _NAME_BEFORE.search(block, max(at, begin - 100), begin)
        if isinstance(value, dict) and named and named[1] != "functools":
            calls.append(WrittenCall(_bare(named[1]), block[begin:end]))
        else:
            calls += _calls_of(value)
        at = end
    return calls, block[at:]


def _calls_of(value: Any, depth: int = 0, *, strict: bool = False) -> Iterator[WrittenCall]:
    """The calls that an object or a list of them stands for.

    With `strict` it has to have the keys of a call and no others, as an answer that was asked for has not.
    """
    if isinstance(value, list) and depth < _MAX_DEPTH:
        for each in value:
            yield from _calls_of(each, depth + 1, strict=strict)
    if not isinstance(value, dict):
        return
    for key in _HOLDER_KEYS:
        if isinstance(value.get(key), dict | list) and depth < _MAX_DEPTH:
            yield from _calls_of(value[key], depth + 1, strict=strict)
            return
    name_key = next((key for key in _NAME_KEYS if isinstance(value.get(key), str)), "")
    arguments_key = next((key for key in _ARGUMENT_KEYS if key in value), "")
    name, arguments = value.get(name_key, ""), value.get(arguments_key)
    if not _NAME.fullmatch(name):
        return
    is_object = isinstance(arguments, dict) or (isinstance(arguments, str) and arguments.lstrip().startswith("{"))
    if strict and not (is_object and value.keys() - _IDLE_KEYS == {name_key, arguments_key}):
        return
    if isinstance(arguments, str):
        yield WrittenCall(_bare(name), arguments)
    else:
        yield _call(name, arguments if isinstance(arguments, dict) else {})
