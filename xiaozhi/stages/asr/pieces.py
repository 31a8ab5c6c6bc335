"""Utterances for a service that takes sound while somebody speaks, and whose connection is over with its text."""

import asyncio
from collections.abc import Callable
from functools import reduce
from typing import Protocol

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import JobDropped
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript, join
from xiaozhi.stages.asr.offline import MAX_UNHEARD_S
from xiaozhi.stages.asr.recogniser import Question, Say
from xiaozhi.stages.asr.remote_use import RemoteUse
from xiaozhi.upstream.breaker import BreakerState


class Piece(Protocol):
    """Sound of one connection on its way to text.

    Attributes:
        text: the whole, some time after `end`; raises RemoteError.
    """

    text: asyncio.Task[Transcript]

    @property
    def so_far(self) -> Transcript:
        """The text up to now."""
        ...

    def feed(self, pcm: PcmFloat) -> None:
        """Send float32[n] at 16 kHz. Never waits."""
        ...

    def end(self) -> None:
        """That was all of this piece."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class PieceUtterance:
    """Sends sound up as it comes. Where somebody goes on behind a question, what follows is another piece.

    The pieces meet in the silence that brought the question, so that no word is cut. While the service is left alone
    nothing goes up; the question that is its trial sends everything at once.

    Args:
        begin: begins a piece, which calls back when its text so far may have changed.
        use: how the service does.
        decoding: whether texts are shown while somebody speaks.
        say: takes them.
    """

    def __init__(
        self, begin: Callable[[Callable[[], None]], Piece], use: RemoteUse, decoding: Decoding, say: Say | None
    ) -> None:
        self._begin, self._use, self._partials, self._say = begin, use, decoding.partials, say
        self._pieces: list[Piece] = []
        self._open: Piece | None = None  # the last of them, until it is ended
        self._waiting: list[PcmFloat] = []  # behind the last question, perhaps nothing but silence
        self._asked_samples = 0  # up to that question
        self._samples = self._voiced_samples = 0
        self._known: Transcript | None = None  # the text of all pieces
        self._shown = ""

    @property
    def ready(self) -> bool:
        """The whole text is known without waiting."""
        return self._known is not None and not self._goes_on(held=False)

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio."""
        self._samples += len(pcm)
        self._voiced_samples = self._samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)
        self._waiting.append(pcm)
        well = self._use.breaker.state(self._use.clock()) is BreakerState.CLOSED
        if self._open is not None or (well and self._goes_on(held=False)):
            self._send()

    async def transcribe(self, question: Question) -> Transcript:
        """End the piece that is open, unless only silence follows the last one; nothing is provisional.

        Raises:
            JobDropped: the utterance was closed.
            RemoteError: the service failed, at this piece or one before.
        """
        if not self._samples:
            return Transcript("")
        if self._known is not None and not self._goes_on(held=question.held):
            return self._known
        async with self._use.request(self._samples):
            if self._open is not None or not self._pieces or self._goes_on(held=question.held):
                self._send().end()
                self._open, self._asked_samples = None, self._samples
            pieces = tuple(self._pieces)
            for piece in pieces:
                try:
                    await asyncio.shield(piece.text)
                except asyncio.CancelledError:
                    if piece.text.cancelled():
                        raise JobDropped("closed") from None
                    raise
        whole = reduce(join, (piece.text.result() for piece in pieces))
        if len(pieces) == len(self._pieces):
            self._known = whole
        return whole

    def close(self) -> None:
        """Forget the audio and close the connections; nothing is shown any more."""
        self._say = None
        self._waiting.clear()
        for piece in self._pieces:
            piece.close()

    def _goes_on(self, *, held: bool) -> bool:
        """Whether what came behind the last question may be speech."""
        unheard = self._samples - self._asked_samples
        return self._voiced_samples > self._asked_samples or (held and unheard > MAX_UNHEARD_S * UPLINK_RATE_HZ)

    def _send(self) -> Piece:
        """Send what waits, in a piece that is open."""
        if self._open is None:
            self._known = None
            self._open = self._begin(self._show)
            self._pieces.append(self._open)
        for pcm in self._waiting:
            self._open.feed(pcm)
        self._waiting.clear()
        return self._open

    def _show(self) -> None:
        if self._say is None or not self._partials.on:
            return
        text = reduce(join, (piece.so_far for piece in self._pieces)).text
        if text and text != self._shown:
            self._shown = text
            self._partials.shown += 1
            self._say(text)
