"""Any speech server that takes a text in one HTTP request: SiliconFlow, GPT-SoVITS, CosyVoice, IndexTTS, Fish-Speech.

What is asked and where the sound is in the answer is data, see `xiaozhi.settings.http_voices`.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.stream_decode import SpeechDecoder, decode_parts
from xiaozhi.settings.http_voices import filled
from xiaozhi.settings.pasted import key_fault
from xiaozhi.settings.tts import HttpVoiceSettings
from xiaozhi.stages.tts.engine import ClauseVoice, VoiceContext, VoiceError
from xiaozhi.stages.tts.errors import short
from xiaozhi.stages.tts.http_sound import PIECE_BYTES, failures, refusal, sound_of
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, closest
from xiaozhi.text import bounded_json
from xiaozhi.upstream.connections import WARM_S, Connections, reason

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Of JSON with sound in it: two minutes of 44.1 kHz samples in base64."""
_SLOWEST, _FASTEST = 0.25, 4.0


class HttpVoice(ClauseVoice):
    """Speaks through the server that the settings describe.

    Args:
        settings: how it is asked, and where the sound is in its answer.
        timeout_s: longest silence of the connection.
    """

    name = "http"
    warm_s = WARM_S

    def __init__(self, settings: HttpVoiceSettings, timeout_s: float) -> None:
        self._settings, self._asks = settings, settings.request
        self._voice = self._asks.voice
        self._host = urlsplit(self._asks.url).netloc.rpartition("@")[2]  # the rest of an address may hold a secret
        self.about = f"{settings.preset} {self._voice} from {self._host}".strip()
        self._connections = Connections(timeout_s)

    @classmethod
    def build(cls, context: VoiceContext) -> "HttpVoice":
        """The server of `[tts.http]`.

        Raises:
            VoiceError: the settings do not say which, or not with which voice.
        """
        voice = cls(context.own, context.settings.idle_timeout_s)
        if not voice._asks.url:
            raise VoiceError("http: asks nobody: set tts.http.preset, or tts.http.url and tts.http.body")
        if voice._asks.voice_is and not voice._voice:
            raise VoiceError(f"http: preset {context.own.preset} needs tts.http.voice: {voice._asks.voice_is}")
        return voice

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound, as it arrives where it is the body of the answer.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not sound.
        """
        asked = self._request(self.values(text, language, request))
        try:
            if not self._asks.sound_at:
                pieces = sound_of(self.name, asked, self._asks.pcm_rate_hz)
            else:
                said = await self._said(asked)
                url = self._address(said)
                pieces = self._decoded(said) if url is None else self._fetched(url)
            async with aclosing(pieces):
                async for pcm in pieces:
                    yield pcm
        except VoiceError as error:  # servers quote what they were sent
            raise type(error)(self._without_secrets(str(error))) from None

    def values(self, text: str, language: str, request: VoiceRequest = ANY_VOICE) -> dict[str, Any]:
        """The fields of the request for a text: the text is a value among them, whatever it holds. Pure."""
        speed = self._settings.speed * (1.0 + request.rate_percent / 100.0)
        values = {
            "text": text.encode("utf-8", "replace").decode("utf-8"),
            "voice": closest(self.name, request, language, self._voice),
            "language": language,
            "speed": round(min(_FASTEST, max(_SLOWEST, speed)), 3),
        }
        fields = filled(self._asks.body, values)
        return {name: value for name, value in fields.items() if value != ""}

    async def warm(self) -> None:
        """Open a connection: asked what it can do, no server speaks.

        Raises:
            VoiceError: it cannot be reached, refuses the key, or has none.
        """
        if missing := self._settings.missing("tts.http"):
            raise VoiceError(f"{self.name}: {missing}")
        try:
            async with self._session.options(self._asks.url, headers=self._headers(), allow_redirects=False) as reply:
                if reply.status == 401:
                    raise VoiceError(f"{self.name}: the server refuses the key (HTTP 401): see tts.http.api_key")
                await reply.content.read(PIECE_BYTES)  # to its end: the connection is kept then
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise VoiceError(f"{self.name}: {self._host} cannot be reached: {reason(error)}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        return self._connections.session

    def _request(self, fields: dict[str, Any]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The request with these fields, not sent yet. It is never redirected: key and text go to this server alone."""
        asks = self._asks
        sent: dict[str, Any]
        if asks.method == "GET":
            sent = {"params": {name: _plain(value) for name, value in fields.items()}}
        elif asks.sent_as == "form":
            sent = {"data": {name: _plain(value) for name, value in fields.items()}}
        else:
            sent = {"json": fields}
        return self._session.request(asks.method, asks.url, headers=self._headers(), allow_redirects=False, **sent)

    def _headers(self) -> dict[str, str]:
        key = self._settings.key()
        if fault := key_fault(key):
            raise VoiceError(f"{self.name}: the key {fault}: see tts.http.api_key")
        headers = {name: value for name, value in self._asks.headers.items() if key or "{key}" not in value}
        return {"User-Agent": "xiaozhi", **filled(headers, {"key": key})}

    def _without_secrets(self, text: str) -> str:
        for secret in (self._settings.key(), *(one.get_secret_value() for one in self._settings.headers.values())):
            text = text.replace(secret, "(hidden)") if secret else text
        return text

    async def _said(self, asked: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> str:
        """The text at `sound_at` in the JSON of the answer.

        Raises:
            VoiceError: there is none.
        """
        with failures(self.name):
            async with asked as reply:
                if reply.status != 200:
                    raise await refusal(self.name, reply)
                data = bytearray()
                async for piece in reply.content.iter_any():
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES:
                        raise VoiceError(f"{self.name}: the answer has over {MAX_ANSWER_BYTES >> 20} MB")
            # Off the loop: some megabytes take longer than a frame may wait.
            value = await asyncio.to_thread(bounded_json.loads, bytes(data))
        for step in self._asks.sound_at.split("."):
            if isinstance(value, list) and step.isdecimal() and len(step) < 6 and int(step) < len(value):
                value = value[int(step)]
            else:
                value = value.get(step) if isinstance(value, dict) else None
        if not isinstance(value, str) or not value:
            shown = short(bytes(data[:1000]).decode("utf-8", "replace"))
            raise VoiceError(f"{self.name}: no sound at tts.http.sound_at = {self._asks.sound_at!a} of {shown}")
        return value

    def _address(self, said: str) -> URL | None:
        """The address that the answer names instead of the sound; None where it holds the sound itself.

        Raises:
            VoiceError: it is another server's.
        """
        # Neither stands in base64 (RFC 4648), and the one or the other in every address of a file.
        if said.startswith("data:") or not ({".", ":"} & set(said[:2000])):
            return None
        try:  # read by the same library that asks, so that no address can be one to us and another to it
            own = URL(self._asks.url)
            url = own.join(URL(said))
            same = url.origin() == own.origin()
        except ValueError:
            same = False
        if not same:
            raise VoiceError(f"{self.name}: the sound is said to be on another server than {self._host}: {short(said)}")
        return url

    def _fetched(self, url: URL) -> AsyncGenerator[PcmInt, None]:
        asked = self._session.get(url, headers=self._headers(), allow_redirects=False)
        return sound_of(self.name, asked, self._asks.pcm_rate_hz)

    async def _decoded(self, said: str) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound of base64, plain or behind the head of a `data:` address (RFC 2397)."""
        head, _, coded = said.partition(",") if said.startswith("data:") else ("", "", said)
        try:
            data = await asyncio.to_thread(_from_base64, coded)
        except (binascii.Error, ValueError) as error:
            where = self._asks.sound_at
            raise VoiceError(f"{self.name}: what is at tts.http.sound_at = {where!a} is no base64") from error
        decoder = SpeechDecoder("pcm", head.removeprefix("data:").partition(";")[0], self._asks.pcm_rate_hz)
        with failures(self.name):
            for start in range(0, len(data), PIECE_BYTES):
                for pcm in decode_parts(decoder, data[start : start + PIECE_BYTES]):
                    yield pcm
                await asyncio.sleep(0)
            rest = decoder.finish()
        if len(rest):
            yield rest


def _from_base64(coded: str) -> bytes:
    """Bytes of base64 with or without line breaks and padding at its end, in either alphabet. Blocking."""
    plain = "".join(coded.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _plain(value: Any) -> str:
    """A value as a form or an address holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
