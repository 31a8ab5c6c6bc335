"""Any speech server that speaks OpenAI's `/audio/speech`, streamed over connections that are kept.

Asked by aiohttp and not by the `openai` client, whose request costs 5.5 ms of the loop where this one costs 1.9 ms
(measured with ten pieces of sound); a reply asks once a sentence.
"""

from collections.abc import AsyncGenerator
from typing import Any, Final

import aiohttp

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.stream_decode import SpeechDecoder, decode_parts
from xiaozhi.settings import OpenAIVoiceSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.stages.tts.engine import ClauseVoice, TextRefused, VoiceError
from xiaozhi.stages.tts.errors import error_in, short, undecodable
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, closest
from xiaozhi.upstream.connections import Connections, reason

_NOT_SOUND: Final = ("application/json", "text/")
_ABOUT_THE_TEXT: Final = frozenset({400, 413, 422})
_RATE_HEADERS: Final = ("x-sample-rate", "x-audio-sample-rate", "sample-rate")
_MAX_ERROR_BYTES: Final = 2000
_PIECE_BYTES: Final = 9600  # 0.2 s of bare samples
_SLOWEST, _FASTEST = 0.25, 4.0  # what the API takes


class OpenAIVoice(ClauseVoice):
    """Speaks through an OpenAI-compatible server.

    Args:
        settings: where, which model and voice, which format.
        timeout_s: longest silence of the connection.
    """

    name = "openai"

    def __init__(self, settings: OpenAIVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._base = settings.base_url.rstrip("/")
        self.about = f"{settings.model} {settings.voice}, {settings.format} from {settings.base_url}"
        self._connections = Connections(timeout_s)

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound as it arrives; the server finds the language in the text.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not sound.
        """
        asked = self._request(text, language, request)
        begun = False
        try:
            async with self._connections.session.post(
                f"{self._base}/audio/speech", json=asked, headers=self._headers()
            ) as reply:
                await self._require_sound(reply)
                begun = True
                decoder = self._decoder(reply)
                async for data in reply.content.iter_chunked(_PIECE_BYTES):
                    for pcm in decode_parts(decoder, data):
                        yield pcm
            rest = decoder.finish()
        except DecodeError as error:
            raise undecodable(self.name, error) from error
        except TimeoutError as error:
            raise VoiceError(f"{self.name}: no answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise VoiceError(f"{self.name}: {'broke off: ' if begun else ''}{reason(error)}") from error
        if len(rest):
            yield rest

    async def warm(self) -> None:
        """Open a connection without spending tokens; a server without a list of models will do.

        Raises:
            VoiceError: the server cannot be reached, or refuses the key.
        """
        try:
            async with self._connections.session.get(f"{self._base}/models", headers=self._headers()) as reply:
                if reply.status in (401, 403):
                    raise VoiceError(f"{self.name}: the server refuses the key (HTTP {reply.status})")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise VoiceError(f"{self.name}: {self._base} cannot be reached: {reason(error)}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    def _decoder(self, reply: aiohttp.ClientResponse) -> SpeechDecoder:
        """For what the server says that it sends; some say the rate of bare samples in a header of their own."""
        said = next((rate for name in _RATE_HEADERS if (rate := reply.headers.get(name, "")).isdecimal()), "")
        rate_hz = int(said) if 4 <= len(said) <= 6 else self._settings.pcm_rate_hz
        return SpeechDecoder(self._settings.format, reply.headers.get("content-type", ""), rate_hz)

    def _request(self, text: str, language: str, request: VoiceRequest) -> dict[str, Any]:
        settings = self._settings
        asked: dict[str, Any] = {
            "input": text,
            "model": settings.model,
            "voice": closest(self.name, request, language, settings.voice),
            "response_format": settings.format,
        }
        speed = min(_FASTEST, max(_SLOWEST, settings.speed * (1.0 + request.rate_percent / 100.0)))
        if speed != 1.0:  # some compatible servers do not know the parameter
            asked["speed"] = speed
        return asked

    def _headers(self) -> dict[str, str]:
        key = self._settings.key()  # local servers ask for none
        if fault := key_fault(key):
            raise VoiceError(f"{self.name}: the key {fault}: see tts.openai.api_key")
        return {"User-Agent": "xiaozhi", **({"Authorization": f"Bearer {key}"} if key else {})}

    async def _require_sound(self, reply: aiohttp.ClientResponse) -> None:
        """Read what is not sound.

        Raises:
            VoiceError: the answer is an error, or a page or a message with the status of a success.
        """
        kind = reply.headers.get("content-type", "").lower()
        if reply.status == 200 and not kind.startswith(_NOT_SOUND):
            return
        body = (await reply.content.read(_MAX_ERROR_BYTES)).decode("utf-8", "replace")
        if reply.status == 200:
            raise VoiceError(f"{self.name}: answered {kind} instead of sound: {short(body)}")
        of_text = reply.status in _ABOUT_THE_TEXT
        raise (TextRefused if of_text else VoiceError)(f"{self.name}: HTTP {reply.status}: {short(error_in(body))}")
