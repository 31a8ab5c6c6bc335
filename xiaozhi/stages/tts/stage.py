"""The speaking stage: clauses to Opus packets, several clauses synthesised at once and spoken in order."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from xiaozhi.concurrency.channel import Channel
from xiaozhi.events import Clause, ClauseStart, SpeechPacket, SpokenItem
from xiaozhi.settings import Settings
from xiaozhi.stages.tts.clause_speech import ClauseSpeech
from xiaozhi.stages.tts.encoding import FRAME_MS, unheard_ms
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

_log = logging.getLogger(__name__)

# How far a clause may run ahead of the one before it: enough to follow it without a gap. What an interruption throws
# away need not have been encoded.
_AHEAD_PACKETS: Final = 960 // FRAME_MS
# What a clause that is not made to its end is taken to hold still: what comes behind it is not near (`workers.NEAR_S`).
_UNFINISHED_MS: Final = 1000.0


@dataclass(slots=True)
class _Speech:
    """A clause being made."""

    clause: Clause
    packets: Channel[bytes] = field(default_factory=lambda: Channel(_AHEAD_PACKETS))
    error: VoiceError | None = None


async def run_tts(
    clauses: Channel[Clause],
    out: Channel[SpokenItem],
    speech: ClauseSpeech,
    settings: Settings,
    *,
    request: VoiceRequest = ANY_VOICE,
    queued_ms: Callable[[], float] = unheard_ms,
    on_first_speech: Callable[[], None] = lambda: None,
    on_voice: Callable[[str], None] = lambda _voice: None,
    on_hit: Callable[[], None] = lambda: None,
) -> None:
    """Speak clauses until their channel ends, into `out`, which is left open.

    `ClauseStart` goes right before the first packet of its clause, and alone for one without words. A clause that
    cannot be spoken is logged and left out.

    Args:
        clauses: what to say.
        out: gets the packets; its bound slows everything before it, down to the voice's socket.
        speech: makes packets of clauses.
        settings: of sound and speech, for now: under load they ask for less.
        request: how the reply should sound.
        queued_ms: how much speech has been put into `out` and is still to be played, in milliseconds; left out, nobody
            listens.
        on_first_speech: called once, when the first packet is there.
        on_voice: told whose voice each clause is.
        on_hit: called for each clause that cost no synthesis, before `on_first_speech`.

    Raises:
        VoiceError: there were clauses and none of them could be spoken.
    """
    under_way: Channel[_Speech] = Channel(settings.tts.parallel_clauses)
    begun: deque[_Speech] = deque()  # and not passed on to its end
    # A place is free again when its clause has been passed on, so no more than these wait in memory.
    places = asyncio.Semaphore(settings.tts.parallel_clauses)
    reply = ReplyVoices(request)
    failure: VoiceError | None = None
    heard = False

    def ahead_ms(one: _Speech) -> float:
        """For how long there is something to hear before the next packet of a clause is needed."""
        total_ms = queued_ms()
        for each in begun:
            total_ms += len(each.packets) * FRAME_MS
            if each is one:
                break
            total_ms += 0.0 if each.packets.closed else _UNFINISHED_MS
        return total_ms

    async def make(one: _Speech, part: ReplyPart, *, urgent: bool) -> None:
        made = speech.packets(
            one.clause,
            part,
            audio=settings.audio,
            urgent=urgent,
            ahead_ms=partial(ahead_ms, one),
            on_voice=on_voice,
            on_hit=on_hit,
        )
        try:
            async with aclosing(made) as packets:
                async for packet in packets:
                    await one.packets.put(packet)
        except VoiceError as error:
            one.error = error
        finally:
            part.placed.set()  # kept, or spoken by a voice that takes clauses one by one
            one.packets.close()

    async def begin_each() -> None:
        first = True
        try:
            await places.acquire()
            async for clause in clauses:
                one = _Speech(clause)
                begun.append(one)
                if clause.sound is None and not clause.speech:  # a face alone
                    one.packets.close()
                else:
                    tasks.create_task(make(one, reply.part(), urgent=first), name="tts-clause")
                    first = False
                await under_way.put(one)
                await places.acquire()
            await reply.end()
        finally:
            under_way.close()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(begin_each(), name="tts-begin")
            async for one in under_way:
                announced = False
                if not one.clause.speech and one.clause.sound is None:
                    await out.put(ClauseStart(one.clause))
                async for packet in one.packets:
                    if not heard:
                        heard = True
                        on_first_speech()
                    if not announced:
                        announced = True
                        await out.put(ClauseStart(one.clause))
                    await out.put(SpeechPacket(packet, FRAME_MS))
                begun.popleft()
                places.release()
                if one.error is not None:
                    _log.warning("a clause of %d characters was left out: %s", len(one.clause.speech), one.error)
                    failure = one.error
    finally:
        await reply.close()
    if failure is not None and not heard:
        raise failure
