"""Qwen's realtime voices on DashScope (qwen3-tts-flash-realtime): events in JSON, a session for each reply.

In the mode `commit` each clause is a response of its own, so its end is known. The service documents nothing of a
second commit while a response is under way, so the next clause is sent behind the end of the one before; it is made
faster than it is spoken.
"""

import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Any, Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.settings.tts import DashscopeVoiceSettings
from xiaozhi.stages.tts.engine import Mark, Spoken, Voice, VoiceError, VoiceSession
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, closest
from xiaozhi.upstream.connections import Connections
from xiaozhi.upstream.dashscope import DashscopeError
from xiaozhi.upstream.dashscope_realtime import DashscopeSession, dashscope_session

_NAME: Final = "dashscope"
_MAX_TEXTS: Final = 1000


def voice_for(settings: DashscopeVoiceSettings, language: str, request: VoiceRequest) -> str:
    """The voice for a reply that begins in a language: what is wished and the model has, or what is configured."""
    if settings.has_known_voices or request.voice.startswith(f"{_NAME}:"):  # the known ones are of one model
        return closest(_NAME, request, language, settings.speaker)
    return settings.speaker


def rate_for(settings: DashscopeVoiceSettings, request: VoiceRequest) -> float:
    """How fast to speak, 1.0 being usual; the service takes 0.5 to 2.0."""
    rate = (100 + settings.rate_percent) / 100 * (100 + request.rate_percent) / 100
    return round(min(2.0, max(0.5, rate)), 2)


class QwenVoice(Voice):
    """Speaks through Qwen's realtime synthesis.

    Args:
        settings: model, voice, key and rate.
        timeout_s: longest wait for a connection and for a session.
    """

    name = _NAME
    spans_clauses = True

    def __init__(self, settings: DashscopeVoiceSettings, timeout_s: float) -> None:
        self._settings, self._timeout_s = settings, timeout_s
        self.about = f"{settings.model} {settings.speaker} ({settings.url})"
        self._connections = Connections(None, connect_s=timeout_s)

    def session(self, language: str, request: VoiceRequest = ANY_VOICE) -> dict[str, Any]:
        """Of `session.update`."""
        return {
            "voice": voice_for(self._settings, language, request),
            "mode": "commit",
            "response_format": "pcm",
            "sample_rate": DOWNLINK_RATE_HZ,
            "speech_rate": rate_for(self._settings, request),
            **({"pitch_rate": request.pitch_ratio} if request.pitch_semitones else {}),
        }

    def open(self, request: VoiceRequest = ANY_VOICE) -> VoiceSession:
        """Begin a reply."""
        return _Reply(self, request)

    def connected(self) -> AbstractAsyncContextManager[DashscopeSession]:
        """A session at the service.

        Raises:
            DashscopeError: it cannot be reached, refuses the key or the model.
        """
        settings = self._settings
        return dashscope_session(
            self._connections, settings, settings.model, "tts.dashscope", connect_s=self._timeout_s
        )

    async def warm(self) -> None:
        """Connect once, with the key; a session belongs to one reply, so none is kept.

        Raises:
            VoiceError: it cannot be reached, or refuses the key.
        """
        try:
            async with self.connected():
                pass
        except DashscopeError as error:
            raise VoiceError(f"{self.name}: {error}") from error

    async def close(self) -> None:
        """Close what is open."""
        await self._connections.close()


class _Reply:
    def __init__(self, voice: QwenVoice, request: VoiceRequest) -> None:
        self._voice, self._request = voice, request
        self._texts: Channel[tuple[str, str]] = Channel(_MAX_TEXTS)

    async def send(self, text: str, language: str) -> None:
        with suppress(ChannelClosed):  # cancelled: nobody listens
            await self._texts.put((text, language))

    async def end(self) -> None:
        self._texts.close()

    async def cancel(self) -> None:
        self._texts.drain()
        self._texts.close()  # whoever reads closes `sound`, and with it the connection

    async def sound(self) -> AsyncGenerator[Spoken, None]:
        number = 0
        try:
            while (first := await self._texts.peek()) is not None:
                async with self._voice.connected() as session:
                    await session.send("session.update", session=self._voice.session(first[1], self._request))
                    fresh = True
                    while (item := await self._texts.peek()) is not None:
                        heard = False
                        try:
                            async with aclosing(_speak(session, item[0])) as pieces:
                                async for pcm in pieces:
                                    heard = True
                                    yield pcm
                        except DashscopeError as error:
                            if heard or fresh or not error.lost:
                                raise
                            break  # the service has closed a session that had nothing to do
                        await self._texts.get()
                        yield Mark(number)
                        number, fresh = number + 1, False
        except DashscopeError as error:
            raise VoiceError(f"{self._voice.name}: {error}") from error


async def _speak(session: DashscopeSession, text: str) -> AsyncGenerator[PcmInt, None]:
    """One clause, as one response."""
    await session.send("input_text_buffer.append", text=text)
    await session.send("input_text_buffer.commit")
    which: object = None
    odd = b""
    while True:
        event = await session.receive()
        if event["type"] == "response.created":
            which = _id_of(event.get("response"))
        elif event["type"] == "response.done" and which in (None, _id_of(response := event.get("response"))):
            if isinstance(response, dict) and response.get("status") == "failed":
                raise DashscopeError("the response failed")
            return
        elif event["type"] == "response.audio.delta" and event.get("response_id", which) == which:
            try:
                data = odd + base64.b64decode(event.get("delta") or "", validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise DashscopeError("sent something that is not sound") from error
            odd = data[len(data) & ~1 :]
            if len(data) > 1:
                yield np.frombuffer(data[: len(data) & ~1], "<i2").astype(np.int16, copy=False)


def _id_of(response: object) -> object:
    return response.get("id") if isinstance(response, dict) else None
