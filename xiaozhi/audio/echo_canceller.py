"""Takes what a device plays off what its microphone hears, where its packets say what was played when they were made.

Firmware that announces `aec` sends its microphone with the echo in it, and in each packet the timestamp of the packet
that it has just handed to its loudspeaker. What was sent under that timestamp is the reference: the echo follows it by
a delay that stays (buffers, room), however late the network brings either. No timestamp: nothing plays, or one was
lost among others and what follows the last one plays.
"""

from collections import deque
from typing import Final

import numpy as np

from xiaozhi.audio.echo_filter import BLOCK_SAMPLES, PARTITIONS, EchoFilter
from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat

_PER_MS: Final = UPLINK_RATE_HZ // 1000
# What waits in the device (0.9 s at most), and 2 s of a microphone that the network brings late.
_MAX_PACKETS: Final = 64
# A decoder that begins in the middle of a stream has found into it after so many.
_WARM_UP_PACKETS: Final = 3
# Packets of a microphone that were lost; a longer gap is another reply.
_MAX_GAP_SAMPLES: Final = 500 * _PER_MS
# The firmware drops one timestamp where more than three wait.
_MAX_ASSUMED_SAMPLES: Final = 120 * _PER_MS
_AUDIBLE: Final = 1e-6  # -60 dBFS
# How loud the echo is shows in so many blocks with something audible played, behind the longest delay (0.5 s).
_LISTENS_BLOCKS: Final = 25
_MIN_DOUBT: Final = 3e-4
_MAX_DOUBT: Final = 0.3
# Until the filter explains this much nobody is found over the first sound, but for no longer than so many blocks (6 s):
# what cannot be learnt until then is too faint to matter, or is not there.
_LEARNT: Final = 0.4
_LEARNS_BLOCKS: Final = 300
# The room is another one where as much as this is left and the echo makes up so much of what is heard: where somebody
# speaks loudly over it, as much is left but the echo is less.
_UNEXPLAINED: Final = 0.75
_ECHO_IN_MIC: Final = 0.3
# Somebody speaks where so much of the echo is left for 80 ms: -9 dB of an echo that is taken to fall slowly, or four
# times what usually is left here, where that is more. Measured with 40 s of echo and sentences 6 dB above to 6 dB
# below it: the voice activity detection finds 0 or 1 in echo alone, 9 without this, and all sentences.
_NEAR: Final = 10.0**-0.9
_OVER_USUAL: Final = 4.0
_MAX_NEAR: Final = 0.5
_NEAR_BLOCKS: Final = 4
_STAYS_NEAR_BLOCKS: Final = 10
# The last of an echo falls more slowly than what explains it.
_ECHO_FALLS: Final = 0.05
_FADE: Final = np.linspace(0.0, 1.0, BLOCK_SAMPLES, dtype=np.float32)


class SentSound:
    """What one device was sent, on a clock of its own: milliseconds of sound since it connected, from 1 on.

    `sent` and `stop` belong to the loop, `read` to the thread that decodes: each has its own end of a deque.
    """

    def __init__(self) -> None:
        self.kept = False
        """Somebody is going to read it."""
        self._next_ms = 1
        self._stopped_ms = 0
        self._packets: deque[tuple[int, bytes]] = deque(maxlen=_MAX_PACKETS)
        self._decoder = OpusDecoder(UPLINK_RATE_HZ)
        self._from = 0  # of `_pcm[0]`, in samples of the clock
        self._pcm: PcmFloat = np.empty(0, np.float32)

    def sent(self, opus: bytes, duration_ms: int) -> int:
        """A packet is sent; returns its timestamp: never 0, and later than that of every one before."""
        at_ms = self._next_ms
        self._next_ms += duration_ms
        if self.kept:
            self._packets.append((at_ms, opus))
        return at_ms

    def stop(self) -> None:
        """What was not played yet will not be."""
        self._stopped_ms = self._next_ms

    def follows(self, at: int) -> bool:
        """Whether something was sent to be played from this sample of the clock on."""
        return self._stopped_ms * _PER_MS <= at < self._next_ms * _PER_MS

    def has(self, timestamp_ms: int) -> bool:
        """Whether this is the timestamp of something that is still known."""
        oldest_ms = self._from // _PER_MS if len(self._pcm) or not self._packets else self._packets[0][0]
        return 0 < oldest_ms <= timestamp_ms < self._next_ms

    def read(self, first: int, samples: int) -> PcmFloat:
        """What was sent from this sample of the clock on, float32[samples]; silence where nothing is known."""
        while self._packets and self._packets[0][0] * _PER_MS < first + samples:
            at_ms, opus = self._packets.popleft()
            if (at_ms + 60 * _WARM_UP_PACKETS) * _PER_MS < first - _MAX_GAP_SAMPLES:
                continue
            try:
                pcm = self._decoder.decode(opus)
            except OpusError:  # it was made here, or came from a cache that somebody has damaged
                continue
            at = at_ms * _PER_MS
            if at != self._from + len(self._pcm):
                self._from, self._pcm = at, np.empty(0, np.float32)
            self._pcm = np.concatenate([self._pcm, pcm])
        surplus = len(self._pcm) - 2 * _MAX_GAP_SAMPLES
        if surplus > 0:
            self._from, self._pcm = self._from + surplus, self._pcm[surplus:]
        sound = np.zeros(samples, np.float32)
        begin, end = max(first, self._from), min(first + samples, self._from + len(self._pcm))
        if begin < end:
            sound[begin - first : end - first] = self._pcm[begin - self._from : end - self._from]
        return sound


