"""Several chat models that answer as one: the user does not notice when one of them fails.

Who is asked is decided in `failover`; here it is asked.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.continuation import Seam, continuing
from xiaozhi.stages.llm.engine import ChatError, ChatModel, ChatRequest, Delta
from xiaozhi.stages.llm.failover import Failover, unfit
from xiaozhi.text.complexity import Route, RoutedQuestion, choose_tier
from xiaozhi.text.messages import message
from xiaozhi.upstream.breaker import BreakerRules
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.member import Upstream, UpstreamState
from xiaozhi.upstream.pool import Lease, PoolRules, UpstreamPool

_log = logging.getLogger(__name__)

# An edge node answers by itself rather than let its users wait until a cut uplink has failed often enough.
_EDGE_FAILURES: Final = 2
_NEVER_LONG: Final = 100_000


class Chat:
    """The `ChatModel` of the process, over those that the settings name.

    Which one is asked: see `Failover`, `xiaozhi.upstream.pool` and `xiaozhi.text.complexity`. One that fails before its
    first token is replaced unnoticed; after it, another goes on from what was already produced. One that is late gets
    company.

    Args:
        settings: endpoints, limits and rules.
        models: one for each endpoint, in their order; without endpoints the built-in responder alone.
        rng: spreads the questions; seeded in tests.
        edge: this node is near its devices: only what needs the cloud goes there, and when the uplink is cut it
            answers by itself and says so once in a conversation.
    """

    def __init__(
        self,
        settings: LlmSettings,
        models: Sequence[ChatModel],
        *,
        rng: random.Random | None = None,
        edge: bool = False,
    ) -> None:
        self.name = models[0].name if len(models) == 1 else "chat"
        self.pool = _pool(settings, models, rng=rng, edge=edge)
        """The models and how they do; may be replaced before the first question, by one with another clock."""
        self.hedging_allowed = True
        """A load controller switches extra requests off while there is too much to do."""
        self.continued = 0
        """Replies that one endpoint began and another went on with."""
        self.answered = 0
        """Replies that came to their end."""
        self.failed = 0
        """Replies that no endpoint could give, or finish."""
        self.offline = 0
        """Replies for the cloud that were given here because it could not be reached."""
        self._acting = frozenset(endpoint.name for endpoint in settings.endpoints if endpoint.is_platform)
        self._settings = settings
        self._models = tuple(models)
        self._edge = edge
        self._routing = settings.routing.model_copy(update={"long_chars": _NEVER_LONG}) if edge else settings.routing
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._looks: set[asyncio.Task[None]] = set()

    def states(self) -> list[UpstreamState]:
        """How every endpoint does; nothing of the built-in responder."""
        return self.pool.states() if self._settings.endpoints else []

    def route(self, request: ChatRequest) -> Route | None:
        """The tier that should answer; None when there is nothing to choose."""
        if not self._routing.enabled or not self._settings.endpoints:
            return None
        text = next((one.content for one in reversed(request.messages) if one.role == "user"), "")
        busy = {tier: self.pool.busy_share(tier) for tier in self.pool.tiers}
        question = RoutedQuestion(text, request.with_image, bool(request.tools), request.tier, busy)
        return choose_tier(question, self._routing, self.pool.tiers)

    def aim(self, request: ChatRequest) -> ChatRequest:
        """The request with the endpoint that is going to be asked first; another is where that one fails."""
        route = self.route(request)
        tiers = () if route is None else tuple(filter(None, (route.tier, route.fallback)))
        name = self.pool.likely(tiers, without=unfit(request, self._settings), prefer=request.preferred)
        return replace(request, aimed_at=name)

    def acts(self, request: ChatRequest) -> bool:
        """Whether the endpoint that is going to answer does things meanwhile, and remembers that it was asked.

        Then it may not be asked on trial, nor twice, nor be answered for from a cache.
        """
        return request.aimed_at in self._acting

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message, as if one endpoint had done it; see `ChatModel.stream`.

        Raises:
            ChatError: no endpoint can answer, or finish.
        """
        hedge = self._settings.hedge
        may_hedge = self.hedging_allowed and hedge.mode != "off" and hedge.share > 0
        reply = Failover(request, self.pool, self._settings, route=self.route(request), may_hedge=may_hedge)
        try:
            async with self._admitted():
                finished = False
                while not finished:
                    attempt = await self._first(reply)
                    try:
                        limit_s = reply.idle_limit_s(attempt.lease)
                        while (delta := await attempt.next(limit_s)) is not None:
                            if joined := reply.joined(attempt.seam, delta):
                                yield joined
                        finished = True
                        attempt.lease.succeeded()
                    except ChatError as error:
                        reply.broke_off(attempt.lease, error)
                    finally:
                        await attempt.close()
                # What a stream that broke off held back was a repetition; another said it or what follows.
                if rest := attempt.seam.flush():
                    yield Delta(rest)
            self.answered += 1
            if self._is_makeshift(reply) and (notice := offline_notice(request)):
                yield Delta(f" {notice}", aside=True)
        except ChatError:
            self.failed += 1
            raise
        finally:
            self.continued += reply.continued

    async def warm(self) -> str:
        """Open a connection to every endpoint, and begin to look after them; returns what is wrong with which."""
        reasons = await asyncio.gather(*(model.warm() for model in self._models))
        wrong = [(model.name, why) for model, why in zip(self._models, reasons, strict=True) if why]
        for name, why in wrong:
            _log.warning("%s cannot be reached now: %s", name, why)
        if self._settings.endpoints:
            self.pool.checks.start(lambda model: model.warm())
        return "; ".join(f"{name}: {why}" for name, why in wrong)

    async def close(self) -> None:
        """End the health checks and close all connections."""
        await self.pool.checks.close()
        for look in self._looks:
            look.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        for model in self._models:
            await model.close()

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

    # The first token ----------------------------------------------------------------------------------------------

    async def _first(self, reply: Failover) -> "_Attempt":
        """The first endpoint that has something to say; the others are closed.

        Raises:
            ChatError: none has.
        """
        running: list[_Attempt] = []
        winner: _Attempt | None = None
        try:
            while winner is None:
                if not running:
                    running.append(_Attempt(await reply.next(), reply))
                    self._look_beside(reply, running[0].lease)
                await self._late(reply, running)
                if not running:
                    continue
                await asyncio.wait(
                    [attempt.reading for attempt in running],
                    timeout=reply.look_again_s([attempt.lease for attempt in running]),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in [attempt for attempt in running if attempt.reading.done()]:
                    error = attempt.failure()
                    if error is None:
                        winner = winner or attempt
                    else:
                        running.remove(attempt)
                        reply.gave_nothing(attempt.lease, error)
                        await attempt.close()
        finally:
            for attempt in running:
                if attempt is not winner:
                    await attempt.close()
                    reply.lost(attempt.lease)
        reply.won(winner.lease)
        return winner

    async def _late(self, reply: Failover, running: list["_Attempt"]) -> None:
        """No first token yet: ask a second endpoint, or give up one that has had its time."""
        second = reply.company([attempt.lease for attempt in running])
        if second is not None:
            running.append(_Attempt(second, reply))
            return
        for attempt in list(running):
            limit_s = reply.missed_s(attempt.lease)
            if limit_s is None:
                continue
            running.remove(attempt)
            line = f"{attempt.lease.name}: no first token within {limit_s:g} s"
            reply.gave_nothing(attempt.lease, ChatError(line, kind=FailureKind.FIRST_BYTE), late=True)
            await attempt.close()

    # Whether one is well again ------------------------------------------------------------------------------------

    def _look_beside(self, reply: Failover, asked: Lease[ChatModel]) -> None:
        """Ask another as well, where it is time to; nobody waits for it."""
        lease = reply.beside(asked)
        if lease is not None:
            look = asyncio.create_task(self._look(_Attempt(lease, reply)), name=f"look-{lease.name}")
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def _look(self, attempt: "_Attempt") -> None:
        """Wait for a first token that nobody hears; not for longer than for one that somebody does."""
        try:
            await asyncio.wait([attempt.reading], timeout=self.pool.hedge_after_s())
            if attempt.reading.done() and (error := attempt.failure()) is not None:
                attempt.lease.failed(error.kind, str(error), rest_s=error.rest_s)
        finally:
            await attempt.close()

    # At the edge --------------------------------------------------------------------------------------------------

    def _is_makeshift(self, reply: Failover) -> bool:
        """Whether a question for the cloud was answered here because the uplink is cut."""
        if not self._edge or reply.called or reply.route is None or reply.route.wish != "cloud" or not reply.spoke:
            return False
        places = {endpoint.name: endpoint.place for endpoint in self._settings.endpoints}
        gone = not self.pool.is_well("cloud") or bool(reply.fell_out)
        cut = gone and "cloud" in self.pool.tiers and places.get(reply.spoke[-1]) == "edge"
        self.offline += cut
        return cut


class _Attempt:
    """One endpoint's try at a reply. Asks at once and reads up to the first real token. Close it, whatever happens.

    Args:
        lease: who is asked.
        reply: what is asked, and what has been said already.
    """

    def __init__(self, lease: Lease[ChatModel], reply: Failover) -> None:
        self.lease = lease
        self.seam = Seam(reply.said)
        self._early: list[Delta] = []  # what came up to the first real token
        self._stream = lease.target.stream(continuing(reply.request, reply.said))
        self.reading = asyncio.create_task(self._read(), name=f"chat-{lease.name}")
        """Done when the first real token is there, or will never be."""

    def failure(self) -> ChatError | None:
        """Why there is no first token; None when there is one. Only once `reading` is done.

        Raises:
            Exception: something that is no failure of an endpoint.
        """
        error = self.reading.exception()
        if error is None or isinstance(error, ChatError):
            return error
        raise error

    async def next(self, limit_s: float | None) -> Delta | None:
        """The next piece; None at the end.

        Args:
            limit_s: the longest silence; None leaves it to the endpoint's own limit.

        Raises:
            ChatError: the stream broke, or was silent for too long.
        """
        if self._early:
            return self._early.pop(0)
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await anext(self._stream, None)
        except TimeoutError:
            if not limit.expired():
                raise
            line = f"{self.lease.name}: went silent for {limit_s:g} s"
            raise ChatError(line, kind=FailureKind.BROKEN) from None

    async def close(self) -> None:
        """Close the request at once; it counts as dropped when nothing was said of its end."""
        if not self.reading.done():
            self.reading.cancel()
            await asyncio.wait([self.reading])
        if not self.reading.cancelled():
            self.reading.exception()  # seen, even where another was quicker
        await self._stream.aclose()
        self.lease.dropped()

    async def _read(self) -> None:
        while (delta := await anext(self._stream, None)) is not None:
            self._early.append(delta)
            if delta.tool_calls or delta.calling or (delta.text and not delta.text.isspace()):
                self.lease.first_byte()
                return
        raise ChatError(f"{self.lease.name}: answered nothing", kind=FailureKind.NONSENSE)


def offline_notice(request: ChatRequest) -> str:
    """What to say of a cut uplink; empty where this conversation has heard it already. Pure."""
    notice = message("offline", request.language)
    words = _letters(notice)
    said = (_letters(one.content) for one in request.messages if one.role == "assistant")
    return "" if any(words in text for text in said) else notice


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _pool(
    settings: LlmSettings, models: Sequence[ChatModel], *, rng: random.Random | None, edge: bool
) -> UpstreamPool[ChatModel]:
    """The models with their weights, limits and tiers."""
    upstreams = [
        Upstream(
            endpoint.name,
            model,
            weight=endpoint.weight,
            max_concurrent=endpoint.max_concurrent or settings.max_concurrent,
            tier=endpoint.place,
            free=endpoint.is_free,
        )
        for endpoint, model in zip(settings.endpoints, models, strict=False)
    ]
    breaker, hedge = settings.breaker, settings.hedge
    rules = PoolRules(
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
    )
    built_in = [Upstream(model.name, model, max_concurrent=settings.max_concurrent) for model in models]
    return UpstreamPool(upstreams or built_in, rules, rng=rng)
