"""Recognisers on other machines that are sent sound while somebody speaks.

One stream of the service carries one stretch of speech: our soft end asks for its last text and so ends it. Soft ends
are early (0.1 to 0.2 s of silence), so that people often go on behind one, and mostly within a sentence or a word. What
they have said since the last real pause is then sent again with what follows, because texts of torn words cannot be
joined; behind a real pause only what is new is sent, and its text joined to those before. So it is where a service
takes sound so slowly that sending all of it again would be waited for.
"""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import reduce
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.concurrency.workers import JobDropped, Priority
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript, join
from xiaozhi.stages.asr.offline import EARLY_SILENCE_MS, MAX_UNHEARD_S
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.remote import to_text
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse

T = TypeVar("T")

Heard: TypeAlias = Callable[[str], None]
"""Takes the whole text of a stream so far."""
_Show: TypeAlias = Callable[[bool], None]  # there is a text, and whether it is news

# Between two words there is less, between two sentences mostly more.
_REAL_PAUSE_MS: Final = 400.0
# Whoever speaks over a reply is asked about every 0.3 s; a service has its first text after 0.3 to 0.6 s of speech.
_FIRST_TEXT_S: Final = 0.5
# The longest time that sending a stream again may take.
_MAX_RESEND_S: Final = 1.0
# Of one stream: ten in a second for as long as `asr.remote.max_audio_s` may be.
_MAX_PARTIALS: Final = 6000


