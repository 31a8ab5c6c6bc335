"""How often one address may ask: a token bucket each, in a table that cannot grow. Pure: time is passed in."""

from collections import OrderedDict
from typing import Final

from aiohttp import web

from xiaozhi.access.loopback import is_loopback_address
from xiaozhi.access.visitors import group_of

# Addresses that are remembered; whoever has not asked for longest is forgotten first. About 2 MB.
_MAX_ADDRESSES: Final = 10_000
# Addresses that may bring as many new devices as one may, together: a crowd of them finds an end as well.
_ADDRESSES_OF_NEWCOMERS: Final = 10


class TokenBucket:
    """So much may be spent at once, and so much a second in the long run.

    Args:
        per_s: what comes back in a second.
        burst: what may be spent at once.
        now_s: a monotonic time, in seconds.
    """

    __slots__ = ("_at_s", "_left", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self.per_s = per_s
        self.burst = self._left = burst
        self._at_s = now_s

    def spend(self, cost: float, now_s: float) -> bool:
        """Whether there was enough left; if not, nothing is spent."""
        return not self.wait_s(cost, now_s)

    def wait_s(self, cost: float, now_s: float) -> float:
        """Spend so much, 0; or nothing, and in how many seconds there will be enough."""
        self._left = min(self.burst, self._left + max(0.0, now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        if cost > self._left:
            return (cost - self._left) / self.per_s
        self._left -= cost
        return 0.0


class RateLimiter:
    """Token buckets by address.

    Args:
        per_minute: requests in a minute; 0 admits everything.
        burst: as many at once after a silence; those of a minute when left out.
    """

    def __init__(self, per_minute: float, burst: int = 0) -> None:
        self.per_minute = per_minute
        """May be changed at any time."""
        self._burst = burst
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self.refused = 0
        """Requests above the limit."""

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._buckets)

    async def take(self, address: str, now_s: float) -> float:
        """As `wait_s`; where several nodes share their limits this asks for all of them."""
        return self.wait_s(address, now_s)

    def wait_s(self, address: str, now_s: float) -> float:
        """Take one request of an address: 0 if it is admitted, else in how many seconds to come again."""
        if not self.per_minute or is_loopback_address(address):
            return 0.0
        name = group_of(address)
        rate, burst = self.per_minute / 60.0, float(self._burst or self.per_minute)
        bucket = self._buckets.pop(name, None) or TokenBucket(rate, burst, now_s)
        bucket.per_s, bucket.burst = rate, burst
        self._buckets[name] = bucket
        while len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        wait_s = bucket.wait_s(1.0, now_s)
        self.refused += wait_s > 0.0
        return wait_s


def too_many(wait_s: float) -> web.Response:
    """429 for an address that asks too often, and when to come again."""
    headers = {"Retry-After": str(int(wait_s) + 1)}
    return web.Response(status=429, text="too many requests from this address\n", headers=headers)


class Newcomers:
    """How many devices may come that were never seen: from one address, and from all together.

    Args:
        per_hour: new devices in an hour from one address, and as many at once; 0 admits everything.
    """

    def __init__(self, per_hour: int) -> None:
        self._each = RateLimiter(per_hour / 60.0, per_hour)
        everybody = per_hour * _ADDRESSES_OF_NEWCOMERS
        self._all = RateLimiter(everybody / 60.0, everybody)

    @property
    def refused(self) -> int:
        """New devices above the limits."""
        return self._each.refused + self._all.refused

    def wait_s(self, address: str, now_s: float) -> float:
        """Take one: 0 if it is admitted, else in how many seconds to come again."""
        return self._each.wait_s(address, now_s) or self._all.wait_s("all", now_s)


def bucket_of(address: str) -> str:
    """The name of an address's bucket; empty for this machine, which is not counted."""
    # A proxy on this machine that is not among the trusted ones would otherwise be one address for everybody.
    return "" if is_loopback_address(address) else group_of(address)


class OncePer:
    """Lets through what may be said once per time and name, for log lines that a stranger can cause.

    Args:
        period_s: the time between two, in seconds.
        most: names that are remembered.
    """

    def __init__(self, period_s: float, most: int = 1000) -> None:
        self._period_s = period_s
        self._most = most
        self._said: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._said)

    def allows(self, name: str, now_s: float) -> bool:
        """Whether it may be said now; then it counts as said."""
        if 0.0 <= now_s - self._said.get(name, -self._period_s) < self._period_s:
            return False
        self._said.pop(name, None)
        self._said[name] = now_s
        while len(self._said) > self._most:
            self._said.popitem(last=False)
        return True
