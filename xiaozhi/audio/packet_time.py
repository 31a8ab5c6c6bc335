"""What can be said of an Opus packet, and done to it, without decoding it. Pure."""

_CODE_3 = 3
_PADDED = 0x40
_MAX_PADDING_BYTES = 254  # that one length byte may say


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


def padded(opus: bytes, least_bytes: int) -> bytes:
    """The same sound in at least so many bytes, up to 254 more than it has (RFC 6716, section 3.2.5).

    A packet that has padding already, or two frames, is left as it is: encoders write neither of few bytes.
    """
    code = opus[0] & 3 if opus else 0
    head = opus[:1] + b"\x01" if code == 0 else opus[:2]  # a count of frames behind the first byte
    frames = opus[len(head) - 1 :] if code == 0 else opus[2:]
    missing = least_bytes - len(head) - len(frames) - 1
    if not opus or len(opus) >= least_bytes or code in (1, 2) or len(head) < 2 or head[1] & _PADDED:
        return opus
    count = min(max(0, missing), _MAX_PADDING_BYTES)
    return bytes([head[0] | _CODE_3, head[1] | _PADDED, count]) + frames + bytes(count)
