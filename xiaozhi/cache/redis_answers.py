"""Answers that another node has kept: the same words in the same scope, found in Redis."""

import asyncio
import hashlib
from typing import Final

from xiaozhi.cluster.link import Gone, RedisLink, Use
from xiaozhi.text.same_words import normal_form

# Answers on their way; more come only when Redis hangs.
_MAX_WAITING: Final = 100
# Nobody listens to a longer one, and none is kept.
_MAX_CHARS: Final = 8000


class SharedAnswers:
    """Exact answers of all nodes.

    Args:
        link: to Redis.
        ttl_s: life of an answer, in seconds.
    """

    def __init__(self, link: RedisLink, ttl_s: float) -> None:
        self.hits = 0
        """Answers another node had kept."""
        self.misses = 0
        """Questions no node had an answer to, or Redis did not answer."""
        self.dropped = 0
        """Answers that could not be kept."""
        self.link = link
        self.ttl_s = ttl_s
        self._jobs: set[asyncio.Task[None]] = set()

    def _key(self, question: str, scope: str) -> str:
        form = normal_form(question)
        return self.link.key("answer", hashlib.blake2b(f"{scope}\0{form}".encode(), digest_size=20).hexdigest())

    async def find(self, question: str, scope: str) -> str | None:
        """The answer to the same words, or None."""
        if not normal_form(question):
            return None
        try:
            value = await self.link.get(Use.ANSWERS, self._key(question, scope))
        except Gone:
            value = None
        answer = (value or b"").decode(errors="ignore")
        if not answer.strip() or len(answer) > _MAX_CHARS:
            self.misses += 1
            return None
        self.hits += 1
        return answer

    def keep(self, question: str, answer: str, scope: str) -> None:
        """Keep an answer, in the background."""
        if not normal_form(question):
            return
        if len(self._jobs) >= _MAX_WAITING:
            self.dropped += 1
            return
        task = asyncio.get_running_loop().create_task(self._keep(question, answer, scope), name="answers-redis")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _keep(self, question: str, answer: str, scope: str) -> None:
        try:
            kept = await self.link.put(Use.ANSWERS, self._key(question, scope), answer.encode(), self.ttl_s)
        except Gone:
            kept = False
        self.dropped += not kept

    async def close(self) -> None:
        """Write what is on its way."""
        while self._jobs:
            await asyncio.gather(*self._jobs)
