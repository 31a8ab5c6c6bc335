"""Several endpoints that answer as one: the talker does not notice when one of them fails."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.attempt import Attempt
from xiaozhi.stages.llm.connections import HostConnections
from xiaozhi.stages.llm.continuation import Seam, continuing
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta, RouteNote
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.text.complexity import Question, Route, choose_tier
from xiaozhi.text.messages import message
from xiaozhi.upstream.breaker import BreakerRules
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.pool import Lease, PoolRules, Upstream, UpstreamPool, UpstreamState

_log = logging.getLogger(__name__)

# Endpoints asked without a new word of the reply, hedges not counted: by then somebody has waited for long enough.
_MOST_ATTEMPTS: Final = 4
# The same when the talker already hears the beginning: a reply that ends in the middle is worse than a late one.
_MOST_TO_GO_ON: Final = 8
# Over a whole reply that breaks off again and again.
_MOST_IN_ALL: Final = 16
# Failures that say nothing about a second try at the same place, when there is no other.
_WORTH_ANOTHER_TRY: Final = frozenset({FailureKind.CONNECTION, FailureKind.BROKEN, FailureKind.NONSENSE})
# An edge node answers by itself rather than let its talkers wait until a cut uplink has failed often enough.
_EDGE_FAILURES: Final = 2
# Extra requests that company for a reply that is being heard already must leave for those that nobody hears yet.
_KEPT_FOR_FIRST_WORDS: Final = 2.0
_NEVER_LONG: Final = 100_000
# How often to look whether another endpoint has become free or well, while one is late.
_LOOK_EVERY_S: Final = 0.5


class RoutedChat:
    """A `ChatModel` over all endpoints of the settings.

    Which one is asked: see `xiaozhi.upstream.pool` and `xiaozhi.text.complexity`. One that fails before its first token
    is replaced unnoticed; after it, another goes on from what was already produced. One that is late gets company.

    Args:
        settings: endpoints, limits and rules.
        rng: spreads the questions; seeded in tests.
        edge: this node is near its devices: only what needs the cloud goes there, and when the uplink is cut it
            answers by itself and says so once in a conversation.
    """

    def __init__(self, settings: LlmSettings, *, rng: random.Random | None = None, edge: bool = False) -> None:
        self._settings = settings
        self._edge = edge
        self._routing = settings.routing.model_copy(update={"long_chars": _NEVER_LONG}) if edge else settings.routing
        self._connections = HostConnections(settings)
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        chats = [OpenAIChat(endpoint, settings, self._connections) for endpoint in settings.endpoints]
        breaker, hedge = settings.breaker, settings.hedge
        self.pool: UpstreamPool[OpenAIChat] = UpstreamPool(
            [
                Upstream(
                    endpoint.name,
                    chat,
                    weight=endpoint.weight,
                    max_concurrent=endpoint.max_concurrent or settings.max_concurrent,
                    tier=endpoint.place,
                    free=endpoint.is_free,
                )
                for endpoint, chat in zip(settings.endpoints, chats, strict=True)
            ],
            PoolRules(
                breaker=BreakerRules(
                    min(breaker.failures, _EDGE_FAILURES) if edge else breaker.failures,
                    breaker.open_s,
                    breaker.window_s,
                    breaker.window_min,
                    breaker.error_rate,
                ),
                check_every_s=settings.health_check_s,
                hedge_share=hedge.share,
                hedge_from_s=hedge.from_s,
                hedge_to_s=hedge.to_s,
            ),
            rng=rng,
        )
        self._chats = chats
        self._blind = frozenset(endpoint.name for endpoint in settings.endpoints if not endpoint.vision)
        self.name = chats[0].name if len(chats) == 1 else "chat"
        self.hedging_allowed = True
        """A load controller switches extra requests off while there is too much to do."""
        self._looks: set[asyncio.Task[None]] = set()
        self.continued = 0
        """Replies that one endpoint began and another went on with."""
        self.answered = 0
        """Replies that came to their end."""
        self.failed = 0
        """Replies that no endpoint could give, or finish."""
        self.offline = 0
        """Replies for the cloud that were given here because it could not be reached."""

    def states(self) -> list[UpstreamState]:
        """How every endpoint does."""
        return self.pool.states()

    def route(self, request: ChatRequest) -> Route | None:
        """The tier that should answer; None when there is nothing to choose."""
        rules = self._routing
        if not rules.enabled:
            return None
        text = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        busy = {tier: self.pool.busy_share(tier) for tier in self.pool.tiers}
        question = Question(text, request.with_image, bool(request.tools), request.tier, busy)
        return choose_tier(question, rules, self.pool.tiers)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message; see `ChatModel.stream`. Raises only when no endpoint can answer."""
        talk = _Talk(request, self.route(request), self._blind if request.with_image else frozenset())
        finished = False
        try:
            async with self._admitted():
                while not finished:
                    attempt = await self._first(talk)
                    seam = Seam(talk.said)
                    try:
                        limit_s = self._idle_limit_s(talk, attempt)
                        for delta in attempt.early:
                            if joined := talk.joined(seam, delta):
                                yield joined
                        while (later := await attempt.next(limit_s)) is not None:
                            if joined := talk.joined(seam, later):
                                yield joined
                        finished = True
                        attempt.lease.succeeded()
                    except ChatError as error:
                        self._broke_off(talk, attempt, error)
                    finally:
                        await attempt.close()
                    # What a stream that broke off held back was a repetition; another will say it or what follows.
                    if finished and (rest := seam.flush()):
                        talk.said += rest
                        yield Delta(rest)
            self.answered += 1
            if self._is_makeshift(talk) and (notice := offline_notice(request)):
                yield Delta(f" {notice}", aside=True)
        except ChatError:
            self.failed += 1
            raise

    def _is_makeshift(self, talk: "_Talk") -> bool:
        """Whether a question for the cloud was answered here because the uplink is cut."""
        if not self._edge or talk.called or talk.route is None or talk.route.wish != "cloud" or not talk.spoke:
            return False
        places = {endpoint.name: endpoint.place for endpoint in self._settings.endpoints}
        cut = "cloud" in self.pool.tiers and places.get(talk.spoke[-1]) == "edge" and self._cloud_is_gone(talk)
        self.offline += cut
        return cut

    def _cloud_is_gone(self, talk: "_Talk") -> bool:
        return not self.pool.is_well("cloud") or bool(talk.fell_out)

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

    # The first token ----------------------------------------------------------------------------------------------

    async def _first(self, talk: "_Talk") -> Attempt:
        """The first endpoint that has something to say; the others are closed.

        Raises:
            ChatError: none has.
        """
        running: list[Attempt] = []
        winner: Attempt | None = None
        try:
            while winner is None:
                if not running:
                    running.append(self._start(await self._lease(talk), talk))
                    self._look_beside(talk, running[0])
                await self._late(talk, running)
                if not running:
                    continue
                await asyncio.wait(
                    [attempt.reading for attempt in running],
                    timeout=self._look_again_s(talk, running),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in [attempt for attempt in running if attempt.reading.done()]:
                    error = attempt.failure()
                    if error is None:
                        winner = winner or attempt
                    else:
                        running.remove(attempt)
                        await self._gave_nothing(talk, attempt, error)
        finally:
            for attempt in running:
                if attempt is not winner:
                    await attempt.close()
                    talk.tried.discard(attempt.lease.name)  # it has not failed, and may go on where the winner ends
        talk.spoke.append(winner.lease.name)
        talk.tell()
        return winner

    def _look_beside(self, talk: "_Talk", attempt: Attempt) -> None:
        """Now and then, ask one that was slow or failed as well: whether it is well again, without anybody waiting."""
        if self._may_hedge_at_all and not talk.attempts > 1 and not talk.said:
            lease = self.pool.look(attempt.lease.name, free_only=self._settings.hedge.mode == "free")
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

    @property
    def _may_hedge_at_all(self) -> bool:
        return self.hedging_allowed and self._settings.hedge.mode != "off" and self._settings.hedge.share > 0

    def _start(self, lease: Lease[OpenAIChat], talk: "_Talk") -> Attempt:
        talk.attempts += 1
        talk.tried.add(lease.name)
        return Attempt(lease, continuing(talk.request, talk.said))

    async def _gave_nothing(self, talk: "_Talk", attempt: Attempt, error: ChatError) -> None:
        """An endpoint failed before its first token."""
        attempt.lease.failed(error.kind, str(error), rest_s=error.rest_s)
        talk.failed(attempt.lease.name, error)
        if error.kind is FailureKind.CONNECTION:
            talk.hedged = False  # it was no company
        await attempt.close()

    async def _late(self, talk: "_Talk", running: list[Attempt]) -> None:
        """No first token yet: ask a second endpoint, or give up one that has had its time."""
        now = self.pool.now()
        if self._may_hedge(talk, running) and now >= self._hedge_at(running[0]):
            second = self._hedge_lease(talk)
            if second is not None:
                running.append(self._start(second, talk))
                return
        for attempt in list(running):
            limit_s = self._first_limit_s(attempt)
            if now < attempt.lease.began + limit_s or not self.pool.others(talk.tried, quicker_than_s=limit_s):
                continue
            if talk.asked >= talk.most_asked:
                continue
            running.remove(attempt)
            line = f"{attempt.lease.name}: no first token within {limit_s:g} s"
            await self._gave_nothing(talk, attempt, ChatError(line, kind=FailureKind.FIRST_BYTE))
            talk.retry(attempt.lease.name)  # it was only late: better than nobody, when the others fail

    def _hedge_lease(self, talk: "_Talk") -> Lease[OpenAIChat] | None:
        """Company for one that is late, once for each reply, allowed or not; later again where nobody is there now.

        While nothing has been heard yet and nobody is well, one that failed lately is as good a hope.
        """
        well, probe = self.pool.others(talk.tried), not talk.said
        if not well and not (probe and self.pool.failed_ones(talk.tried)):
            return None
        talk.hedged = True
        if not self.pool.budget.spend(keep=_KEPT_FOR_FIRST_WORDS if talk.said else 0.0):
            return None
        free_only = self._settings.hedge.mode == "free"
        lease = self.pool.take(talk.tiers, without=talk.tried, hedge=True, free_only=free_only, probe=probe)
        if lease is None:
            self.pool.budget.give_back()
        else:
            talk.with_hedge = True
        return lease

    def _may_hedge(self, talk: "_Talk", running: Sequence[Attempt]) -> bool:
        return self._may_hedge_at_all and not talk.hedged and len(running) == 1

    def _hedge_at(self, attempt: Attempt) -> float:
        """When an endpoint gets company: when it is late; at once when it was doubtful from the beginning."""
        return attempt.lease.began + (0.0 if attempt.lease.doubtful else self.pool.hedge_after_s())

    def _first_limit_s(self, attempt: Attempt) -> float:
        """How long an endpoint may take when another could answer; one that failed lately has less time."""
        limit_s = min(self._settings.failover_first_token_s, self.pool.late_after_s())
        return min(limit_s, self.pool.hedge_after_s()) if attempt.lease.probe else limit_s

    def _look_again_s(self, talk: "_Talk", running: Sequence[Attempt]) -> float:
        now = self.pool.now()
        times = [attempt.lease.began + self._first_limit_s(attempt) for attempt in running]
        if self._may_hedge(talk, running):
            times += [self._hedge_at(running[0]), now + _LOOK_EVERY_S]
        return min((at - now for at in times if at > now), default=_LOOK_EVERY_S)

    async def _lease(self, talk: "_Talk") -> Lease[OpenAIChat]:
        """The next endpoint to ask.

        Raises:
            ChatError: there is none; the line says what each has said.
        """
        again = talk.asked > 0
        if talk.asked >= talk.most_asked or talk.attempts >= _MOST_IN_ALL:
            raise talk.error()
        try:
            async with asyncio.timeout(self._settings.first_token_timeout_s):
                while True:
                    explore = not self._may_hedge_at_all
                    lease = self.pool.take(talk.tiers, without=talk.tried, explore=explore)
                    if lease is None and talk.try_again():
                        lease = self.pool.take(talk.tiers, without=talk.tried, explore=explore)
                    if lease is not None:
                        self.pool.failovers += again
                        talk.asked += 1
                        return lease
                    if not self.pool.full(talk.tried):
                        raise talk.error()
                    await self.pool.wait_for_slot()
        except TimeoutError:
            raise talk.error("every endpoint is busy") from None

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

    # After it -----------------------------------------------------------------------------------------------------

    def _idle_limit_s(self, talk: "_Talk", attempt: Attempt) -> float | None:
        """How long the stream may be silent when another can go on; None: its own limit."""
        return self._settings.failover_idle_s if self.pool.others(talk.tried | {attempt.lease.name}) else None

    def _broke_off(self, talk: "_Talk", attempt: Attempt, error: ChatError) -> None:
        attempt.lease.failed(FailureKind.BROKEN, str(error))
        talk.failed(attempt.lease.name, ChatError(str(error), kind=FailureKind.BROKEN))
        if talk.progressed():
            self.continued += 1
            _log.warning("%s; another goes on after %d characters", error, len(talk.said))


def offline_notice(request: ChatRequest) -> str:
    """What to say of a cut uplink; empty where this conversation has heard it already. Pure."""
    notice = message("offline", request.language)
    words = _letters(notice)
    said = (_letters(one.content) for one in request.messages if one.role == "assistant")
    return "" if any(words in text for text in said) else notice


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


class _Talk:
    """What has become of one request so far."""

    def __init__(self, request: ChatRequest, route: Route | None, unfit: frozenset[str]) -> None:
        self.request = request
        self.route = route
        self.tiers: tuple[str, ...] = () if route is None else tuple(filter(None, (route.tier, route.fallback)))
        self.said = ""
        self.tried: set[str] = set(unfit)  # those whose model does not see, and those that failed
        self.asked = 0
        self.fell_out: set[str] = set()  # endpoints that could not answer
        self.called = False  # it wants tools: what it says next will be the answer
        self.attempts = 0
        self.hedged = False  # the time for it has come once
        self.with_hedge = False
        self.spoke: list[str] = []
        self._said_before = 0
        self._errors: list[str] = []
        self._worth_retrying: set[str] = set()

    def joined(self, seam: Seam, delta: Delta) -> Delta | None:
        """The delta as it follows on what was said; None when nothing is left of it."""
        text = seam.push(delta.text) if delta.text else ""
        if delta.tool_calls:
            self.called = True
            text += seam.flush()
        self.said += text
        if not text and not delta.tool_calls and not delta.calling:
            return None
        return Delta(text, delta.tool_calls, delta.calling)

    def failed(self, name: str, error: ChatError) -> None:
        """An endpoint could not answer, or not to the end."""
        self._errors.append(str(error))
        self.fell_out.add(name)
        self._worth_retrying.discard(name)
        if error.kind in _WORTH_ANOTHER_TRY:
            self._worth_retrying.add(name)
        _log.info("%s (%s)", error, error.kind.value)

    @property
    def most_asked(self) -> int:
        """How many may be asked without a new word."""
        return _MOST_TO_GO_ON if self.said.strip() else _MOST_ATTEMPTS

    def progressed(self) -> bool:
        """Whether the reply is longer than the last time; then patience begins again."""
        before, self._said_before = self._said_before, len(self.said.strip())
        if self._said_before > before:
            self.asked = 1
        return self._said_before > 0

    def retry(self, name: str) -> None:
        """An endpoint may be asked once more when nobody else is left."""
        self._worth_retrying.add(name)

    def try_again(self) -> bool:
        """Nobody else is left: let those be asked once more whose failure may have been chance. Once or twice."""
        again, self._worth_retrying = self._worth_retrying, set()
        if not again or self.asked >= (3 if self.said else 2) * len(self.tried):
            return False
        self.tried -= again
        return True

    def error(self, otherwise: str = "no endpoint is well now") -> ChatError:
        """Why nobody answers."""
        return ChatError("; ".join(dict.fromkeys(self._errors)) or otherwise)

    def tell(self) -> None:
        """Say who answers."""
        route = str(self.route) if self.route is not None else ""
        note = RouteNote("+".join(self.spoke), route, self.attempts, self.with_hedge)
        _log.debug("answered by %s, %s, attempt %d", note.endpoint, route or "not routed", note.attempts)
        if self.request.on_note is not None:
            self.request.on_note(note)
