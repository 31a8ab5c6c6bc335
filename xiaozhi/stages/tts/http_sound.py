"""Sound as the body of an HTTP answer, heard as it comes; what is none of it in words."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final

import aiohttp

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.stream_decode import SpeechDecoder, SpeechFormat, decode_parts
from xiaozhi.stages.tts.engine import TextRefused, VoiceError
from xiaozhi.stages.tts.errors import error_in, short, undecodable
from xiaozhi.upstream.connections import reason

PIECE_BYTES: Final = 9600
"""Read at once: 0.2 s of bare samples."""
_NOT_SOUND: Final = ("application/json", "text/")
_ABOUT_THE_TEXT: Final = frozenset({400, 413, 422})
# What servers call the rate of bare samples; the last is that of a copy of CosyVoice's.
_RATE_HEADERS: Final = ("x-sample-rate", "x-audio-sample-rate", "sample-rate", "x-custom-header-samplerate")
_MAX_ERROR_BYTES: Final = 2000


async def sound_of(
    name: str,
    asked: AbstractAsyncContextManager[aiohttp.ClientResponse],
    pcm_rate_hz: int,
    form: SpeechFormat = "pcm",
) -> AsyncGenerator[PcmInt, None]:
    """Yield the sound of an answer as it arrives, int16[n] at 24 kHz; closing the iterator closes the request.

    Args:
        name: of the engine, for errors.
        asked: the request, not sent yet.
        pcm_rate_hz: of bare samples, where the server does not say it.
        form: what was asked for; another one is recognised by what is sent.

    Raises:
        VoiceError: refused, timed out, broke, or sent something that is not sound.
    """
    with failures(name) as so_far:
        async with asked as reply:
            if reply.headers.get("content-type", "").lower().startswith(_NOT_SOUND) or reply.status != 200:
                raise await refusal(name, reply)
            so_far.append("broke off: ")
            decoder = _decoder(reply, pcm_rate_hz, form)
            async for data in reply.content.iter_chunked(PIECE_BYTES):
                for pcm in decode_parts(decoder, data):
                    yield pcm
        rest = decoder.finish()
    if len(rest):
        yield rest


@contextmanager
def failures(name: str) -> Iterator[list[str]]:
    """Say what goes wrong within as a voice's error, behind the words that the list holds by then.

    Raises:
        VoiceError: the request failed, or its answer is no sound.
    """
    so_far: list[str] = []
    try:
        yield so_far
    except DecodeError as error:
        raise undecodable(name, error) from error
    except TimeoutError as error:
        raise VoiceError(f"{name}: no answer in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise VoiceError(f"{name}: {''.join(so_far)}{reason(error)}") from error


async def refusal(name: str, reply: aiohttp.ClientResponse) -> VoiceError:
    """What an answer says that is an error, or a page or a message with the status of a success."""
    body = (await reply.content.read(_MAX_ERROR_BYTES)).decode("utf-8", "replace")
    if reply.status == 200:
        kind = reply.headers.get("content-type", "").lower()
        return VoiceError(f"{name}: answered {short(kind)} instead of sound: {short(body)}")
    if 300 <= reply.status < 400:
        return VoiceError(f"{name}: HTTP {reply.status}: redirects, which is not followed: set the address it leads to")
    kind_of_error = TextRefused if reply.status in _ABOUT_THE_TEXT else VoiceError
    return kind_of_error(f"{name}: HTTP {reply.status}: {short(error_in(body))}")


def _decoder(reply: aiohttp.ClientResponse, pcm_rate_hz: int, form: SpeechFormat) -> SpeechDecoder:
    """For what the server says that it sends; some say the rate of bare samples in a header of their own."""
    said = next((rate for name in _RATE_HEADERS if (rate := reply.headers.get(name, "")).isdecimal()), "")
    rate_hz = int(said) if 4 <= len(said) <= 6 else pcm_rate_hz
    return SpeechDecoder(form, reply.headers.get("content-type", ""), rate_hz)
