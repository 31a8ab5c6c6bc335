"""FastGPT and RAGFlow: they speak chat completions, the one keeps the past, the other has an address for each chat."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from uuid import uuid4

from xiaozhi.events import Message
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.engine import ChatRequest, Delta
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.stages.llm.request_body import completion_body, without_tools
from xiaozhi.stages.llm.threads import Threads
from xiaozhi.text.citations import CitationMarks


class CitingChat(OpenAIChat):
    """An app that calls its own tools and puts marks of its sources into what it says."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message; see `ChatModel.stream`."""
        marks = CitationMarks()
        async with aclosing(super().stream(without_tools(request))) as deltas:
            async for delta in deltas:
                if text := delta.text if delta.aside else marks.push(delta.text):
                    yield replace(delta, text=text)
        if rest := marks.finish():
            yield Delta(rest)


class FastGptChat(CitingChat):
    """One app of FastGPT; the key is the app's."""

    def __init__(
        self, endpoint: LlmEndpoint, settings: LlmSettings, connections: HostConnections | None = None
    ) -> None:
        super().__init__(endpoint, settings, connections)
        self._threads = Threads()

    def _body(self, request: ChatRequest) -> bytes:
        thread = self._threads.of(request)
        newest = Message("user", thread.question(request), image=request.messages[-1].image)
        thread.id = thread.id or uuid4().hex
        thread.ask(request)
        own = {"chatId": thread.id, "detail": False, **self._endpoint.extra_body}
        endpoint = self._endpoint.model_copy(update={"extra_body": own})
        return completion_body(replace(request, messages=[newest]), endpoint, max_tokens_name=self._max_tokens_name)


class RagFlowChat(CitingChat):
    """One chat assistant of RAGFlow: the model's name is its id. The address of an agent is given whole."""

    def __init__(
        self, endpoint: LlmEndpoint, settings: LlmSettings, connections: HostConnections | None = None
    ) -> None:
        if "_openai/" not in endpoint.base_url:
            address = f"{endpoint.base_url.rstrip('/')}/api/v1/chats_openai/{endpoint.model}"
            endpoint = endpoint.model_copy(update={"base_url": address})
        super().__init__(endpoint, settings, connections)
