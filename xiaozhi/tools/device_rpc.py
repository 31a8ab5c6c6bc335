"""JSON-RPC towards the device, without any I/O: requests out, replies in, and what a device's answers mean.

The device is the MCP server. Firmware 2.x takes only numbers as ids and only objects as `params`, stays silent about
everything else, sends errors without a code, and may send an error that is no valid JSON (its message is not escaped),
which then never arrives here. Desktop clients send full JSON-RPC errors, and failures as `isError`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xiaozhi import __version__

_PROTOCOL_VERSION: Final = "2024-11-05"
_MAX_ID: Final = 2_000_000_000  # the firmware reads ids as int32
_MAX_ERROR_CHARS: Final = 300
_MAX_ITEMS: Final = 100  # of one result


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to request `id`: a result, or the text of an error."""

    id: int
    result: Mapping[str, Any] | None
    error: str = ""


class DeviceRpc:
    """Numbers requests and recognises their answers."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._open: set[int] = set()
        self.late = 0
        """Answers to requests that nobody waits for any more, or that were never made."""
        self.malformed = 0
        """Messages that are no JSON-RPC answers."""

    def request(self, method: str, params: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """A new request: its id and the JSON-RPC message."""
        number = next(self._ids)
        if number >= _MAX_ID:
            self._ids = itertools.count(1)
        self._open.add(number)
        return number, {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)}

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._open.discard(number)

    def receive(self, payload: object) -> Reply | None:
        """What a message from the device means; None for notifications and for what answers nothing."""
        if not isinstance(payload, dict):
            self.malformed += 1
            return None
        if "method" in payload:
            return None  # the device's notifications and requests: none is defined
        number = payload.get("id")
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int):
            self.malformed += 1
            return None
        if number not in self._open:
            self.late += 1
            return None
        error, result = payload.get("error"), payload.get("result")
        if error is None and not isinstance(result, dict):
            self.malformed += 1
            return None
        self._open.discard(number)
        if error is not None:
            return Reply(number, None, _error_text(error))
        return Reply(number, result)


def initialize_params(vision_url: str, vision_token: str) -> dict[str, Any]:
    """Parameters of `initialize`; the device's camera sends its pictures to the vision address.

    An empty address is sent too: cameras take it for none, and clients made with xiaozhi-sdk do not answer without.
    """
    return {
        "protocolVersion": _PROTOCOL_VERSION,
        "capabilities": {"vision": {"url": vision_url, "token": vision_token}},
        "clientInfo": {"name": "xiaozhi", "version": __version__},
    }


def tool_page(result: Mapping[str, Any]) -> tuple[Sequence[object], str]:
    """The entries of one page of `tools/list`, and the cursor of the next; empty on the last."""
    entries, cursor = result.get("tools"), result.get("nextCursor")
    return entries if isinstance(entries, list) else (), cursor if isinstance(cursor, str) else ""


def call_text(result: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a call's result and whether the call failed; pictures are mentioned, not shown."""
    content = result.get("content")
    parts: list[str] = []
    for item in content[:_MAX_ITEMS] if isinstance(content, list) else ():
        if not isinstance(item, dict):
            continue
        match item.get("type"), item.get("text"):
            case "text", str(text):
                parts.append(text)
            case "image", _:
                parts.append("(a picture that cannot be shown here)")
            case kind, _:
                parts.append(f"({str(kind)[:20]} that cannot be shown here)")
    return "\n".join(parts), result.get("isError") is True


def _error_text(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message[:_MAX_ERROR_CHARS] if isinstance(message, str) and message else "the device refused"
