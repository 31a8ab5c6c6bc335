"""What is kept of one device's microphone between batches: decoder, unjudged samples, the model's memory."""

from collections.abc import Sequence
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xiaozhi.audio.echo_canceller import EchoCanceller
from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import PcmFloat, to_float
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, WINDOW_SAMPLES

DIGITAL_SILENCE: Final = 1e-4
"""Peak of a window in which nothing is: -80 dBFS. Decoded digital silence is 0.0 after some 30 ms."""
# A window with more energy than this has a louder sample than that: the peak need not be looked for.
_LOUDEST_SILENCE: Final = WINDOW_SAMPLES * DIGITAL_SILENCE**2
STILL_WINDOWS: Final = 16
"""After so many windows of digital silence (512 ms) the model is not asked; it would say no.

Measured with v5 and v6 on clips said again after 1, 5 and 30 s of digital silence: no clip is lost, none begins later
by more than one window, and up to 3 of 36 that the model loses after such a silence are found.
"""
CALM_WINDOWS: Final = 16
"""After so many windows (512 ms) of clearly no speech, those that are quiet as well need no model.

See `python -m bench.vad_quiet` for what it changes and saves.
"""
CATCH_UP_WINDOWS: Final = 8
"""So many of the windows left out (256 ms) are judged after all when it is no longer quiet.

The model follows a room's noise in its memory and hears faint speech worse without. Measured on 33 short clips at -40
dBFS in hiss of -75: without any of them 4 of 31 found are lost, with 4 none, with 8 none is found over 32 ms later.
"""
FORGET_WINDOWS: Final = 62
"""After so many windows (2 s) of clearly no speech the model's memory is cleared.

Its cell state drifts for as long as nothing is said (v5: to 500 within 20 s, no end in sight) and makes it hard of
hearing. Measured on 26 clips after 30 s of office or faint white noise: 2 lost and onsets up to 120 ms late with
the drifted state, none lost and none late with a cleared one, and no more false evidence in the noise.
"""
_CLEARLY_NO_SPEECH: Final = 0.1
_PACKET_STEP_SAMPLES: Final = 40  # Opus packets are multiples of 2.5 ms
_MAX_BARE_BYTES: Final = 2 * 1920  # 120 ms, as long as the longest Opus packet
_FIRST_PACKET_SAMPLES: Final = 960  # 60 ms, what the firmware sends; assumed for a lost packet before any good one


