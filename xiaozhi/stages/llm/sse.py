"""Chat completion chunks out of the bytes of a server-sent event stream, or of a completion that comes whole.

The `openai` client makes a tree of pydantic objects of every chunk. Measured with 30 streams of 40 tokens a second:
214 us of CPU a chunk in all, 115 us with this in its place; the rest is reading from the socket. So the client is used
for all but this.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from xiaozhi.stages.llm.event_stream import END, Event, EventReader, NotAChatStream
from xiaozhi.stages.llm.tool_calls import CallPiece, call_pieces, wanted_back
from xiaozhi.text.surrogates import ends_in_half, without_halves

# Reasons to stop that say: this answer is not whole. DeepSeek, Zhipu and OpenRouter document them; vLLM was stopped.
_BROKE_OFF: Final = frozenset({"insufficient_system_resource", "network_error", "error", "abort"})
_THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks")
_MAX_ERROR_DEPTH: Final = 5
# Codes beside a message that mean that all is well.
_WELL: Final = (None, "", 0, 200, "0", "200", "success")

# What providers say when they do not want to answer a question: no failure, and another would be answered. The words
# are those of their own documents: Azure, OpenAI, Gemini, OpenRouter, Qwen (`data_inspection_failed`), Zhipu (reason
# `sensitive`, error 1301), Moonshot (`high risk`), DeepSeek (`Content Exists Risk`), MiniMax (`new_sensitive`), Doubao
# (`SensitiveContentDetected`), Baidu, Hunyuan and Spark (in Chinese).
_REASON: Final = re.compile(
    r"filter|sensitive|safety|refus|prohibit|recitation|block|spii|moderat|risk|violat|censor|inspect", re.IGNORECASE
)
_ERROR: Final = re.compile(
    r"content[ _-]?(?:filter|polic|management|moderation|exists)|data[ _]?inspection|inappropriate|unsafe"
    r"|(?<!case[ -])sensitive|high[ _-]risk|requires moderation|is flagged|was flagged|flagged by|censor"
    r"|prohibited_content|responsible ?ai|safety (?:system|filter|polic|setting)"
    r"|敏感|不安全|违规|违禁|不当|审核不|风控",
    re.IGNORECASE,
)
_STATUSES: Final = frozenset({400, 403, 422, 451})


class Declined(Exception):
    """The provider does not want to answer; its line about it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event.

    Attributes:
        text: what may be spoken, often empty.
        thinking: the model is at work on hidden reasoning.
        finished: the model said why it stopped, or the server said that this is all.
        calls: pieces of tool calls.
        cut: the model had to stop before its end, because the answer was too long.
        declined: a filter has withheld the rest of the answer, or all of it.
        fields: what the provider wants back with the calls of this reply.
    """

    text: str = ""
    thinking: bool = False
    finished: bool = False
    calls: tuple[CallPiece, ...] = ()
    cut: bool = False
    declined: bool = False
    fields: Mapping[str, Any] | None = None


class ChunkReader:
    """Takes bytes in pieces of any size, gives chunks."""

    def __init__(self) -> None:
        self._events = EventReader()
        self._half = ""  # of a character whose other half comes in the next chunk
        self._begun = False
        self.ended = False
        """The server has said `[DONE]`."""
        self.remark = ""
        """The first thing it said that is no chunk: a comment in the wrong place, or what is wrong."""

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Yield the chunks that are complete with `data`.

        Raises:
            NotAChatStream: what came is something else, or an error told inside the stream.
            Declined: an error that says so.
        """
        return self._chunks(self._events.feed(data))

    def finish(self) -> Iterator[Chunk]:
        """Yield what the last lines hold when nothing ended them.

        Raises:
            NotAChatStream: as `feed`.
            Declined: as `feed`.
        """
        return self._chunks(self._events.finish())

    def _chunks(self, events: Iterator[Event]) -> Iterator[Chunk]:
        for event in events:
            if not self.ended and (chunk := self._chunk(event)) is not None:
                self._begun = self._begun or bool(chunk.text or chunk.calls)
                yield chunk

    def _chunk(self, event: Event) -> Chunk | None:
        body = event.body
        if isinstance(body, dict):
            if body.get("error") or not body.get("choices"):
                _complain(body, of_kind=event.kind)
            return self._of(body, event.data)
        if event.data.strip() == END or body == END.decode():
            self.ended = True
            return Chunk(finished=True)
        if event.kind == "error":
            raise NotAChatStream(_one_line(event.data.decode("utf-8", "replace")))
        if event.data.lstrip().startswith(b"{"):
            raise NotAChatStream(f"sent what is no JSON: {_quoted(event.data)}")
        self.remark = self.remark or _quoted(event.data)
        return None

    def _of(self, body: dict[str, Any], data: bytes) -> Chunk | None:
        choices = body.get("choices")
        if not choices:
            return None
        try:
            choice = choices[0]
            if choice.get("error"):
                _complain(choice)
            delta, whole = choice.get("delta") or {}, choice.get("message")
            # Some send all of it once more at the end; a completion that is no stream has nothing else.
            whole = whole if not delta and not self._begun and isinstance(whole, dict) else None
            delta = delta if whole is None else whole
            content = delta.get("content")
            text, thinking = _text(delta.get("refusal") or "" if content in (None, "", []) else content)
            fields = None if len(delta) == 1 and "content" in delta else wanted_back(delta)
            thinking = thinking or (fields is not None and any(fields.get(name) for name in _THOUGHTS))
            calls = call_pieces(delta["tool_calls"]) if "tool_calls" in delta else ()
            reason = choice.get("finish_reason")
        except (AttributeError, TypeError, KeyError, IndexError, ValueError):
            raise NotAChatStream(f"sent JSON of another shape: {_quoted(data)}") from None
        text = self._whole(text) if text else ""
        if not isinstance(reason, str) or reason.lower() in ("", "null", "none"):
            return Chunk(text, thinking, whole is not None, calls, fields=fields)
        if reason.lower() in _BROKE_OFF:
            raise NotAChatStream(f"broke off: {reason}")
        cut = reason.lower() in ("length", "max_tokens")
        return Chunk(text, thinking, True, calls, cut, declined_by_reason(reason), fields)

    def _whole(self, text: str) -> str:
        """The text with the half that was held back, without one at its end."""
        text, self._half = self._half + text, ""
        if ends_in_half(text):
            text, self._half = text[:-1], text[-1]
        return without_halves(text)


