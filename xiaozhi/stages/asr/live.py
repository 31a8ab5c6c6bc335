"""Recognisers on other machines that are sent sound while somebody speaks.

One stream of the service carries one stretch of speech: our soft end asks for its last text and so ends it. Soft ends
are early (0.1 to 0.2 s of silence), so that people often go on behind one, and mostly within a sentence or a word. What
they have said since the last real pause is then sent again with what follows, because texts of torn words cannot be
joined; behind a real pause only what is new is sent, and its text joined to the one that is known.
"""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import JobDropped, Priority
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript, join
from xiaozhi.stages.asr.offline import EARLY_SILENCE_MS, MAX_UNHEARD_S
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.remote import to_text
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse

Heard: TypeAlias = Callable[[str], None]
"""Takes the whole text of a stream so far."""
_Show: TypeAlias = Callable[[str, bool], None]  # that, and whether it is news

# Between two words there is less, between two sentences mostly more.
_REAL_PAUSE_MS: Final = 400.0
# Whoever speaks over a reply is asked about every 0.3 s; a service has its first text after 0.3 to 0.6 s of speech.
_FIRST_TEXT_S: Final = 0.5


class LiveRecognizer(Recognizer):
    """The base of engines whose service takes sound as it comes; they have to write `converse` alone.

    Args:
        settings: limits.

    Attributes:
        piece_ms: of sound that the service likes to get at once.
    """

    remote: RemoteUse
    piece_ms = 100

    def __init__(self, settings: RemoteAsrSettings) -> None:
        self.remote = RemoteUse(self.name, settings)
        self.streams = 0
        """Open now."""

    @property
    def piece_bytes(self) -> int:
        """The size of a whole piece."""
        return self.piece_ms * UPLINK_RATE_HZ // 1000 * 2

    @property
    def full(self) -> bool:
        """There is no room for another stream."""
        return self.streams >= self.remote.settings.max_concurrent

    @abstractmethod
    async def converse(self, sound: AsyncIterator[bytes], heard: Heard) -> str:
        """Recognise one stream: open it, send all sound, ask for the last text and return it. Cancelling closes it.

        Args:
            sound: int16 little-endian at 16 kHz in pieces of `piece_ms`, the last one shorter; ends at the soft end.
            heard: to be called with the whole text of this stream so far.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance."""
        return LiveUtterance(self, decoding, say)

    def may_stream(self) -> bool:
        """Whether a stream can be opened without being asked for a text: the service is well and has room."""
        return not self.full and self.remote.breaker.would_admit(self.remote.clock())


