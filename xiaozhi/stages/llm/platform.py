"""Agent platforms as the mind: what speaks in events of its own, has its prompt and tools over there, and remembers."""

import asyncio
import base64
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import orjson

from xiaozhi.events import ProviderFields
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.endpoint import EndpointChat, EndpointPatience
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.event_stream import MAX_EVENT_BYTES, Event, EventReader, NotAChatStream, as_json
from xiaozhi.stages.llm.sse import Declined, declined_by_error, error_text
from xiaozhi.stages.llm.threads import Thread, Threads
from xiaozhi.stages.llm.tool_calls import CallAssembler
from xiaozhi.text.citations import CitationMarks
from xiaozhi.text.hidden import MAX_THOUGHT_CHARS, HiddenParts
from xiaozhi.text.messages import message as own_message
from xiaozhi.upstream.failure import FailureKind

_log = logging.getLogger(__name__)

# Breaking an answer off is one short request; the next question in the conversation waits for it no longer.
_STOP_S: Final = 2.0
# Answers that are being broken off at the same time; beyond that, those end by themselves.
_MAX_STOPS: Final = 100


@dataclass(slots=True)
class Answer:
    """One answer while it arrives.

    Attributes:
        conversation: the platform's name of the conversation.
        task: its name of this answer, to break it off by; empty while there is nothing to break off.
        said: what has been spoken of it.
        working: the newest event showed that it is at work, without a word to be spoken.
        finished: it has come to its end.
        calls: tools of ours that it wants called.
    """

    conversation: str = ""
    task: str = ""
    said: str = ""
    working: bool = False
    finished: bool = False
    calls: CallAssembler = field(default_factory=CallAssembler)


