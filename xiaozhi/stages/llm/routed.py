"""Several endpoints that answer as one: the user does not notice when one of them fails.

Who is asked is decided in `choice`, one answer is followed in `answer`, and `talk` holds what has become of it.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.answer import Answer
from xiaozhi.stages.llm.attempt import Attempt
from xiaozhi.stages.llm.choice import Choice
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.stages.llm.talk import Talk
from xiaozhi.text.complexity import Route
from xiaozhi.text.messages import message
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.pool import Lease, UpstreamPool, UpstreamState


class RoutedChat:
    """A `ChatModel` over all endpoints of the settings.

    Which one is asked: see `Choice`, `xiaozhi.upstream.pool` and `xiaozhi.text.complexity`. One that fails before its
    first token is replaced unnoticed; after it, another goes on from what was already produced. One that is late gets
    company.

    Args:
        settings: endpoints, limits and rules.
        rng: spreads the questions; seeded in tests.
        edge: this node is near its devices: only what needs the cloud goes there, and when the uplink is cut it
            answers by itself and says so once in a conversation.
    """

    def __init__(self, settings: LlmSettings, *, rng: random.Random | None = None, edge: bool = False) -> None:
        self._settings = settings
        self._edge = edge
        self._connections = HostConnections(settings)
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._chats = [OpenAIChat(endpoint, settings, self._connections) for endpoint in settings.endpoints]
        self._choice = Choice(settings, self._chats, rng=rng, edge=edge)
        self.name = self._chats[0].name if len(self._chats) == 1 else "chat"
        self._looks: set[asyncio.Task[None]] = set()
        self.continued = 0
        """Replies that one endpoint began and another went on with."""
        self.answered = 0
        """Replies that came to their end."""
        self.failed = 0
        """Replies that no endpoint could give, or finish."""
        self.offline = 0
        """Replies for the cloud that were given here because it could not be reached."""

    @property
    def pool(self) -> UpstreamPool[OpenAIChat]:
        """The endpoints and how they do; may be replaced before the first question, by one with another clock."""
        return self._choice.pool

    @pool.setter
    def pool(self, pool: UpstreamPool[OpenAIChat]) -> None:
        self._choice.pool = pool

    @property
    def hedging_allowed(self) -> bool:
        """A load controller switches extra requests off while there is too much to do."""
        return self._choice.hedging_allowed

    @hedging_allowed.setter
    def hedging_allowed(self, allowed: bool) -> None:
        self._choice.hedging_allowed = allowed

    def states(self) -> list[UpstreamState]:
        """How every endpoint does."""
        return self.pool.states()

    def route(self, request: ChatRequest) -> Route | None:
        """The tier that should answer; None when there is nothing to choose."""
        return self._choice.route(request)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message; see `ChatModel.stream`. Raises only when no endpoint can answer."""
        talk = Talk(request, self.route(request), self._choice.unfit(request))
        answer = Answer(talk, self._choice, self._look_beside)
        try:
            async with self._admitted(), aclosing(answer.stream()) as deltas:
                async for delta in deltas:
                    yield delta
            self.answered += 1
            if self._is_makeshift(talk) and (notice := offline_notice(request)):
                yield Delta(f" {notice}", aside=True)
        except ChatError:
            self.failed += 1
            raise
        finally:
            self.continued += talk.continued

    async def warm(self) -> None:
        """Open a connection to every endpoint, and begin to look after them."""
        await asyncio.gather(*(chat.warm() for chat in self._chats))
        self.pool.start_checks(OpenAIChat.check)

    async def close(self) -> None:
        """End the health checks and close all connections."""
        await self.pool.close()
        for look in self._looks:
            look.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        await self._connections.close()

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """One of the replies that may be given at the same time."""
        try:
            async with asyncio.timeout(self._settings.first_token_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            line = f"{self.name}: {self._settings.max_concurrent} replies are being given already"
            raise ChatError(line, kind=FailureKind.FIRST_BYTE) from None
        try:
            yield
        finally:
            self._slots.release()

    # Whether one is well again ------------------------------------------------------------------------------------

    def _look_beside(self, talk: Talk, asked: Lease[OpenAIChat]) -> None:
        """Ask another as well, where it is time to; nobody waits for it."""
        lease = self._choice.beside(talk, asked)
        if lease is not None:
            look = asyncio.create_task(self._look(Attempt(lease, talk.request)), name=f"look-{lease.name}")
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _look(self, attempt: Attempt) -> None:
        """Wait for a first token that nobody hears; not for longer than for one that somebody does."""
        try:
            await asyncio.wait([attempt.reading], timeout=self.pool.hedge_after_s())
            if attempt.reading.done() and (error := attempt.failure()) is not None:
                attempt.lease.failed(error.kind, str(error), rest_s=error.rest_s)
        finally:
            await attempt.close()

    # At the edge --------------------------------------------------------------------------------------------------

    def _is_makeshift(self, talk: Talk) -> bool:
        """Whether a question for the cloud was answered here because the uplink is cut."""
        if not self._edge or talk.called or talk.route is None or talk.route.wish != "cloud" or not talk.spoke:
            return False
        places = {endpoint.name: endpoint.place for endpoint in self._settings.endpoints}
        cut = "cloud" in self.pool.tiers and places.get(talk.spoke[-1]) == "edge" and self._cloud_is_gone(talk)
        self.offline += cut
        return cut

    def _cloud_is_gone(self, talk: Talk) -> bool:
        return not self.pool.is_well("cloud") or bool(talk.fell_out)


def offline_notice(request: ChatRequest) -> str:
    """What to say of a cut uplink; empty where this conversation has heard it already. Pure."""
    notice = message("offline", request.language)
    words = _letters(notice)
    said = (_letters(one.content) for one in request.messages if one.role == "assistant")
    return "" if any(words in text for text in said) else notice


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))
