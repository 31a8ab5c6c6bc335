"""From a device's microphone to words: packets, speech, recognised texts, through bounded channels."""

import asyncio
from typing import Final, TypeAlias

from xiaozhi.audio.echo_canceller import EchoCanceller, SentSound
from xiaozhi.audio.packet_time import packet_ms
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, duration_ms
from xiaozhi.concurrency.channel import HEARD, MICROPHONE, Channel
from xiaozhi.concurrency.workers import Priority, Rank
from xiaozhi.events import KeyReleased, MicInput, MicPacket, SpeechAudio, SpeechBegan, SpeechEvent, SpeechLikely
from xiaozhi.settings import Settings
from xiaozhi.stages.asr.stage import Ask, AsrStage, Ears, PartialText, Recognised
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.stage import VadControl, run_vad
from xiaozhi.turn.decisions import Mic
from xiaozhi.turn.microphone_clock import MicrophoneClock
from xiaozhi.turn.segmenter import Segmenter

# Microphone audio waits at most this long for the VAD; then the oldest is dropped and counted.
_MIC_MS: Final = 2000.0
Heard: TypeAlias = SpeechEvent | SpeechLikely | KeyReleased | Recognised | PartialText
"""What comes of a microphone, in order."""

_ASSUMED_PACKET_MS: Final = 60.0  # of what is empty or no Opus, and of a key: nothing may come for nothing


def _packet_ms(item: MicInput) -> float:
    """How much sound a packet holds: firmware sends 60 ms, desktop clients 20."""
    if isinstance(item, MicPacket) and item.bare:
        return max(1.0, duration_ms(len(item.opus) // 2, UPLINK_RATE_HZ))
    try:
        return _ASSUMED_PACKET_MS if isinstance(item, KeyReleased) else packet_ms(item.opus) * (1 + item.lost)
    except ValueError:
        return _ASSUMED_PACKET_MS


def _heard_ms(item: Heard) -> float:
    """How much sound an item holds, in milliseconds."""
    return len(item.pcm) * 1000.0 / UPLINK_RATE_HZ if isinstance(item, SpeechBegan | SpeechAudio) else 0.0


class SpeechInput:
    """One conversation's way from packets to words.

    Args:
        vad: the shared decoder and model.
        recognition: begins utterances.
        settings: of the moment the device connects.
    """

    def __init__(self, vad: VadBatcher, recognition: Ears, settings: Settings) -> None:
        self._vad = vad
        self._stream = vad.open()
        self._settings = settings
        self._packets: Channel[MicInput] = Channel(_MIC_MS, _packet_ms, drop_oldest=True, kind=MICROPHONE)
        self._control = VadControl(self._packets)
        self._tasks: asyncio.TaskGroup | None = None
        self.heard: Channel[Heard] = Channel(_MIC_MS, _heard_ms, kind=HEARD)
        """What the VAD has found, when the key was released, what was recognised, and what is known meanwhile."""
        self._asr = AsrStage(recognition, self.heard.put_nowait, settings.asr.timeout_s)
        self.unheard = 0
        """Packets since listening ended."""

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Find and recognise speech from now on, in tasks of this group, until they are cancelled."""
        self._tasks = tasks
        tasks.create_task(self._listen(), name="vad")

    async def _listen(self) -> None:
        vad = self._settings.vad
        segmenter = Segmenter(vad.threshold, vad.release_threshold, vad.min_speech_ms)
        try:
            await run_vad(
                self._packets,
                self.heard,
                self._vad,
                self._stream,
                segmenter,
                pre_roll_ms=vad.pre_roll_ms,
                control=self._control,
            )
        finally:
            self._stream.close()
            self._asr.forget()

    def put(self, packet: MicPacket) -> None:
        """Take one packet. Never waits: the oldest is dropped when the VAD cannot keep up."""
        if self._control.mic is Mic.SHUT:
            self.unheard += 1
        self._packets.put_nowait(packet)

    def cancel_echo(self, sent: SentSound) -> None:
        """The device's packets tell which of `sent` they were heard over."""
        self._stream.canceller = EchoCanceller(sent)

    @property
    def clock(self) -> MicrophoneClock:
        """When what is heard was said."""
        return self._control.clock

    @property
    def waiting_ms(self) -> float:
        """Sound that has come and has not been listened to yet."""
        return self._packets.weight

    def key_released(self) -> None:
        """The user released the key; goes behind the audio that came before."""
        self._packets.put_nowait(KeyReleased(self._control.utterance))

    def take_unheard(self) -> int:
        """How many packets have come since listening ended; counted anew from now on."""
        unheard, self.unheard = self.unheard, 0
        return unheard

    def expect(self, utterance: int, mic: Mic, *, afresh: bool, gap_ms: float) -> None:
        """What is open is over; what comes from now on belongs to the utterance of this number.

        Args:
            utterance: its number.
            mic: what sound counts for now.
            afresh: what has come already and was not judged yet is forgotten.
            gap_ms: where no packet has come for so long, silence goes on by the clock.
        """
        if (mic is Mic.SHUT) is not (self._control.mic is Mic.SHUT):
            self.unheard = 0
        self._asr.forget()
        self._control.gap_ms = gap_ms
        self._control.expect(utterance, mic, afresh=afresh)

    def pass_on(self, event: SpeechEvent) -> None:
        """This speech belongs to the open utterance; silence that was not sent is nothing to recognise."""
        if len(event.pcm):
            self._asr.speech(event)

    def recognise(self, ticket: int, rank: Rank, *, probe: bool) -> None:
        """Recognise the open utterance up to here; the answer comes with `ticket`."""
        held = self._control.mic is Mic.HELD
        assert self._tasks is not None
        self._asr.ask(Ask(ticket, Priority.PROBE if probe else Priority.FINAL, rank, held), self._tasks)
