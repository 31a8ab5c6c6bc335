"""One answer followed to its end: the race to the first token, and going on where an endpoint breaks off."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from xiaozhi.stages.llm.attempt import Attempt
from xiaozhi.stages.llm.choice import Choice
from xiaozhi.stages.llm.continuation import Seam, continuing
from xiaozhi.stages.llm.engine import ChatError, Delta
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.stages.llm.talk import Talk
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.pool import Lease

_log = logging.getLogger(__name__)


class Answer:
    """Asks whom `choice` says, reads what comes, and asks again until the reply is whole.

    Args:
        talk: the request; holds what has become of it.
        choice: decides who is asked.
        beside: told once for each endpoint that is asked alone: another may be looked at meanwhile.
    """

    def __init__(self, talk: Talk, choice: Choice, beside: Callable[[Talk, Lease[OpenAIChat]], None]) -> None:
        self._talk = talk
        self._choice = choice
        self._beside = beside

    async def stream(self) -> AsyncGenerator[Delta, None]:
        """The reply, as if one endpoint had given it.

        Raises:
            ChatError: no endpoint can answer, or finish.
        """
        talk = self._talk
        finished = False
        while not finished:
            attempt = await self._first()
            seam = Seam(talk.said)
            try:
                limit_s = self._choice.idle_limit_s(talk, attempt.lease)
                for delta in attempt.early:
                    if joined := talk.joined(seam, delta):
                        yield joined
                while (later := await attempt.next(limit_s)) is not None:
                    if joined := talk.joined(seam, later):
                        yield joined
                finished = True
                attempt.lease.succeeded()
            except ChatError as error:
                self._broke_off(attempt, error)
            finally:
                await attempt.close()
            # What a stream that broke off held back was a repetition; another will say it or what follows.
            if finished and (rest := seam.flush()):
                talk.said += rest
                yield Delta(rest)

    # The first token ----------------------------------------------------------------------------------------------

    async def _first(self) -> Attempt:
        """The first endpoint that has something to say; the others are closed.

        Raises:
            ChatError: none has.
        """
        talk = self._talk
        running: list[Attempt] = []
        winner: Attempt | None = None
        try:
            while winner is None:
                if not running:
                    running.append(self._start(await self._choice.next(talk)))
                    self._beside(talk, running[0].lease)
                await self._late(running)
                if not running:
                    continue
                await asyncio.wait(
                    [attempt.reading for attempt in running],
                    timeout=self._choice.look_again_s(talk, [attempt.lease for attempt in running]),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in [attempt for attempt in running if attempt.reading.done()]:
                    error = attempt.failure()
                    if error is None:
                        winner = winner or attempt
                    else:
                        running.remove(attempt)
                        await self._gave_nothing(attempt, error)
        finally:
            for attempt in running:
                if attempt is not winner:
                    await attempt.close()
                    talk.tried.discard(attempt.lease.name)  # it has not failed, and may go on where the winner ends
        talk.spoke.append(winner.lease.name)
        talk.tell()
        return winner

    def _start(self, lease: Lease[OpenAIChat]) -> Attempt:
        self._talk.started(lease.name)
        return Attempt(lease, continuing(self._talk.request, self._talk.said))

    async def _late(self, running: list[Attempt]) -> None:
        """No first token yet: ask a second endpoint, or give up one that has had its time."""
        second = self._choice.company(self._talk, [attempt.lease for attempt in running])
        if second is not None:
            running.append(self._start(second))
            return
        for attempt in list(running):
            limit_s = self._choice.missed_s(self._talk, attempt.lease)
            if limit_s is None:
                continue
            running.remove(attempt)
            line = f"{attempt.lease.name}: no first token within {limit_s:g} s"
            await self._gave_nothing(attempt, ChatError(line, kind=FailureKind.FIRST_BYTE))
            self._talk.retry(attempt.lease.name)  # it was only late: better than nobody, when the others fail

    async def _gave_nothing(self, attempt: Attempt, error: ChatError) -> None:
        """An endpoint failed before its first token."""
        attempt.lease.failed(error.kind, str(error), rest_s=error.rest_s)
        self._talk.failed(attempt.lease.name, error)
        if error.kind is FailureKind.CONNECTION:
            self._talk.hedged = False  # it was no company
        await attempt.close()

    # After it -----------------------------------------------------------------------------------------------------

    def _broke_off(self, attempt: Attempt, error: ChatError) -> None:
        attempt.lease.failed(FailureKind.BROKEN, str(error))
        self._talk.failed(attempt.lease.name, ChatError(str(error), kind=FailureKind.BROKEN))
        if self._talk.progressed():
            self._talk.continued += 1
            _log.warning("%s; another goes on after %d characters", error, len(self._talk.said))
