"""A stand-in for an OpenAI-compatible chat server: `/v1/chat/completions` as server-sent events, and `/v1/models`."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson
from aiohttp import web

from bench.standins.base import StandIn, reset

ChatMessages: TypeAlias = list[dict[str, Any]]
Script: TypeAlias = str | Sequence[str] | Callable[[ChatMessages], str]

ToolPieces: TypeAlias = Sequence[list[dict[str, Any]]] | Callable[[ChatMessages], Sequence[list[dict[str, Any]]]]

DEFAULT_ANSWER: Final = "🙂 好的，我听到了。今天天气很不错，我们可以一起出去走走。你想去哪里呢？"

# What language models send at a time: a word with the blank before it, one or two Chinese characters, a mark.
_TOKEN: Final = re.compile(r"\s?[A-Za-z0-9']+|[\u3400-\u9fff]{1,2}|\s|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verbatim:
    """An answer byte for byte, in pieces of so many bytes (0: at once)."""

    body: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    piece: int = 0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request: its JSON body, its headers, and the client's port (the same port is the same connection)."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    client_port: int
    at_s: float = field(default_factory=time.monotonic)


class ChatStandIn(StandIn):
    """Streams answers token by token at a steady pace, or fails in the way `fault` says.

    Args:
        answer: the answer to everything, or answers given in turn (the last one for good), or a function of the
            messages.
        first_token_ms: from the request to the first token.
        tokens_per_s: pace of the others; 0 sends them without any pause.
        fault_after: how many tokens come before `reset`, `hang-mid`, `cut`, `garbage` and `wrong-json` strike.
        retry_after_s: told with `429`; a text is sent as it is, for an HTTP date.
        slow_ms: how much later everything begins with the fault `slow`, and each token comes with `slow-drip`.
        tool_pieces: what comes after the answer: each item is the `tool_calls` of one delta; or a function of the
            messages that says so.
        verbatim: given a request's body: what to answer instead of all that; None for nothing special.
        port: to listen on; a free one when 0.

    Faults:
        refuse: the connection is reset.
        hang, hang-first, hang-mid: no headers; headers and the empty first delta; some tokens, then nothing more.
        reset, cut: after some tokens the connection breaks, or ends tidily without a finish reason.
        400, 401, 429, 500: an error in OpenAI's shape.
        no-tools: an error for requests that offer tools, as Ollama words it; all others are answered.
        drip: every event in pieces of one byte.
        slow, slow-drip: the first token, or every token, is later by `slow_ms`.
        garbage, bad-json, wrong-json, error-event: after some tokens something that is no event stream, no JSON, JSON
            of another shape, an error inside the stream.
        empty, html: no tokens; a page with status 200.
        reasoning, think-tags, only-reasoning: thinks in `reasoning_content` first, in the text, or only.
        think-end: thinks in the text, and of the tags only the end is there, as the model's template has opened it.
        think-cut: the same, and the tokens are spent before the thought has ended.
    """

    FAULTS = frozenset(
        "refuse hang hang-first hang-mid reset cut no-tools 400 401 429 500 drip slow slow-drip garbage wrong-json "
        "bad-json error-event empty html reasoning think-tags only-reasoning think-end think-cut".split()
    )

    def __init__(
        self,
        answer: Script = DEFAULT_ANSWER,
        *,
        first_token_ms: float = 0.0,
        tokens_per_s: float = 0.0,
        fault_after: int = 3,
        retry_after_s: int | str = 7,
        slow_ms: float = 2000.0,
        tool_pieces: ToolPieces = (),
        verbatim: Callable[[dict[str, Any]], Verbatim | None] = lambda _body: None,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.answer = answer
        self.first_token_ms = first_token_ms
        self.tokens_per_s = tokens_per_s
        self.fault_after = fault_after
        self.retry_after_s = retry_after_s
        self.slow_ms = slow_ms
        self.tool_pieces: ToolPieces = tool_pieces
        self.verbatim = verbatim
        self._numbers = itertools.count()

    def routes(self) -> list[web.RouteDef]:
        """The two paths a chat client asks."""
        return [web.post("/v1/chat/completions", self._chat), web.get("/v1/models", self._models)]

    def answer_to(self, messages: ChatMessages) -> str:
        """What is said to a conversation."""
        if isinstance(self.answer, str):
            return self.answer
        if callable(self.answer):
            return self.answer(messages)
        return self.answer[min(next(self._numbers), len(self.answer) - 1)]

    async def _record(self, request: web.Request, body: dict[str, Any]) -> None:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        await self.record(ChatRequest(request.path, body, dict(request.headers), peer[1] if peer else 0))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        await self._record(request, {})
        if self.fault == "hang":
            await self.hang()
        if self.fault == "refuse":
            reset(request)
        if self.fault in {"400", "401", "429", "500"}:
            return self._refusal(int(self.fault))
        models = [{"id": "bench", "object": "model", "created": 1_700_000_000, "owned_by": "stand-in"}]
        return _json({"object": "list", "data": models})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = orjson.loads(await request.read())
        fault = self.fault  # of this request, whatever is switched later
        asked_s = time.monotonic()
        await self._record(request, body)
        match fault:
            case "refuse":
                reset(request)
                return web.Response()
            case "hang":
                await self.hang()
            case "400" | "401" | "429" | "500":
                return self._refusal(int(fault))
            case "html":
                return web.Response(text="<!doctype html><html><body>Log in</body></html>", content_type="text/html")
        if (exact := self.verbatim(body)) is not None:
            return await self._exactly(request, exact)
        if fault == "no-tools" and body.get("tools"):
            return _json({"error": {"message": "registry.ollama.ai/library/bench does not support tools"}}, status=400)
        answer = self.answer_to(body["messages"])
        if not body.get("stream"):
            return _json(_completion(body["model"], answer))
        pieces = self.tool_pieces(body["messages"]) if callable(self.tool_pieces) else self.tool_pieces
        return await self._stream(request, body["model"], answer, pieces, fault, asked_s)

    async def _exactly(self, request: web.Request, exact: Verbatim) -> web.StreamResponse:
        response = web.StreamResponse(status=exact.status, headers={"Content-Type": exact.content_type})
        await response.prepare(request)
        size = exact.piece or max(1, len(exact.body))
        for start in range(0, len(exact.body), size):
            await response.write(exact.body[start : start + size])
        await response.write_eof()
        return response

    async def _stream(
        self,
        request: web.Request,
        model: str,
        answer: str,
        tool_pieces: Sequence[list[dict[str, Any]]],
        fault: str,
        asked_s: float,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        send = _Sender(response, model, in_bytes=fault == "drip")
        await send.delta({"role": "assistant", "content": ""})
        if fault == "hang-first":
            await self.hang()
        if fault in {"reasoning", "only-reasoning"}:
            for token in _TOKEN.findall("The user greets me. I greet back."):
                await send.delta({"reasoning_content": token})
        if fault == "think-tags":
            answer = f"<think>\nThe user greets me, so I greet back.\n</think>\n\n{answer}"
        if fault == "think-end":
            answer = f"The user greets me, so I greet back.\n</think>\n\n{answer}"
        if fault == "think-cut":
            answer = "The user greets me, so I"
        tokens = [] if fault in {"empty", "only-reasoning"} else _TOKEN.findall(answer)
        if fault == "slow":
            asked_s += self.slow_ms / 1000.0
        async for number, token in self._paced(tokens, asked_s, self.slow_ms if fault == "slow-drip" else 0.0):
            if number == self.fault_after and await self._strike(request, send, fault):
                return response
            await send.delta({"content": token})
        for pieces in tool_pieces:
            await send.delta({"tool_calls": pieces})
        await send.finish("tool_calls" if tool_pieces else "length" if fault == "think-cut" else "stop")
        return response

    async def _strike(self, request: web.Request, send: "_Sender", fault: str) -> bool:
        """Go wrong in the middle; whether the response ends here."""
        match fault:
            case "reset":
                await send.drain()
                reset(request)
            case "hang-mid":
                await self.hang()
            case "cut":
                pass
            case "garbage":
                await send.raw(b"\x00\xff<<< not an event stream >>>\r\n")
            case "wrong-json":
                await send.event({"choices": [{"delta": {"content": {"text": 7}}}]})
            case "bad-json":
                await send.raw(b'data: {"choices": [{"del\n\n')
            case "error-event":
                await send.event({"error": {"message": "The server is overloaded", "type": "server_error"}})
            case _:
                return False
        return True

    async def _paced(self, tokens: list[str], asked_s: float, later_ms: float) -> AsyncIterator[tuple[int, str]]:
        """Tokens when they are due, counted from the request on one clock, so that delays do not add up."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() - (time.monotonic() - asked_s) + (self.first_token_ms + later_ms) / 1000.0
        for number, token in enumerate(tokens):
            if (delay_s := due_s - loop.time()) > 0:
                await asyncio.sleep(delay_s)
            yield number, token
            due_s += (1.0 / self.tokens_per_s if self.tokens_per_s else 0.0) + later_ms / 1000.0

    def _refusal(self, status: int) -> web.Response:
        kind, text = {
            400: ("invalid_request_error", "The request was refused"),
            401: ("invalid_request_error", "Incorrect API key provided"),
            429: ("rate_limit_error", "Rate limit reached for requests"),
            500: ("server_error", "The server had an error while processing your request"),
        }[status]
        headers = {"Retry-After": str(self.retry_after_s)} if status == 429 else {}
        body = {"error": {"message": text, "type": kind, "param": None, "code": None}}
        return _json(body, status=status, headers=headers)