class UplinkStream:
    """One device's uplink. Made by `VadBatcher.open`; one call at a time.

    A stream that hears nothing holds a few hundred bytes; the decoder (18 KB) and the model's state come with the first
    packet and go with `rest`.
    """

    __slots__ = (
        "_calm_windows",
        "_closed",
        "_decoder",
        "_forget_asked",
        "_in_batch",
        "_left_out",
        "_packet_samples",
        "_quiet_windows",
        "_rest_asked",
        "_state",
        "_still_windows",
        "_tail",
        "bare",
        "canceller",
        "heard_at_s",
        "hearing",
        "timestamps_ms",
    )

    def __init__(self) -> None:
        self.heard_at_s = 0.0
        """When the last batch for this stream began, by the loop's clock in seconds."""
        self.bare = False
        """What comes are samples, int16 in little-endian order at 16 kHz, and no Opus; set between batches."""
        self.hearing = False
        """Packets of it wait, or are being judged, for somebody who waits for that."""
        self.canceller: EchoCanceller | None = None
        """Takes the device's own sound off, where its packets say what that was."""
        self.timestamps_ms: Sequence[int] = ()
        """Of the packets that are decoded next; set between batches, empty for none."""
        self._closed = self._in_batch = self._rest_asked = self._forget_asked = False
        self._packet_samples = _FIRST_PACKET_SAMPLES
        self._let_go()

    def _let_go(self) -> None:
        self._decoder: OpusDecoder | None = None
        self._clear()

    def _clear(self) -> None:
        self._state: NDArray[np.float32] | None = None  # [2, 128]; None is all zeros
        self._tail: PcmFloat | None = None  # context and the samples that do not fill a window; None is 64 zeros
        self._still_windows = self._quiet_windows = self._calm_windows = 0
        self._left_out: list[PcmFloat] = []  # the newest quiet windows that were not judged

    # On the loop --------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """The device is gone."""
        return self._closed

    @property
    def awake(self) -> bool:
        """A decoder is held."""
        return self._decoder is not None

    def forget(self) -> None:
        """What comes next does not follow what came before: judge it afresh. The decoder stays in step."""
        self._forget_asked = True
        self._do_what_was_asked()

    def rest(self) -> None:
        """Give back decoder and buffers, after the batch that works on them if one does; the next packet brings others.

        A new decoder needs one packet (60 ms) to find into a running stream, so rest only when the device has stopped.
        """
        self._rest_asked = True
        self._do_what_was_asked()

    def close(self) -> None:
        """The device is gone: give back everything. Closing twice is harmless."""
        self._closed = True
        self.rest()

    def enter(self, now_s: float) -> None:
        """A batch begins to work on this stream in its thread."""
        self._in_batch = True
        self.heard_at_s = now_s

    def leave(self) -> None:
        """The batch is over."""
        self._in_batch = False
        self._do_what_was_asked()

    def _do_what_was_asked(self) -> None:
        if self._in_batch:
            return
        if self._rest_asked:
            self._let_go()
        elif self._forget_asked:
            self._clear()
        self._rest_asked = self._forget_asked = False

    # In the batch's thread -----------------------------------------------------------------------------------------

    def decode(self, packets: Sequence[bytes | None], *, half_duplex: bool = False) -> tuple[PcmFloat, PcmFloat, int]:
        """Decode packets to float32[n] in [-1, 1] at 16 kHz.

        Returned are what is heard, in what somebody is looked for (the same, but for the device's own sound), and how
        many packets were not what they should be. Those and empty ones (the encoder had nothing to say) become as much
        silence as the last good packet lasted; one that was lost on the way (None) as much of what the decoder takes
        for its sound.
        """
        if self._decoder is None and not self.bare:
            self._decoder = OpusDecoder()
        decode = _samples if self._decoder is None or self.bare else self._decoder.decode
        pieces: list[PcmFloat] = []
        judged: list[PcmFloat] = []
        errors = 0
        timestamps, self.timestamps_ms = self.timestamps_ms, ()
        for packet, timestamp_ms in zip(packets, timestamps or repeat(0), strict=False):
            pcm: PcmFloat | None = None
            try:
                if packet:
                    pcm = decode(packet)
                elif packet is None and self._decoder is not None and not self.bare:
                    pcm = self._decoder.conceal(self._packet_samples)
            except OpusError:
                errors += 1
            if pcm is None:
                pcm = np.zeros(self._packet_samples, np.float32)
            elif len(pcm):
                # Through libav a stream's first packet comes short of up to 2 ms, which stay in the resampler.
                self._packet_samples = -(-len(pcm) // _PACKET_STEP_SAMPLES) * _PACKET_STEP_SAMPLES
            pcm = np.clip(pcm, -1.0, 1.0)  # garbage that happens to decode was seen to reach 1.5
            if self.canceller is not None and timestamps:
                pcm, clear = self.canceller.cancel(pcm, timestamp_ms, half_duplex=half_duplex)
                judged.append(clear)
            pieces.append(pcm)
        whole = _whole(pieces)
        return whole, _whole(judged) if judged else whole, errors

    def windows(self, pcm: PcmFloat) -> list[PcmFloat]:
        """The windows that `pcm` completes, float32[64 + 512] each; the rest waits for the next call."""
        if self._tail is None:
            self._tail = np.zeros(CONTEXT_SAMPLES, np.float32)
        audio = np.concatenate([self._tail, pcm])
        count = (len(audio) - CONTEXT_SAMPLES) // WINDOW_SAMPLES
        self._tail = audio[count * WINDOW_SAMPLES :].copy()
        starts = range(0, count * WINDOW_SAMPLES, WINDOW_SAMPLES)
        return [audio[start : start + CONTEXT_SAMPLES + WINDOW_SAMPLES] for start in starts]

    def skip(self) -> None:
        """Sound went by that is not judged: the next window follows nothing."""
        self._clear()

    def must_judge(self, window: PcmFloat, quiet_power: float = 0.0) -> bool:
        """Whether the model has to be asked about this window.

        A long digital silence needs no model, and neither does a quiet room. After quiet windows that were left out,
        `catch_up` has those that come first.

        Args:
            window: with its context.
            quiet_power: mean square below which a window is quiet; 0 asks about everything but digital silence.
        """
        new = window[CONTEXT_SAMPLES:]
        energy = float(new @ new)
        if energy < _LOUDEST_SILENCE and np.abs(window).max() < DIGITAL_SILENCE:
            self._still_windows += 1
            self._left_out.clear()
            return self._still_windows <= STILL_WINDOWS
        self._still_windows = 0
        if self._calm_windows < CALM_WINDOWS or energy >= quiet_power * len(new):
            return True
        self._left_out.append(window.copy())  # not a view: that would keep a whole batch's sound alive
        del self._left_out[:-CATCH_UP_WINDOWS]
        return False

    def catch_up(self) -> list[PcmFloat]:
        """The windows left out just before one that has to be judged, oldest first; they are asked for once."""
        left_out, self._left_out = self._left_out, []
        return left_out

    def remember(self, state: NDArray[np.float32]) -> None:
        """Keep the state after a window that was left out at its time."""
        self._state = state.copy()

    @property
    def state(self) -> NDArray[np.float32] | None:
        """The model's memory of this stream, float32[2, 128]; None for all zeros."""
        return self._state

    def judged(self, probability: float, state: NDArray[np.float32] | None) -> None:
        """Keep the state after a window; None where the model was not asked."""
        if state is not None:
            self._state = state.copy()  # not a view: that would keep the whole batch alive
        calm = probability < _CLEARLY_NO_SPEECH
        self._calm_windows = self._calm_windows + 1 if calm else 0
        self._quiet_windows = self._quiet_windows + 1 if calm else 0
        if self._quiet_windows >= FORGET_WINDOWS:
            self._state = None
            self._quiet_windows = 0


def _whole(pieces: list[PcmFloat]) -> PcmFloat:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _samples(packet: bytes) -> PcmFloat:
    """The sound of a packet that is no Opus.

    Raises:
        OpusError: no whole samples, or longer than 120 ms.
    """
    if len(packet) % 2 or len(packet) > _MAX_BARE_BYTES:
        raise OpusError(f"{len(packet)} bytes are not 16-bit samples of at most 120 ms")
    return to_float(np.frombuffer(packet, "<i2"))
