"""Vectors of questions from an OpenAI-compatible `/embeddings` endpoint; no vector is no harm."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import numpy as np
import openai

from xiaozhi.settings.cache import EmbeddingsSettings
from xiaozhi.text.similarity import Vector

_log = logging.getLogger(__name__)

# An endpoint that failed is left alone so long: every question would wait for it in vain.
_REST_S: Final = 30.0
_MAX_DIMENSIONS: Final = 8192


class Embeddings:
    """Asks the endpoint, for as long as a user can wait.

    Args:
        settings: where, which model, how long.
        clock: monotonic time in seconds.
    """

    def __init__(self, settings: EmbeddingsSettings, clock: Callable[[], float]) -> None:
        self.asked = 0
        """Requests sent."""
        self.failed = 0
        """Requests that gave no vector in time."""
        self._model = settings.model
        self._timeout_s = settings.timeout_ms / 1000.0
        self._clock = clock
        self._rests_until = 0.0
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.key() or "none",  # local servers ask for no key, the client insists on one
            max_retries=0,  # the built-in measure is the retry
            timeout=self._timeout_s,
        )

    async def vector(self, text: str) -> Vector | None:
        """The text as float32[n] of length 1; None when the endpoint fails, is late, or failed a moment ago."""
        now = self._clock()
        if now < self._rests_until:
            return None
        self.asked += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.embeddings.create(model=self._model, input=text, encoding_format="float")
            values = np.asarray(response.data[0].embedding, np.float32)
            norm = float(np.linalg.norm(values))
            if values.ndim != 1 or not 0 < len(values) <= _MAX_DIMENSIONS or not np.isfinite(norm) or norm == 0.0:
                raise ValueError("the answer holds no vector")
        except (openai.OpenAIError, TimeoutError, ValueError, TypeError, IndexError, AttributeError) as error:
            self.failed += 1
            self._rests_until = now + _REST_S
            _log.warning(
                "embeddings: %s; the built-in measure is used for %.0f s", str(error) or "no answer in time", _REST_S
            )
            return None
        return values / np.float32(norm)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
