"""How often one address may ask: a token bucket each, in a table that cannot grow. Pure: time is passed in."""

from collections import OrderedDict
from typing import Final

from xiaozhi.access.loopback import is_loopback_address
from xiaozhi.access.visitors import group_of

# Addresses that are remembered; whoever has not asked for longest is forgotten first. About 2 MB.
_MAX_ADDRESSES: Final = 10_000
# Addresses that may bring as many new devices as one may, together: a crowd of them finds an end as well.
_ADDRESSES_OF_NEWCOMERS: Final = 10


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
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left and when that was
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
        tokens, at_s = self._buckets.pop(name, (burst, now_s))
        tokens = min(burst, tokens + max(0.0, now_s - at_s) * rate)
        admitted = tokens >= 1.0
        self._buckets[name] = (tokens - 1.0 if admitted else tokens, now_s)
        while len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        if admitted:
            return 0.0
        self.refused += 1
        return (1.0 - tokens) / rate


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
