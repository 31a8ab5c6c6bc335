"""Keeps what a device says from being taken for its user, where its microphone hears its own loudspeaker."""

import logging
from collections.abc import Sequence
from enum import Enum
from typing import Final

import numpy as np

from xiaozhi.audio.echo_likeness import OWN, Echoes, likeness
from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, duration_ms
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
from xiaozhi.events import SpeechBegan, SpeechEvent

_log = logging.getLogger(__name__)

_COMPARED_MS: Final = 700.0
# A user is let through from so far back: found after two looks, a little of the echo before the first word included.
_KEPT_MS: Final = 900.0
# Nothing is compared more often: a look costs 3 to 5 ms of a worker thread.
_LOOK_EVERY_MS: Final = 100.0
# What has been the device's own sound until now is somebody else's after so many looks: one in 70 is wrong.
_SURE_AFTER: Final = 2


class Echo(Enum):
    """What the device hears of itself."""

    SOUNDS = "sounds"
    OVER = "over"  # what began with it was nobody's utterance


class EchoGuard:
    """Holds speech back for as long as it sounds like what is being played over it.

    Speech is looked at as it grows. When somebody speaks over the echo, the newest 0.9 s are let through as the
    beginning of an utterance, so that words of a song do not become part of what the user said.

    Args:
        pool: compares.
        echoes: counts, for all conversations.
    """

    def __init__(self, pool: WorkerPool, echoes: Echoes) -> None:
        self._pool = pool
        self._echoes = echoes
        self._held: PcmFloat | None = None
        self._played: Sequence[bytes] = ()  # over what is held
        self._looked_ms = 0.0
        self._unlike = 0  # looks in a row that found somebody else

    async def past(self, event: SpeechEvent, played: Sequence[bytes], soft_end_ms: float) -> SpeechEvent | Echo:
        """The event, or what it has become, where it is not the device's own sound.

        Args:
            event: the next of the microphone.
            played: Opus packets that are being played or have just been; empty where nothing sounds.
            soft_end_ms: silence after which held speech is over.
        """
        if isinstance(event, SpeechBegan):
            self._held = None
            if not played or not await self._is_own(event.pcm, played):
                return event
            self._held, self._played, self._looked_ms = event.pcm, played, event.end_ms
            self._unlike = 0
            self._echoes.held_back += 1
            return Echo.SOUNDS
        if self._held is None:
            return event
        most = round(_KEPT_MS * UPLINK_RATE_HZ / 1000.0)
        self._held = np.concatenate([self._held, event.pcm])[-most:]
        if event.silence_ms >= soft_end_ms:
            self._held = None
            return Echo.OVER
        if event.silence_ms > 0.0 or event.end_ms - self._looked_ms < _LOOK_EVERY_MS:
            return Echo.SOUNDS
        self._looked_ms = event.end_ms
        held, self._played = self._held, played or self._played  # an echo outlives the reply it belongs to
        self._unlike = 0 if await self._is_own(held, self._played) else self._unlike + 1
        if self._unlike < _SURE_AFTER:
            return Echo.SOUNDS
        self._held = None
        self._echoes.let_through += 1
        start_ms = event.end_ms - duration_ms(len(held), UPLINK_RATE_HZ)
        return SpeechBegan(event.utterance, start_ms, event.end_ms, held)

    async def _is_own(self, heard: PcmFloat, played: Sequence[bytes]) -> bool:
        most = round(_COMPARED_MS * UPLINK_RATE_HZ / 1000.0)
        try:
            return await self._pool.submit(lambda: likeness(heard[-most:], _decoded(played)) >= OWN, Priority.PROBE)
        except (JobDropped, OpusError):
            return False
        except Exception:  # noqa: BLE001 - who cannot be compared is heard; a fault here must not end the conversation
            _log.exception("comparing with the device's own sound failed")
            return False


def _decoded(packets: Sequence[bytes]) -> PcmFloat:
    decoder = OpusDecoder(UPLINK_RATE_HZ)
    return np.concatenate([decoder.decode(packet) for packet in packets])
