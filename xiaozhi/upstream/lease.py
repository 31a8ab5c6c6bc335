"""The right to ask one upstream once, and what came of it."""

from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from xiaozhi.upstream.breaker import Admission
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.member import Member

T = TypeVar("T")


class Keeper(Protocol):
    """Who gives leases and gets them back: the pool."""

    def now(self) -> float:
        """Seconds of its clock."""
        ...

    def measured(self, member: Member[Any], took_s: float) -> None:
        """An upstream has shown how long it takes to its first byte."""
        ...

    def freed(self) -> None:
        """A slot has become free."""
        ...


class Lease(Generic[T]):
    """The right to ask one upstream once. Say how it ended; leaving the `with` block without that counts as dropped."""

    def __init__(
        self, pool: Keeper, member: Member[T], admission: Admission, now: float, *, doubtful: bool = False
    ) -> None:
        self._pool = pool
        self._member = member
        self._admission = admission
        self.began = now
        """When it was given, on the pool's clock."""
        self.doubtful = doubtful
        """It was known beforehand that this upstream may be late: slow lately, or failed lately."""
        self._open = True
        member.waiting[id(self)] = now

    @property
    def name(self) -> str:
        """Of the upstream."""
        return self._member.upstream.name

    @property
    def target(self) -> T:
        """What to ask with."""
        return self._member.upstream.target

    @property
    def probe(self) -> bool:
        """The upstream has failed lately and the first byte of this request tells that it is back."""
        return self._admission is Admission.PROBE

    def first_byte(self) -> None:
        """The first useful piece has come; only the first call counts."""
        if self._member.waiting.pop(id(self), None) is not None:
            now = self._pool.now()
            self._member.answered(now, self.began)
            self._pool.measured(self._member, now - self.began)
            if self._admission is Admission.PROBE:  # it is back: others need not wait for the end of this answer
                self._member.breaker.succeeded(self._admission, now)
                self._admission = Admission.ADMITTED

    def succeeded(self) -> None:
        """The answer is complete."""
        if self._close():
            self._member.counters.succeeded += 1
            self._member.ended(broke_off=False)
            self._member.healthy = True
            self._member.breaker.succeeded(self._admission, self._pool.now())

    def failed(self, kind: FailureKind, why: str, *, rest_s: float | None = None) -> None:
        """It went wrong.

        Args:
            kind: how.
            why: one line for people.
            rest_s: the upstream said when to come back, in seconds from now.
        """
        waited = id(self) in self._member.waiting
        if not self._close():
            return
        member, now = self._member, self._pool.now()
        member.counters.failures[kind] += 1
        member.last_error, member.last_kind = why, kind
        breaker = member.breaker
        match kind:
            case FailureKind.REQUEST:
                breaker.dropped(self._admission, now)
            case FailureKind.BROKEN:
                # It is there and starts to answer. Others are preferred, but it is better than nobody.
                member.ended(broke_off=True)
                breaker.succeeded(self._admission, now)
            case FailureKind.REFUSED:
                breaker.failed(self._admission, now, for_good=True)
            case FailureKind.BUSY:
                breaker.failed(self._admission, now, rest_s=rest_s)
            case FailureKind.FIRST_BYTE:
                if waited:
                    member.latency.given_up(now, now - self.began)
                breaker.failed(self._admission, now)
            case _:
                breaker.failed(self._admission, now)

    def dropped(self) -> None:
        """Nobody waits for the end any more."""
        waited = self._member.waiting.get(id(self))
        if not self._close():
            return
        now = self._pool.now()
        self._member.counters.dropped += 1
        if waited is not None:
            self._member.latency.given_up(now, now - waited)
        self._member.breaker.dropped(self._admission, now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dropped()

    def _close(self) -> bool:
        was_open, self._open = self._open, False
        if was_open:
            self._member.waiting.pop(id(self), None)
            self._member.in_flight -= 1
            self._pool.freed()
        return was_open
