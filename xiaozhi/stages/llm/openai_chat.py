"""Any OpenAI-compatible chat endpoint."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

import httpx2
import openai
from openai import AsyncAPIResponse
from openai.types.chat import ChatCompletionMessageParam

from xiaozhi.events import Message
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.stages.llm.engine import ChatError, Delta
from xiaozhi.stages.llm.sse import ChunkReader, NotAChatStream, error_text
from xiaozhi.text.hidden import THINKING, HiddenSpans

_log = logging.getLogger(__name__)

R = TypeVar("R")

# The HTTP library forgets idle connections after 5 s, less than the pause between two turns of a conversation, and a
# new one costs two round trips and more. Servers that close earlier are noticed; routers that silently forget a
# connection do so after more than two minutes.
_KEEP_ALIVE_S: Final = 120.0
# After the last event the rest of the response is read, so that its connection can be used again.
_TAIL_S: Final = 0.2


class OpenAIChat:
    """A `ChatModel` that streams from one endpoint through the `openai` client.

    One object and one pool of connections serve every conversation; at most `max_concurrent` answers stream at once.

    Args:
        endpoint: where and what to ask.
        settings: timeouts and the limit of concurrent answers.
    """

    def __init__(self, endpoint: LlmEndpoint, settings: LlmSettings) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._settings = settings
        self._key = endpoint.key()
        self._rehearsed = False
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        limits = httpx2.Limits(
            max_connections=settings.max_concurrent + 1,  # one more for `warm`
            max_keepalive_connections=settings.max_concurrent,
            keepalive_expiry=_KEEP_ALIVE_S,
        )
        # Waiting for tokens is timed here; the HTTP library times what only it can see.
        timeout = httpx2.Timeout(None, connect=settings.connect_timeout_s)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",  # the client insists on one; local servers want none
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout),
        )

    async def stream(self, messages: Sequence[Message], *, language: str) -> AsyncGenerator[Delta, None]:
        """Answer the last message; see `ChatModel.stream`.

        Hidden reasoning, apart or in tags inside the text, is not yielded, but counts as a sign of life.
        """
        async with self._failures_explained(), AsyncExitStack() as stack:
            patience = _Patience(self._settings.first_token_timeout_s, "no first token within")
            pieces = await patience.spend(self._open(messages, stack))
            reader, hidden = ChunkReader(), HiddenSpans(THINKING)
            answered = finished = ended = False
            while not ended:
                piece = await patience.spend(anext(pieces, b""))
                for chunk in reader.feed(piece) if piece else reader.finish():
                    if chunk.text or chunk.thinking:
                        patience.renew(self._settings.idle_timeout_s, "went silent for")
                    finished |= chunk.finished
                    text = hidden.push(chunk.text) if chunk.text else ""
                    if text:
                        answered |= not text.isspace()
                        yield Delta(text)
                ended = reader.ended or not piece
            rest = hidden.flush()
            if rest.strip():
                answered = True
                yield Delta(rest)
            if not finished:
                raise NotAChatStream("broke off in the middle" if answered else "ended without an answer")
            if not answered:
                raise NotAChatStream("answered nothing")
            await self._read_tail(pieces)

    async def warm(self) -> None:
        """Open a connection and keep it; costs no tokens. What the endpoint answers does not matter."""
        if not self._rehearsed:
            self._rehearsed = True
            await self._rehearse()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + self._settings.first_token_timeout_s):
                await self._client.models.with_raw_response.list()
        except openai.APIStatusError as answer:
            _log.debug("%s: warm, although the list of models answers %d", self.name, answer.status_code)
        except (openai.OpenAIError, httpx2.HTTPError, TimeoutError) as error:
            _log.warning("%s cannot be reached now: %s", self.name, self._safe(_cause(error)))

    async def _rehearse(self) -> None:
        """Make a request that goes nowhere: the client prepares itself at its first one, measured to take 14 ms."""
        nowhere = httpx2.MockTransport(lambda _request: httpx2.Response(200, content=b""))
        request = self._request([Message(role, "") for role in ("system", "user", "assistant")])
        async with httpx2.AsyncClient(transport=nowhere) as http:
            client = self._client.with_options(http_client=http)
            async with client.chat.completions.with_streaming_response.create(**request):
                pass

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _request(self, messages: Sequence[Message]) -> dict[str, Any]:
        endpoint = self._endpoint
        talk: list[ChatCompletionMessageParam] = [_param(message) for message in messages]
        request: dict[str, Any] = {"model": endpoint.model, "messages": talk, "stream": True}
        if endpoint.max_tokens is not None:
            request["max_tokens"] = endpoint.max_tokens
        if endpoint.temperature is not None:
            request["temperature"] = endpoint.temperature
        if endpoint.extra_body:
            request["extra_body"] = endpoint.extra_body
        return request

    async def _open(self, messages: Sequence[Message], stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
        """Ask; returns the body as it arrives. What must be closed goes on the stack."""
        await stack.enter_async_context(self._slots)
        response = await stack.enter_async_context(
            self._client.chat.completions.with_streaming_response.create(**self._request(messages))
        )
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            raise NotAChatStream(f"answered with {kind.partition(';')[0]}, not with a chat completion")
        pieces = _pieces(response)
        stack.push_async_callback(pieces.aclose)
        return pieces

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
            raise ChatError(self._line(str(error))) from None
        except openai.APIStatusError as error:
            raise ChatError(self._line(_status_line(error))) from None
        except openai.APITimeoutError:
            raise ChatError(self._line(f"no connection within {self._settings.connect_timeout_s:g} s")) from None
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise ChatError(self._line(_cause(error))) from None

    def _line(self, reason: str) -> str:
        return f"{self.name}: {self._safe(reason)}"

    def _safe(self, text: str) -> str:
        """Servers like to repeat a key that they refuse."""
        return text.replace(self._key, "***") if self._key else text


class _Patience:
    """How long may still be waited; only waiting counts, not the time in which nobody asks for more.

    Args:
        seconds: until the first sign of life.
        complaint: what is said, with the seconds, when patience is at its end.
    """

    def __init__(self, seconds: float, complaint: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.renew(seconds, complaint)

    def renew(self, seconds: float, complaint: str) -> None:
        """There was a sign of life."""
        self._left_s = seconds
        self._complaint = f"{complaint} {seconds:g} s"

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


async def _pieces(response: AsyncAPIResponse[Any]) -> AsyncGenerator[bytes, None]:
    async for piece in response.iter_bytes():
        yield piece


def _param(message: Message) -> ChatCompletionMessageParam:
    match message.role:
        case "system":
            return {"role": "system", "content": message.content}
        case "user":
            return {"role": "user", "content": message.content}
        case "assistant":
            return {"role": "assistant", "content": message.content}


def _status_line(error: openai.APIStatusError) -> str:
    retry = error.response.headers.get("retry-after")
    when = f" (retry after {retry} s)" if retry and retry.isdigit() else ""
    said = error_text(error.body)
    return f"HTTP {error.status_code}{when}" + (f": {said}" if said else "")


def _cause(error: BaseException) -> str:
    """The innermost reason: the client says "Connection error." and keeps the reason in the cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