def _complain(body: dict[str, Any], *, of_kind: str = "message") -> None:
    """Raise for an object that tells of an error, in any of the shapes that providers have for it.

    Usage, or a filter's verdict on the prompt, mean nothing here.
    """
    told = body.get("error")
    if not told and not body.get("choices"):
        status = body.get("base_resp")  # MiniMax
        if isinstance(status, dict) and status.get("status_code"):
            told = f"{status.get('status_msg') or 'refused'} ({status['status_code']})"
        elif of_kind == "error" or body.get("object") == "error":
            told = body
        elif any(body.get(name) not in _WELL for name in ("code", "error_code")):  # Qwen, Spark, Baidu
            told = body if any(isinstance(body.get(name), str) for name in _MESSAGES) else None
    if told:
        raise Declined(error_text(told)) if declined_by_error(_shown(told)) else NotAChatStream(error_text(told))


def _text(content: Any) -> tuple[str, bool]:
    """What may be spoken of a `content`, and whether there is thinking in it.

    Mostly a text; Mistral's reasoning models send a list of parts, and gateways make a number of a text that is one.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(content, str):
        return content, False
    if isinstance(content, int | float):
        return str(content), False
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise ValueError("content is neither text nor a list of parts")
    parts = [_part(part) for part in content if part is not None]
    return "".join(text for text, _ in parts), any(thinks for _, thinks in parts)


def _part(part: Any) -> tuple[str, bool]:
    if isinstance(part, str | int | float):
        return str(part), False
    if not isinstance(part, dict):
        raise ValueError("a part of a content of another kind")
    if "think" in str(part.get("type")) or "reason" in str(part.get("type")):
        return "", True
    text = part.get("text", part.get("refusal"))
    if not isinstance(text, str) and "type" not in part:
        raise ValueError("a part of a content of another kind")
    return text if isinstance(text, str) else "", False  # a picture or sound beside the words


_MESSAGES: Final = ("error", "message", "error_msg", "detail", "msg")


def error_text(body: object) -> str:
    """The message of an error body in any of the shapes that compatible servers use, in one line."""
    for _ in range(_MAX_ERROR_DEPTH):
        if isinstance(body, list) and body and isinstance(body[0], dict):  # Gemini's errors come in a list
            body = body[0]
        if not isinstance(body, dict):
            break
        body = next((body[key] for key in _MESSAGES if body.get(key)), None) or (_shown(body) if body else "")
    return _one_line(_shown(body)) if body else ""


def _shown(value: object) -> str:
    try:
        return str(value)
    except RecursionError:
        return "something nested without end"


def _quoted(data: bytes) -> str:
    return repr(_one_line(data.decode("utf-8", "replace"), 60))


def _one_line(text: str, most: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most] + "…"


def declined_by_reason(reason: str) -> bool:
    """Whether a `finish_reason` says that the answer was withheld."""
    return _REASON.search(reason) is not None


def declined_by_error(error: object, status: int = 400) -> bool:
    """Whether an error is about what was asked or answered.

    Args:
        error: the error object, or its text.
        status: of the HTTP response.
    """
    return status in _STATUSES and _ERROR.search(str(error)[:2000]) is not None
