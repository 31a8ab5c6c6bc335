"""iFlytek's online speech synthesis: a WebSocket with a signed address, one for each text, sound at 16 kHz in JSON.

The connection for the first text of a reply is opened while it is being thought of.

The fields are those of iFlytek's page "语音合成（流式版）WebAPI 文档" (doc/tts/online_tts/API.html): `v2/tts`, less
than 8000 bytes of text, `data` that may be null, status 2 in the last message; 401 for a wrong key or signature, 403
for a clock that is off by more than five minutes or an address that is not on the list.
"""

import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import aiohttp
import numpy as np

from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.settings.tts import IflytekVoiceSettings
from xiaozhi.stages.tts.engine import ClauseVoice, TextRefused, VoiceError
from xiaozhi.stages.tts.errors import short
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, bilingual
from xiaozhi.text import bounded_json
from xiaozhi.upstream.connections import Connections, NotOpened, Spares, reason
from xiaozhi.upstream.signing import iflytek_advice, iflytek_url

Socket: TypeAlias = aiohttp.ClientWebSocketResponse

_RATE_HZ: Final = 16_000
_MAX_TEXT_BYTES: Final = 7999  # the service takes less than 8000
_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_LAST: Final = 2
# How long a connection waits for a text at most, and how many do. What the service allows is not written down; one that
# it has closed costs a new one.
_SPARE_S: Final = 8.0
_MAX_SPARE: Final = 8
_ADVICE: Final = {
    10005: "the application id is not known or not allowed this service: see tts.iflytek.app_id and the console",
    10006: "a parameter is missing: see tts.iflytek.app_id and tts.iflytek.voice",
    10007: "a parameter is wrong: see tts.iflytek.voice",
    10010: "the licence is used up: see the console",
    10109: "the text is too long",
    10313: "the application id does not belong to the key: see tts.iflytek.app_id and tts.iflytek.api_key",
    11200: "not allowed: enable the service and the voice in the console, or its quota is used up",
    11201: "the quota of the day is used up: see the console",
}
_ABOUT_THE_TEXT: Final = frozenset({10109, 10163})


class IflytekVoice(ClauseVoice):
    """Speaks through iFlytek.

    Args:
        settings: application, voices and rate.
        timeout_s: longest silence of the connection.
    """

    name = "iflytek"
    warm_s = 0.0

    def __init__(self, settings: IflytekVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self.about = f"{settings.voice} ({settings.url})"
        self._connections = Connections(timeout_s)
        self._spares = Spares[Socket](_SPARE_S, _MAX_SPARE, Socket.close)

    def voice_for(self, text: str, language: str, request: VoiceRequest = ANY_VOICE) -> str:
        """The voice for a text: what is wished, or what is configured for its language."""
        return bilingual(self.name, request, text, language, self._settings.voice, self._settings.voice_en)

    def request(self, text: str, language: str, request: VoiceRequest = ANY_VOICE) -> dict[str, Any]:
        """The message that asks for a text."""
        rate = min(100, max(-50, self._settings.rate_percent + request.rate_percent))
        data = text.encode("utf-8", "ignore")[:_MAX_TEXT_BYTES].decode("utf-8", "ignore")
        return {
            "common": {"app_id": self._settings.credential("app_id")},
            "business": {
                "aue": "raw",
                "auf": f"audio/L16;rate={_RATE_HZ}",
                "vcn": self.voice_for(text, language, request),
                "tte": "UTF8",
                "speed": 50 + (rate // 2 if rate > 0 else rate),  # 0 half, 50 usual, 100 double
                "pitch": 50 + request.pitch_semitones * 50 // 12,  # 0 to 100
            },
            "data": {"status": _LAST, "text": base64.b64encode(data.encode()).decode()},
        }

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound as it arrives.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not sound.
        """
        asked = self.request(text, language, request)
        while True:
            spare, heard = self._spares.take(), False
            try:
                async with aclosing(self._say(spare or await self._dial(), asked)) as pieces:
                    async for pcm in pieces:
                        heard = True
                        yield pcm
                return
            except TextRefused:
                raise
            except VoiceError:
                if spare is None or heard:
                    raise  # else the service may have closed it meanwhile

    async def _say(self, socket: Socket, asked: dict[str, Any]) -> AsyncGenerator[PcmInt, None]:
        """The sound of a text; closes the connection."""
        resampler = StreamResampler(_RATE_HZ)
        try:
            await socket.send_json(asked)
            odd, done = b"", False
            while not done:
                message = await socket.receive(self._timeout_s)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise VoiceError(f"{self.name}: the connection ended before the sound")
                data, done = self._sound(message.data)
                data = odd + data
                odd = data[len(data) & ~1 :]
                pcm = resampler.feed(np.frombuffer(data[: len(data) & ~1], "<i2").astype(np.int16, copy=False))
                if len(pcm):
                    yield pcm
        except TimeoutError as error:
            raise VoiceError(f"{self.name}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise VoiceError(f"{self.name}: {reason(error)}") from error
        finally:
            await socket.close()
        rest = resampler.flush()
        if len(rest):
            yield rest

    async def warm(self) -> None:
        """Open a connection for the next text; only texts cost money.

        Raises:
            VoiceError: it cannot be reached, or refuses the key.
        """
        self._spares.put(await self._dial())

    async def close(self) -> None:
        """Close what is open."""
        await self._spares.close()
        await self._connections.close()

    async def _dial(self) -> Socket:
        settings = self._settings
        if missing := settings.missing("tts.iflytek"):
            raise VoiceError(f"{self.name}: {missing}")
        url = iflytek_url(settings.url, settings.key(), settings.credential("api_secret"), datetime.now(UTC))
        advice = iflytek_advice("tts.iflytek")
        try:
            return await self._connections.websocket(url, max_bytes=_MAX_MESSAGE_BYTES, advice=advice)
        except NotOpened as error:
            raise VoiceError(f"{self.name}: {error}") from error

    def _sound(self, message: str) -> tuple[bytes, bool]:
        """The samples of a message, and whether it is the last."""
        try:
            said = bounded_json.loads(message)
            code = int(said["code"])
            if code:
                advice = _ADVICE.get(code, short(str(said.get("message", ""))))
                of_text = code in _ABOUT_THE_TEXT
                line = f"{self.name}: error {code}: {advice} (sid {short(str(said.get('sid', '')))})"
                raise (TextRefused if of_text else VoiceError)(line)
            data = said.get("data") or {}
            return base64.b64decode(data.get("audio") or "", validate=True), data.get("status") == _LAST
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise VoiceError(f"{self.name}: sent something that is not an answer: {short(message)}") from error
