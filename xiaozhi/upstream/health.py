"""Looking after upstreams in the background, without spending anything."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from xiaozhi.upstream.breaker import BreakerState
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.member import Member

_log = logging.getLogger(__name__)

T = TypeVar("T")

# One that is not well is looked at so many times as often, so that it is soon used again when it is back.
_LOOKS_AT_UNWELL: Final = 5


class HealthChecks(Generic[T]):
    """Asks every upstream now and then whether it is there, and those that are not well more often.

    Args:
        members: the upstreams.
        every_s: between two checks of one that is well.
        now: the clock, in seconds.
    """

    def __init__(self, members: Sequence[Member[T]], every_s: float, now: Callable[[], float]) -> None:
        self._members = members
        self._every_s = every_s
        self._now = now
        self._checking: asyncio.Task[None] | None = None

    def start(self, check: Callable[[T], Awaitable[str]]) -> None:
        """Begin, until `close`; a second call changes nothing.

        Args:
            check: asks one without spending anything; returns why it is not well, or an empty text. Must not raise.
        """
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_for_ever(check), name="upstream-checks")

    async def check_all(self, check: Callable[[T], Awaitable[str]]) -> None:
        """Check every upstream once, all at the same time."""
        await asyncio.gather(*(self._check(member, check) for member in self._members))

    async def close(self) -> None:
        """End the checks."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
            self._checking = None

    async def _check_for_ever(self, check: Callable[[T], Awaitable[str]]) -> None:
        turn = 0
        while True:
            await asyncio.sleep(self._every_s / _LOOKS_AT_UNWELL)
            turn += 1
            due = [member for member in self._members if turn % _LOOKS_AT_UNWELL == 0 or self._suspicious(member)]
            await asyncio.gather(*(self._check(member, check) for member in due))

    def _suspicious(self, member: Member[T]) -> bool:
        return member.healthy is False or member.breaker.state(self._now()) is not BreakerState.CLOSED

    async def _check(self, member: Member[T], check: Callable[[T], Awaitable[str]]) -> None:
        why = await check(member.upstream.target)
        was, member.healthy = member.healthy, not why
        if not why:
            if was is False:
                _log.info("upstream %s answers again", member.upstream.name)
            if was is False or member.last_kind is FailureKind.CONNECTION:
                member.breaker.recover(self._now())
            return
        if was is not False:
            _log.warning("upstream %s is not well: %s", member.upstream.name, why)
            return  # once may be chance
        member.last_error = why
        # Twice in a row: leave it alone until the next check but one has found it well.
        member.breaker.rest(self._now(), 2.0 * self._every_s)
