"""Qwen's realtime recognisers on DashScope (qwen3-asr-flash-realtime): events in JSON, a session for each stretch.

The events are those of the official SDK (PyPI `dashscope` 2.0.2, `audio/qwen_omni/omni_realtime.py`) and of Model
Studio's pages. The service's own endpointing only cuts sentences; `session.finish` asks for the last text, after which
the service takes nothing more on that connection. A connection is opened at the onset, while somebody speaks.
"""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.concurrency.channel import Channel
from xiaozhi.settings.asr import DashscopeAsrSettings, RemoteAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.cloud_stream import CloudRecognizer, glued
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections
from xiaozhi.upstream.dashscope import DashscopeError, dashscope_socket

_PIECE_BYTES: Final = UPLINK_RATE_HZ // 10 * 2
_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription."


class QwenRecognizer(CloudRecognizer):
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
        base = settings.url.rstrip("/").removesuffix("/inference").removesuffix("/realtime")
        self._url = f"{base}/realtime?model={quote(settings.model, safe='')}"
        self._connections = Connections(None, connect_s=remote.connect_timeout_s)

    def session(self) -> dict[str, Any]:
        """Of `session.update`."""
        settings = self._settings
        transcription: dict[str, Any] = {} if self._language == "auto" else {"language": self._language}
        if settings.context:
            transcription["corpus"] = {"text": settings.context}
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

    async def stream(self, audio: Channel[bytes], say: Callable[[str], None]) -> str:
        """Recognise a stretch of speech.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        heard: dict[str, str] = {}  # by item, in their order
        async with self._session() as socket:
            sending = asyncio.create_task(self._send(socket, audio), name="asr-dashscope")
            try:
                while (event := await self._receive(socket))["type"] != "session.finished":
                    if self._take(event, heard):
                        say(_joined(heard))
            finally:
                sending.cancel()
        return _joined(heard)

    async def connect(self) -> None:
        """Connect once, with the key; a session takes no second utterance, so none is kept.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        async with self._session():
            pass

    async def disconnect(self) -> None:
        """Close what is open."""
        await self._connections.close()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        limit_s = self.remote.settings.connect_timeout_s
        try:
            socket = await dashscope_socket(
                self._connections, self._url, self._settings, "asr.dashscope", connect_s=limit_s
            )
        except DashscopeError as error:
            raise RemoteError(f"{self.name}: {error}") from error
        async with socket:
            try:
                async with asyncio.timeout(limit_s):
                    while (await self._receive(socket))["type"] != "session.created":
                        pass
            except TimeoutError as error:
                raise RemoteError(f"{self.name}: no session within {limit_s:g} s") from error
            yield socket

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, audio: Channel[bytes]) -> None:
        """Send sound as it comes. A connection that is lost is told by what comes."""
        waiting = bytearray()
        with suppress(aiohttp.ClientError, OSError):
            await _event(socket, "session.update", session=self.session())
            async for data in audio:
                waiting += data
                if len(waiting) >= _PIECE_BYTES:
                    await _append(socket, waiting)
            if waiting:
                await _append(socket, waiting)
            await _event(socket, "session.finish")

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> Mapping[str, Any]:
        """The next event.

        Raises:
            RemoteError: it is none, tells of a failure, or the connection has ended.
        """
        message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise RemoteError(f"{self.name}: the connection ended before the text")
        try:
            event = bounded_json.loads(message.data)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise RemoteError(f"{self.name}: sent something that is no event: {one_line(message.data, 60)}")
        if event["type"] in ("error", f"{_TRANSCRIPTION}failed"):
            said = event.get("error")
            said = said.get("message") or said.get("code") if isinstance(said, dict) else said
            raise RemoteError(f"{self.name}: {one_line(said or 'failed', MAX_SHOWN_CHARS)}")
        return event

    def _take(self, event: Mapping[str, Any], heard: dict[str, str]) -> bool:
        """Take an event; whether it said anything."""
        item = str(event.get("item_id", ""))
        if event["type"] == f"{_TRANSCRIPTION}text":  # what is settled, and what may still change
            parts = [event.get("text") or "", event.get("stash") or ""]
        elif event["type"] == f"{_TRANSCRIPTION}completed":
            parts = [event.get("transcript") or ""]
        else:
            return False
        if not all(isinstance(part, str) for part in parts):
            raise RemoteError(f"{self.name}: answered without a text")
        heard[item] = "".join(parts)
        return True


async def _event(socket: aiohttp.ClientWebSocketResponse, kind: str, **fields: Any) -> None:
    await socket.send_str(orjson.dumps({"event_id": f"event_{uuid.uuid4().hex}", "type": kind, **fields}).decode())


async def _append(socket: aiohttp.ClientWebSocketResponse, data: bytearray) -> None:
    """Send all of `data`, and leave it empty."""
    await _event(socket, "input_audio_buffer.append", audio=base64.b64encode(data).decode())
    data.clear()


def _joined(heard: Mapping[str, str]) -> str:
    text = ""
    for sentence in heard.values():
        text = glued(text, sentence)
    return text
