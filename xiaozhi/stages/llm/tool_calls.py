"""Whole tool calls out of the pieces of a stream.

OpenAI numbers the calls, names each in its first piece and sends the arguments in further ones. Others send whole
calls, all with the number 0 or with none, repeat id and name in every piece, or give no ids.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from xiaozhi.events import ToolCall
from xiaozhi.stages.llm.call_pieces import CallPiece
from xiaozhi.stages.llm.provider_fields import MAX_KEPT_BYTES, size_of
from xiaozhi.stages.llm.sse import NotAChatStream
from xiaozhi.text.call_names import offered_name
from xiaozhi.text.surrogates import without_halves
from xiaozhi.text.written_calls import WrittenCall

# A reply calls a few tools with a few hundred characters each; beyond this a server or its model runs away.
_MAX_CALLS: Final = 32
_MAX_CHARS: Final = 65_536


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
