"""Keeps what a device says from being taken for its user, where its microphone hears its own loudspeaker."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

import numpy as np

from xiaozhi.audio.echo_likeness import MIN_SAMPLES, OWN, Echoes, likeness, own_until
from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, duration_ms
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
from xiaozhi.events import SpeechBegan, SpeechEvent
from xiaozhi.turn.microphone_clock import MicrophoneClock

_log = logging.getLogger(__name__)

_COMPARED_MS: Final = 700.0
# An echo is heard up to so long after it was to be played: what waits in the device, the network both ways, the room.
_MAX_LATE_MS: Final = 1000.0
# A user is let through from so far back: found after two looks, a little of the echo before the first word included.
_KEPT_MS: Final = 900.0
# Nothing is compared more often: a look costs 3 to 5 ms of a worker thread.
_LOOK_EVERY_MS: Final = 100.0
# What has been the device's own sound until now is somebody else's after so many looks: one in 70 is wrong. What has
# been somebody's is the device's own after as many.
_SURE_AFTER: Final = 2
# Somebody may be speaking, and goes on unheard: only a voice that has less than this to say goes before it.
_NEEDED_S: Final = 0.1
# Where the echo in front of a word ends is known to within 60 ms (measured, half of them earlier), and a user who is
# let through has spoken for so long at least.
_BEFORE_WORD_MS: Final = 60.0
_MIN_KEPT_MS: Final = 250.0


class Echo(Enum):
    """What the device hears of itself."""

    SOUNDS = "sounds"
    OVER = "over"  # what began with it was nobody's utterance


@dataclass(frozen=True, slots=True)
class PlayedPacket:
    """An Opus packet that is played from `at_ms` on, of the wall clock in milliseconds, for `duration_ms`."""

    at_ms: float
    duration_ms: float
    opus: bytes


class EchoGuard:
    """Holds speech back for as long as it sounds like what is being played over it.

    Speech is looked at as it grows, against what was played when it was heard, silence before and between included.
    When somebody speaks over the echo, the newest 0.9 s are let through as the beginning of an utterance, so that words
    of a song do not become part of what the user said. What was let through is looked at further: an echo that was
    taken for somebody is over as soon as it is known.

    Args:
        pool: compares.
        echoes: counts, for all conversations.
        clock: says when the microphone heard a sample.
    """

    def __init__(self, pool: WorkerPool, echoes: Echoes, clock: MicrophoneClock) -> None:
        self._pool = pool
        self._echoes = echoes
        self._clock = clock
        self._recent: PcmFloat = np.zeros(0, np.float32)  # the newest of this utterance
        self._held = False
        self._judged = False  # it is known of this utterance whose it is
        self._looked_ms = 0.0
        self._otherwise = 0  # looks in a row that found the contrary

    async def past(
        self, event: SpeechEvent, played: Sequence[PlayedPacket], soft_end_ms: float, *, taken: bool = False
    ) -> SpeechEvent | Echo:
        """The event, or what it has become, where it is not the device's own sound.

        Args:
            event: the next of the microphone.
            played: what is being played or was lately, the oldest first.
            soft_end_ms: silence after which held speech is over.
            taken: this utterance is a turn already: it is not looked at any more.
        """
        if isinstance(event, SpeechBegan):
            self._recent, self._looked_ms, self._otherwise = np.concatenate([event.before, event.pcm]), event.end_ms, 0
            own = await self._is_own(event.end_ms, played)
            self._held, self._judged = own is not False, own is not None
            self._echoes.held_back += own is True
            return Echo.SOUNDS if self._held else await self._without_echo(event, played)
        most = round(_KEPT_MS * UPLINK_RATE_HZ / 1000.0)
        self._recent = np.concatenate([self._recent, event.pcm])[-most:]
        if self._held and event.silence_ms >= soft_end_ms:
            self._held = False
            return Echo.OVER
        goes_on = Echo.SOUNDS if self._held else event
        if taken or event.silence_ms > 0.0 or event.end_ms - self._looked_ms < _LOOK_EVERY_MS:
            return goes_on
        self._looked_ms = event.end_ms
        own = await self._is_own(event.end_ms, played)
        if own is not None:
            self._otherwise = 0 if own is self._held else self._otherwise + 1
        if self._otherwise < (_SURE_AFTER if self._judged else 1):
            self._judged = self._judged or own is not None
            return goes_on
        self._otherwise = 0
        if not self._held:
            self._echoes.held_back += 1
            return Echo.OVER
        self._held = False
        self._echoes.let_through += self._judged
        self._judged = True
        start_ms = event.end_ms - duration_ms(len(self._recent), UPLINK_RATE_HZ)
        voice_ms = min(_SURE_AFTER * _LOOK_EVERY_MS, event.end_ms - start_ms)
        began = SpeechBegan(event.utterance, start_ms, event.end_ms, self._recent, event.end_ms - start_ms - voice_ms)
        return await self._without_echo(began, played)

    async def _without_echo(self, event: SpeechBegan, played: Sequence[PlayedPacket]) -> SpeechBegan:
        """The beginning of an utterance without what of it is the device's own sound: that is nobody's words."""
        own = await self._beside(self._recent, event.end_ms, played, own_until)
        most = duration_ms(len(event.pcm), UPLINK_RATE_HZ) - _MIN_KEPT_MS
        own_ms = duration_ms(int(own or 0), UPLINK_RATE_HZ) - duration_ms(len(self._recent), UPLINK_RATE_HZ)
        cut_ms = min(own_ms + event.end_ms - event.start_ms - _BEFORE_WORD_MS, most)
        if cut_ms <= 0.0:
            return event
        pcm = event.pcm[round(cut_ms * UPLINK_RATE_HZ / 1000.0) :]
        pre_roll_ms = max(0.0, event.pre_roll_ms - cut_ms)
        return replace(event, start_ms=event.start_ms + cut_ms, pcm=pcm, pre_roll_ms=pre_roll_ms)

    async def _is_own(self, end_ms: float, played: Sequence[PlayedPacket]) -> bool | None:
        """Whether the newest sound, up to `end_ms` of audio time, is the device's own; None: nobody can tell."""
        heard = self._recent[-round(_COMPARED_MS * UPLINK_RATE_HZ / 1000.0) :]
        found = await self._beside(heard, end_ms, played, likeness)
        return None if found is None else found >= OWN

    async def _beside(
        self,
        heard: PcmFloat,
        end_ms: float,
        played: Sequence[PlayedPacket],
        compare: Callable[[PcmFloat, PcmFloat], float],
    ) -> float | None:
        """Compare sound up to `end_ms` of audio time with what was played; 0 for nothing, None: nobody can tell."""
        between = self._clock.heard_ms(end_ms)
        if between is None:
            return 0.0
        from_ms = between[0] - duration_ms(len(heard), UPLINK_RATE_HZ) - _MAX_LATE_MS
        over = [
            packet for packet in played if from_ms < packet.at_ms + packet.duration_ms and packet.at_ms < between[1]
        ]
        if not over:
            return 0.0
        if len(heard) < MIN_SAMPLES:
            return None
        try:
            return await self._pool.submit(
                lambda: compare(heard, _sound_between(over, from_ms, between[1])),
                Priority.PROBE,
                deadline_s=asyncio.get_running_loop().time() + _NEEDED_S,
            )
        except JobDropped:
            return None
        except OpusError:
            return 0.0
        except Exception:  # noqa: BLE001 - who cannot be compared is heard; a fault here must not end the conversation
            _log.exception("comparing with the device's own sound failed")
            return 0.0


def _sound_between(packets: Sequence[PlayedPacket], from_ms: float, until_ms: float) -> PcmFloat:
    """What the loudspeaker gave between two times, float32[n] at 16 kHz: silence where nothing was played."""
    decoder = OpusDecoder(UPLINK_RATE_HZ)
    sound = np.zeros(round((until_ms - from_ms) * UPLINK_RATE_HZ / 1000.0), np.float32)
    for packet in packets:
        pcm = decoder.decode(packet.opus)
        at = round((packet.at_ms - from_ms) * UPLINK_RATE_HZ / 1000.0)
        first, last = max(0, at), min(len(sound), at + len(pcm))
        sound[first:last] = pcm[first - at : last - at]
    return sound
