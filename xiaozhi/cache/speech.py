"""Spoken clauses by their key: found in a tier, joined while they are being made, or made now."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

import orjson

from xiaozhi.cache.flight import Flight, Flights
from xiaozhi.cache.packets import pack, unpack
from xiaozhi.cache.redis_tier import RedisTier
from xiaozhi.cache.tier import Tiers

# Part of every key: raised when the sound of a clause is made in another way.
_VERSION: Final = 1


def speech_key(*parts: object) -> bytes:
    """The key of a clause: a hash of everything its sound depends on (voice, rate, format, language, text).

    Parts must be what JSON knows, in a fixed order.
    """
    return hashlib.blake2b(orjson.dumps([_VERSION, *parts]), digest_size=20).digest()


class SpeechCache:
    """Packets of clauses, each synthesised once.

    Args:
        tiers: where they are kept.
    """

    def __init__(self, tiers: Tiers) -> None:
        self.tiers = tiers
        self.hits = 0
        """Clauses that cost no synthesis because they had been kept."""
        self.joined = 0
        """Clauses that cost no synthesis because somebody else was having them made."""
        self.misses = 0
        """Clauses that had to be made."""
        self.unkept = 0
        """Clauses that were made and not kept: another voice stood in, or they were cut off."""
        self.made_elsewhere = 0
        """Clauses another node made while this one waited."""
        self._flights: Flights[bytes, bytes] = Flights()
        self._keeping: set[asyncio.Task[None]] = set()

    @property
    def hit_rate(self) -> float:
        """Share of clauses that cost no synthesis, 0 to 1; 0 before the first."""
        asked = self.hits + self.joined + self.misses
        return (self.hits + self.joined) / asked if asked else 0.0

    async def find(self, keys: Sequence[bytes]) -> list[bytes] | None:
        """The packets kept under the first of `keys` that has any; counts a hit, never a miss."""
        for key in keys:
            value = await self.tiers.get(key)
            packets = unpack(value) if value is not None else None
            if packets is not None:
                self.hits += 1
                return packets
        return None

    async def follow(
        self,
        key: bytes,
        make: Callable[[], AsyncGenerator[bytes, None]],
        keep_under: Callable[[], bytes | None],
        wait_s: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the packets of a clause that is not kept, joining whoever is having it made already.

        Closing one iterator leaves the others alone; when the last one closes early the making ends.

        Args:
            key: of the clause.
            make: makes it; called when nobody else does so.
            keep_under: asked once all is made, of the maker's caller alone: the key to keep it under, None not to.
            wait_s: how long to wait for another node that is making it; None takes `cluster.flight_wait_ms`.

        Raises:
            Exception: what `make` raised, to everybody who follows.
        """
        flight = self._flights.join(key)
        if flight is not None:
            self.joined += 1
        else:
            self.misses += 1
            flight = self._begin(key, make, keep_under, wait_s)
        async with aclosing(flight.follow()) as packets:
            async for packet in packets:
                yield packet

    def _begin(
        self,
        key: bytes,
        make: Callable[[], AsyncGenerator[bytes, None]],
        keep_under: Callable[[], bytes | None],
        wait_s: float | None,
    ) -> Flight[bytes]:
        shared = next((tier for tier in self.tiers.tiers if isinstance(tier, RedisTier)), None)
        elsewhere = False  # another node has made and kept it

        async def made_once() -> AsyncGenerator[bytes, None]:
            nonlocal elsewhere
            assert shared is not None
            patience_s = wait_s if wait_s is not None else shared.link.settings.flight_wait_ms / 1000.0
            value = await shared.claim(key, patience_s)
            packets = unpack(value) if value is not None else None
            if packets is not None:
                elsewhere = True
                self.made_elsewhere += 1
                for packet in packets:
                    yield packet
                return
            async with aclosing(make()) as made:
                async for packet in made:
                    yield packet

        def done(packets: list[bytes] | None) -> None:
            kept = None
            if packets is not None:
                kept = key if elsewhere else keep_under() if packets else None
                self.unkept += kept is None
            if kept is None or packets is None:
                if shared is not None:
                    shared.release(key)
                return
            task = asyncio.get_running_loop().create_task(keep(kept, pack(packets)), name="speech-keep")
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

        async def keep(kept: bytes, value: bytes) -> None:
            await self.tiers.put(kept, value)
            if shared is not None:
                shared.release(key)

        return self._flights.begin(key, make() if shared is None else made_once(), done)

    async def close(self) -> None:
        """End what is being made and close the tiers."""
        await self._flights.close()
        await asyncio.gather(*self._keeping)
        await self.tiers.close()