class PlatformChat(EndpointChat):
    """A `ChatModel` that asks a platform; each kind says what its requests and its events are.

    Where the platform keeps the past, only the newest text is sent, and whatever was said without it. A reply that is
    broken off is broken off there as well.
    """

    upload = ""
    """Where pictures are posted before the question; empty where they are in it, or not taken."""
    answers_in_json = False
    """An answer is one JSON document; elsewhere such a document is an error with status 200."""

    def __init__(
        self, endpoint: LlmEndpoint, settings: LlmSettings, connections: HostConnections | None = None
    ) -> None:
        super().__init__(endpoint, settings, connections)
        self._threads = Threads()
        self._stops: set[asyncio.Task[None]] = set()

    @abstractmethod
    def _question(self, request: ChatRequest, thread: Thread, picture: str) -> tuple[str, dict[str, Any]]:
        """Where to post a question, behind the endpoint's address, and the body; `picture` is the id of one, or empty.

        Raises:
            ChatError: it cannot be asked that.
        """

    @abstractmethod
    def _read(self, event: Event, body: dict[str, Any], answer: Answer) -> str:
        """What is to be spoken of an event; notes what else it says in `answer`.

        Raises:
            ChatError, NotAChatStream, Declined: it tells of an error.
        """

    def _stop(self, thread: Thread, answer: Answer) -> tuple[str, dict[str, Any]] | None:
        """Where and what to post to break an answer off; None where closing the connection does."""
        return None

    def _fault(self, status: int, body: dict[str, Any]) -> tuple[int, str]:
        """The HTTP status that a refusal amounts to, and its words."""
        return status, error_text(body)

    def _is_lost(self, status: int, body: dict[str, Any]) -> bool:
        """Whether a refusal says that the conversation is not there, or cannot be gone on with."""
        return False

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message; see `ChatModel.stream`."""
        limits = self._settings
        thread, answer, reader, marks = self._threads.of(request), Answer(), EventReader(), CitationMarks()
        hidden = HiddenParts(unsure=self._endpoint.begins_in_thought, tools=[tool.name for tool in request.tools])
        patience = EndpointPatience(limits.first_token_timeout_s, "no first token within", limits.thinking_timeout_s)
        try:
            async with self._failures_explained(), AsyncExitStack() as stack:
                try:
                    pieces = await patience.spend(self._open(request, thread, stack))
                    piece = b"-"
                    while piece and not answer.finished:
                        piece = await patience.spend(anext(pieces, b""))
                        for event in reader.feed(piece) if piece else reader.finish():
                            text = self._take(event, thread, answer)
                            if text or answer.working:
                                patience.renew(limits.idle_timeout_s, "went silent for")
                                patience.think()
                            text = marks.push(hidden.push(text))
                            if hidden.overfull:
                                raise NotAChatStream(f"thought for more than {MAX_THOUGHT_CHARS} characters")
                            if text:
                                patience.spoke()
                                answer.said += text
                                yield Delta(text)
                    rest = marks.push(hidden.finish(whole=answer.finished)) + marks.finish()
                    answer.said += rest
                    if rest:
                        yield Delta(rest)
                    if not answer.finished:
                        raise NotAChatStream("broke off in the middle" if answer.said else "ended without an answer")
                    calls = answer.calls.finish(tool.name for tool in request.tools)
                    if not calls and not answer.said.strip():
                        raise NotAChatStream("answered nothing")
                    if calls:
                        yield Delta(tool_calls=calls, provider=ProviderFields(self.name, {}, answer.calls.extra))
                except Declined as reason:
                    answer.finished = True
                    _log.info("%s", self._line(f"did not want to answer: {reason}"))
                    own = own_message("declined", request.language)
                    yield Delta(("\n" if answer.said.strip() else "") + own, aside=True)
        finally:
            if not answer.finished and (stop := self._stop(thread, answer)) and len(self._stops) < _MAX_STOPS:
                thread.stopping = asyncio.create_task(self._break_off(*stop), name=f"stop-{self.name}")
                self._stops.add(thread.stopping)
                thread.stopping.add_done_callback(self._stops.discard)

    def _take(self, event: Event, thread: Thread, answer: Answer) -> str:
        answer.working = False
        if answer.finished or not isinstance(event.body, dict):
            return ""
        text = self._read(event, event.body, answer)
        thread.id = answer.conversation or thread.id
        return text

    async def close(self) -> None:
        """Close the connections; what is being broken off is left to itself."""
        for stop in self._stops:
            stop.cancel()
        await asyncio.gather(*self._stops, return_exceptions=True)
        await super().close()

    async def _break_off(self, path: str, body: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(_STOP_S):
                response = await self._post(path, body)
                await response.aclose()
        except (TimeoutError, httpx2.HTTPError, OSError) as error:
            _log.debug("%s", self._line(f"an answer could not be broken off: {error!r}"))

    async def _open(self, request: ChatRequest, thread: Thread, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
        """Ask, and again in a new conversation where the old one is lost; returns the body as it arrives."""
        if fault := key_fault(self._key):
            raise ChatError(self._line(f"the key {fault}"), kind=FailureKind.REFUSED)
        await stack.enter_async_context(self._slots)
        await stack.enter_async_context(self._connections.slots)
        if thread.stopping is not None:
            await asyncio.wait([thread.stopping])
        image = request.messages[-1].image
        picture = await self._uploaded(image, thread.user) if image and self.upload else ""
        while True:
            path, body = self._question(request, thread, picture)
            response = await self._post(path, body | self._endpoint.extra_body)
            stack.push_async_callback(response.aclose)
            kind = response.headers.get("content-type", "")
            if response.status_code == 200 and (self.answers_in_json or "json" not in kind):
                if "html" in kind:
                    raise NotAChatStream(f"answered with {kind.partition(';')[0]}, not with an answer")
                thread.ask(request)
                pieces = response.aiter_bytes()
                stack.push_async_callback(pieces.aclose)
                return pieces
            told = as_json(await _bounded(response))
            told = told if isinstance(told, dict) else {}
            if thread.id and self._is_lost(response.status_code, told):
                thread.forget()  # nothing is lost twice: without an id there is nothing to be lost
                continue
            status, said = self._fault(response.status_code, told)
            if declined_by_error(told, status):
                raise Declined(said)
            raise self._refused(status, said, response.headers)

    async def _uploaded(self, image: str, user: str) -> str:
        """The platform's id of a picture that is given as a data URL."""
        head, _, data = image.partition(";base64,")
        kind = head.removeprefix("data:")
        try:
            picture = base64.b64decode(data, validate=True)
        except ValueError:
            picture = b""
        if not picture or not head.startswith("data:image/"):
            raise ChatError(
                self._line("takes pictures only as they are, not by their address"), kind=FailureKind.REQUEST
            )
        url = self._endpoint.base_url.rstrip("/") + self.upload
        file = (f"picture.{kind.removeprefix('image/')}", picture, kind)
        client = self._connections.client(url)
        sent = client.build_request("POST", url, files={"file": file}, data={"user": user}, headers=self._headers())
        response = await client.send(sent, stream=True)
        try:
            told = as_json(await _bounded(response))
        finally:
            await response.aclose()
        told = told if isinstance(told, dict) else {}
        about = told["data"] if isinstance(told.get("data"), dict) else told
        name = about.get("id")
        if isinstance(name, str) and name:
            return name[:100]
        status, said = self._fault(response.status_code, told)
        raise self._refused(
            status if status >= 400 else 500, said or "took the picture and gave it no id", response.headers
        )

    async def _post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """The response as it begins to arrive; close it."""
        url = self._endpoint.base_url.rstrip("/") + path
        client = self._connections.client(url)
        headers = {"Content-Type": "application/json", **self._headers()}
        return await client.send(
            client.build_request("POST", url, content=orjson.dumps(body), headers=headers), stream=True
        )


async def _bounded(response: httpx2.Response) -> bytes:
    """The body of a refusal, not more of it than an event may have."""
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MAX_EVENT_BYTES:
            break
    return body
