"""Any OpenAI-compatible chat endpoint."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, TypeVar, cast

import httpx2
import openai

from xiaozhi.events import ProviderFields
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.event_stream import NotAChatStream
from xiaozhi.stages.llm.request_body import completion_body, speaks_of_tools, without_provider_fields, without_tools
from xiaozhi.stages.llm.sse import ChunkReader, Declined, declined_by_error, error_text
from xiaozhi.stages.llm.tool_calls import CallAssembler, KeptFields
from xiaozhi.text.hidden import MAX_THOUGHT_CHARS, HiddenParts
from xiaozhi.text.messages import message as own_message
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.retry_after import retry_after_s

_log = logging.getLogger(__name__)

R = TypeVar("R")

SPENT: Final = "had spent its max_tokens before a word to be spoken"
"""What is said of a model whose thoughts have used up what it may say."""
# After the last event the rest of the response is read, so that its connection can be used again.
_TAIL_S: Final = 0.2
# A server that is well says so in much less.
_CHECK_S: Final = 3.0
# A shorter key, or value of a header, is none: it would be found in every word.
_MIN_SECRET_CHARS: Final = 6
_NOBODY_BEHIND: Final = frozenset({502, 503, 504})


# The first request, and how often something that the model refuses is left out of it.
_MAX_REQUESTS: Final = 3
_REFUSED_REQUEST: Final = frozenset({400, 404, 422})
_ABOUT_TOOLS: Final = re.compile(r"tool|function", re.IGNORECASE)
_NO_TOOLS: Final = re.compile(r"support|enable-auto-tool-choice|not (?:available|allowed|enabled)", re.IGNORECASE)


class OpenAIChat:
    """A `ChatModel` that streams from one endpoint through the `openai` client.

    One object and one pool of connections serve every conversation; at most `max_concurrent` answers stream at once.

    Args:
        endpoint: where and what to ask.
        settings: timeouts and the limit of concurrent answers.
        connections: shared with other endpoints; own ones when left out.
    """

    def __init__(
        self, endpoint: LlmEndpoint, settings: LlmSettings, connections: HostConnections | None = None
    ) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._settings = settings
        self._key = endpoint.key()
        secrets = (self._key, *endpoint.headers().values())
        self._secrets = [secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARS]
        self._max_tokens_name = "max_tokens"
        self.toolless = False
        """The model has said that it cannot call tools: it is not offered any."""
        self.begins_in_thought = endpoint.begins_in_thought
        """Nothing of an answer is spoken before the end of the thought in it."""
        self._slots = asyncio.Semaphore(endpoint.max_concurrent or settings.max_concurrent)
        self._connections = connections or HostConnections(settings)
        with suppress(httpx2.InvalidURL, ValueError):  # a wrong address fails the questions, not the start
            _ = self._client

    @cached_property
    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self._key or "none",  # the client insists on one; local servers want none
            base_url=self._endpoint.base_url,
            default_headers=self._endpoint.headers(),
            max_retries=0,
            timeout=self._connections.timeout,
            http_client=self._connections.client(self._endpoint.base_url),
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message; see `ChatModel.stream`.

        Hidden reasoning, apart or in tags inside the text, is not yielded, but counts as a sign of life. Calls that
        the model has written as text are calls. Where the provider does not want to answer, a sentence of our own says
        so.
        """
        limits = self._settings
        reader, calls, kept = ChunkReader(), CallAssembler(), KeptFields()
        hidden = HiddenParts(unsure=self.begins_in_thought, tools=[tool.name for tool in request.tools])
        patience = _Patience(limits.first_token_timeout_s, "no first token within", limits.thinking_timeout_s)
        answered = finished = cut = ended = declined = False
        async with self._failures_explained(), AsyncExitStack() as stack:
            try:
                pieces = await patience.spend(self._open(request, stack))
                while not ended:
                    piece = await patience.spend(anext(pieces, b""))
                    for chunk in reader.feed(piece) if piece else reader.finish():
                        if chunk.text or chunk.thinking or chunk.calls:
                            patience.renew(limits.idle_timeout_s, "went silent for")
                            patience.think()
                        finished |= chunk.finished
                        cut |= chunk.cut
                        declined |= chunk.declined
                        if chunk.fields:
                            kept.push(chunk.fields)
                        text = (hidden.release() if chunk.thinking else "") + hidden.push(chunk.text)
                        if hidden.overfull:
                            raise NotAChatStream(f"thought for more than {MAX_THOUGHT_CHARS} characters")
                        begins = not calls.begun
                        calls.push(chunk.calls)
                        calls.add(hidden.take_calls())
                        if begins and calls.begun:
                            yield Delta(calling=True)
                        if text and not text.isspace():
                            answered = True
                            patience.spoke()
                        if text:
                            yield Delta(text)
                    ended = reader.ended or not piece
                rest = hidden.finish(whole=finished and not cut and not calls.begun)
                calls.add(hidden.take_calls())
                self._learn(hidden.opened_by_prompt)
                if rest.strip():
                    answered = True
                    yield Delta(rest)
                if not finished:
                    how = "broke off in the middle" if answered else "ended without an answer"
                    raise NotAChatStream(how + (f"; it sent {reader.remark}" if reader.remark else ""))
                wanted = calls.finish(tool.name for tool in request.tools)
                if declined and not wanted:
                    raise Declined("a filter has withheld " + ("the rest" if answered else "all of it"))
                if not answered and not wanted:
                    raise NotAChatStream(SPENT if cut else "answered nothing")
                await self._read_tail(pieces)
                if wanted:
                    yield Delta(tool_calls=wanted, provider=ProviderFields(self.name, kept.whole(), calls.extra))
            except Declined as reason:
                _log.info("%s", self._line(f"did not want to answer: {reason}"))
                yield Delta(("\n" if answered else "") + own_message("declined", request.language), aside=True)

    def _learn(self, opened: bool | None) -> None:
        """What an answer has shown holds for the next ones, where the settings leave it open."""
        if opened is None or opened is self.begins_in_thought or self._endpoint.thinks is not None:
            return
        self.begins_in_thought = opened
        if opened:
            line = self._line("its answers begin in the middle of a thought; the first one was spoken")
            _log.warning("%s. Write thinks = true beside the endpoint, and none will be", line)

    async def warm(self) -> str:
        """Open a connection and keep it; costs no tokens. Returns why the endpoint is not there; see `ChatModel.warm`.

        It is asked for the head of its list of models. Many services refuse that or do not know it: they are there all
        the same, and so is one with an error of its own. Only a gateway that says so tells of a server that is down.
        """
        if fault := key_fault(self._key):
            return f"the key {fault}"
        address = f"{self._endpoint.base_url.rstrip('/')}/models"
        headers = {"Authorization": f"Bearer {self._key or 'none'}", **self._endpoint.headers()}
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + _CHECK_S):
                answer = await self._connections.client(address).head(address, headers=headers)
        except TimeoutError:
            return "no answer in time"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            return self._safe(_cause(error))
        return f"HTTP {answer.status_code}" if answer.status_code in _NOBODY_BEHIND else ""

    async def close(self) -> None:
        """Close the connections, which endpoints on one host share."""
        await self._connections.close()

    async def _open(self, request: ChatRequest, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
        """Ask; returns the body as it arrives. What must be closed goes on the stack."""
        if fault := key_fault(self._key):
            raise ChatError(self._line(f"the key {fault}"), kind=FailureKind.REFUSED)
        await stack.enter_async_context(self._slots)
        await stack.enter_async_context(self._connections.slots)
        response = await self._ask(without_tools(request) if self.toolless else request)
        stack.push_async_callback(response.aclose)
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            raise NotAChatStream(f"answered with {kind.partition(';')[0]}, not with a chat completion")
        pieces = response.aiter_bytes()
        stack.push_async_callback(pieces.aclose)
        return pieces

    async def _ask(self, request: ChatRequest) -> httpx2.Response:
        """Send the request; where the model refuses something in it, again without that.

        Raises:
            Declined: the provider does not want to answer it.
        """
        left = _MAX_REQUESTS
        while True:
            try:
                return await self._post(request)
            except openai.APIStatusError as error:
                if declined_by_error(error.body, error.status_code):
                    raise Declined(_status_line(error, None)) from None
                left -= 1
                simpler = self._simpler(request, error) if left else None
                if simpler is None:
                    raise
                request = simpler

    async def _post(self, request: ChatRequest) -> httpx2.Response:
        """The response as it begins to arrive; close it.

        `chat.completions.create` of the client posts the same bytes, but walks through every message and tool by its
        type hints first: measured 9.1 ms of the loop for a request with 12 turns of history and 17.9 ms with 40 tools;
        0.9 and 0.7 ms with this in its place.
        """
        body = completion_body(request, self._endpoint, max_tokens_name=self._max_tokens_name)
        response = await self._client.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            content=body,
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        return cast(httpx2.Response, response)  # as `cast_to` says; `stream` alone would promise parsed events

    def _simpler(self, request: ChatRequest, error: openai.APIStatusError) -> ChatRequest | None:
        """The request without what the model has refused; None where that cannot be told.

        A model without tools says so with 400 (Ollama, vLLM) or 404 (OpenRouter), and this is remembered. Whatever
        else it says against tools, or against a request that has some, holds for this request alone: strict services
        refuse all of it for one schema, and few of them say so.
        """
        said, status = error_text(error.body), error.status_code
        if status not in _REFUSED_REQUEST:
            return None
        why = self._line(_status_line(error, None))
        if "max_completion_tokens" in said and self._max_tokens_name == "max_tokens":  # OpenAI's models that think
            self._max_tokens_name = "max_completion_tokens"
            return request
        given_back = [one.provider for one in request.messages if one.provider is not None]
        if any(name in said for one in given_back for fields in (one.message, *one.calls) for name in fields):
            _log.warning("%s; it is asked without its own thoughts this time", why)
            return without_provider_fields(request)
        about_tools = _ABOUT_TOOLS.search(said) is not None
        if not speaks_of_tools(request) or (status == 404 and not about_tools):
            return None
        named = {tool.name for tool in request.tools if re.search(rf"(?<![\w-]){re.escape(tool.name)}(?![\w-])", said)}
        if named and len(named) < len(request.tools):
            _log.warning("%s; it is asked without %s this time", why, ", ".join(sorted(named)))
            return replace(request, tools=[tool for tool in request.tools if tool.name not in named])
        self.toolless = self.toolless or (about_tools and _NO_TOOLS.search(said) is not None)
        _log.warning("%s; it is asked without tools %s", why, "from now on" if self.toolless else "this time")
        return without_tools(request)

    async def _read_tail(self, pieces: AsyncIterator[bytes]) -> None:
        """Read to the end of the response, so that its connection can be used again."""
        try:
            async with asyncio.timeout(_TAIL_S):
                async for _ in pieces:
                    pass
        except (TimeoutError, httpx2.HTTPError) as error:
            _log.debug("%s: the connection is not used again: %r", self.name, error)

    @asynccontextmanager
    async def _failures_explained(self) -> AsyncIterator[None]:
        """Turn whatever goes wrong upstream into a `ChatError` of one line that names the endpoint, never the key."""
        try:
            yield
        except (NotAChatStream, TimeoutError) as error:
            kind = FailureKind.NONSENSE if isinstance(error, NotAChatStream) else FailureKind.FIRST_BYTE
            raise ChatError(self._line(str(error)), kind=kind) from None
        except ChatError:
            raise
        except openai.APIStatusError as error:
            rest_s, status = retry_after_s(error.response.headers, datetime.now(UTC)), error.status_code
            line = self._line(_status_line(error, rest_s))
            raise ChatError(line, kind=_kind_of(status, rest_s), status=status, rest_s=rest_s) from None
        except openai.APITimeoutError:
            reason = f"no connection within {self._settings.connect_timeout_s:g} s"
            raise ChatError(self._line(reason), kind=FailureKind.CONNECTION) from None
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise ChatError(self._line(_cause(error)), kind=FailureKind.CONNECTION) from None
        except Exception as error:
            # Whatever an endpoint, its key or its address makes of our libraries: another one may answer.
            _log.debug("%s", self._line("failed in an unexpected way"), exc_info=True)
            raise ChatError(self._line(_cause(error)), kind=FailureKind.NONSENSE) from error

    def _line(self, reason: str) -> str:
        return f"{self.name}: {self._safe(reason)}"

    def _safe(self, text: str) -> str:
        """Servers like to repeat a key that they refuse."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Patience:
    """How long may still be waited; only waiting counts, not the time in which nobody asks for more.

    Args:
        seconds: until the first sign of life.
        complaint: what is said, with the seconds, when patience is at its end.
        thinking_s: the longest stretch of signs of life without a word to be spoken.
    """

    def __init__(self, seconds: float, complaint: str, thinking_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._thinking_s = thinking_s
        self._thinks_since: float | None = None
        self.renew(seconds, complaint)

    def renew(self, seconds: float, complaint: str) -> None:
        """There was a sign of life."""
        self._left_s = seconds
        self._complaint = f"{complaint} {seconds:g} s"

    def think(self) -> None:
        """There was a sign of life, but nothing to be spoken.

        Raises:
            TimeoutError: patience with thoughts is at its end.
        """
        now = self._loop.time()
        self._thinks_since = now if self._thinks_since is None else self._thinks_since
        if now - self._thinks_since > self._thinking_s:
            raise TimeoutError(f"thought for more than {self._thinking_s:g} s")

    def spoke(self) -> None:
        """There was a word: what it thinks next is another thought."""
        self._thinks_since = None

    async def spend(self, work: Awaitable[R]) -> R:
        """Wait for `work`.

        Raises:
            TimeoutError: patience is at its end.
        """
        began = self._loop.time()
        limit = asyncio.timeout(self._left_s)
        try:
            async with limit:
                result = await work
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(self._complaint) from None
            raise
        self._left_s -= self._loop.time() - began
        return result


def _status_line(error: openai.APIStatusError, rest_s: float | None) -> str:
    when = f" (retry after {rest_s:g} s)" if rest_s is not None else ""
    said = error_text(error.body)
    return f"HTTP {error.status_code}{when}" + (f": {said}" if said else "")


def _kind_of(status: int, rest_s: float | None) -> FailureKind:
    if status == 429 or rest_s is not None:
        return FailureKind.BUSY
    if status in {400, 413, 422}:
        return FailureKind.REQUEST
    return FailureKind.REFUSED if status < 500 and status != 408 else FailureKind.SERVER


def _cause(error: BaseException) -> str:
    """The innermost reason: the client says "Connection error." and keeps the reason in the cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
