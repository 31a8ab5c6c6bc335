"""Any audio file as int16 at 24 kHz, decoded a little ahead in worker threads."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.libav import av, open_sound
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.concurrency.workers import JobDropped, WorkerPool

_PIECE_S: Final = 0.5
"""What is decoded in one go: a few milliseconds of work, so that a stop waits for no longer than that."""


class FileDecoder:
    """Decodes one file piece by piece, called from any thread: a close waits for the piece that is being decoded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: av.container.InputContainer | None = None
        self._pieces: Iterator[PcmInt] | None = None
        self._lock = threading.Lock()

    def next_piece(self) -> PcmInt | None:
        """About half a second of int16[n] at 24 kHz; None at the end.

        Raises:
            DecodeError: the file cannot be read or holds no sound.
        """
        wanted = int(_PIECE_S * DOWNLINK_RATE_HZ)
        parts: list[PcmInt] = []
        samples = 0
        with self._lock:
            if self._pieces is None:
                self._pieces = self._decode()
            for part in self._pieces:
                parts.append(part)
                samples += len(part)
                if samples >= wanted:
                    break
        return np.concatenate(parts) if parts else None

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        with self._lock:
            container, self._container, self._pieces = self._container, None, iter(())
            if container is not None:
                container.close()

    def _decode(self) -> Iterator[PcmInt]:
        try:
            self._container = open_sound(self._path)
            stream = next(iter(self._container.streams.audio), None)
            if stream is None:
                raise DecodeError(f"{self._path.name} holds no sound")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=DOWNLINK_RATE_HZ)
            for frame in self._container.decode(stream):
                for piece in resampler.resample(frame):
                    yield piece.to_ndarray()[0]
            for piece in resampler.resample(None):
                yield piece.to_ndarray()[0]
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise DecodeError(f"{self._path.name} cannot be decoded ({type(error).__name__})") from None


async def play(paths: Sequence[Path], pool: WorkerPool, ahead_s: float) -> AsyncGenerator[PcmInt, None]:
    """The sound of files, one after the other; those that cannot be decoded are passed over.

    At most `ahead_s` seconds are decoded ahead. Closing the generator ends the decoding within one piece of work.

    Raises:
        DecodeError: none of the files gave any sound.
    """
    ready: Channel[PcmInt] = Channel(ahead_s * DOWNLINK_RATE_HZ, len)
    decoding = asyncio.create_task(_decode_into(ready, paths, pool), name="music")
    try:
        while True:
            try:
                piece = await ready.get()
            except ChannelClosed:
                break
            yield piece
        await decoding
    finally:
        ready.close()
        decoding.cancel()
        await asyncio.gather(decoding, return_exceptions=True)


async def _decode_into(ready: Channel[PcmInt], paths: Sequence[Path], pool: WorkerPool) -> None:
    heard = False
    last: DecodeError | None = None
    try:
        for path in paths:
            decoder = FileDecoder(path)
            try:
                while (piece := await pool.run(decoder.next_piece)) is not None:
                    heard = True
                    await ready.put(piece)
            except DecodeError as error:
                last = error
            finally:
                await asyncio.shield(_close(decoder, pool))
        if not heard and last is not None:
            raise last
    except (ChannelClosed, JobDropped):
        return  # the listener, or the process, has had enough
    finally:
        ready.close()


async def _close(decoder: FileDecoder, pool: WorkerPool) -> None:
    """Close in the pool: a piece of work of this file may still run there."""
    try:
        await pool.run(decoder.close)
    except JobDropped:
        decoder.close()
