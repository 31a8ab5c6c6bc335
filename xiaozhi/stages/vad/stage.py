"""The voice activity stage: microphone packets in, utterances out."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, duration_ms
from xiaozhi.concurrency.channel import Channel
from xiaozhi.events import KeyReleased, MicInput, MicPacket, SpeechAudio, SpeechBegan, SpeechEvent, SpeechLikely
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.uplink import UplinkStream
from xiaozhi.turn.decisions import Mic
from xiaozhi.turn.gaps import PacketGaps
from xiaozhi.turn.microphone_clock import MicrophoneClock
from xiaozhi.turn.segmenter import Segmenter

# Packets that a reset overtakes are still decoded; more than this many (5 s) are not worth it.
_MAX_OVERTAKEN: Final = 80
# Doubtful speech takes long to become an onset; its beginning is kept up to this far back.
_MAX_ONSET_MS: Final = 640.0
_GAP_MS: Final = 150.0
# Before an onset: a window of this probability among the newest. It costs nobody anything where nothing comes of it.
_LIKELY: Final = 0.5
_LIKELY_WINDOWS: Final = 2
# Silence by the clock is told this often.
_TELL_EVERY_S: Final = 0.03
# A timer that is so late knows that this process stood still, and not whether the device is silent.
_STOOD_STILL_S: Final = 0.05
_NO_SOUND: Final[PcmFloat] = np.empty(0, np.float32)

T = TypeVar("T")


class VadControl:
    """What a session tells its VAD, on the loop; every word acts at once, whatever audio waits.

    Args:
        packets: what the VAD reads.
    """

    __slots__ = ("_listener", "_packets", "clock", "gap_ms", "mic", "utterance")

    def __init__(self, packets: Channel[MicInput]) -> None:
        self._packets = packets
        self.utterance = 0
        """What sound belongs to now."""
        self.mic = Mic.SHUT
        """What it counts for."""
        self.gap_ms = _GAP_MS
        """Where no packet has come for so long in the middle of an utterance, silence goes on by the clock."""
        self.clock = MicrophoneClock()
        """When what is heard was said."""
        self._listener: _Listener | None = None

    def expect(self, utterance: int, mic: Mic, *, afresh: bool = False) -> None:
        """What follows, even audio on its way now, belongs to the next utterance.

        Args:
            utterance: its number.
            mic: what sound counts for now.
            afresh: forget what waits to be heard, what is being heard, and what waits to be read; so it is in any case
                where the microphone is shut now, or was.
        """
        afresh = afresh or (mic is Mic.SHUT) is not (self.mic is Mic.SHUT)
        self.utterance, self.mic = utterance, mic
        if self._listener is not None:
            self._listener.close_utterance(afresh=afresh)
        elif afresh:  # the stage has not begun: there is no decoder yet that must be kept in step
            _drop_sound(self._packets)

    def _attach(self, listener: "_Listener | None") -> None:
        self._listener = listener


async def run_vad(
    mic: Channel[MicInput],
    speech: Channel[Any],
    batcher: VadBatcher,
    stream: UplinkStream,
    segmenter: Segmenter,
    *,
    pre_roll_ms: float,
    control: VadControl,
) -> None:
    """Read packets until `mic` ends; put `SpeechBegan` and then `SpeechAudio` for every step of an utterance.

    `SpeechLikely` goes ahead where the newest sound may be the beginning of one.

    An utterance goes on, through silence too, until `control` expects the next: it has the number that was expected
    when it began. `KeyReleased` is passed on behind the audio before it. Audio time counts every sample since the
    connection began, heard or not; where none comes in the middle of an utterance, `SpeechAudio` without sound tells
    how silent it is by the clock. `speech` is closed at the end.

    Args:
        mic: packets of 20 to 120 ms.
        speech: where utterances go: `SpeechEvent` and `KeyReleased`; other things may be on their way in it.
        batcher: the shared decoder and model.
        stream: this device's part of it.
        segmenter: finds where speech begins and pauses.
        pre_roll_ms: how much sound from before the first voiced window `SpeechBegan` brings.
        control: what the session says.

    Raises:
        VadError: the model failed.
    """
    listener = _Listener(mic, speech, batcher, stream, segmenter, pre_roll_ms, control)
    control._attach(listener)
    try:
        await listener.run()
    finally:
        control._attach(None)
        listener.close()
        speech.close()


class _Listener:
    """One run of the stage."""

    def __init__(
        self,
        mic: Channel[MicInput],
        speech: Channel[Any],
        batcher: VadBatcher,
        stream: UplinkStream,
        segmenter: Segmenter,
        pre_roll_ms: float,
        control: VadControl,
    ) -> None:
        self._mic = mic
        self._speech = speech
        self._batcher = batcher
        self._stream = stream
        self._segmenter = segmenter
        self._pre_roll_ms = pre_roll_ms
        self._control = control
        self._overtaken: deque[bytes] = deque(maxlen=_MAX_OVERTAKEN)  # from before a reset: only to be decoded
        self._resets = 0
        self._samples = 0  # since the connection began
        self._afresh = True  # the next judged sample follows nothing
        self._open = False  # SpeechBegan has been put
        self._began_ms = 0.0  # its first sample
        self._loop = asyncio.get_running_loop()
        self._gaps = PacketGaps(control.gap_ms)
        self._hearing = False  # packets that have come are being judged
        self._timer: asyncio.TimerHandle | None = None
        self._recent: deque[PcmFloat] = deque()  # while no utterance is open: what SpeechBegan may bring
        self._recent_samples = 0

    # What the session says ----------------------------------------------------------------------------------------

    def close_utterance(self, *, afresh: bool) -> None:
        """Wait for the next onset; `afresh`: in what comes from now on, so that a result under way is dropped."""
        self._gaps.gap_ms = self._control.gap_ms
        if afresh:
            self._resets += 1
            self._overtaken.extend(item.opus for item in _drop_sound(self._mic) if isinstance(item, MicPacket))
            _drop_sound(self._speech)
            self._start_afresh()
        else:
            self._end_utterance()
            self._segmenter.close()
        self._gaps.restart()

    def close(self) -> None:
        """The microphone is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _start_afresh(self) -> None:
        self._afresh = True
        self._stream.forget()
        self._gaps.forget()
        self._end_utterance()

    def _end_utterance(self) -> None:
        self._open = False
        self._recent.clear()
        self._recent_samples = 0

    # What the microphone brings -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until the microphone ends."""
        while await self._mic.peek() is not None:
            resets = self._resets
            packets: list[bytes | None] = []
            timestamps: list[int] = []
            released: KeyReleased | None = None
            while len(self._mic) and released is None:
                item = await self._mic.get()
                if isinstance(item, KeyReleased):
                    released = item
                else:
                    packets += [None] * item.lost
                    packets.append(item.opus)
                    timestamps += [0] * item.lost
                    timestamps.append(item.timestamp_ms)
                    self._stream.bare = item.bare
            if packets:
                await self._hear(packets, timestamps, resets)
            if released is not None:
                await self._speech.put(released)

    async def _hear(self, packets: Sequence[bytes | None], timestamps: Sequence[int], resets: int) -> None:
        if self._overtaken:
            overtaken = list(self._overtaken)
            self._overtaken.clear()
            await self._pass(overtaken)
        if self._control.mic is Mic.SHUT or self._resets != resets:
            await self._pass(packets)
            return
        began_ms, came_ms = self._now_ms, self._loop.time() * 1000.0
        self._hearing = True
        self._stream.timestamps_ms = timestamps
        try:
            heard = await self._batcher.hear(self._stream, packets)
        finally:
            self._hearing = False
        self._samples += len(heard.pcm)
        self._control.clock.came(self._now_ms, came_ms)
        if self._resets != resets:
            return
        self._gaps.packets(duration_ms(len(heard.pcm), UPLINK_RATE_HZ), came_ms, open_utterance=self._open)
        if self._afresh:
            self._afresh = False
            self._segmenter.reset(began_ms)
        await self._follow(heard.pcm, heard.probabilities, resets)

    async def _pass(self, packets: Sequence[bytes | None]) -> None:
        """Sound that is not listened to: only time passes."""
        came_ms = self._loop.time() * 1000.0
        heard = await self._batcher.hear(self._stream, packets, judge=False)
        self._samples += len(heard.pcm)
        self._control.clock.came(self._now_ms, came_ms)
        self._start_afresh()

    @property
    def _now_ms(self) -> float:
        return duration_ms(self._samples, UPLINK_RATE_HZ)

    async def _follow(self, pcm: PcmFloat, probabilities: list[float], resets: int) -> None:
        segmenter = self._segmenter
        if self._control.mic is Mic.HELD and not segmenter.in_speech:
            segmenter.open()
        voiced_ms = segmenter.last_voiced_ms
        for probability in probabilities:
            segmenter.feed(probability)
        if segmenter.last_voiced_ms > voiced_ms:
            self._gaps.restart()
        if self._open:
            await self._put(self._step(pcm), resets)
            return
        self._keep(pcm)
        if segmenter.in_speech and self._recent_samples:
            await self._put(self._begin(), resets)
            self._watch(self._gaps.min_ms / 1000.0)
        elif max(probabilities[-_LIKELY_WINDOWS:], default=0.0) >= _LIKELY:
            await self._put(SpeechLikely(self._control.utterance), resets)

    def _step(self, pcm: PcmFloat) -> SpeechAudio:
        """How the open utterance goes on, with this sound."""
        segmenter = self._segmenter
        # Less than a window waits to be judged; where the last one was silent it counts as silence as well.
        last_voiced_ms = max(segmenter.last_voiced_ms, self._began_ms)
        heard_ms = 0.0 if segmenter.voiced else self._now_ms - last_voiced_ms
        unsent_ms, doubtful = 0.0, False
        if self._control.mic is not Mic.HELD:  # who holds a key says when it is over
            unsent_ms, doubtful = self._gaps.unsent_ms(self._loop.time() * 1000.0, faded=segmenter.fading)
        doubtful = doubtful or segmenter.doubtful
        return SpeechAudio(
            self._control.utterance,
            self._now_ms,
            pcm,
            silence_ms=heard_ms + unsent_ms,
            last_voiced_ms=last_voiced_ms,
            doubtful=doubtful,
            unsent_ms=unsent_ms,
            certain=segmenter.certain,
        )

    # What it does not bring ---------------------------------------------------------------------------------------

    def _watch(self, after_s: float) -> None:
        """Look after the open utterance in a while, unless somebody looks anyway."""
        if self._timer is None and self._open and self._control.mic is not Mic.HELD:
            self._timer = self._loop.call_later(after_s, self._look, self._loop.time() + after_s)

    def _look(self, due_s: float) -> None:
        """Tell how silent the open utterance is, where nothing comes."""
        self._timer = None
        now_s = self._loop.time()
        gap_s = self._gaps.min_ms / 1000.0
        silent_s = self._gaps.silent_for_ms(now_s * 1000.0) / 1000.0
        if self._hearing or len(self._mic) or now_s - due_s > _STOOD_STILL_S:
            self._watch(_STOOD_STILL_S)
        elif silent_s < gap_s:
            self._watch(gap_s - silent_s)
        else:
            if self._open and not len(self._speech):  # else its reader is behind
                self._speech.put_nowait(self._step(_NO_SOUND))
            self._watch(_TELL_EVERY_S)

    def _keep(self, pcm: PcmFloat) -> None:
        self._recent.append(pcm)
        self._recent_samples += len(pcm)
        most = (self._pre_roll_ms + _MAX_ONSET_MS) * UPLINK_RATE_HZ / 1000.0
        while self._recent_samples - len(self._recent[0]) >= most:
            self._recent_samples -= len(self._recent.popleft())

    def _begin(self) -> SpeechBegan:
        pcm = np.concatenate(self._recent)
        wanted_ms = self._now_ms - (self._segmenter.start_ms - self._pre_roll_ms)
        first = max(0, len(pcm) - round(wanted_ms * UPLINK_RATE_HZ / 1000.0))
        before, pcm = pcm[:first], pcm[first:]
        self._end_utterance()
        self._open = True
        self._began_ms = self._now_ms - duration_ms(len(pcm), UPLINK_RATE_HZ)
        pre_roll_ms = max(0.0, self._segmenter.start_ms - self._began_ms)
        return SpeechBegan(self._control.utterance, self._began_ms, self._now_ms, pcm, pre_roll_ms, before)

    async def _put(self, event: SpeechEvent | SpeechLikely, resets: int) -> None:
        await self._speech.put(event)
        if self._resets != resets:  # said while the channel was full: the event is one of those to forget
            _drop_sound(self._speech)


def _drop_sound(channel: Channel[T]) -> list[T]:
    """Take out the sound that waits; a key that has been released stays released, and what was recognised is known."""
    items = channel.drain()
    for item in items:
        if not isinstance(item, MicPacket | SpeechBegan | SpeechAudio):
            channel.put_nowait(item)
    return items
