"""Any speech server that speaks OpenAI's `/audio/speech`, streamed through one shared `openai` client."""

import contextlib
from collections.abc import AsyncGenerator
from importlib import import_module
from typing import Any, Final

import openai

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.stream_decode import SpeechDecoder, decode_parts
from xiaozhi.settings import OpenAIVoiceSettings
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.wishes import NO_WISH, VoiceWish, closest


def _transport_error() -> type[Exception]:
    """The base of what a connection raises while a body streams, which `openai` passes on as it is.

    openai 3 speaks through httpx2, earlier ones through httpx; whichever it installed is there.
    """
    for name in ("httpx2", "httpx"):
        with contextlib.suppress(ImportError):
            error: type[Exception] = import_module(name).HTTPError
            return error
    raise ImportError("the openai package came without its HTTP client")


_TransportError: Final = _transport_error()
_NOT_SOUND: Final = ("application/json", "text/")
_MAX_SHOWN_CHARS: Final = 120


class OpenAIVoice:
    """Speaks through an OpenAI-compatible server.

    Args:
        settings: where, which model and voice, which format.
        timeout_s: longest silence of the connection; the chain of voices has its own, shorter ones for the sound.
    """

    name = "openai"

    def __init__(self, settings: OpenAIVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.key() or "none",  # local servers ask for no key, the client insists on one
            max_retries=0,  # another voice is the retry
            timeout=timeout_s,
        )

    async def speak(self, text: str, *, language: str, wish: VoiceWish = NO_WISH) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound as it arrives; the server finds the language in the text.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not sound.
        """
        settings = self._settings
        decoder = SpeechDecoder(settings.format)
        # Left out when it is the default: some compatible servers do not know the parameter.
        wished = min(4.0, max(0.25, settings.speed * (1.0 + wish.rate_percent / 100.0)))
        speed: Any = wished if wished != 1.0 else openai.omit
        try:
            async with self._client.audio.speech.with_streaming_response.create(
                input=text,
                model=settings.model,
                voice=closest(self.name, wish, language, settings.voice),
                response_format=settings.format,
                speed=speed,
            ) as response:
                kind = response.headers.get("content-type", "").lower()
                if kind.startswith(_NOT_SOUND):
                    raise VoiceError(f"{self.name}: answered {kind} instead of sound: {_short(await response.text())}")
                async for data in response.iter_bytes():
                    for pcm in decode_parts(decoder, data):
                        yield pcm
            rest = decoder.finish()
        except DecodeError as error:
            raise VoiceError(f"{self.name}: {error}") from error
        except openai.APIStatusError as error:
            raise VoiceError(f"{self.name}: HTTP {error.status_code}: {_short(error.message)}") from error
        except openai.APITimeoutError as error:
            raise VoiceError(f"{self.name}: no answer in time") from error
        except openai.APIConnectionError as error:
            raise VoiceError(f"{self.name}: {_cause(error)}") from error
        except (openai.OpenAIError, _TransportError) as error:
            raise VoiceError(f"{self.name}: broke off: {_cause(error)}") from error
        if len(rest):
            yield rest

    async def warm(self) -> None:
        """Open a connection without spending tokens; a server without a list of models will do.

        Raises:
            VoiceError: the server cannot be reached, or refuses the key.
        """
        try:
            await self._client.models.list()
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise VoiceError(f"{self.name}: the server refuses the key (HTTP {error.status_code})") from error
        except openai.APIConnectionError as error:
            raise VoiceError(f"{self.name}: {self._settings.base_url} cannot be reached: {_cause(error)}") from error
        except openai.APIError:
            return  # it answered: the connection stands, which is all that was wanted

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN_CHARS else line[: _MAX_SHOWN_CHARS - 1] + "…"


def _cause(error: BaseException) -> str:
    """The innermost reason: "Connection refused" says more than "Connection error."."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _short(str(error)) or type(error).__name__
