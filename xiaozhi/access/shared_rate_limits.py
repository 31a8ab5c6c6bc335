"""How often one address may ask a cluster: one bucket for all nodes, and a node's own when Redis does not answer."""

from typing import Any, Final

from xiaozhi.access.rate_limits import RateLimiter, bucket_of
from xiaozhi.cluster.link import Gone, RedisLink, Use, number_of

# A token bucket by the clock of Redis, which all nodes share: tokens left and when that was. Expires when it is full.
_TAKE: Final = """
local per_minute = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(held[1] or ARGV[1])
local at = tonumber(held[2] or now)
tokens = math.min(per_minute, tokens + math.max(0, now - at) * per_minute / 60)
local wait = 0
if tokens >= 1 then tokens = tokens - 1 else wait = (1 - tokens) * 60 / per_minute end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], 61000)
return tostring(wait)
"""

# One request comes free in less.
_MAX_WAIT_S: Final = 60.0


class SharedLimiter(RateLimiter):
    """Token buckets by address that all nodes take from.

    Args:
        per_minute: requests in a minute, to all nodes together; 0 admits everything.
        link: to Redis.
        name: of the limit, part of the keys.
    """

    def __init__(self, per_minute: int, link: RedisLink, name: str) -> None:
        super().__init__(per_minute)
        self._link = link
        self._name = name

    async def take(self, address: str, now_s: float) -> float:
        """Take one request of an address; see `RateLimiter.take`."""
        own_s = self.wait_s(address, now_s)
        bucket = bucket_of(address)
        if own_s or not self.per_minute or not bucket:
            return own_s
        key = self._link.key("limit", self._name, bucket)

        async def ask(redis: Any) -> float:
            return number_of(await redis.eval(_TAKE, 1, key, str(self.per_minute)), _MAX_WAIT_S)

        try:
            wait_s = await self._link.ask(Use.LIMITS, ask)
        except Gone:
            return own_s
        self.refused += wait_s > 0.0
        return wait_s
