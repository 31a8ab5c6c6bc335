"""Any server with OpenAI's `/audio/transcriptions`: one WAV file as a form, one JSON with the text."""

import io
import wave
from datetime import UTC, datetime
from typing import Final

import aiohttp
import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.settings.asr import OpenAIAsrSettings, RemoteAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote import RemoteRecognizer, to_text
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections, reason
from xiaozhi.upstream.retry_after import retry_after_s

_MAX_ANSWER_BYTES: Final = 1024 * 1024
_ADVICE: Final = {
    401: "the key is wrong: see asr.openai.api_key",
    403: "the key may not be used for this: see asr.openai.api_key",
    404: "no such address or model: see asr.openai.base_url and asr.openai.model",
    413: "the sound is too long for the server: lower asr.remote.max_audio_s",
    429: "too many requests for this key: lower asr.remote.max_concurrent or raise the quota",
}


class OpenAITranscription(RemoteRecognizer):
    """Recognises through an OpenAI-compatible server, over connections that are kept.

    Args:
        settings: where, which key and model.
        remote: limits.
        language: what is spoken; `auto` leaves it to the server.
    """

    name = "openai"

    def __init__(self, settings: OpenAIAsrSettings, remote: RemoteAsrSettings, language: Language) -> None:
        super().__init__(remote)
        self._settings = settings
        # ISO 639-1, which is what the interface takes, has no word of its own for Cantonese.
        self._language = {"auto": "", "yue": "zh"}.get(language, language)
        self._base = settings.base_url.rstrip("/")
        self._connections = Connections(
            remote.timeout_s, connect_s=remote.connect_timeout_s, limit=remote.max_concurrent + 1
        )

    @classmethod
    def build(cls, context: RecognizerContext) -> "OpenAITranscription":
        """The server of `[asr.openai]`."""
        asr = context.settings
        engine = cls(asr.openai, asr.remote, asr.language)
        engine.about = f"{cls.name} {asr.openai.model} from {asr.openai.base_url}"
        return engine

    async def recognise(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        form = aiohttp.FormData()
        form.add_field("file", io.BytesIO(wav(pcm)), filename="speech.wav", content_type="audio/wav")
        form.add_field("model", self._settings.model)
        form.add_field("response_format", "json")
        for name, value in (("language", self._language), ("prompt", self._settings.prompt)):
            if value:
                form.add_field(name, value)
        try:
            url = f"{self._base}/audio/transcriptions"
            async with self._connections.session.post(url, data=form, headers=self._headers()) as reply:
                body = await _bounded(reply)
                if reply.status != 200:
                    raise self._refusal(reply, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RemoteError(f"{self.name}: {reason(error)}") from error
        try:
            said = bounded_json.loads(body)
        except orjson.JSONDecodeError as error:
            raise RemoteError(f"{self.name}: answered something that is not JSON: {_shown(body)}") from error
        text = said.get("text") if isinstance(said, dict) else None
        return to_text(text, self.name, self.remote.settings.max_text_chars)

    async def connect(self) -> None:
        """Open a connection by asking for the list of models; a server without one will do.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        try:
            async with self._connections.session.get(f"{self._base}/models", headers=self._headers()) as reply:
                body = await _bounded(reply)
                if reply.status in (401, 403):
                    raise self._refusal(reply, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RemoteError(f"{self.name}: {self._base} cannot be reached: {reason(error)}") from error

    async def disconnect(self) -> None:
        """Close the connections."""
        await self._connections.close()

    def _headers(self) -> dict[str, str]:
        key = self._settings.key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _refusal(self, reply: aiohttp.ClientResponse, body: bytes) -> RemoteError:
        parts = (self.name, f"HTTP {reply.status}", _ADVICE.get(reply.status, ""), _shown(body))
        rest_s = retry_after_s({name.lower(): value for name, value in reply.headers.items()}, datetime.now(UTC))
        return RemoteError(": ".join(filter(None, parts)), rest_s if reply.status in (429, 503) else None)


def wav(pcm: PcmFloat) -> bytes:
    """float32[n] at 16 kHz as a WAV file of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(UPLINK_RATE_HZ)
        sound.writeframes(to_int16(pcm).astype("<i2", copy=False).tobytes())
    return file.getvalue()


async def _bounded(reply: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for data in reply.content.iter_chunked(16_384):
        body += data
        if len(body) > _MAX_ANSWER_BYTES:
            raise ValueError("the answer is too long")
    return bytes(body)


def _shown(body: bytes) -> str:
    return one_line(body[:1000].decode("utf-8", "replace"), MAX_SHOWN_CHARS)
