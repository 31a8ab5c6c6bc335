"""Tool calls out of the pieces of a stream, whole, and what their provider wants back with them.

OpenAI numbers the calls, names each in its first piece and sends the arguments in further ones. Others send whole
calls, all with the number 0 or with none, repeat id and name in every piece, or give no ids.

DeepSeek and Kimi answer 400 to a result of a tool whose call comes back without its `reasoning_content`, Gemini to one
without its `extra_content.google.thought_signature`; OpenRouter wants `reasoning_details` back as they came.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from xiaozhi.events import ToolCall
from xiaozhi.stages.llm.event_stream import NotAChatStream
from xiaozhi.text.call_names import offered_name
from xiaozhi.text.surrogates import without_halves
from xiaozhi.text.written_calls import WrittenCall

# A reply calls a few tools with a few hundred characters each; beyond this a server or its model runs away.
_MAX_CALLS: Final = 32
_MAX_CHARS: Final = 65_536
MAX_KEPT_BYTES: Final = 262_144
"""More than this beside one reply is not kept, and the provider has to do without."""
_WANTED_BACK: Final = re.compile(r"reason|think|thought|signature|extra_content|provider_specific")
# Of a thought that comes in pieces (OpenRouter): what belongs together has the same of these, and grows in those.
_SAME: Final = ("type", "index", "id")
_GROWING: Final = ("text", "summary", "data")
_KNOWN: Final = frozenset({"index", "id", "type", "function", "name", "arguments"})  # of a call


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a tool call.

    Attributes:
        index: which call of the reply; None where the server does not say.
        id, name: often only in the first piece of a call; empty where they are missing.
        arguments: a piece of JSON text.
        extra: what else the server sends with it.
    """

    index: int | None
    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def call_pieces(listed: Any) -> tuple[CallPiece, ...]:
    """The pieces in `delta.tool_calls`, which may be missing.

    Raises:
        ValueError: it is something else.
    """
    if not listed:
        return ()
    entries = [listed] if isinstance(listed, dict) else listed
    if not isinstance(entries, list):
        raise ValueError("tool_calls must be a list")
    return tuple(_piece(entry) for entry in entries if entry is not None)


def _piece(entry: Any) -> CallPiece:
    if not isinstance(entry, dict):
        raise ValueError("a tool call must be an object")
    function = entry.get("function")
    if not isinstance(function, dict):  # some servers leave this level out
        function = {name: entry[name] for name in ("name", "arguments") if name in entry}
    name, arguments = function.get("name"), function.get("arguments")
    name = name if isinstance(name, str) and name != "null" else ""  # a gateway writes a missing one as a word
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):  # servers that give whole calls sometimes give them as objects
        arguments = orjson.dumps(arguments).decode()
    extra = {key: value for key, value in entry.items() if key not in _KNOWN}
    beside = {key: value for key, value in function.items() if key not in _KNOWN}
    if beside:
        extra["function"] = beside
    return CallPiece(_index(entry.get("index")), _text(entry.get("id")), name, arguments, extra)


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str
    name: str
    arguments: str
    extra: dict[str, Any] = field(default_factory=dict)


