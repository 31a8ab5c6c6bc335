"""A text as packets of sound, whole: for devices that fetch what they are to say instead of being spoken to."""

import asyncio
from dataclasses import dataclass

from xiaozhi.concurrency.channel import PACKETS, Channel
from xiaozhi.conversation.engines import Engines
from xiaozhi.events import Clause, ClauseStart, SpeechPacket, SpokenItem
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.text.script import script_of


@dataclass(frozen=True, slots=True)
class Recording:
    """What was said.

    Attributes:
        packets: Opus, mono, of the length that replies have.
        subtitles: what is shown, each with the millisecond at which it is said.
        duration_ms: how long it sounds.
    """

    packets: tuple[bytes, ...]
    subtitles: tuple[tuple[int, str], ...]
    duration_ms: int


async def record(engines: Engines, text: str, language: str = "") -> Recording:
    """Say a text to nobody, in the voice and from the cache that replies have.

    Args:
        engines: what it goes through.
        text: what to say.
        language: of a text that does not show its own.

    Raises:
        VoiceError: no voice works.
    """
    script = script_of(text, language=language)
    clauses: Channel[Clause] = Channel(len(script) + 1)
    for clause in script:
        clauses.put_nowait(clause)
    clauses.close()
    items: Channel[SpokenItem] = Channel(float("inf"), kind=PACKETS)
    packets: list[bytes] = []
    subtitles: list[tuple[int, str]] = []
    duration_ms = 0

    async def speak() -> None:
        try:
            await run_tts(
                clauses,
                items,
                engines.caches.speech,
                engines.speech_settings(),
            )
        finally:
            items.close()

    speaking = asyncio.create_task(speak(), name="recording")
    engines.retirement.until(speaking)  # the engines it uses stay until it is over
    try:
        async for item in items:
            match item:
                case ClauseStart(clause):
                    subtitles.append((duration_ms, clause.text))
                case SpeechPacket(opus, packet_ms):
                    packets.append(opus)
                    duration_ms += packet_ms
        await speaking
    finally:
        speaking.cancel()
    return Recording(tuple(packets), tuple(subtitles), duration_ms)
