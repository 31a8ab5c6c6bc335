"""The sound card, where there is one: a live microphone and a real loudspeaker, through PortAudio."""

import asyncio
import importlib
import threading
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, to_int16
from xiaozhi.client.errors import NoSoundCard
from xiaozhi.client.microphone import LiveMicrophone

_BYTES_PER_SAMPLE: Final = 2
# The sound card is a little behind the simulated loudspeaker; never wait longer than this for it.
_DRAIN_S: Final = 2.0


def _portaudio() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise NoSoundCard("there is no sound package; install it with `pip install sounddevice`") from error
    except OSError as error:  # the package is there, the C library is not
        raise NoSoundCard(
            "the PortAudio library is missing; install it with `apt install libportaudio2` "
            "(macOS: `brew install portaudio`)"
        ) from error


class _Card:
    """A stream of the sound card, open inside the context.

    Raises:
        NoSoundCard: on entering; the message says what is missing.
    """

    _name = ""

    def _open(self, sounddevice: Any) -> Any:
        """The stream, not yet started."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        sounddevice = _portaudio()
        try:
            self._stream = self._open(sounddevice)
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise NoSoundCard(f"no {self._name}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class Loudspeaker(_Card):
    """Plays what the device plays; a context."""

    _name = "loudspeaker"

    def __init__(self) -> None:
        self._decoder = OpusDecoder(DOWNLINK_RATE_HZ)
        self._lock = threading.Lock()  # the sound card asks from its own thread
        self._samples = bytearray()
        self._empty = threading.Event()
        self._empty.set()

    def _open(self, sounddevice: Any) -> Any:
        return sounddevice.RawOutputStream(samplerate=DOWNLINK_RATE_HZ, channels=1, dtype="int16", callback=self._fill)

    def play(self, opus: bytes) -> None:
        """Play a packet after those before it; one that is not Opus is silent."""
        try:
            pcm = self._decoder.decode(opus)
        except OpusError:
            return
        with self._lock:
            self._samples += to_int16(pcm).tobytes()
            self._empty.clear()

    def clear(self) -> None:
        """Forget what has not been played."""
        with self._lock:
            self._samples.clear()
            self._empty.set()

    async def drain(self) -> None:
        """Wait until everything has been handed to the sound card."""
        await asyncio.to_thread(self._empty.wait, _DRAIN_S)

    def _fill(self, out: Any, frames: int, _time: Any, _status: Any) -> None:
        wanted = frames * _BYTES_PER_SAMPLE
        with self._lock:
            given = bytes(self._samples[:wanted])
            del self._samples[:wanted]
            if not self._samples:
                self._empty.set()
        out[:] = given.ljust(wanted, b"\0")


class Recorder(_Card):
    """Feeds a live microphone from the sound card; a context, which must be entered on a running loop."""

    _name = "microphone"

    def __init__(self, microphone: LiveMicrophone) -> None:
        self._microphone = microphone

    def _open(self, sounddevice: Any) -> Any:
        loop = asyncio.get_running_loop()

        def heard(data: Any, _frames: int, _time: Any, _status: Any) -> None:
            loop.call_soon_threadsafe(self._microphone.feed, np.frombuffer(bytes(data), np.int16))

        return sounddevice.RawInputStream(samplerate=UPLINK_RATE_HZ, channels=1, dtype="int16", callback=heard)