class Sound:
    """The sound of one stream as it comes: int16 little-endian at 16 kHz in pieces of one size, the last one shorter.

    Args:
        piece_bytes: of a whole piece.
    """

    def __init__(self, piece_bytes: int) -> None:
        self.taken_samples = 0
        """In the pieces so far."""
        self.voiced_samples = 0
        """What lies behind so many of its samples is silence; known when it has ended."""
        self._piece_bytes = piece_bytes
        self._rest = bytearray()
        self._waiting: Channel[PcmFloat] = Channel(float("inf"))  # `asr.remote.max_audio_s` bounds it

    def put(self, pcm: PcmFloat) -> None:
        """Add float32[n]; not behind the end."""
        self._waiting.put_nowait(pcm)

    def end(self, voiced_samples: int) -> None:
        """That was all."""
        self.voiced_samples = voiced_samples
        self._waiting.close()

    def __aiter__(self) -> "Sound":
        """It is read once."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece."""
        try:
            while len(self._rest) < self._piece_bytes:
                self._rest += to_int16(await self._waiting.get()).astype("<i2", copy=False).tobytes()
        except ChannelClosed:
            if not self._rest:
                raise StopAsyncIteration from None
        piece = bytes(self._rest[: self._piece_bytes])
        del self._rest[: self._piece_bytes]
        self.taken_samples += len(piece) // 2
        return piece


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Have something done beside what is done within; what is not done by then is given up."""
    task = asyncio.create_task(work, name="asr-live")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class LiveRecognizer(Recognizer):
    """The base of engines whose service takes sound as it comes; they have to write `converse` alone.

    Args:
        settings: limits.

    Attributes:
        piece_ms: of sound that the service likes to get at once.
        catch_up: how many times faster than it is spoken the service takes sound.
        tells_partials: there are texts before the last one.
    """

    remote: RemoteUse
    piece_ms = 100
    catch_up = float("inf")
    tells_partials = True

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
    async def converse(self, sound: Sound, heard: Heard) -> str:
        """Recognise one stream: open it, send all sound, ask for the last text and return it. Cancelling closes it.

        Args:
            sound: in pieces of `piece_ms`; ends at the soft end.
            heard: to be called with the whole text of this stream so far; raises RemoteError where that has no end.

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
        self._former: list[_Stream] = []  # each asked for its last text, and not to be sent again
        self._chunks: list[PcmFloat] = []  # since the last of them
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
        voiced_samples = self._samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)
        self._voiced_samples = max(self._voiced_samples, voiced_samples)
        if stream is not None and stream.ended and not stream.failed and not self._covers(stream, held=False):
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
        stream = self._stream
        if stream is not None and stream.text is not None and self._covers(stream, held=question.held):
            return self._whole(stream)
        if not self._samples:
            return Transcript("")
        if stream is None and self._engine.full:
            raise RemoteError
        async with self._engine.remote.request(self._samples):
            probe = question.priority is Priority.PROBE and self._engine.tells_partials
            if probe and self._silence_ms < EARLY_SILENCE_MS:
                return await self._so_far()
            stream = self._working()
            if stream.ended and not self._covers(stream, held=question.held):
                self._go_on(stream)
                stream = self._begin()
            if not stream.ended:
                voiced_samples = self._samples if question.held else self._voiced_samples
                stream.end(self._samples, voiced_samples - stream.from_samples)
                known = all(each.text is not None for each in self._former)
                if known and stream.partial and stream.partial_samples >= self._voiced_samples - stream.from_samples:
                    question.provisional(self._whole(stream))
            streams = (*self._former, stream)
            return reduce(join, [self._text(await each.last_text()) for each in streams])

    async def _so_far(self) -> Transcript:
        """The text up to here, waiting a little for the first one."""
        stream = self._working()
        if not self._whole(stream).text:
            await stream.first_text(_FIRST_TEXT_S)
        return self._whole(stream)

    def _whole(self, stream: "_Stream") -> Transcript:
        """What is known of the utterance, which this stream ends."""
        return reduce(join, [self._text(each.partial) for each in (*self._former, stream)])

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
        resend_s = (self._samples - stream.from_samples) / UPLINK_RATE_HZ / self._engine.catch_up
        if self._silence_ms < _REAL_PAUSE_MS and resend_s <= _MAX_RESEND_S:
            self._give_up()
            return
        self._former.append(stream)
        self._stream = None
        kept = np.concatenate(self._chunks)[stream.asked_samples - stream.from_samples :]
        self._chunks = [kept] if len(kept) else []

    def _show(self, news: bool) -> None:
        stream = self._stream
        if self._say is None or stream is None:
            return
        whole = self._whole(stream)
        settled = (
            self._silence_ms >= EARLY_SILENCE_MS
            and all(each.text is not None for each in self._former)
            and stream.partial_samples >= self._voiced_samples - stream.from_samples
            and whole.text != self._settled
        )
        shown = news and self._partials.on
        if settled or shown:
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
        for stream in self._former:
            stream.close()


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
        self._partials = 0
        self._partial_came = asyncio.Event()
        self._sound = Sound(engine.piece_bytes)
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
            self._sound.put(pcm)

    def end(self, asked_samples: int, voiced_samples: int) -> None:
        """Ask for the last text.

        Args:
            asked_samples: of the utterance up to here.
            voiced_samples: of this stream; what follows them is silence.
        """
        self.ended, self.asked_samples = True, asked_samples
        self._sound.end(voiced_samples)

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
        self.partial = text = await self._engine.converse(self._sound, self._heard)
        return text

    def _heard(self, text: str) -> None:
        self._partials += 1
        if self._partials > _MAX_PARTIALS or len(text) > 2 * self._engine.remote.settings.max_text_chars:
            raise RemoteError(f"{self._engine.name}: sends without an end")
        if text:
            news, self.partial, self.partial_samples = text != self.partial, text, self._sound.taken_samples
            self._partial_came.set()
            self._show(news)

    def _over(self, talking: asyncio.Task[str]) -> None:
        self._engine.streams -= 1
        if not self.ended:  # by the service
            self.end(self.from_samples + self._sound.taken_samples, self._sound.taken_samples)
        if not talking.cancelled():
            talking.exception()  # perhaps nobody waits for it


def _nobody(_news: bool) -> None:
    """Nobody wants it."""
