"""What a conversation may say to its device; the transport implements it."""

from collections.abc import Mapping
from typing import Protocol


class DeviceLink(Protocol):
    """The way to one device. Nothing here waits: a slow device costs its own audio, never another's time."""

    @property
    def is_firmware(self) -> bool:
        """The client repeats the session id it was given, as the firmware does and desktop clients do not."""
        ...

    @property
    def start_margin_ms(self) -> float:
        """So much longer than over one ordered connection sound has to wait behind `tts_start`, in milliseconds."""
        ...

    @property
    def stop_margin_ms(self) -> float:
        """So much longer `tts_stop` has to wait behind the sound, in milliseconds."""
        ...

    def stt(self, text: str) -> None:
        """Show what was heard."""
        ...

    def emotion(self, name: str) -> None:
        """Show a face, by one of the 21 names."""
        ...

    def tts_start(self) -> None:
        """The device goes to speaking."""
        ...

    def sentence_start(self, text: str) -> None:
        """Show the subtitle of the audio that follows."""
        ...

    def audio(self, opus: bytes, generation: int) -> None:
        """Send one packet; it is dropped if by then `silence` has been called for its generation or a later one."""
        ...

    def silence(self, generation: int) -> None:
        """Drop all audio of this generation and of older ones that has not left yet."""
        ...

    def untaken_ms(self, generation: int) -> float:
        """How much audio at the end of this generation the device cannot have: it never left, or waits to leave.

        In milliseconds; known of the newest generation, 0 for older ones.
        """
        ...

    def tts_stop(self) -> None:
        """The device goes back to listening or idle."""
        ...

    def hang_up(self, why: str) -> None:
        """Close the connection, a moment later, so that the device has acted on what was sent last."""
        ...

    def trace(self, record: Mapping[str, object]) -> None:
        """Hand over a turn's record, to clients that asked for it."""
        ...
