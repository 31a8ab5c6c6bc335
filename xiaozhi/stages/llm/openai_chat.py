"""Any OpenAI-compatible chat endpoint."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import httpx2
import openai
from openai import AsyncAPIResponse

from xiaozhi.events import Message, ProviderFields
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.declined import declined_by_error
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.params import (
    message_param,
    speaks_of_tools,
    tool_param,
    without_provider_fields,
    without_tools,
)
from xiaozhi.stages.llm.patience import Patience
from xiaozhi.stages.llm.provider_fields import KeptFields
from xiaozhi.stages.llm.sse import ChunkReader, Declined, NotAChatStream, error_text
from xiaozhi.stages.llm.tool_calls import CallAssembler
from xiaozhi.text.hidden import MAX_THOUGHT_CHARS, HiddenParts
from xiaozhi.text.messages import message as own_message
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.retry_after import retry_after_s

_log = logging.getLogger(__name__)

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
        connections: shared with other endpoints, closed by whoever made them; own ones when left out.
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
        self._rehearsed = False
        self.toolless = False
        """The model has said that it cannot call tools: it is not offered any."""
        self.begins_in_thought = endpoint.begins_in_thought
        """Nothing of an answer is spoken before the end of the thought in it."""
        self._slots = asyncio.Semaphore(endpoint.max_concurrent or settings.max_concurrent)
        self._connections = connections or HostConnections(settings)
        self._owns_connections = connections is None
        with suppress(
            httpx2.InvalidURL, ValueError
        ):  # an address that cannot be one fails the questions, not the start
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
        gap = ""
        async with self._failures_explained():
            try:
                async with aclosing(self._answer(request)) as deltas:
                    async for delta in deltas:
                        gap = gap if delta.text.isspace() or not delta.text else "\n"
                        yield delta
            except Declined as reason:
                _log.info("%s", self._line(f"did not want to answer: {reason}"))
                yield Delta(gap + own_message("declined", request.language), aside=True)

    async def _answer(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        if fault := key_fault(self._key):
            raise ChatError(self._line(f"the key {fault}"), kind=FailureKind.REFUSED)
        async with AsyncExitStack() as stack:
            calls, kept = CallAssembler(), KeptFields()
            limits = self._settings
            patience = Patience(limits.first_token_timeout_s, "no first token within", limits.thinking_timeout_s)
            pieces = await patience.spend(self._open(request, stack))
            reader = ChunkReader()
            hidden = HiddenParts(unsure=self.begins_in_thought, tools=[tool.name for tool in request.tools])
            answered = finished = cut = ended = declined = False
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

    def _learn(self, opened: bool | None) -> None:
        """What an answer has shown holds for the next ones, where the settings leave it open."""
        if opened is None or opened is self.begins_in_thought or self._endpoint.thinks is not None:
            return
        self.begins_in_thought = opened
        if opened:
            line = self._line("its answers begin in the middle of a thought; the first one was spoken")
            _log.warning("%s. Write thinks = true beside the endpoint, and none will be", line)

    async def warm(self) -> None:
        """Open a connection and keep it; costs no tokens. What the endpoint answers does not matter."""
        if not self._rehearsed and not key_fault(self._key):
            self._rehearsed = True
            async with self._failures_explained():
                await self._rehearse()
        if why := await self.check():
            _log.warning("%s cannot be reached now: %s", self.name, why)

    async def check(self) -> str:
        """Why the endpoint is not there; empty when it answers. Costs no tokens, keeps a connection.

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

    async def _rehearse(self) -> None:
        """Make a request that goes nowhere: the client prepares itself at its first one, measured to take 14 ms."""
        nowhere = httpx2.MockTransport(lambda _request: httpx2.Response(200, content=b""))
        messages = [Message(role, "") for role in ("system", "user", "assistant")]
        request = self._request(ChatRequest(messages, "en"))
        async with httpx2.AsyncClient(transport=nowhere) as http:
            client = self._client.with_options(http_client=http)
            async with client.chat.completions.with_streaming_response.create(**request):
                pass

    async def close(self) -> None:
        """Close the connections that are its own."""
        if self._owns_connections:
            await self._connections.close()

    def _request(self, asked: ChatRequest) -> dict[str, Any]:
        endpoint = self._endpoint
        talk = [message_param(message, self.name) for message in asked.messages]
        request: dict[str, Any] = {"model": endpoint.model, "messages": talk, "stream": True}
        if asked.tools:
            request["tools"] = [tool_param(tool) for tool in asked.tools]
            request["tool_choice"] = asked.tool_choice
        if endpoint.max_tokens is not None:
            request[self._max_tokens_name] = endpoint.max_tokens
        if endpoint.temperature is not None:
            request["temperature"] = endpoint.temperature
        if endpoint.extra_body:
            request["extra_body"] = endpoint.extra_body
        return request

    async def _open(self, request: ChatRequest, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
        """Ask; returns the body as it arrives. What must be closed goes on the stack."""
        await stack.enter_async_context(self._slots)
        await stack.enter_async_context(self._connections.slots)
        response = await self._ask(without_tools(request) if self.toolless else request, stack)
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            raise NotAChatStream(f"answered with {kind.partition(';')[0]}, not with a chat completion")
        pieces = _pieces(response)
        stack.push_async_callback(pieces.aclose)
        return pieces

    async def _ask(self, request: ChatRequest, stack: AsyncExitStack) -> AsyncAPIResponse[Any]:
        """Send the request; where the model refuses something in it, again without that.

        Raises:
            Declined: the provider does not want to answer it.
        """
        create = self._client.chat.completions.with_streaming_response.create
        left = _MAX_REQUESTS
        while True:
            try:
                return await stack.enter_async_context(create(**self._request(request)))
            except openai.APIStatusError as error:
                if declined_by_error(error.body, error.status_code):
                    raise Declined(_status_line(error, None)) from None
                left -= 1
                simpler = self._simpler(request, error) if left else None
                if simpler is None:
                    raise
                request = simpler

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


async def _pieces(response: AsyncAPIResponse[Any]) -> AsyncGenerator[bytes, None]:
    async for piece in response.iter_bytes():
        yield piece


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