class EchoCanceller:
    """One device's microphone without its loudspeaker. In the thread that decodes; one call at a time.

    Costs 0.7 ms for 60 ms of sound while the device plays and half a second longer, and nothing otherwise (see
    `python -m bench.echo_cancelling`).

    Args:
        sent: what the device was sent.
    """

    def __init__(self, sent: SentSound) -> None:
        self._sent = sent
        self._filter: EchoFilter | None = None
        self._next: int | None = None  # where on the clock the next sample of the microphone belongs
        self._assumed = 0  # samples that were placed without a timestamp
        self._tail = 0  # blocks in which an echo may still be heard
        self._rest: PcmFloat = np.empty(0, np.float32)
        self._heard_blocks = 0  # with something audible played, since the filter began to learn
        self.learnt = False
        """The filter explains the echo of this reply: what is left is used."""
        self._was_learnt = False  # of this reply or one before
        # Over about a second of audible sound: what was played, heard, left, and taken off.
        self._far_power = self._mic_power = self._left_power = self._taken_power = 0.0
        self._lowered_power = self._echo_power = 0.0  # over about 60 ms
        self._usual = 0.0  # of the echo is left
        self._near = self._near_for = 0
        self._open = False

    def cancel(self, pcm: PcmFloat, timestamp_ms: int, *, half_duplex: bool = False) -> tuple[PcmFloat, PcmFloat]:
        """One packet of the microphone.

        Args:
            pcm: float32[n] at 16 kHz.
            timestamp_ms: as it came with the packet; 0 for none.
            half_duplex: spend nothing on it; whoever speaks while the device plays is not found.

        Returns:
            What is heard, and in what somebody is looked for: the same, but silent where only an echo is left. Both
            have as many samples as `pcm`, or up to a block less or more.
        """
        known = self._place(timestamp_ms, len(pcm))
        if self._next is None and self._tail <= 0:
            rest, self._rest = self._rest, np.empty(0, np.float32)
            heard = np.concatenate([rest, pcm]) if len(rest) else pcm
            return heard, heard
        if half_duplex:
            self._tail -= len(pcm) // BLOCK_SAMPLES if self._next is None else 0
            return pcm, np.zeros_like(pcm)
        mic = np.concatenate([self._rest, pcm])
        blocks = len(mic) // BLOCK_SAMPLES
        mic, self._rest = mic[: blocks * BLOCK_SAMPLES], mic[blocks * BLOCK_SAMPLES :]
        far = np.zeros(len(mic), np.float32)
        if self._next is not None:
            far = self._sent.read(self._next - len(self._rest) - len(mic), len(mic))
        heard, judged = np.empty_like(mic), np.empty_like(mic)
        for at in range(0, len(mic), BLOCK_SAMPLES):
            block = slice(at, at + BLOCK_SAMPLES)
            heard[block], judged[block] = self._block(far[block], mic[block], known=known)
        return heard, judged

    # Which sound was played -----------------------------------------------------------------------------------------

    def _place(self, timestamp_ms: int, samples: int) -> bool:
        """Follow the clock over a packet; whether it is certain what was played."""
        if self._sent.has(timestamp_ms):
            at = timestamp_ms * _PER_MS
            self._go_to(at)
            self._next, self._assumed, self._tail = at + samples, 0, PARTITIONS
            return True
        if self._next is not None:
            self._assumed += samples
            if self._assumed <= _MAX_ASSUMED_SAMPLES and self._sent.follows(self._next):
                self._next += samples
            else:
                self._next = None
        return self._next is None

    def _go_to(self, at: int) -> None:
        if self._filter is None:
            self._filter = EchoFilter()
        missing = at - self._next if self._next is not None else None
        if missing == 0:
            return
        if missing is None or not 0 < missing <= _MAX_GAP_SAMPLES:
            if missing is not None or self._tail <= 0:
                self._filter.hush()
                self._prove_anew()
            return
        sound = self._sent.read(at - missing, missing)
        for first in range(0, missing - BLOCK_SAMPLES + 1, BLOCK_SAMPLES):
            self._filter.play(sound[first : first + BLOCK_SAMPLES])

    def _prove_anew(self) -> None:
        """Another reply may begin anywhere between two packets of the microphone: what was learnt may lie 60 ms off."""
        if self.learnt:
            self.learnt = False
            self._heard_blocks = _LISTENS_BLOCKS + 1
            self._far_power = self._mic_power = self._left_power = self._taken_power = 0.0

    # What is left ---------------------------------------------------------------------------------------------------

    def _block(self, far: PcmFloat, mic: PcmFloat, *, known: bool) -> tuple[PcmFloat, PcmFloat]:
        assert self._filter is not None
        if self._next is None:
            self._tail -= 1
        self._filter.play(far)
        audible = (far_power := _power(far)) > _AUDIBLE
        lowered, left, echo = self._filter.hear(mic, learn=known and self._heard_blocks >= _LISTENS_BLOCKS)
        if audible:
            self._heard_blocks += 1
            self._far_power += 0.02 * (far_power - self._far_power)
            self._mic_power += 0.02 * (_power(mic) - self._mic_power)
            self._left_power += 0.02 * (_power(left) - self._left_power)
            self._taken_power += 0.02 * (_power(echo) - self._taken_power)
            self._judge_itself()
        if not self.learnt:
            # Then the echo is left to be known by its rhythm, as that of every other device.
            return mic, mic if self._heard_blocks >= _LEARNS_BLOCKS else np.zeros_like(mic)
        return lowered, self._gated(lowered, echo)

    def _judge_itself(self) -> None:
        assert self._filter is not None
        if self._heard_blocks == _LISTENS_BLOCKS:
            self._filter.forget(float(np.clip(self._mic_power / self._far_power, _MIN_DOUBT, _MAX_DOUBT)))
        elif self._heard_blocks >= 2 * _LISTENS_BLOCKS and self._left_power < _LEARNT * self._mic_power:
            self.learnt = self._was_learnt = True
        elif (
            self._was_learnt
            and self._heard_blocks >= 3 * _LISTENS_BLOCKS
            and self._left_power > _UNEXPLAINED * self._mic_power
            and self._taken_power > _ECHO_IN_MIC * self._mic_power
        ):
            self.learnt = self._was_learnt = False
            self._heard_blocks = 0
            self._filter.forget(0.0)
            self._far_power = self._mic_power = self._left_power = self._taken_power = 0.0

    def _gated(self, lowered: PcmFloat, echo: PcmFloat) -> PcmFloat:
        """What is left where somebody speaks, silence where it is only echo."""
        self._lowered_power += 0.3 * (_power(lowered) - self._lowered_power)
        power = _power(echo)
        self._echo_power += (0.3 if power > self._echo_power else _ECHO_FALLS) * (power - self._echo_power)
        if self._echo_power > _AUDIBLE:
            share = min(1.0, self._lowered_power / self._echo_power)
            self._usual += (0.02 if share < self._usual else 0.002) * (share - self._usual)
        threshold = min(_MAX_NEAR, max(_NEAR, _OVER_USUAL * self._usual))
        near = self._lowered_power > max(_AUDIBLE, threshold * self._echo_power)
        self._near_for = self._near_for + 1 if near else 0
        if self._near_for >= _NEAR_BLOCKS:
            self._near = _STAYS_NEAR_BLOCKS
        was_open, self._open = self._open, self._near > 0
        self._near -= 1 if self._near else 0
        if self._open is was_open:
            return lowered if self._open else np.zeros_like(lowered)
        return lowered * (_FADE if self._open else _FADE[::-1])


def _power(pcm: PcmFloat) -> float:
    return float(pcm @ pcm) / len(pcm)
