"""Silences what still waits in a device after an interruption: going to speaking once more empties its queue.

Only the firmware does so, and only when it is told before it has begun to play the queue out: `tts/start` follows the
`tts/stop` that has just been sent at once, and the second stop comes after what both need to be seen.
"""

import asyncio
from collections.abc import Callable

from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.settings import AudioSettings


def begin_flush(link: DeviceLink, audio: AudioSettings) -> bool:
    """Right after a `tts/stop`: send the device to speaking, if that helps; then `end_flush` has to follow."""
    if not audio.instant_flush or not link.is_firmware:
        return False
    link.tts_start()
    return True


async def end_flush(link: DeviceLink, audio: AudioSettings, speaks_again: Callable[[], bool]) -> None:
    """Send it back, unless another reply has begun meanwhile, which ends with a stop of its own."""
    await asyncio.sleep(audio.flush_hold_ms / 1000.0)
    if not speaks_again():
        link.tts_stop()
