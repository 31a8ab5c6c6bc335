"""CosyVoice on Alibaba's DashScope: text goes in as it comes, sound comes out as raw PCM, one task for a whole reply.

The parameters are those of Model Studio's pages on CosyVoice and of the official SDK (PyPI `dashscope` 2.0.2,
`audio/tts_v2/speech_synthesizer.py`): `flush` has what was sent spoken at once, so each clause of a reply is a sentence
of its own; `directive: cancel` ends a task without the rest. Which text a sound belongs to is told by the sentences'
`original_text`; services that do not tell are followed by how long a text takes at least.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.settings.tts import DashscopeVoiceSettings
from xiaozhi.stages.tts.dashscope_realtime import QwenVoice, rate_for, voice_for
from xiaozhi.stages.tts.engine import Mark, Spoken, Voice, VoiceContext, VoiceError, VoiceSession
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.text.units import UNIT_MS, speakable_chars, units
from xiaozhi.upstream.connections import WARM_S
from xiaozhi.upstream.dashscope import DashscopeError, DashscopeSockets, DashscopeTask

# A task without input for 23 s fails; a reply whose next words come later goes on with another.
_MAX_PAUSE_S: Final = 15.0
# A voice speaks a text in no less than this part of the ordinary time, the fastest that settings allow being the half.
_LEAST: Final = 0.3
_MAX_TEXT_CHARS: Final = 10_000  # of 20 000 that a message may have, where a Chinese character counts twice
_MAX_TEXTS: Final = 1000
_BAD_VOICE: Final = "error code: 418"


class DashscopeVoice(Voice):
    """Speaks through CosyVoice, over connections that are kept.

    Args:
        settings: model, voice, key and rate.
        timeout_s: longest wait for a connection and for a task to begin.
    """

    name = "dashscope"
    warm_s = WARM_S
    spans_clauses = True

    def __init__(self, settings: DashscopeVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self.about = f"{settings.model} {settings.speaker} ({settings.url})"
        self.sockets = DashscopeSockets(settings, "tts.dashscope", timeout_s)

    @classmethod
    def build(cls, context: VoiceContext) -> Voice:
        """The voice of `[tts.dashscope]`, in the protocol that its model speaks."""
        own: DashscopeVoiceSettings = context.own
        kind = QwenVoice if own.is_realtime else cls
        return kind(own, context.settings.idle_timeout_s)

    def payload(self, language: str, request: VoiceRequest = ANY_VOICE) -> dict[str, Any]:
        """Of `run-task`.

        Args:
            language: of the reply's first text.
            request: how it should sound.
        """
        settings = self._settings
        return {
            "task_group": "audio",
            "task": "tts",
            "function": "SpeechSynthesizer",
            "model": settings.model,
            "parameters": {
                "text_type": "PlainText",
                "voice": voice_for(settings, language, request),
                "format": "pcm",
                "sample_rate": DOWNLINK_RATE_HZ,
                "volume": 50,
                "rate": rate_for(settings, request),
                "pitch": request.pitch_ratio,
            },
            "input": {},
        }

    def open(self, request: VoiceRequest = ANY_VOICE) -> VoiceSession:
        """Begin a reply."""
        return _Session(self, request)

    async def warm(self) -> None:
        """Have a connection ready, with the key; costs nothing.

        Raises:
            VoiceError: it cannot be reached, or refuses the key.
        """
        try:
            await self.sockets.connect()
        except DashscopeError as error:
            raise VoiceError(f"{self.name}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self.sockets.close()


class _Session:
    def __init__(self, voice: DashscopeVoice, request: VoiceRequest) -> None:
        self._voice, self._request = voice, request
        self._texts: Channel[tuple[str, str]] = Channel(_MAX_TEXTS)
        self._places = Places()

    async def send(self, text: str, language: str) -> None:
        with suppress(ChannelClosed):  # cancelled: nobody listens
            await self._texts.put((text[:_MAX_TEXT_CHARS], language))

    async def end(self) -> None:
        self._texts.close()

    async def cancel(self) -> None:
        self._texts.drain()
        self._texts.close()  # whoever reads closes `sound`, and with it the task

    async def sound(self) -> AsyncGenerator[Spoken, None]:
        try:
            while (first := await self._texts.peek()) is not None:
                payload = self._voice.payload(first[1], self._request)
                async with self._voice.sockets.task(payload, cancel={"directive": "cancel"}) as task:
                    sending = asyncio.create_task(self._send(task), name="tts-dashscope")
                    try:
                        async with aclosing(self._heard(task)) as heard:
                            async for item in heard:
                                yield item
                    finally:
                        sending.cancel()
                    task.raise_error()
                for mark in self._places.all_spoken():
                    yield mark
        except DashscopeError as error:
            advice = ": the voice is none of this model's: see tts.dashscope.voice" if _BAD_VOICE in str(error) else ""
            raise VoiceError(f"{self._voice.name}: {error}{advice}") from error

    async def _send(self, task: DashscopeTask) -> None:
        """Send texts as they come. A connection that is lost is told by what comes."""
        with suppress(DashscopeError):
            with suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(_MAX_PAUSE_S):
                        if await self._texts.peek() is None:
                            break
                    text, _ = await self._texts.get()
                    self._places.sent(text)
                    await task.send({"text": text})
                    await task.send({"flush": True})
            await task.finish()

    async def _heard(self, task: DashscopeTask) -> AsyncGenerator[Spoken, None]:
        odd = b""
        async for output in task.outputs:
            if not isinstance(output, bytes):
                for mark in self._places.told(output):
                    yield mark
                continue
            data = odd + output
            odd = data[len(data) & ~1 :]
            pcm: PcmInt = np.frombuffer(data[: len(data) & ~1], "<i2").astype(np.int16, copy=False)
            for mark in self._places.spoken(len(pcm)):
                yield mark
            if len(pcm):
                yield pcm


class Places:
    """Where in the texts of a session its sound is. Pure; counted in what can be spoken, which services do not change.

    A text is over when the sentence that it ends with is. Where a sentence goes on behind it, or nothing is told of
    sentences, it is over when it has sounded for as long as it takes at least: each text gets sound of its own.
    """

    def __init__(self) -> None:
        self._texts: list[tuple[int, float]] = []  # where each ends in characters, and its least samples
        self._at = 0  # the text that is spoken
        self._samples = 0  # of it, so far
        self._told_chars = 0  # up to the end of the sentence that is spoken
        self._tells = self._named = False  # ever; of the sentence that is spoken

    def sent(self, text: str) -> None:
        """This is to be spoken behind what was sent before."""
        end = self._texts[-1][0] if self._texts else 0
        least = units(text) * UNIT_MS / 1000.0 * DOWNLINK_RATE_HZ * _LEAST
        self._texts.append((end + speakable_chars(text), least))

    def told(self, output: Mapping[str, Any]) -> Iterator[Mark]:
        """The service says that a sentence begins, goes on or is over; in one of these it says which."""
        kind, text = output.get("type"), output.get("original_text")
        if kind == "sentence-begin":
            yield from self._over(self._told_chars)
            self._named = False
        if isinstance(text, str) and text and not self._named:
            self._named = self._tells = True
            self._told_chars += speakable_chars(text)
        if kind == "sentence-end":
            yield from self._over(self._told_chars)
            self._named = False

    def spoken(self, samples: int) -> Iterator[Mark]:
        """So much sound has come behind what was counted so far."""
        reaches = self._told_chars if self._tells else self._texts[-1][0] if self._texts else 0
        while self._at < len(self._texts) - 1 and reaches > self._texts[self._at][0]:
            if self._samples < self._texts[self._at][1]:
                break
            yield self._next()
        self._samples += samples

    def all_spoken(self) -> Iterator[Mark]:
        """Nothing more comes of what was sent."""
        while self._at < len(self._texts):
            yield self._next()
        self._told_chars = self._texts[-1][0] if self._texts else 0

    def _over(self, chars: int) -> Iterator[Mark]:
        while self._at < len(self._texts) and self._texts[self._at][0] <= chars:
            yield self._next()

    def _next(self) -> Mark:
        self._at, self._samples = self._at + 1, 0
        return Mark(self._at - 1)
