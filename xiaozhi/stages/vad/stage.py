"""The voice activity stage: microphone packets in, utterances out."""

from collections import deque
from typing import Final

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, duration_ms
from xiaozhi.channel import Channel
from xiaozhi.events import KeyReleased, MicInput, SpeechAudio, SpeechBegan, SpeechEvent
from xiaozhi.stages.vad.ear import Ear
from xiaozhi.stages.vad.tick import UplinkTick
from xiaozhi.turn.segmenter import Segmenter

# Packets that a reset overtakes are still decoded; more than this many (5 s) are not worth it.
_OVERTAKEN_MOST: Final = 80
# Doubtful speech takes long to become an onset; its beginning is kept up to this far back.
_ONSET_MOST_MS: Final = 640.0


class VadControl:
    """What a session tells its VAD, on the loop; every word acts at once, whatever audio waits.

    Before the stage runs nothing has been heard, and there is nothing to reset or to close.
    """

    __slots__ = ("_listener", "deaf", "hold")

    def __init__(self) -> None:
        self.deaf = False
        """Audio is decoded, which keeps the decoder in step, and then forgotten."""
        self.hold = False
        """Everything from the next packet on is one utterance, speech or not, until it is closed (push to talk)."""
        self._listener: _Listener | None = None

    def reset(self) -> None:
        """Forget what was heard: the open utterance, what waits to be heard, and what waits to be read."""
        if self._listener is not None:
            self._listener.reset()

    def close_utterance(self) -> None:
        """The open utterance is over: what follows, even audio on its way now, belongs to the next."""
        if self._listener is not None:
            self._listener.close_utterance()

    def _attach(self, listener: "_Listener | None") -> None:
        self._listener = listener


async def run_vad(
    mic: Channel[MicInput],
    speech: Channel[SpeechEvent | KeyReleased],
    tick: UplinkTick,
    ear: Ear,
    segmenter: Segmenter,
    *,
    pre_roll_ms: float,
    control: VadControl,
) -> None:
    """Read packets until `mic` ends; put `SpeechBegan` and then `SpeechAudio` for every step of an utterance.

    An utterance goes on, through silence too, until `control` closes it. `KeyReleased` is passed on behind the audio
    before it. Audio time counts every sample since the connection began, heard or not. `speech` is closed at the end.

    Args:
        mic: packets of 20 to 120 ms.
        speech: where utterances go.
        tick: the shared decoder and model.
        ear: this device's part of it.
        segmenter: finds where speech begins and pauses.
        pre_roll_ms: how much sound from before the first voiced window `SpeechBegan` brings.
        control: what the session says.

    Raises:
        VadError: the model failed.
    """
    listener = _Listener(mic, speech, tick, ear, segmenter, pre_roll_ms, control)
    control._attach(listener)
    try:
        await listener.run()
    finally:
        control._attach(None)
        speech.close()


