"""From packets that were heard to sound."""

from collections.abc import Sequence

import numpy as np

from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmFloat
from xiaozhi.client.speaker import Heard


def decode(heard: Sequence[Heard]) -> tuple[PcmFloat, int]:
    """What was heard, float32[n] at 24 kHz, and how many packets were not Opus. Blocking: 0.1 ms a packet."""
    decoder = OpusDecoder(DOWNLINK_RATE_HZ)
    pieces: list[PcmFloat] = []
    undecodable = 0
    for played in heard:
        try:
            piece = decoder.decode(played.packet)
        except OpusError:
            undecodable += 1
        else:
            pieces.append(piece[: round(played.heard_ms * DOWNLINK_RATE_HZ / 1000.0)])
    return (np.concatenate(pieces) if pieces else np.empty(0, np.float32)), undecodable
