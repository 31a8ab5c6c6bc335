"""The voices as one reply uses them: sessions that span its clauses, each clause's sound taken out of them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Final

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.stages.tts.engine import Mark, Voice, VoiceError
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

# How far the sound of a clause may run ahead of who encodes it.
_AHEAD_SAMPLES: Final = DOWNLINK_RATE_HZ * 3


class ReplyVoices:
    """The sessions that one reply has open, one for each voice that spans clauses.

    Args:
        request: how the reply should sound.
    """

    def __init__(self, request: VoiceRequest = ANY_VOICE) -> None:
        self.request = request
        self.ended = False
        """All its clauses were sent to a voice."""
        self._sessions: dict[str, _SpanningSession] = {}
        self._parts: list[ReplyPart] = []

    def part(self) -> "ReplyPart":
        """The place of the next clause."""
        self._parts.append(ReplyPart(self, len(self._parts) + 1))
        return self._parts[-1]

    def session(self, voice: Voice, number: int) -> "_SpanningSession | None":
        """The session that speaks clause `number`; None where a later one, or the end, has been sent to it already."""
        session = self._sessions.get(voice.name)
        if session is None or session.over:
            session = self._sessions[voice.name] = _SpanningSession(voice, self.request)
        return session if number > session.newest and not session.ended else None

    async def end(self) -> None:
        """The reply has no further clause: its sessions end behind those that are still on their way to them."""
        for part in self._parts:
            await part.placed.wait()
        self.ended = True
        for session in self._sessions.values():
            await session.end()

    async def close(self) -> None:
        """The reply is over or given up."""
        for session in self._sessions.values():
            await session.close()


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """One clause's place in its reply, counted from 1; 0 for a text that stands alone.

    Attributes:
        placed: its text was sent to a voice, or does not have to be.
    """

    reply: ReplyVoices
    number: int = 0
    placed: asyncio.Event = field(default_factory=asyncio.Event, compare=False)

    async def begin(self, voice: Voice, text: str, language: str) -> AsyncGenerator[PcmInt, None]:
        """Have the clause spoken. Returns its sound, int16[n] at 24 kHz, when all before it has been taken.

        Raises:
            VoiceError: the voice refuses it, or failed at a clause before.
        """
        session = self.reply.session(voice, self.number) if voice.spans_clauses and self.number else None
        if session is None:
            return _alone(voice, self.reply.request, text, language)
        session.newest = self.number
        return await session.begin(text, language, self)


async def _alone(voice: Voice, request: VoiceRequest, text: str, language: str) -> AsyncGenerator[PcmInt, None]:
    """A clause with a session of its own."""
    session = voice.open(request)
    try:
        await session.send(text, language)
        await session.end()
        async with aclosing(session.sound()) as sound:
            async for item in sound:
                if not isinstance(item, Mark):
                    yield item
    finally:
        await session.cancel()


class _SpanningSession:
    """One session of a voice; a task of its own hands the sound to the clauses by their marks."""

    def __init__(self, voice: Voice, request: VoiceRequest) -> None:
        self._session = voice.open(request)
        self._clauses: list[Channel[PcmInt]] = []
        self._taken: list[asyncio.Event] = []
        self._error: VoiceError | None = None
        self._reading = asyncio.create_task(self._read(voice.name), name="tts-session")

        self.newest = 0  # the number of the last clause that was sent to it
        self.ended = False  # it was told that no further one comes

    @property
    def over(self) -> bool:
        """Nothing further can be sent."""
        return self._reading.done()

    async def begin(self, text: str, language: str, part: ReplyPart) -> AsyncGenerator[PcmInt, None]:
        sound: Channel[PcmInt] = Channel(_AHEAD_SAMPLES, len)
        taken = asyncio.Event()
        before = self._taken[-1] if self._taken else None
        self._clauses.append(sound)
        self._taken.append(taken)
        try:
            await self._session.send(text, language)
            part.placed.set()
            if part.reply.ended:  # the voice before this one has failed at the last clauses
                await self.end()
            if before is not None:
                await before.wait()
        except BaseException:
            taken.set()
            raise
        return self._sound(sound, taken)

    async def _sound(self, sound: Channel[PcmInt], taken: asyncio.Event) -> AsyncGenerator[PcmInt, None]:
        try:
            async for pcm in sound:
                yield pcm
            if self._error is not None:
                raise self._error
        finally:
            sound.close()  # what still comes of it is dropped
            taken.set()

    async def _read(self, name: str) -> None:
        at = 0
        try:
            async with aclosing(self._session.sound()) as spoken:
                async for item in spoken:
                    if isinstance(item, Mark):
                        for sound in self._clauses[at : item.text + 1]:
                            sound.close()
                        at = item.text + 1
                    elif len(item):
                        with suppress(ChannelClosed):  # nobody wants the rest of this clause
                            await self._clauses[at].put(item)
        except VoiceError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - whatever a voice's library does, another one speaks
            self._error = VoiceError(f"{name}: {type(error).__name__}")
        finally:
            for sound in self._clauses:
                sound.close()

    async def end(self) -> None:
        if not self._reading.done() and not self.ended:
            self.ended = True
            await self._session.end()

    async def close(self) -> None:
        self._reading.cancel()
        await self._session.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
