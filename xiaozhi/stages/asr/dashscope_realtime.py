"""Qwen's realtime recognisers on DashScope (qwen3-asr-flash-realtime): events in JSON, a session for each stream.

The service's own endpointing only cuts sentences; `session.finish` asks for the last text, after which
the service takes nothing more on that connection. A connection is opened at the onset, while somebody speaks.
"""

import base64
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import reduce
from typing import Any, Final

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings.asr import DashscopeAsrSettings, RemoteAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import run_on
from xiaozhi.stages.asr.hotwords import hotwords
from xiaozhi.stages.asr.live import Heard, LiveRecognizer, Sound, in_background
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.upstream.connections import Connections
from xiaozhi.upstream.dashscope import DashscopeError
from xiaozhi.upstream.dashscope_realtime import DashscopeSession, dashscope_session

_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription."


class QwenRecognizer(LiveRecognizer):
    """Recognises through Qwen's realtime recognition.

    Args:
        settings: model, key and words.
        remote: limits.
        language: what is spoken.
    """

    name = "dashscope"

    def __init__(self, settings: DashscopeAsrSettings, remote: RemoteAsrSettings, language: Language) -> None:
        super().__init__(remote)
        self._settings, self._language = settings, language
        self._connections = Connections(None, connect_s=remote.connect_timeout_s)

    def session(self) -> dict[str, Any]:
        """Of `session.update`."""
        settings = self._settings
        transcription: dict[str, Any] = {} if self._language == "auto" else {"language": self._language}
        words = hotwords((), self.names)
        if known := "\n".join(filter(None, (settings.context, ", ".join(words)))):
            transcription["corpus"] = {"text": known}
        return {
            "modalities": ["text"],
            "input_audio_format": "pcm",
            "sample_rate": UPLINK_RATE_HZ,
            "input_audio_transcription": transcription,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.0,
                "silence_duration_ms": settings.max_sentence_silence_ms,
            },
        }

    async def converse(self, sound: Sound, heard: Heard) -> str:
        """Recognise one stream.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        texts: dict[str, str] = {}  # by item, in their order
        try:
            async with self._session() as session, in_background(self._send(session, sound)):
                while (event := await session.receive())["type"] != "session.finished":
                    if _take(event, texts):
                        heard(reduce(run_on, texts.values()))
        except DashscopeError as error:
            raise RemoteError(f"{self.name}: {error}") from error
        return reduce(run_on, texts.values(), "")

    async def connect(self) -> None:
        """Connect once, with the key; a session takes no second utterance, so none is kept.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        try:
            async with self._session():
                pass
        except DashscopeError as error:
            raise RemoteError(f"{self.name}: {error}") from error

    async def disconnect(self) -> None:
        """Close what is open."""
        await self._connections.close()

    def _session(self) -> AbstractAsyncContextManager[DashscopeSession]:
        settings, limit_s = self._settings, self.remote.settings.connect_timeout_s
        return dashscope_session(self._connections, settings, settings.model, "asr.dashscope", connect_s=limit_s)

    async def _send(self, session: DashscopeSession, sound: Sound) -> None:
        """Send sound as it comes. A connection that is lost is told by what comes."""
        with suppress(DashscopeError):
            await session.send("session.update", session=self.session())
            async for piece in sound:
                await session.send("input_audio_buffer.append", audio=base64.b64encode(piece).decode())
            await session.send("session.finish")


def _take(event: Mapping[str, Any], texts: dict[str, str]) -> bool:
    """Take an event; whether it said anything."""
    if event["type"] == f"{_TRANSCRIPTION}text":  # what is settled, and what may still change
        parts = [event.get("text") or "", event.get("stash") or ""]
    elif event["type"] == f"{_TRANSCRIPTION}completed":
        parts = [event.get("transcript") or ""]
    else:
        return False
    if not all(isinstance(part, str) for part in parts):
        raise DashscopeError("answered without a text")
    texts[str(event.get("item_id", ""))] = "".join(parts)
    return True