class CallAssembler:
    """Takes the pieces of one stream in their order, gives the calls at its end."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._chars = 0
        self._extra_bytes = 0

    @property
    def begun(self) -> bool:
        """Some piece has come."""
        return bool(self._calls)

    def push(self, pieces: Sequence[CallPiece]) -> None:
        """Add pieces.

        Raises:
            NotAChatStream: more calls or longer arguments than can be meant.
        """
        for piece in pieces:
            self._chars += len(piece.arguments) + len(piece.name) + len(piece.id)
            call = self._call_of(piece)
            if call is None:
                call = _Call(piece.index, "", "", "")
                self._calls.append(call)
            call.id = call.id or piece.id
            call.name = call.name or piece.name
            call.arguments += piece.arguments
            if piece.extra:
                self._extra_bytes += size_of(piece.extra)
                call.extra |= piece.extra
            if len(self._calls) > _MAX_CALLS or self._chars > _MAX_CHARS:
                raise NotAChatStream(f"wants more than {_MAX_CALLS} tools or {_MAX_CHARS} characters of arguments")

    @property
    def extra(self) -> tuple[dict[str, Any], ...]:
        """What the provider sent with each call, as it came; nothing where it was beyond all measure."""
        return tuple(call.extra if self._extra_bytes <= MAX_KEPT_BYTES else {} for call in self._calls)

    def add(self, written: Sequence[WrittenCall]) -> None:
        """Add whole calls, which were written as text.

        Raises:
            NotAChatStream: as `push`.
        """
        for call in written:
            identity = f"written_{len(self._calls) + 1}"
            self.push([CallPiece(index=None, id=identity, name=call.name, arguments=call.arguments)])

    def finish(self, offered: Iterable[str] = ()) -> tuple[ToolCall, ...]:
        """The calls in the order in which they began; one without an id gets one.

        Args:
            offered: the tools' names: a name that is written around one of them is taken as that.

        Raises:
            NotAChatStream: a call names no tool.
        """
        names = tuple(offered)
        if any(not call.name for call in self._calls):
            raise NotAChatStream("wants a tool called and does not say which")
        taken = {call.id for call in self._calls}
        calls: list[ToolCall] = []
        for number, call in enumerate(self._calls, 1):
            identity = call.id
            while not identity or any(identity == other.id for other in calls):
                identity = f"call_{number}" if f"call_{number}" not in taken else f"call_{number}_{len(taken)}"
                taken.add(identity)
            name = without_halves(call.name)
            calls.append(ToolCall(identity, offered_name(name, names) or name, without_halves(call.arguments) or "{}"))
        return tuple(calls)

    def _call_of(self, piece: CallPiece) -> _Call | None:
        """The call that a piece goes on with; None when it begins a new one."""
        if piece.index is None:
            known = self._calls[-1] if self._calls else None
        else:
            known = next((call for call in reversed(self._calls) if call.index == piece.index), None)
        if known is None or (piece.id and known.id and piece.id != known.id):
            return None
        if piece.id or not piece.name:
            return known
        another = bool(known.name) and piece.name != known.name
        return None if another or (piece.arguments and _is_object(known.arguments)) else known


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


# What goes back ----------------------------------------------------------------------------------------------------


def wanted_back(delta: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one delta, or of a whole message, that go back with its calls."""
    return {name: value for name, value in delta.items() if value is not None and _WANTED_BACK.search(name)}


class KeptFields:
    """Puts the fields of a streamed reply together."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._bytes = 0

    def push(self, fields: Mapping[str, Any]) -> None:
        """The fields of the next delta: texts and lists grow, of anything else the last one counts."""
        for name, value in fields.items():
            self._bytes += len(value) if isinstance(value, str) else size_of(value)
            if self._bytes > MAX_KEPT_BYTES:
                self._fields.clear()
                return
            before = self._fields.get(name)
            if isinstance(value, str):
                texts = before if isinstance(before, _Text) else _Text()
                texts.pieces.append(value)
                self._fields[name] = texts
            elif isinstance(value, list):
                self._fields[name] = _grown(before if isinstance(before, list) else [], value)
            else:
                self._fields[name] = value

    def whole(self) -> dict[str, Any]:
        """All of them, whole; nothing where they were too much."""
        return {
            name: "".join(value.pieces) if isinstance(value, _Text) else value for name, value in self._fields.items()
        }


class _Text:
    def __init__(self) -> None:
        self.pieces: list[str] = []


def _grown(whole: list[Any], more: list[Any]) -> list[Any]:
    for part in more:
        last = whole[-1] if whole else None
        if (
            isinstance(part, dict)
            and isinstance(last, dict)
            and all(part.get(name) == last.get(name) for name in _SAME)
            and any(isinstance(part.get(name), str) and isinstance(last.get(name), str) for name in _GROWING)
        ):
            joined = {
                name: str(last.get(name) or "") + str(part.get(name) or "")
                for name in _GROWING
                if isinstance(part.get(name), str)
            }
            whole[-1] = {**last, **{name: value for name, value in part.items() if value is not None}, **joined}
        else:
            whole.append(part)
    return whole


def size_of(value: Any) -> int:
    """About how many bytes a JSON value has."""
    try:
        return len(orjson.dumps(value))
    except (TypeError, orjson.JSONEncodeError):  # halves of characters, or nested too deeply
        return MAX_KEPT_BYTES + 1
