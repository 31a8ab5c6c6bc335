"""What a provider sends beside text and calls, and wants back with them: thoughts and their signatures.

DeepSeek and Kimi answer 400 to a result of a tool whose call comes back without its `reasoning_content`, Gemini to one
without its `extra_content.google.thought_signature`; OpenRouter wants `reasoning_details` back as they came.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

MAX_KEPT_BYTES: Final = 262_144
"""More than this beside one reply is not kept, and the provider has to do without."""
_WANTED_BACK: Final = re.compile(r"reason|think|thought|signature|extra_content|provider_specific")
# Of a thought that comes in pieces (OpenRouter): what belongs together has the same of these, and grows in those.
_SAME: Final = ("type", "index", "id")
_GROWING: Final = ("text", "summary", "data")


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
