"""Transcription sessions of OpenAI's Realtime interface: samples at 24 kHz in JSON up, texts of committed sound down.

Events and fields are those of the SDK `openai` 3.57 (`types/realtime`). The service's own endpointing is off
(`turn_detection` null): our soft end commits the buffer, which becomes an item; its text comes as `delta` events and
then whole. Models differ in when: `gpt-live-transcribe` and `gpt-realtime-whisper` send them while somebody speaks.
"""

import base64
from collections import deque
from collections.abc import Sequence
from functools import reduce
from typing import Any, Final
from uuid import uuid4

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.settings.asr import OpenAIRealtimeAsrSettings, RemoteAsrSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import run_on
from xiaozhi.stages.asr.hotwords import hotwords
from xiaozhi.stages.asr.live_socket import Dialect, Message, SocketRecognizer
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, as_json

_RATE_HZ: Final = 24_000  # the only one that `audio/pcm` has
_MIN_COMMIT_SAMPLES: Final = _RATE_HZ // 10  # the service refuses to commit less than 100 ms
_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription."
_MAX_ITEMS: Final = 200  # of one stream
_WHILE_SPOKEN: Final = ("gpt-live-transcribe", "gpt-realtime-whisper")
_WITH_KEYWORDS: Final = ("gpt-transcribe", "gpt-live-transcribe")


class OpenAIRealtimeDialect(Dialect):
    """One connection's messages.

    Args:
        session: says what is wanted.
    """

    def __init__(self, session: str) -> None:
        self._first = session
        self._texts: dict[str, str] = {}  # of this stream's items, in their order
        self._former: deque[str] = deque(maxlen=_MAX_ITEMS)  # items of streams before: late words are nobody's
        self._done: set[str] = set()
        self._committed = ""  # the item with the sound up to the question

    def begin(self) -> Sequence[Message]:
        """Have a session, or what silence is left of the stream before forgotten."""
        self._former.extend(self._texts)
        self._texts.clear()
        self._done.clear()
        self.text = self._committed = ""
        self.over = False
        self._resampler, self._buffered_samples = StreamResampler(UPLINK_RATE_HZ, _RATE_HZ), 0
        first, self._first = self._first, as_json(type="input_audio_buffer.clear")
        return (first,)

    def sound(self, pcm: bytes) -> Sequence[Message]:
        """The samples at 24 kHz."""
        return self._append(self._resampler.feed(np.frombuffer(pcm, "<i2").astype(np.int16, copy=False)))

    def _append(self, pcm: PcmInt) -> list[Message]:
        self._buffered_samples += len(pcm)
        data = base64.b64encode(pcm.astype("<i2", copy=False).tobytes()).decode()
        return [as_json(type="input_audio_buffer.append", audio=data)] if data else []

    def end(self, voiced_samples: int) -> Sequence[Message]:
        """Commit what was sent, with silence behind it where it is too short for the service."""
        messages = self._append(self._resampler.flush())
        messages += self._append(np.zeros(max(0, _MIN_COMMIT_SAMPLES - self._buffered_samples), np.int16))
        return [*messages, as_json(type="input_audio_buffer.commit", event_id=f"commit_{uuid4().hex[:12]}")]

    def read(self, said: Any) -> None:
        """Take an event."""
        kind, item = said["type"], said.get("item_id")
        if item in self._former:
            return
        if kind == "error" or kind == f"{_TRANSCRIPTION}failed":
            error = said["error"]
            why = ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))
            raise RemoteError(one_line(why or "failed", MAX_SHOWN_CHARS))
        if not isinstance(item, str):
            return
        if kind == "input_audio_buffer.committed":
            self._committed = item
        elif kind == f"{_TRANSCRIPTION}delta":
            self._texts[item] = self._texts.get(item, "") + str(said.get("delta") or "")
        elif kind == f"{_TRANSCRIPTION}completed":
            if not isinstance(said["transcript"], str):
                raise TypeError("a transcript that is no text")
            self._texts[item] = said["transcript"]
            self._done.add(item)
        if len(self._texts) > _MAX_ITEMS or sum(map(len, self._texts.values())) > 1_000_000:
            raise RemoteError("sends without an end")
        self.text, self.over = reduce(run_on, self._texts.values(), ""), self._committed in self._done


class OpenAIRealtime(SocketRecognizer):
    """Recognises through a transcription session.

    Args:
        settings: where, which key and model.
        remote: limits.
        language: what is spoken; `auto` leaves it to the model.
    """

    name = "openai_realtime"
    reuses = True
    advice = {  # noqa: RUF012 - nobody writes to it
        400: "the address takes no transcription sessions: see asr.openai_realtime.url",
        401: "the key is wrong: see asr.openai_realtime.api_key",
        403: "the key may not be used for this: see asr.openai_realtime.api_key",
        404: "no such address: see asr.openai_realtime.url",
        429: "too many requests for this key: lower asr.remote.max_concurrent or raise the quota",
    }

    def __init__(self, settings: OpenAIRealtimeAsrSettings, remote: RemoteAsrSettings, language: Language) -> None:
        super().__init__(remote)
        self._settings = settings
        self.tells_partials = settings.model.startswith(_WHILE_SPOKEN)
        # ISO 639-1, which is what the interface takes, has no word of its own for Cantonese.
        self._language = {"auto": "", "yue": "zh"}.get(language, language)
        self.about = f"{self.name} {settings.model} from {settings.url}"

    @classmethod
    def build(cls, context: RecognizerContext) -> "OpenAIRealtime":
        """The service of `[asr.openai_realtime]`."""
        asr = context.settings
        return cls(asr.openai_realtime, asr.remote, asr.language)

    def session(self) -> str:
        """The message that says what is wanted."""
        settings = self._settings
        transcription: dict[str, Any] = {"model": settings.model}
        knows_keywords = settings.model.startswith(_WITH_KEYWORDS)
        if self._language:
            transcription |= {"languages": [self._language]} if knows_keywords else {"language": self._language}
        words = hotwords(settings.hotwords, self.names)
        if words and knows_keywords:
            transcription["keywords"] = words
        elif words and settings.model != "gpt-realtime-whisper":  # which takes neither
            transcription["prompt"] = ", ".join(words)
        if settings.model == "gpt-realtime-whisper":
            transcription["delay"] = "low"
        sound = {
            "format": {"type": "audio/pcm", "rate": _RATE_HZ},
            "noise_reduction": {"type": settings.noise_reduction} if settings.noise_reduction != "off" else None,
            "transcription": transcription,
            "turn_detection": None,
        }
        return as_json(type="session.update", session={"type": "transcription", "audio": {"input": sound}})

    def address(self) -> tuple[str, dict[str, str]]:
        """As it is; whether the service likes the session is told before the first text."""
        key = self._settings.key()
        fault = self._settings.missing("asr.openai_realtime") or (key_fault(key) and f"the key {key_fault(key)}")
        if fault:
            raise RemoteError(fault)
        return self._settings.url, {"Authorization": f"Bearer {key}"} if key else {}

    def dialect(self) -> "OpenAIRealtimeDialect":
        """For a new connection."""
        return OpenAIRealtimeDialect(self.session())
