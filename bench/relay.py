"""Bytes carried from one connection to another, for benches that stand between a device, a server and its clouds."""

import asyncio
import contextlib
from collections.abc import Callable

_PIECE_BYTES = 65_536


async def pour(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Callable[[bytes], None] = lambda _data: None
) -> None:
    """Pass on what comes until one side hangs up, then close the other.

    Args:
        reader: from where.
        writer: to where.
        seen: told every piece before it goes on.
    """
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_PIECE_BYTES):
            seen(data)
            writer.write(data)
            await writer.drain()
    writer.close()