class _Sender:
    """Writes chunks in OpenAI's shape."""

    def __init__(self, response: web.StreamResponse, model: str, *, in_bytes: bool) -> None:
        self._response = response
        self._in_bytes = in_bytes
        self._head = {
            "id": "chatcmpl-standin",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": model,
            "system_fingerprint": "fp_standin",
        }

    async def raw(self, data: bytes) -> None:
        if self._in_bytes:
            for byte in data:
                await self._response.write(bytes([byte]))
        else:
            await self._response.write(data)

    async def event(self, body: dict[str, Any]) -> None:
        await self.raw(b"data: " + orjson.dumps(body) + b"\n\n")

    async def delta(self, delta: dict[str, Any]) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        await self.event({**self._head, "choices": [choice]})

    async def finish(self, reason: str) -> None:
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}
        await self.event({**self._head, "choices": [choice]})
        usage = {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40}
        await self.event({**self._head, "choices": [], "usage": usage})
        await self.raw(b"data: [DONE]\n\n")
        await self._response.write_eof()

    async def drain(self) -> None:
        """Give what was written a chance to leave before the connection is broken."""
        await asyncio.sleep(0)


def _completion(model: str, answer: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    return {
        "id": "chatcmpl-standin",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
    }


def _json(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers={**(headers or {}), "Content-Type": "application/json"}
    )
