"""WebSocket frames of recorded sessions, and everything that can be wrong with them. Pure; random by given dice."""

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame (RFC 6455, section 5.2): its opcode, what is in it, and the bits that are right as a rule."""

    opcode: int
    payload: bytes
    fin: bool = True
    reserved: int = 0
    masked: bool = True
    claimed: int | None = None
    """The length that the header says; None for the true one."""

    def packed(self, dice: random.Random) -> bytes:
        """As a client writes it."""
        length = len(self.payload) if self.claimed is None else self.claimed
        bit = 0x80 if self.masked else 0
        head = bytes([(0x80 if self.fin else 0) | self.reserved << 4 | self.opcode])
        if length < 126:
            head += bytes([bit | length])
        else:
            head += struct.pack("!BH", bit | 126, length) if length < 65_536 else struct.pack("!BQ", bit | 127, length)
        if not self.masked:
            return head + self.payload
        key = dice.randbytes(4)
        return head + key + _masked(self.payload, key)


def frames_in(buffer: bytearray) -> Iterator[Frame]:
    """Take the whole frames out of what has come from a socket, either side's."""
    while len(buffer) >= 2:
        length, at = buffer[1] & 0x7F, 2
        if length >= 126:
            at = 4 if length == 126 else 10
            if len(buffer) < at:
                return
            length = int.from_bytes(buffer[2:at], "big")
        masked = bool(buffer[1] & 0x80)
        end = at + 4 * masked + length
        if len(buffer) < end:
            return
        payload = bytes(buffer[at + 4 * masked : end])
        if masked:
            payload = _masked(payload, bytes(buffer[at : at + 4]))
        yield Frame(buffer[0] & 0x0F, payload, bool(buffer[0] & 0x80), buffer[0] >> 4 & 7, masked)
        del buffer[:end]


def _masked(payload: bytes, key: bytes) -> bytes:
    whole = key * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(whole[: len(payload)], "big")
    return number.to_bytes(len(payload), "big")


def mutated(session: Sequence[Frame], others: Sequence[Sequence[Frame]], dice: random.Random) -> list[list[Frame]]:
    """A session gone wrong: for each step of it the frames to send, one or more, or none.

    Args:
        session: as it was recorded.
        others: sessions to take pieces of.
        dice: decides what and where.
    """
    steps = [[frame] for frame in session]
    for _ in range(dice.randint(0, 3)):
        dice.choice(_ORDERS)(steps, dice.choice(others), dice)
    share = dice.choice((0.2, 0.5, 1.0))
    # The first frame is the hello: without one the session ends before anything else can go wrong.
    return [
        step if dice.random() > (share if number else 0.2) else [bad for frame in step for bad in _wrong(frame, dice)]
        for number, step in enumerate(steps)
    ]


def _wrong(frame: Frame, dice: random.Random) -> list[Frame]:
    """One frame made wrong: mostly in what it holds, seldom in how it is framed, which ends most sessions."""
    if dice.random() < 0.02:
        return dice.choice(_FRAMINGS)(frame, dice)
    if frame.opcode == TEXT and dice.random() < 0.7:
        return [replace(frame, payload=_wrong_json(frame.payload, dice))]
    for _ in range(dice.randint(1, 3)):
        frame = replace(frame, payload=dice.choice(_BYTES)(frame.payload, dice))
    if frame.opcode == TEXT and dice.random() < 0.9:  # bytes that are no UTF-8 end a connection
        frame = replace(frame, payload=frame.payload.decode(errors="replace").encode())
    return [frame]


# The order of frames -----------------------------------------------------------------------------------------------

_Order = Callable[[list[list[Frame]], Sequence[Frame], random.Random], None]


def _left_out(steps: list[list[Frame]], _other: Sequence[Frame], dice: random.Random) -> None:
    at = dice.randrange(1, len(steps) + 1)
    del steps[at : at + dice.randint(1, 10)]


def _again(steps: list[list[Frame]], _other: Sequence[Frame], dice: random.Random) -> None:
    at = dice.randrange(len(steps))
    steps[at] = steps[at] * dice.randint(2, 12)


def _moved(steps: list[list[Frame]], _other: Sequence[Frame], dice: random.Random) -> None:
    step = steps.pop(dice.randrange(len(steps)))
    steps.insert(dice.randrange(len(steps) + 1), step)


def _spliced(steps: list[list[Frame]], other: Sequence[Frame], dice: random.Random) -> None:
    at, start = dice.randrange(1, len(steps) + 1), dice.randrange(len(other))
    steps[at:at] = [[frame] for frame in other[start : start + dice.randint(1, 30)]]


_ORDERS: Final[tuple[_Order, ...]] = (_left_out, _again, _moved, _spliced)


# Bytes --------------------------------------------------------------------------------------------------------------

_Change = Callable[[bytes, random.Random], bytes]


def _flipped(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8) if data else 0):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randint(0, len(data))]


