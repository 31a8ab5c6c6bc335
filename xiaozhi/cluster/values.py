"""How values lie in Redis: a byte for the version, one for how they are packed, then the value. Pure.

Opus packets hardly shrink: a sentence of 15,031 bytes by the embedded voice became 14,843. The JSON of twelve short
turns went from 4,554 bytes to 974 in 17 microseconds. So speech is never deflated, and the rest where it is
long enough, and kept so only where that saves a tenth.
"""

import zlib
from typing import Final

VERSION: Final = 1
_PLAIN: Final = 0
_DEFLATED: Final = 1
# Below this a round trip costs the same whatever the size, and deflate saves nothing worth its time.
_TRY_FROM_BYTES: Final = 512
_WORTH: Final = 0.9
_LEVEL: Final = 1


def pack(value: bytes, *, compress: bool = True) -> bytes:
    """A value as it is stored. `compress` False for what is known not to shrink."""
    if compress and len(value) >= _TRY_FROM_BYTES:
        deflated = zlib.compress(value, _LEVEL)
        if len(deflated) < _WORTH * len(value):
            return bytes((VERSION, _DEFLATED)) + deflated
    return bytes((VERSION, _PLAIN)) + value


def unpack(stored: bytes, max_bytes: int) -> bytes | None:
    """The value; None for another version, a damaged one, or one that is longer than `max_bytes`."""
    if len(stored) < 2 or stored[0] != VERSION:
        return None
    if stored[1] == _PLAIN:
        return stored[2:] if len(stored) - 2 <= max_bytes else None
    if stored[1] != _DEFLATED:
        return None
    inflater = zlib.decompressobj()
    try:
        value = inflater.decompress(stored[2:], max_bytes + 1)
    except zlib.error:
        return None
    return value if inflater.eof and len(value) <= max_bytes else None
