"""Azure's speech service over REST: SSML in, raw samples at 24 kHz out as they are made.

Path, headers, formats and status codes are those of Microsoft's page "Text to speech REST API"; the hosts of China and
of the American government those of "Sovereign clouds", and the path at a resource's own domain that of "Use Speech
service through a private endpoint".
"""

from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import urlsplit
from xml.sax.saxutils import escape, quoteattr

import aiohttp

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.stream_decode import SpeechDecoder, decode_parts
from xiaozhi.settings.pasted import key_fault
from xiaozhi.settings.tts import AzureVoiceSettings
from xiaozhi.stages.tts.engine import ClauseVoice, TextRefused, VoiceError
from xiaozhi.stages.tts.errors import NOT_XML, error_in, short, undecodable
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, bilingual
from xiaozhi.upstream.connections import WARM_S, Connections, reason

_PATH: Final = "/cognitiveservices/v1"
_OWN_DOMAINS: Final = (".cognitiveservices.azure.com", ".cognitiveservices.azure.cn", ".cognitiveservices.azure.us")
_FORMAT: Final = "raw-24khz-16bit-mono-pcm"
_MAX_ERROR_BYTES: Final = 2000
_PIECE_BYTES: Final = 9600  # 0.2 s
_ADVICE: Final = {
    400: "the voice or the style is not one that the region has: see tts.azure.voice and tts.azure.style",
    401: "the key is wrong or of another region: see tts.azure.api_key and tts.azure.region",
    403: "the key may not be used for speech: see tts.azure.api_key",
    404: "nothing there: see tts.azure.region and tts.azure.endpoint",
    415: "not a speech service that takes SSML: see tts.azure.endpoint",
    429: "too many requests for this key: lower tts.max_concurrent or raise the quota",
}


def service_url(settings: AzureVoiceSettings) -> str:
    """Where speech is asked for: at the region's host, or at the endpoint where one is set."""
    base = settings.endpoint.rstrip("/")
    if not base:
        region = settings.region
        cloud = "azure.cn" if region.startswith("china") else "azure.us" if region.startswith("usgov") else ""
        base = f"https://{region}.tts.speech.{cloud or 'microsoft.com'}"
    if base.endswith(_PATH):
        return base
    # A resource's own domain holds several services; a regional host this one alone.
    own = (urlsplit(base).hostname or "").endswith(_OWN_DOMAINS) and not base.endswith("/tts")
    return f"{base}/tts{_PATH}" if own else base + _PATH


class AzureVoice(ClauseVoice):
    """Speaks through Azure, over connections that are kept.

    Args:
        settings: region, key, voices, style and rate.
        timeout_s: longest silence of the connection.
    """

    name = "azure"
    warm_s = WARM_S

    def __init__(self, settings: AzureVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._url = service_url(settings)
        self.about = f"{settings.voice}, English {settings.voice_en} ({settings.endpoint or settings.region})"
        self._connections = Connections(timeout_s)

    def voice_for(self, text: str, language: str, request: VoiceRequest = ANY_VOICE) -> str:
        """The voice for a text: what is wished, or what is configured for its language."""
        settings = self._settings
        english = settings.voice_en if settings.voice.startswith("zh-") else ""  # others speak English themselves
        return bilingual(self.name, request, text, language, settings.voice, english)

    def ssml(self, text: str, language: str, request: VoiceRequest = ANY_VOICE) -> str:
        """The request for a text; whatever the text holds, it is spoken and not obeyed."""
        settings, voice = self._settings, self.voice_for(text, language, request)
        rate = min(100, max(-50, settings.rate_percent + request.rate_percent))
        pitch = f' pitch="{request.pitch_semitones:+d}st"' if request.pitch_semitones else ""
        spoken = f'<prosody rate="{rate:+d}%"{pitch}>{escape(NOT_XML.sub(" ", text))}</prosody>'
        if settings.style and voice == settings.voice:  # styles belong to voices: another one may not have it
            spoken = f"<mstts:express-as style={quoteattr(settings.style)}>{spoken}</mstts:express-as>"
        locale = "-".join(voice.split("-")[:2])
        return (
            '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis"'
            f' xmlns:mstts="https://www.w3.org/2001/mstts" xml:lang={quoteattr(locale)}>'
            f"<voice name={quoteattr(voice)}>{spoken}</voice></speak>"
        )

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound as it arrives.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not sound.
        """
        decoder = SpeechDecoder("pcm")
        body = self.ssml(text, language, request).encode("utf-8", "replace")
        try:
            async with self._connections.session.post(self._url, data=body, headers=self._headers()) as reply:
                if reply.status != 200:
                    of_text = reply.status in (400, 413)
                    raise (TextRefused if of_text else VoiceError)(await self._refusal(reply))
                kind = reply.headers.get("content-type", "").lower()
                if not kind.startswith(("audio/", "application/octet-stream")):
                    raise VoiceError(f"{self.name}: answered {kind or 'nothing known'} instead of sound")
                async for data in reply.content.iter_chunked(_PIECE_BYTES):
                    for pcm in decode_parts(decoder, data):
                        yield pcm
            rest = decoder.finish()
        except DecodeError as error:
            raise undecodable(self.name, error) from error
        except TimeoutError as error:
            raise VoiceError(f"{self.name}: no answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise VoiceError(f"{self.name}: {reason(error)}") from error
        if len(rest):
            yield rest

    async def warm(self) -> None:
        """Open a connection and have the key judged: a request without a text is refused and costs nothing.

        Raises:
            VoiceError: it cannot be reached, or refuses the key.
        """
        if missing := self._settings.missing("tts.azure"):
            raise VoiceError(f"{self.name}: {missing}")
        try:
            async with self._connections.session.post(self._url, data=b"", headers=self._headers()) as reply:
                if reply.status in (401, 403, 404):
                    raise VoiceError(await self._refusal(reply))
                await reply.content.read(_MAX_ERROR_BYTES)
        except TimeoutError as error:
            raise VoiceError(f"{self.name}: {self._url} does not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise VoiceError(f"{self.name}: {self._url} cannot be reached: {reason(error)}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    def _headers(self) -> dict[str, str]:
        key = self._settings.key()
        if fault := key_fault(key):
            raise VoiceError(f"{self.name}: the key {fault}: see tts.azure.api_key")
        return {
            "Ocp-Apim-Subscription-Key": key,
            "Content-Type": "application/ssml+xml",
            "X-Microsoft-OutputFormat": _FORMAT,
            "User-Agent": "xiaozhi",
        }

    async def _refusal(self, reply: aiohttp.ClientResponse) -> str:
        advice = _ADVICE.get(reply.status, "")
        said = short(error_in((await reply.content.read(_MAX_ERROR_BYTES)).decode("utf-8", "replace")))
        return ": ".join(filter(None, (self.name, f"HTTP {reply.status}", advice, said)))