class LiveUtterance:
    """Sends the utterance while it is spoken.

    Args:
        engine: the recogniser.
        decoding: whether texts are shown while it goes on.
        say: takes them; None where nobody wants any.
    """

    def __init__(self, engine: LiveRecognizer, decoding: Decoding, say: Say | None) -> None:
        self._engine, self._partials, self._say = engine, decoding.partials, say
        self._chunks: list[PcmFloat] = []  # since the last real pause that the service was asked at
        self._before = Transcript("")  # what was said up to there
        self._samples = self._voiced_samples = 0  # all of them; up to the last voiced one
        self._silence_ms = 0.0
        self._settled = ""  # the last text that was said to be settled
        self._stream: _Stream | None = None

    @property
    def ready(self) -> bool:
        """The last text is there, and nothing voiced has followed."""
        stream = self._stream
        return stream is not None and stream.text is not None and self._covers(stream, held=False)

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add sound and send it, unless the service was asked already and this is only more silence."""
        stream = self._stream
        self._samples += len(pcm)
        before, self._voiced_samples = (
            self._voiced_samples,
            max(self._voiced_samples, self._samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)),
        )
        if stream is not None and stream.ended and not stream.failed and self._voiced_samples > before:
            self._go_on(stream)
        self._silence_ms = silence_ms
        self._chunks.append(pcm)
        too_long = self._samples > self._engine.remote.settings.max_audio_s * UPLINK_RATE_HZ
        if self._stream is not None and (self._stream.ended or not too_long):
            self._stream.send(pcm)
        elif too_long:
            self._give_up()
        elif self._engine.may_stream():
            self._begin()

    def _covers(self, stream: "_Stream", *, held: bool) -> bool:
        """Whether the text that a stream was asked for has all that may be speech."""
        if not stream.ended or stream.asked_samples < self._voiced_samples:
            return False
        return not held or self._samples - stream.asked_samples <= MAX_UNHEARD_S * UPLINK_RATE_HZ

    async def transcribe(self, question: Question) -> Transcript:
        """Ask for the last text; a text that has all words but is not the last one comes first, as provisional.

        A probe wants to know only whether words are said: the text so far answers it, and the stream goes on.

        Raises:
            RemoteError: the stream failed; or, without a text, there is no room for one.
        """
        if not self._samples:
            return Transcript("")
        if self._stream is None and self._engine.full:
            raise RemoteError
        async with self._engine.remote.request(self._samples):
            if question.priority is Priority.PROBE and self._silence_ms < EARLY_SILENCE_MS:
                return await self._so_far()
            stream = self._working()
            if stream.ended and not self._covers(stream, held=question.held):
                self._go_on(stream)
                stream = self._begin()
            before = self._before
            if not stream.ended:
                stream.end(self._samples)
                if stream.partial and stream.partial_samples >= self._voiced_samples - stream.from_samples:
                    question.provisional(join(before, self._text(stream.partial)))
            return join(before, self._text(await stream.last_text()))

    async def _so_far(self) -> Transcript:
        """The text up to here, waiting a little for the first one."""
        stream = self._working()
        if not self._before.text and not stream.partial:
            await stream.first_text(_FIRST_TEXT_S)
        return join(self._before, self._text(stream.partial))

    def _working(self) -> "_Stream":
        """The stream, opened now where there is none.

        Raises:
            RemoteError: it has failed, which is said once.
        """
        stream = self._stream
        if stream is not None and stream.failed:
            self._stream = None
            raise stream.error
        return stream or self._begin()

    def _text(self, text: str) -> Transcript:
        return to_text(text, self._engine.name, self._engine.remote.settings.max_text_chars)

    def _begin(self) -> "_Stream":
        """Open a stream for what is kept."""
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        self._stream = _Stream(self._engine, self._show, self._samples - sum(map(len, self._chunks)))
        for pcm in self._chunks:
            self._stream.send(pcm)
        return self._stream

    def _go_on(self, stream: "_Stream") -> None:
        """The stream was asked for its last text, and that is not the end."""
        if stream.text is not None and self._silence_ms >= _REAL_PAUSE_MS:
            self._before = join(self._before, self._text(stream.text))
            kept = np.concatenate(self._chunks)[stream.asked_samples - stream.from_samples :]
            self._chunks = [kept] if len(kept) else []
        self._give_up()

    def _show(self, text: str, news: bool) -> None:
        whole, stream = join(self._before, self._text(text)), self._stream
        settled = (
            self._silence_ms >= EARLY_SILENCE_MS
            and stream is not None
            and stream.partial_samples >= self._voiced_samples - stream.from_samples
            and whole.text != self._settled
        )
        shown = news and self._partials.on
        if self._say is not None and (settled or shown):
            self._partials.shown += shown
            self._settled = whole.text if settled else self._settled
            self._say(whole.text, whole) if settled else self._say(whole.text)

    def _give_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        """Forget the audio and close the stream."""
        self._say = None
        self._chunks.clear()
        self._samples = self._voiced_samples = 0
        self._give_up()


class _Stream:
    """One stream of a service.

    Args:
        engine: the recogniser.
        show: takes the text so far.
        from_samples: where in the utterance it begins.
    """

    def __init__(self, engine: LiveRecognizer, show: _Show, from_samples: int) -> None:
        self._engine, self._show = engine, show
        self.from_samples = from_samples
        self.asked_samples = 0  # of the utterance, when the last text was asked for
        self.ended = False  # it was asked for
        self.partial = ""
        self.partial_samples = 0  # of this stream, sent when that came
        self._sent_samples = 0
        self._partial_came = asyncio.Event()
        self._up: Channel[PcmFloat] = Channel(float("inf"))
        engine.streams += 1
        self._talking = asyncio.get_running_loop().create_task(self._talk(), name=f"asr-{engine.name}")
        self._talking.add_done_callback(self._over)

    @property
    def text(self) -> str | None:
        """The last text; None while it is not known."""
        talking = self._talking
        known = talking.done() and not talking.cancelled() and talking.exception() is None
        return talking.result() if known else None

    @property
    def failed(self) -> bool:
        """There will be no last text."""
        return self._talking.done() and self.text is None

    @property
    def error(self) -> BaseException:
        """Why it has failed."""
        talking = self._talking
        return (None if talking.cancelled() else talking.exception()) or RemoteError(f"{self._engine.name}: given up")

    def send(self, pcm: PcmFloat) -> None:
        """Send more, unless the last text was asked for."""
        if not self.ended:
            self._up.put_nowait(pcm)

    def end(self, asked_samples: int) -> None:
        """Ask for the last text."""
        self.ended, self.asked_samples = True, asked_samples
        self._up.close()

    async def last_text(self) -> str:
        """Wait for it; whoever is cancelled while waiting leaves it to others.

        Raises:
            JobDropped: the stream was given up.
            RemoteError: it failed.
        """
        try:
            return await asyncio.shield(self._talking)
        except asyncio.CancelledError:
            if self._talking.cancelled():
                raise JobDropped("overtaken") from None
            raise

    async def first_text(self, timeout_s: float) -> None:
        """Wait until there is any, the stream has ended, or so many seconds have passed.

        Raises:
            RemoteError: it failed.
        """
        waiting = asyncio.ensure_future(self._partial_came.wait())
        try:
            await asyncio.wait((waiting, self._talking), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self.failed:
            raise self.error

    def close(self) -> None:
        """Close it at once; nothing is shown any more."""
        self._show = _nobody
        self._talking.cancel()

    async def _talk(self) -> str:
        async with aclosing(self._pieces()) as sound:
            self.partial = text = await self._engine.converse(sound, self._heard)
        return text

    def _heard(self, text: str) -> None:
        if text:
            news, self.partial, self.partial_samples = text != self.partial, text, self._sent_samples
            self._partial_came.set()
            self._show(text, news)

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        size = self._engine.piece_bytes
        waiting = bytearray()
        async for pcm in self._up:
            waiting += to_int16(pcm).astype("<i2", copy=False).tobytes()
            while len(waiting) >= size:
                self._sent_samples += size // 2
                yield bytes(waiting[:size])
                del waiting[:size]
        if waiting:
            self._sent_samples += len(waiting) // 2
            yield bytes(waiting)

    def _over(self, talking: asyncio.Task[str]) -> None:
        self._engine.streams -= 1
        if not self.ended:  # by the service
            self.end(self.from_samples + self._sent_samples)
        if not talking.cancelled():
            talking.exception()  # perhaps nobody waits for it


def _nobody(_text: str, _news: bool) -> None:
    """Nobody wants it."""