class _Listener:
    """One run of the stage."""

    def __init__(
        self,
        mic: Channel[MicInput],
        speech: Channel[SpeechEvent | KeyReleased],
        tick: UplinkTick,
        ear: Ear,
        segmenter: Segmenter,
        pre_roll_ms: float,
        control: VadControl,
    ) -> None:
        self._mic = mic
        self._speech = speech
        self._tick = tick
        self._ear = ear
        self._segmenter = segmenter
        self._pre_roll_ms = pre_roll_ms
        self._control = control
        self._overtaken: deque[bytes] = deque(maxlen=_OVERTAKEN_MOST)  # from before a reset: only to be decoded
        self._resets = 0
        self._samples = 0  # since the connection began
        self._afresh = True  # the next judged sample follows nothing
        self._open = False  # SpeechBegan has been put
        self._began_ms = 0.0  # its first sample
        self._recent: deque[PcmFloat] = deque()  # while no utterance is open: what SpeechBegan may bring
        self._recent_samples = 0

    # What the session says ----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget what was heard and what waits; a result under way is dropped when it comes."""
        self._resets += 1
        self._overtaken.extend(item.opus for item in self._mic.drain() if not isinstance(item, KeyReleased))
        self._speech.drain()
        self._start_afresh()

    def close_utterance(self) -> None:
        """Wait for the next onset."""
        self._end_utterance()
        self._segmenter.close()

    def _start_afresh(self) -> None:
        self._afresh = True
        self._ear.forget()
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
            packets: list[bytes] = []
            released: KeyReleased | None = None
            while len(self._mic) and released is None:
                item = await self._mic.get()
                if isinstance(item, KeyReleased):
                    released = item
                else:
                    packets.append(item.opus)
                    self._ear.bare = item.bare
            if packets:
                await self._hear(packets, resets)
            if released is not None and self._resets == resets:
                await self._put(released, resets)

    async def _hear(self, packets: list[bytes], resets: int) -> None:
        if self._overtaken:
            overtaken = list(self._overtaken)
            self._overtaken.clear()
            await self._pass(overtaken)
        if self._is_deaf() or self._resets != resets:
            await self._pass(packets)
            return
        began_ms = self._now_ms
        heard = await self._tick.hear(self._ear, packets)
        self._samples += len(heard.pcm)
        if self._resets != resets:
            return
        if self._is_deaf():  # it was not when the tick began
            self._start_afresh()
            return
        if self._afresh:
            self._afresh = False
            self._segmenter.reset(began_ms)
        await self._follow(heard.pcm, heard.probabilities, resets)

    def _is_deaf(self) -> bool:
        return self._control.deaf

    async def _pass(self, packets: list[bytes]) -> None:
        """Sound that is not listened to: only time passes."""
        heard = await self._tick.hear(self._ear, packets, judge=False)
        self._samples += len(heard.pcm)
        self._start_afresh()

    @property
    def _now_ms(self) -> float:
        return duration_ms(self._samples, UPLINK_RATE_HZ)

    async def _follow(self, pcm: PcmFloat, probabilities: list[float], resets: int) -> None:
        segmenter = self._segmenter
        if self._control.hold and not segmenter.in_speech:
            segmenter.open()
        for probability in probabilities:
            segmenter.feed(probability)
        if self._open:
            # Less than a window waits to be judged; where the last one was silent it counts as silence as well.
            last_voiced_ms = max(segmenter.last_voiced_ms, self._began_ms)
            silence_ms = 0.0 if segmenter.voiced else self._now_ms - last_voiced_ms
            step = SpeechAudio(self._now_ms, pcm, silence_ms, last_voiced_ms, segmenter.doubtful)
            await self._put(step, resets)
            return
        self._keep(pcm)
        if segmenter.in_speech and self._recent_samples:
            await self._put(self._begin(), resets)

    def _keep(self, pcm: PcmFloat) -> None:
        self._recent.append(pcm)
        self._recent_samples += len(pcm)
        most = (self._pre_roll_ms + _ONSET_MOST_MS) * UPLINK_RATE_HZ / 1000.0
        while self._recent_samples - len(self._recent[0]) >= most:
            self._recent_samples -= len(self._recent.popleft())

    def _begin(self) -> SpeechBegan:
        pcm = np.concatenate(self._recent)
        wanted_ms = self._now_ms - (self._segmenter.start_ms - self._pre_roll_ms)
        pcm = pcm[max(0, len(pcm) - round(wanted_ms * UPLINK_RATE_HZ / 1000.0)) :]
        self._end_utterance()
        self._open = True
        self._began_ms = self._now_ms - duration_ms(len(pcm), UPLINK_RATE_HZ)
        return SpeechBegan(self._began_ms, self._now_ms, pcm)

    async def _put(self, event: SpeechEvent | KeyReleased, resets: int) -> None:
        await self._speech.put(event)
        if self._resets != resets:  # said while the channel was full: the event is one of those to forget
            self._speech.drain()
