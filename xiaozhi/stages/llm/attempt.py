"""One endpoint's try at an answer."""

import asyncio

from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.pool import Lease


class Attempt:
    """Asks at once and reads up to the first real token; the rest is read by `next`. Close it, whatever happens.

    Args:
        lease: who is asked.
        request: what.
    """

    def __init__(self, lease: Lease[OpenAIChat], request: ChatRequest) -> None:
        self.lease = lease
        self.early: list[Delta] = []
        """What came up to the first real token."""
        self._stream = lease.target.stream(request)
        self.reading = asyncio.create_task(self._read(), name=f"chat-{lease.name}")
        """Done when the first real token is there, or will never be."""

    def failure(self) -> ChatError | None:
        """Why there is no first token; None when there is one. Only once `reading` is done.

        Raises:
            Exception: something that is no failure of an endpoint.
        """
        error = self.reading.exception()
        if error is None or isinstance(error, ChatError):
            return error
        raise error

    async def next(self, limit_s: float | None) -> Delta | None:
        """The next piece; None at the end.

        Args:
            limit_s: the longest silence; None leaves it to the endpoint's own limit.

        Raises:
            ChatError: the stream broke, or was silent for too long.
        """
        if limit_s is None:
            return await anext(self._stream, None)
        try:
            async with asyncio.timeout(limit_s):
                return await anext(self._stream, None)
        except TimeoutError:
            line = f"{self.lease.name}: went silent for {limit_s:g} s"
            raise ChatError(line, kind=FailureKind.BROKEN) from None

    async def close(self) -> None:
        """Close the request at once; it counts as dropped when nothing was said of its end."""
        if not self.reading.done():
            self.reading.cancel()
            await asyncio.wait([self.reading])
        if not self.reading.cancelled():
            self.reading.exception()  # seen, even where another was quicker
        await self._stream.aclose()
        self.lease.dropped()

    async def _read(self) -> None:
        while (delta := await anext(self._stream, None)) is not None:
            self.early.append(delta)
            if delta.tool_calls or delta.calling or (delta.text and not delta.text.isspace()):
                self.lease.first_byte()
                return
        raise ChatError(f"{self.lease.name}: answered nothing", kind=FailureKind.NONSENSE)
