"""A network that loses, delays and turns datagrams round."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Network:
    """What happens to datagrams, by the dice. One that never fails unless told otherwise.

    Attributes:
        loss: share of datagrams that never arrive.
        jitter_ms: each is late by up to so much, in its order.
        reordered: share of those that come behind the next one.
    """

    loss: float = 0.0
    jitter_ms: float = 0.0
    reordered: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    _free_at: float = 0.0

    def __call__(self, datagram: bytes, deliver: Callable[[bytes], None]) -> None:
        """Bring one to the other end, perhaps."""
        if self.dice.random() < self.loss:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        due_s = now_s + self.dice.uniform(0.0, self.jitter_ms) / 1000.0
        if self.dice.random() < self.reordered:
            due_s = max(due_s, self._free_at) + 0.1
        else:
            self._free_at = due_s = max(due_s, self._free_at)
        if due_s <= now_s:
            deliver(datagram)
        else:
            loop.call_at(due_s, deliver, datagram)