def _longer(data: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.randbytes(dice.choice((1, 4, 60, 1000, 5000))) + data[at:]


def _doubled(data: bytes, _dice: random.Random) -> bytes:
    return data + data


def _random(data: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(len(data))


def _same(data: bytes, dice: random.Random) -> bytes:
    return dice.choice((b"\0", b"\xff", b"{", b"[", b'"')) * len(data)


_BYTES: Final[tuple[_Change, ...]] = (_flipped, _cut, _longer, _doubled, _random, _same)


# JSON ---------------------------------------------------------------------------------------------------------------

_VALUES: Final[tuple[bytes, ...]] = (
    b"null", b"true", b"0", b"-1", b"0.1", b"1e308", b"-1e-308", b"1e999", b"NaN", b"2147483648",
    b"18446744073709551616", b"9" * 400, b'""', b"[]", b"{}", b'"\\u0000"', b'"\\ud800"', b'"\\u202e\\u200b\\ufeff"',
    b'"' + b"a" * 3000 + b'"', b'"' + "今".encode() * 2500 + b'"', b'"%s{0}{}%n$(id)`"', b'"<script>"',
    b"[" * 40 + b"]" * 40, b"[" * 900 + b"]" * 900, b'{"a":' * 300 + b"1" + b"}" * 300, b"[" + b"0," * 2000 + b"0]",
    b'{"type":"object","properties":{"a":{"type":"string","pattern":"^(a+)+$"}}}', b'{"$ref":"#"}',
    b'["start","stop","detect"]', b'"detect"', b'"auto"', b'"realtime"', b'"manual"', b'"hello"', b'"mcp"', b'"iot"',
)  # fmt: skip


def _wrong_json(payload: bytes, dice: random.Random) -> bytes:
    """The same message with one to three values changed, names lost or renamed, or the whole inside something else."""
    try:
        value: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return dice.choice(_VALUES)
    for _ in range(dice.randint(1, 3)):
        places = list(_places(value))
        if not places:
            break
        holder, key = dice.choice(places)
        action = dice.random()
        if action < 0.15 and isinstance(holder, dict):
            del holder[key]
        elif action < 0.25 and isinstance(holder, dict):
            holder[dice.choice(("", "type", "state", "text", "payload", "id", "result", "x" * 200))] = holder.pop(key)
        elif action < 0.35:
            holder[key] = [holder[key]] * dice.randint(1, 40)
        else:
            holder[key] = orjson.Fragment(dice.choice(_VALUES))
    try:
        text = orjson.dumps(value)
    except TypeError:  # deeper than it writes
        return payload
    return dice.choice((text, text, text, b"[" + text + b"]", text[:-1], text + text, b'{"type":"hello",' + text[1:]))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside a value, by what holds it and where."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(inner)


# Framing ------------------------------------------------------------------------------------------------------------


def _in_pieces(frame: Frame, dice: random.Random) -> list[Frame]:
    """Legal: a message in several frames, some of them empty, a ping between them."""
    data, pieces = frame.payload, dice.randint(2, 6)
    cuts = sorted(dice.randint(0, len(data)) for _ in range(pieces - 1))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    frames = [
        Frame(CONTINUATION if number else frame.opcode, part, fin=number == pieces - 1)
        for number, part in enumerate(parts)
    ]
    frames.insert(dice.randint(1, pieces), Frame(PING, b"still there"))
    return frames


def _never_ending(frame: Frame, _dice: random.Random) -> list[Frame]:
    return [replace(frame, fin=False), *[Frame(CONTINUATION, frame.payload, fin=False)] * 30]


def _other_opcode(frame: Frame, dice: random.Random) -> list[Frame]:
    return [replace(frame, opcode=dice.choice((0, 1, 2, 3, 7, 8, 9, 10, 11, 15)))]


def _no_mask(frame: Frame, _dice: random.Random) -> list[Frame]:
    return [replace(frame, masked=False)]


def _reserved_bits(frame: Frame, dice: random.Random) -> list[Frame]:
    return [replace(frame, reserved=dice.randint(1, 7))]


def _wrong_length(frame: Frame, dice: random.Random) -> list[Frame]:
    return [replace(frame, claimed=dice.choice((0, 1, len(frame.payload) + 7, 65_535, 2**24, 2**40, 2**63 - 1)))]


def _control(_frame: Frame, dice: random.Random) -> list[Frame]:
    payload = dice.choice(
        (b"", b"\x03", b"\x03\xe8", b"\0\0", b"\x03\xe8\xff\xfe", dice.randbytes(125), dice.randbytes(200))
    )
    return [Frame(dice.choice((CLOSE, PING, PONG)), payload, fin=dice.random() < 0.9)]


_FRAMINGS: Final = (
    _in_pieces, _in_pieces, _in_pieces, _never_ending, _other_opcode, _no_mask, _reserved_bits, _wrong_length, _control,
)  # fmt: skip
