"""Any OpenAI-compatible chat endpoint."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, cast

import httpx2
import openai

from xiaozhi.events import ProviderFields
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.endpoint import EndpointChat, EndpointPatience, status_line
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.event_stream import NotAChatStream
from xiaozhi.stages.llm.request_body import completion_body, speaks_of_tools, without_provider_fields, without_tools
from xiaozhi.stages.llm.sse import ChunkReader, Declined, declined_by_error, error_text
from xiaozhi.stages.llm.tool_calls import CallAssembler, KeptFields
from xiaozhi.text.hidden import MAX_THOUGHT_CHARS, HiddenParts
from xiaozhi.text.messages import message as own_message
from xiaozhi.upstream.failure import FailureKind

_log = logging.getLogger(__name__)

SPENT: Final = "had spent its max_tokens before a word to be spoken"
"""What is said of a model whose thoughts have used up what it may say."""
# After the last event the rest of the response is read, so that its connection can be used again.
_TAIL_S: Final = 0.2

# The first request, and how often something that the model refuses is left out of it.
_MAX_REQUESTS: Final = 3
_REFUSED_REQUEST: Final = frozenset({400, 404, 422})
_ABOUT_TOOLS: Final = re.compile(r"tool|function", re.IGNORECASE)
_NO_TOOLS: Final = re.compile(r"support|enable-auto-tool-choice|not (?:available|allowed|enabled)", re.IGNORECASE)


class OpenAIChat(EndpointChat):
    """A `ChatModel` that streams from one endpoint through the `openai` client; see `EndpointChat`."""

    def __init__(
        self, endpoint: LlmEndpoint, settings: LlmSettings, connections: HostConnections | None = None
    ) -> None:
        super().__init__(endpoint, settings, connections)
        self._max_tokens_name = "max_tokens"
        self.toolless = False
        """The model has said that it cannot call tools: it is not offered any."""
        self.begins_in_thought = endpoint.begins_in_thought
        """Nothing of an answer is spoken before the end of the thought in it."""
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
        patience = EndpointPatience(limits.first_token_timeout_s, "no first token within", limits.thinking_timeout_s)
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
                    raise Declined(_line_of(error)) from None
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
        response = await self._client.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            content=self._body(request),
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        return cast(httpx2.Response, response)  # as `cast_to` says; `stream` alone would promise parsed events

    def _body(self, request: ChatRequest) -> bytes:
        """The request as it is sent."""
        return completion_body(request, self._endpoint, max_tokens_name=self._max_tokens_name)

    def _simpler(self, request: ChatRequest, error: openai.APIStatusError) -> ChatRequest | None:
        """The request without what the model has refused; None where that cannot be told.

        A model without tools says so with 400 (Ollama, vLLM) or 404 (OpenRouter), and this is remembered. Whatever
        else it says against tools, or against a request that has some, holds for this request alone: strict services
        refuse all of it for one schema, and few of them say so.
        """
        said, status = error_text(error.body), error.status_code
        if status not in _REFUSED_REQUEST:
            return None
        why = self._line(_line_of(error))
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


def _line_of(error: openai.APIStatusError) -> str:
    return status_line(error.status_code, error_text(error.body))
