"""ElevenLabs' `stream-input`: text as it comes, base64 of samples with the time of every character out.

Names of messages and fields are those of the SDK `elevenlabs` 2.78 (`realtime_tts`, `types/initialize_connection`,
`types/send_text`, `types/audio_output`): a blank first, texts that end with a blank, an empty one as the end. With
`auto_mode` each text is spoken at once, with `sync_alignment` every piece of sound tells its characters. A connection
is one session; nothing but closing it stops one.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.settings.pasted import key_fault
from xiaozhi.settings.tts import ElevenLabsVoiceSettings
from xiaozhi.stages.tts.engine import Mark, VoiceError
from xiaozhi.stages.tts.errors import short
from xiaozhi.stages.tts.socket_session import SocketVoice, SpeechProtocol
from xiaozhi.stages.tts.voice_request import VoiceRequest, closest
from xiaozhi.upstream.connections import as_json

_SPEEDS: Final = (0.7, 1.2)  # what the service takes
_INACTIVITY_S: Final = 180  # the longest that it grants
# So far ahead a character of the sound is looked for in the text: the service may leave some out.
_AHEAD_CHARS: Final = 20
# When nothing has come for so long behind the last character of the last text, its sound has ended.
_QUIET_S: Final = 0.5
_BYTES_PER_MS: Final = DOWNLINK_RATE_HZ // 1000 * 2


class ElevenLabsProtocol:
    """One connection's messages. Which text a sound belongs to follows from its characters, blanks left out."""

    def __init__(self, voice: "ElevenLabsVoice", speed: float) -> None:
        self.quiet_s: float | None = None
        self._voice, self._speed = voice, speed
        self._expected = ""  # all texts
        self._ends: list[int] = []  # of each text in it
        self._spoken = 0  # so much of it
        self._marks = 0
        self._timed = self._ended = False

    def begin(self) -> Sequence[str]:
        """The blank."""
        settings = {"voice_settings": {"speed": round(self._speed, 2)}} if self._speed != 1 else {}
        return [as_json(text=" ", **settings)]

    def text(self, text: str, language: str) -> Sequence[str]:
        """The text; the model hears itself which language it is."""
        self._expected += "".join(text.split())
        self._ends.append(len(self._expected))
        return [as_json(text=f"{text.strip()} ")]

    def end(self) -> Sequence[str]:
        """The empty text; the end of the sound is told."""
        self._ended, self.quiet_s = True, None
        return [as_json(text="")]

    def cancel(self) -> Sequence[str]:
        """There is no such message."""
        return ()

    def receive(self, said: Any) -> Iterator[bytes | Mark | None]:
        """Take a piece of sound, cut where another text begins in it.

        Raises:
            VoiceError: an error; or sound without its characters, of more than one text.
        """
        if said.get("error") or (said.get("message") and "audio" not in said):
            why = ": ".join(str(said[name]) for name in ("error", "message") if said.get(name))
            raise VoiceError(f"elevenlabs: {short(why)}")
        audio = base64.b64decode(said.get("audio") or "", validate=True)
        alignment = said.get("alignment")
        cut = 0
        if alignment:
            self._timed = True
            for char, start_ms in zip(alignment["chars"], alignment["charStartTimesMs"], strict=True):
                at = self._expected.find(char, self._spoken, self._spoken + _AHEAD_CHARS) if char.strip() else -1
                if at < 0:
                    continue
                self._spoken = at + 1
                while at >= self._ends[self._marks]:
                    begins = min(max(cut, int(start_ms) * _BYTES_PER_MS), len(audio))
                    yield audio[cut:begins]
                    cut = begins
                    yield self._mark()
        elif audio and not self._timed:
            self._voice.spans_clauses = False
            if len(self._ends) > 1:
                raise VoiceError("elevenlabs: sends no times of characters; each sentence has a connection now")
        yield audio[cut:]
        self.quiet_s = _QUIET_S if self._is_over() and not self._ended else None
        if said.get("isFinal") is True:
            yield None

    def overdue(self) -> Iterator[Mark]:
        """The text whose last character has been heard, some time ago."""
        self.quiet_s = None
        if self._is_over():
            yield self._mark()

    def _is_over(self) -> bool:
        return self._marks < len(self._ends) and self._spoken >= self._ends[self._marks]

    def _mark(self) -> Mark:
        self._marks += 1
        return Mark(self._marks - 1)


class ElevenLabsVoice(SocketVoice):
    """Speaks through ElevenLabs, a connection for each reply; the next one is opened ahead.

    Args:
        settings: key, model, voice and rate.
        timeout_s: longest time to connect.
    """

    name = "elevenlabs"
    advice = {  # noqa: RUF012 - nobody writes to it
        400: "a parameter is wrong: see tts.elevenlabs.model and tts.elevenlabs.voice",
        401: "the key is wrong: see tts.elevenlabs.api_key",
        403: "the key may not use this: see tts.elevenlabs.api_key and tts.elevenlabs.voice",
        404: "no such voice: see tts.elevenlabs.voice",
        429: "too many sentences at once for this key: lower tts.max_concurrent",
    }

    def __init__(self, settings: ElevenLabsVoiceSettings, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.spans_clauses = True  # until sound comes without the times of its characters
        self._settings = settings
        self.about = f"{settings.model}, voice {settings.voice}"

    def address(self, request: VoiceRequest) -> tuple[str, dict[str, str]]:
        """Where, with the voice and what is wanted in it, and the key in a header.

        Raises:
            VoiceError: the key is missing or none.
        """
        settings, key = self._settings, self._settings.key()
        fault = settings.missing("tts.elevenlabs") or (key_fault(key) and f"the key {key_fault(key)}")
        if fault:
            raise VoiceError(f"{self.name}: {fault}")
        voice = closest(self.name, request, "", settings.voice)
        if not voice.replace("_", "").replace("-", "").isalnum():
            voice = settings.voice  # an id stands in a path
        query = {
            "model_id": settings.model,
            "output_format": f"pcm_{DOWNLINK_RATE_HZ}",
            "auto_mode": "true",
            "sync_alignment": "true",
            "inactivity_timeout": str(_INACTIVITY_S),
        }
        return f"{settings.url.rstrip('/')}/v1/text-to-speech/{voice}/stream-input?{urlencode(query)}", {
            "xi-api-key": key
        }

    def protocol(self, request: VoiceRequest) -> SpeechProtocol:
        """A session."""
        speed = 1 + (self._settings.rate_percent + request.rate_percent) / 100
        return ElevenLabsProtocol(self, min(max(speed, _SPEEDS[0]), _SPEEDS[1]))
