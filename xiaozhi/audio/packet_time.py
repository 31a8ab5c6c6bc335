"""How long an Opus packet sounds, without decoding it. Pure."""


def packet_ms(opus: bytes) -> float:
    """How long an Opus packet sounds, from its first bytes (RFC 6716, section 3.1).

    Raises:
        ValueError: empty, or a frame count that the format does not allow.
    """
    if not opus:
        raise ValueError("an empty packet has no duration")
    config, code = opus[0] >> 3, opus[0] & 3
    if config < 12:
        frame_ms = (10.0, 20.0, 40.0, 60.0)[config & 3]  # SILK
    elif config < 16:
        frame_ms = (10.0, 20.0)[config & 1]  # hybrid
    else:
        frame_ms = (2.5, 5.0, 10.0, 20.0)[config & 3]  # CELT
    if code == 3:
        if len(opus) < 2:
            raise ValueError("a packet of several frames ends before their count")
        frames = opus[1] & 0x3F
    else:
        frames = 1 if code == 0 else 2
    if not 0.0 < frames * frame_ms <= 120.0:
        raise ValueError(f"{frames} frames of {frame_ms} ms are not an Opus packet")
    return frames * frame_ms
