"""Who is asked: the endpoint that comes next, its company when it is late, and how long each may take."""

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.stages.llm.talk import Talk
from xiaozhi.text.complexity import Question, Route, choose_tier
from xiaozhi.upstream.breaker import BreakerRules
from xiaozhi.upstream.pool import Lease, PoolRules, Upstream, UpstreamPool

# An edge node answers by itself rather than let its users wait until a cut uplink has failed often enough.
_EDGE_FAILURES: Final = 2
# Extra requests that company for a reply that is being heard already must leave for those that nobody hears yet.
_KEPT_FOR_FIRST_WORDS: Final = 2.0
_NEVER_LONG: Final = 100_000
# How often to look whether another endpoint has become free or well, while one is late.
_LOOK_EVERY_S: Final = 0.5


class Choice:
    """Chooses among the endpoints by their pool, the tiers and the rules; asks none itself.

    Args:
        settings: endpoints, limits and rules.
        chats: the endpoints, in the settings' order.
        rng: spreads the questions; seeded in tests.
        edge: this node is near its devices: only what needs the cloud goes there.
    """

    def __init__(
        self, settings: LlmSettings, chats: Sequence[OpenAIChat], *, rng: random.Random | None, edge: bool
    ) -> None:
        self._settings = settings
        self._routing = settings.routing.model_copy(update={"long_chars": _NEVER_LONG}) if edge else settings.routing
        self._blind = frozenset(endpoint.name for endpoint in settings.endpoints if not endpoint.vision)
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
        self.hedging_allowed = True
        """Whether extra requests may be made at all; a load controller says no."""

    def route(self, request: ChatRequest) -> Route | None:
        """The tier that should answer; None when there is nothing to choose."""
        rules = self._routing
        if not rules.enabled:
            return None
        text = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        busy = {tier: self.pool.busy_share(tier) for tier in self.pool.tiers}
        question = Question(text, request.with_image, bool(request.tools), request.tier, busy)
        return choose_tier(question, rules, self.pool.tiers)

    def unfit(self, request: ChatRequest) -> frozenset[str]:
        """Names of the endpoints that cannot answer this request."""
        return self._blind if request.with_image else frozenset()

    # Who ----------------------------------------------------------------------------------------------------------

    async def next(self, talk: Talk) -> Lease[OpenAIChat]:
        """The next endpoint to ask; waits while all are busy.

        Raises:
            ChatError: there is none; the line says what each has said.
        """
        again = talk.asked > 0
        if not talk.may_go_on:
            raise talk.error()
        try:
            async with asyncio.timeout(self._settings.first_token_timeout_s):
                while True:
                    explore = not self._may_hedge_at_all
                    lease = self.pool.take(talk.tiers, without=talk.tried, explore=explore, prefer=talk.prefer)
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

    def company(self, talk: Talk, running: Sequence[Lease[OpenAIChat]]) -> Lease[OpenAIChat] | None:
        """Who is asked beside one that is late, once for each reply, allowed or not; None for nobody, or not yet.

        Later again where nobody is there now. While nothing has been heard yet and nobody is well, one that failed
        lately is as good a hope.
        """
        if not self._may_hedge(talk, running) or self.pool.now() < self._company_at(running[0]):
            return None
        well, probe = self.pool.others(talk.tried), not talk.said
        if not well and not (probe and self.pool.failed_ones(talk.tried)):
            return None
        talk.hedged = True
        if not self.pool.budget.spend(keep=_KEPT_FOR_FIRST_WORDS if talk.said else 0.0):
            return None
        lease = self.pool.take(talk.tiers, without=talk.tried, hedge=True, free_only=self._free_only, probe=probe)
        if lease is None:
            self.pool.budget.give_back()
        else:
            talk.with_hedge = True
        return lease

    def beside(self, talk: Talk, lease: Lease[OpenAIChat]) -> Lease[OpenAIChat] | None:
        """Now and then, one that was slow or failed: to see whether it is well again, without anybody waiting."""
        if not self._may_hedge_at_all or talk.attempts > 1 or talk.said:
            return None
        return self.pool.look(lease.name, free_only=self._free_only)

    # How long -----------------------------------------------------------------------------------------------------

    def missed_s(self, talk: Talk, lease: Lease[OpenAIChat]) -> float | None:
        """The time, in seconds, in which an endpoint gave no first token although another could; None: wait on."""
        limit_s = self._first_limit_s(lease)
        if self.pool.now() < lease.began + limit_s or not self.pool.others(talk.tried, quicker_than_s=limit_s):
            return None
        return limit_s if talk.may_ask else None

    def idle_limit_s(self, talk: Talk, lease: Lease[OpenAIChat]) -> float | None:
        """How long the stream may be silent when another can go on; None: its own limit."""
        return self._settings.failover_idle_s if self.pool.others(talk.tried | {lease.name}) else None

    def look_again_s(self, talk: Talk, running: Sequence[Lease[OpenAIChat]]) -> float:
        """When to decide anew about endpoints that have not begun, in seconds from now."""
        now = self.pool.now()
        times = [lease.began + self._first_limit_s(lease) for lease in running]
        if self._may_hedge(talk, running):
            times += [self._company_at(running[0]), now + _LOOK_EVERY_S]
        return min((at - now for at in times if at > now), default=_LOOK_EVERY_S)

    def _company_at(self, lease: Lease[OpenAIChat]) -> float:
        """When an endpoint gets company: when it is late; at once when it was doubtful from the beginning."""
        return lease.began + (0.0 if lease.doubtful else self.pool.hedge_after_s())

    def _first_limit_s(self, lease: Lease[OpenAIChat]) -> float:
        """How long an endpoint may take when another could answer; one that failed lately has less time."""
        limit_s = min(self._settings.failover_first_token_s, self.pool.late_after_s())
        return min(limit_s, self.pool.hedge_after_s()) if lease.probe else limit_s

    def _may_hedge(self, talk: Talk, running: Sequence[Lease[OpenAIChat]]) -> bool:
        return self._may_hedge_at_all and not talk.hedged and len(running) == 1

    @property
    def _may_hedge_at_all(self) -> bool:
        return self.hedging_allowed and self._settings.hedge.mode != "off" and self._settings.hedge.share > 0

    @property
    def _free_only(self) -> bool:
        return self._settings.hedge.mode == "free"
