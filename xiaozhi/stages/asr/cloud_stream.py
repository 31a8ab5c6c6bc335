"""Recognisers on other machines that take sound while somebody speaks."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import JobDropped
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.offline import MAX_UNHEARD_S
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.remote import to_text
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse
from xiaozhi.upstream.breaker import BreakerState

_CJK_BEGIN: Final = "\u2e80"
# Of one stretch: ten in a second for as long as `asr.remote.max_audio_s` may be.
_MAX_PARTIALS: Final = 6000


class CloudRecognizer(Recognizer):
    """The base of engines that stream to a service; they have to write `stream` alone.

    Args:
        settings: limits; `max_concurrent` holds for utterances that are sent while they go on as well.
    """

    remote: RemoteUse

    def __init__(self, settings: RemoteAsrSettings) -> None:
        self.remote = RemoteUse(self.name, settings)
        self.streams = 0
        """Stretches of speech that are being sent or waited for."""

    @abstractmethod
    async def stream(self, audio: Channel[bytes], say: Callable[[str], None]) -> str:
        """Send sound as it comes, and return its whole text when it has ended. Cancelling gives it up at once.

        Args:
            audio: s16le at 16 kHz in pieces of any whole number of samples; the service is asked for the last text
                when it ends.
            say: takes the text so far; raises RemoteError where that has no end.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """

    @property
    def ahead(self) -> bool:
        """Whether sound may be sent before somebody asks."""
        use = self.remote
        return use.breaker.state(use.clock()) is BreakerState.CLOSED and self.streams < use.settings.max_concurrent

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance."""
        return CloudUtterance(self, decoding, say)


class _Stretch:
    """Speech up to a question, on its way through the service."""

    def __init__(self, engine: CloudRecognizer, show: Callable[[], None]) -> None:
        self.audio: Channel[bytes] = Channel(float("inf"))  # `asr.remote.max_audio_s` bounds it
        self.text = ""
        self._partials = 0
        self._engine, self._show = engine, show
        self.task = asyncio.create_task(self._run(), name="asr-cloud")
        self.task.add_done_callback(_look)

    async def _run(self) -> str:
        self._engine.streams += 1
        try:
            self.text = await self._engine.stream(self.audio, self._say)
            return self.text
        finally:
            self._engine.streams -= 1

    def _say(self, text: str) -> None:
        self._partials += 1
        if self._partials > _MAX_PARTIALS or len(text) > 2 * self._engine.remote.settings.max_text_chars:
            raise RemoteError(f"{self._engine.name}: sends without an end")
        if text != self.text:
            self.text = text
            self._show()


class CloudUtterance:
    """Sends the utterance up as it comes. A question ends a stretch of it, and is answered by the texts of all.

    The service's text of a stretch is final, so what is said behind a question goes up as another stretch, from its
    first voiced piece on, with the silence before it. While the service rests nothing is sent before somebody asks.

    Args:
        engine: the recogniser.
        decoding: whether texts are shown.
        say: takes the text so far; None where nobody wants it.
    """

    def __init__(self, engine: CloudRecognizer, decoding: Decoding, say: Say | None = None) -> None:
        self._engine, self._partials, self._say = engine, decoding.partials, say
        self._stretches: list[_Stretch] = []
        self._waiting: list[bytes] = []  # behind the last stretch
        self._waiting_samples = 0
        self._voiced = False  # something of what waits
        self._samples = 0

    @property
    def ready(self) -> bool:
        """The text of all that was voiced is there."""
        return bool(self._stretches) and not self._voiced and all(_is_known(each) for each in self._stretches)

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio and have it sent."""
        self._samples += len(pcm)
        if self._samples > self._engine.remote.settings.max_audio_s * UPLINK_RATE_HZ:
            self.close()  # a question will be refused
            return
        data = to_int16(pcm).astype("<i2", copy=False).tobytes()
        if self._stretches and not self._stretches[-1].audio.closed:
            self._stretches[-1].audio.put_nowait(data)
            return
        self._waiting.append(data)
        self._waiting_samples += len(pcm)
        self._voiced = self._voiced or silence_ms * UPLINK_RATE_HZ / 1000.0 < self._waiting_samples
        if self._voiced and self._engine.ahead:
            self._begin()

    async def transcribe(self, question: Question) -> Transcript:
        """Ask for the last text, unless it is known; nothing is provisional.

        Raises:
            JobDropped: the utterance was closed meanwhile.
            RemoteError: the service failed, now or while it was sent the sound.
        """
        if not self._samples:
            return Transcript("")
        if self._stretches and not self._stretches[-1].audio.closed:
            self._stretches[-1].audio.close()
        unheard = question.held and self._waiting_samples > MAX_UNHEARD_S * UPLINK_RATE_HZ
        if self.ready and not unheard:
            return self._transcript()
        async with self._engine.remote.request(self._samples):
            if self._voiced or unheard or not self._stretches:
                self._begin()
                self._stretches[-1].audio.close()
            for stretch in tuple(self._stretches):
                try:
                    await asyncio.shield(stretch.task)
                except asyncio.CancelledError:
                    if stretch.task.cancelled():
                        raise JobDropped("given up") from None
                    raise
        return self._transcript()

    def close(self) -> None:
        """Forget the audio, give up what is under way and show nothing any more."""
        self._say = None
        self._waiting.clear()
        for stretch in self._stretches:
            stretch.task.cancel()

    def _begin(self) -> None:
        stretch = _Stretch(self._engine, self._show)
        for data in self._waiting:
            stretch.audio.put_nowait(data)
        self._waiting.clear()
        self._waiting_samples, self._voiced = 0, False
        self._stretches.append(stretch)

    def _transcript(self) -> Transcript:
        return to_text(self._text(), self._engine.name, self._engine.remote.settings.max_text_chars)

    def _text(self) -> str:
        text = ""
        for stretch in self._stretches:
            text = glued(text, stretch.text)
        return text

    def _show(self) -> None:
        if self._say is not None and self._partials.on and (text := self._text()):
            self._partials.shown += 1
            self._say(text[: self._engine.remote.settings.max_text_chars])


def glued(first: str, second: str) -> str:
    """Two sentences behind each other, with a blank between them where they are not Chinese or Japanese."""
    blank = first and second and first[-1] < _CJK_BEGIN and second[0] < _CJK_BEGIN
    return f"{first} {second}" if blank and not first[-1].isspace() and not second[0].isspace() else first + second


def _is_known(stretch: _Stretch) -> bool:
    return stretch.task.done() and not stretch.task.cancelled() and stretch.task.exception() is None


def _look(task: asyncio.Task[str]) -> None:
    """Look at the exception of a stretch that perhaps nobody asks for."""
    if not task.cancelled():
        task.exception()
