"""One reply over several endpoints: who is asked, how long each may take, what has become of it. Asks nobody itself."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.continuation import Seam
from xiaozhi.stages.llm.engine import ChatError, ChatModel, ChatRequest, Delta, RouteNote
from xiaozhi.text.complexity import Route
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.pool import Lease, UpstreamPool

_log = logging.getLogger(__name__)

# Endpoints asked without a new word of the reply, hedges not counted: by then somebody has waited for long enough.
_MAX_ATTEMPTS: Final = 4
# The same when the user already hears the beginning: a reply that ends in the middle is worse than a late one.
_MAX_TO_GO_ON: Final = 8
# Over a whole reply that breaks off again and again.
_MAX_IN_ALL: Final = 16
# Failures that say nothing about a second try at the same place, when there is no other.
_WORTH_ANOTHER_TRY: Final = frozenset({FailureKind.CONNECTION, FailureKind.BROKEN, FailureKind.NONSENSE})
# Extra requests that company for a reply that is being heard already must leave for those that nobody hears yet.
_KEPT_FOR_FIRST_WORDS: Final = 2.0
# How often to look whether another endpoint has become free or well, while one is late.
_LOOK_EVERY_S: Final = 0.5


def unfit(request: ChatRequest, settings: LlmSettings) -> set[str]:
    """The names of endpoints that cannot answer this: blind ones, or ones that would act on what no user has said."""
    nobodys = not request.conversation and not request.with_image
    return {
        one.name
        for one in settings.endpoints
        if (request.with_image and not one.vision) or (nobodys and one.is_platform)
    }


class Failover:
    """One request, from its first question to the last word of its reply.

    Args:
        request: what is asked.
        pool: the endpoints.
        settings: limits and rules.
        route: the tier that should answer; None when there is nothing to choose.
        may_hedge: whether a second endpoint may be asked beside one that is late.
    """

    def __init__(
        self,
        request: ChatRequest,
        pool: UpstreamPool[ChatModel],
        settings: LlmSettings,
        *,
        route: Route | None,
        may_hedge: bool,
    ) -> None:
        self.request = request
        self.route = route
        self.said = ""
        """The reply so far."""
        self.fell_out: set[str] = set()
        """Endpoints that could not answer."""
        self.called = False
        """It wants tools: what it says next will be the answer."""
        self.spoke: list[str] = []
        """Endpoints whose words these are, in order."""
        self.continued = 0
        """Times it broke off with something said already."""
        self._pool = pool
        self._settings = settings
        self._may_hedge_at_all = may_hedge
        self._free_only = settings.hedge.mode == "free"
        self._tiers: tuple[str, ...] = () if route is None else tuple(filter(None, (route.tier, route.fallback)))
        self._tried = unfit(request, settings)  # not to be asked now: unfit, being asked, or failed
        self._acting = {one.name for one in settings.endpoints if one.is_platform}
        self._permitted = request.permission is None or request.aimed_at in self._acting
        self._asked = 0  # since the last new word, hedges not counted
        self._attempts = 0  # requests sent in all
        self._hedged = False  # the time for company has come once
        self._with_hedge = False
        self._said_before = 0
        self._errors: list[str] = []
        self._worth_retrying: set[str] = set()

    # Who ----------------------------------------------------------------------------------------------------------

    async def next(self) -> Lease[ChatModel]:
        """The next endpoint to ask; waits while all are busy.

        Raises:
            ChatError: there is none; the line says what each has said.
        """
        again, explore, prefer = self._asked > 0, not self._may_hedge_at_all, self.request.preferred
        if not self._may_ask or self._attempts >= _MAX_IN_ALL:
            raise self._error()
        try:
            async with asyncio.timeout(self._settings.first_token_timeout_s) as limit:
                while True:
                    without = self._tried if self._permitted else self._tried | self._acting
                    lease = self._pool.take(self._tiers, without=without, explore=explore, prefer=prefer)
                    if lease is None and self.request.permission is not None and not self._permitted:
                        if self._acting - self._tried:  # it may be long until the turn is over
                            limit.reschedule(None)
                            await self.request.permission()
                            limit.reschedule(asyncio.get_running_loop().time() + self._settings.first_token_timeout_s)
                        self._permitted = True
                        continue
                    if lease is None and self._try_again():
                        lease = self._pool.take(self._tiers, without=self._tried, explore=explore)
                    if lease is not None:
                        self._pool.failovers += again
                        self._asked += 1
                        return self._begun(lease)
                    if not self._pool.full(self._tried):
                        raise self._error()
                    await self._pool.wait_for_slot()
        except TimeoutError:
            raise self._error("every endpoint is busy") from None

    def company(self, running: Sequence[Lease[ChatModel]]) -> Lease[ChatModel] | None:
        """Who is asked beside one that is late, once for each reply, allowed or not; None for nobody, or not yet.

        Later again where nobody is there now. While nothing has been heard yet and nobody is well, one that failed
        lately is as good a hope.
        """
        pool = self._pool
        if not self._may_hedge(running) or pool.now() < self._company_at(running[0]):
            return None
        without = self._tried | self._acting
        well, probe = pool.others(without), not self.said
        if not well and not (probe and pool.failed_ones(without)):
            return None
        self._hedged = True
        if not pool.budget.spend(keep=_KEPT_FOR_FIRST_WORDS if self.said else 0.0):
            return None
        lease = pool.take(self._tiers, without=without, hedge=True, free_only=self._free_only, probe=probe)
        if lease is None:
            pool.budget.give_back()
            return None
        self._with_hedge = True
        return self._begun(lease)

    def beside(self, lease: Lease[ChatModel]) -> Lease[ChatModel] | None:
        """Now and then, one that was slow or failed: to see whether it is well again, without anybody waiting."""
        if not self._may_hedge_at_all or lease.name in self._acting or self._attempts > 1 or self.said:
            return None
        return self._pool.look(lease.name, without=self._acting, free_only=self._free_only)

    def _begun(self, lease: Lease[ChatModel]) -> Lease[ChatModel]:
        self._attempts += 1
        self._tried.add(lease.name)
        return lease

    @property
    def _may_ask(self) -> bool:
        """Whether one more may be asked without a new word."""
        return self._asked < (_MAX_TO_GO_ON if self.said.strip() else _MAX_ATTEMPTS)

    def _try_again(self) -> bool:
        """Nobody else is left: let those be asked once more whose failure may have been chance. Once or twice."""
        again, self._worth_retrying = self._worth_retrying, set()
        if not again or self._asked >= (3 if self.said else 2) * len(self._tried):
            return False
        self._tried -= again
        return True

    def _error(self, otherwise: str = "no endpoint is well now") -> ChatError:
        """Why nobody answers."""
        return ChatError("; ".join(dict.fromkeys(self._errors)) or otherwise)

    # How long -----------------------------------------------------------------------------------------------------

    def missed_s(self, lease: Lease[ChatModel]) -> float | None:
        """The time, in seconds, in which an endpoint gave no first token although another could; None: wait on."""
        limit_s = self._first_limit_s(lease)
        if self._pool.now() < lease.began + limit_s or not self._pool.others(self._tried, quicker_than_s=limit_s):
            return None
        return limit_s if self._may_ask else None

    def idle_limit_s(self, lease: Lease[ChatModel]) -> float | None:
        """How long the stream may be silent when another can go on; None: its own limit."""
        return self._settings.failover_idle_s if self._pool.others(self._tried | {lease.name}) else None

    def look_again_s(self, running: Sequence[Lease[ChatModel]]) -> float:
        """When to decide anew about endpoints that have not begun, in seconds from now."""
        now = self._pool.now()
        times = [lease.began + self._first_limit_s(lease) for lease in running]
        if self._may_hedge(running):
            times += [self._company_at(running[0]), now + _LOOK_EVERY_S]
        return min((at - now for at in times if at > now), default=_LOOK_EVERY_S)

    def _company_at(self, lease: Lease[ChatModel]) -> float:
        """When an endpoint gets company: when it is late; at once when it was doubtful from the beginning."""
        return lease.began + (0.0 if lease.doubtful else self._pool.hedge_after_s())

    def _first_limit_s(self, lease: Lease[ChatModel]) -> float:
        """How long an endpoint may take when another could answer; one that failed lately has less time."""
        limit_s = min(self._settings.failover_first_token_s, self._pool.late_after_s())
        return min(limit_s, self._pool.hedge_after_s()) if lease.probe else limit_s

    def _may_hedge(self, running: Sequence[Lease[ChatModel]]) -> bool:
        alone = len(running) == 1 and running[0].name not in self._acting  # that remembers that it was asked
        return self._may_hedge_at_all and not self._hedged and alone

    # What came of it ----------------------------------------------------------------------------------------------

    def won(self, lease: Lease[ChatModel]) -> None:
        """An endpoint was the first to begin: say who answers."""
        self.spoke.append(lease.name)
        route = str(self.route) if self.route is not None else ""
        note = RouteNote("+".join(self.spoke), route, self._attempts, self._with_hedge)
        _log.debug("answered by %s, %s, attempt %d", note.endpoint, route or "not routed", note.attempts)
        if self.request.on_note is not None:
            self.request.on_note(note)

    def lost(self, lease: Lease[ChatModel]) -> None:
        """Another was quicker: it has not failed, and may go on where the winner ends."""
        self._tried.discard(lease.name)

    def joined(self, seam: Seam, delta: Delta) -> Delta | None:
        """The delta as it follows on what was said; None when nothing is left of it."""
        text = seam.push(delta.text) if delta.text else ""
        if delta.tool_calls:
            self.called = True
            text += seam.flush()
        self.said += text
        if not text and not delta.tool_calls and not delta.calling:
            return None
        return replace(delta, text=text)

    def gave_nothing(self, lease: Lease[ChatModel], error: ChatError, *, late: bool = False) -> None:
        """An endpoint failed before its first token; one that was only late is better than nobody afterwards."""
        lease.failed(error.kind, str(error), rest_s=error.rest_s)
        self._failed(lease.name, error)
        if error.kind is FailureKind.CONNECTION:
            self._hedged = False  # it was no company
        if late:
            self._worth_retrying.add(lease.name)

    def broke_off(self, lease: Lease[ChatModel], error: ChatError) -> None:
        """An endpoint failed after its first token; where it said more than the last one, patience begins again."""
        lease.failed(FailureKind.BROKEN, str(error))
        self._failed(lease.name, ChatError(str(error), kind=FailureKind.BROKEN))
        before, self._said_before = self._said_before, len(self.said.strip())
        if self._said_before > before:
            self._asked = 1
        if self._said_before:
            self.continued += 1
            _log.warning("%s; another goes on after %d characters", error, len(self.said))

    def _failed(self, name: str, error: ChatError) -> None:
        self._errors.append(str(error))
        self.fell_out.add(name)
        self._worth_retrying.discard(name)
        if error.kind in _WORTH_ANOTHER_TRY:
            self._worth_retrying.add(name)
        _log.info("%s (%s)", error, error.kind.value)
