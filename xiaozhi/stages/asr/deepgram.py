"""Deepgram's streaming recognition (`/v1/listen`): raw samples up, JSON with what is final and what is not down.

Names of messages, fields and parameters are those of the SDK `deepgram-sdk` 7.17 (`listen/v1`). A connection without
sound is closed after 10 s (NET-0001) unless it says `KeepAlive`. `Finalize` has everything recognised that was sent;
the answer carries `from_finalize`, but none comes where hardly anything was left to recognise: so what counts is up to
where the sound is final, which every result says in seconds since the connection was opened.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings.asr import DeepgramAsrSettings, RemoteAsrSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import run_on
from xiaozhi.stages.asr.hotwords import hotwords
from xiaozhi.stages.asr.live_socket import Dialect, Message, SocketRecognizer
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, as_json

_KEEP_ALIVE: Final = as_json(type="KeepAlive")
_FINALIZE: Final = as_json(type="Finalize")
_ROUNDING_S: Final = 0.02


class DeepgramDialect(Dialect):
    """One connection's messages. Times are since it was opened."""

    def __init__(self) -> None:
        self._final = ""
        self._final_s = 0.0  # what lies before is final
        self._sent_samples = self._begun_samples = 0
        self._voiced_s: float | None = None  # behind it is silence; not known before the question

    def begin(self) -> Sequence[Message]:
        """Forget the stream before."""
        self.text = self._final = ""
        self.over, self._voiced_s = False, None
        self._begun_samples = self._sent_samples
        return ()  # an answer that is still due is known by its time

    def sound(self, pcm: bytes) -> Sequence[Message]:
        """The samples as they are."""
        self._sent_samples += len(pcm) // 2
        return (pcm,)

    def end(self, voiced_samples: int) -> Sequence[Message]:
        """Ask for what is not final yet; where all that is voiced is, there is nothing to ask."""
        self._voiced_s = (self._begun_samples + voiced_samples) / UPLINK_RATE_HZ
        self.over = self._voiced_s <= self._final_s + _ROUNDING_S
        return () if self.over else (_FINALIZE,)

    def keep_alive(self) -> Sequence[Message]:
        """Against the ten seconds."""
        return (_KEEP_ALIVE,)

    def read(self, said: Any) -> None:
        """Take a result; all else is news about the voice, which is found here."""
        kind = said["type"]
        if kind == "Error":
            why = ": ".join(str(said[name]) for name in ("variant", "code", "description", "message") if said.get(name))
            raise RemoteError(one_line(why, MAX_SHOWN_CHARS))
        if kind != "Results":
            return
        end_s = float(said["start"]) + float(said["duration"])
        piece = said["channel"]["alternatives"][0]["transcript"]
        if not isinstance(piece, str):
            raise TypeError("a transcript that is no text")
        if end_s <= self._begun_samples / UPLINK_RATE_HZ + _ROUNDING_S:
            return  # of the stream before
        self.text = run_on(self._final, piece)
        finalized = said.get("from_finalize") is True
        if finalized or said.get("is_final") is True:
            self._final, self._final_s = self.text, end_s
            asked = self._voiced_s is not None
            self.over = asked and (finalized or (self._voiced_s or 0.0) <= end_s + _ROUNDING_S)


class Deepgram(SocketRecognizer):
    """Recognises through Deepgram.

    Args:
        settings: where, which key and model.
        remote: limits.
        language: what is spoken.
    """

    name = "deepgram"
    reuses = True
    advice = {  # noqa: RUF012 - nobody writes to it
        400: "a parameter is not one that the model takes: see asr.deepgram.model and asr.deepgram.language",
        401: "the key is wrong: see asr.deepgram.api_key",
        402: "the credit is used up: see the console",
        403: "the key may not use this model: see asr.deepgram.model",
        429: "too many connections for this key: lower asr.remote.max_concurrent",
    }

    def __init__(self, settings: DeepgramAsrSettings, remote: RemoteAsrSettings, language: Language) -> None:
        super().__init__(remote)
        self._settings = settings
        self._language = settings.language or {"auto": "multi", "yue": "zh-HK"}.get(language, language)
        self.about = f"{self.name} {settings.model}, language {self._language} ({settings.url})"

    @classmethod
    def build(cls, context: RecognizerContext) -> "Deepgram":
        """The service of `[asr.deepgram]`."""
        asr = context.settings
        return cls(asr.deepgram, asr.remote, asr.language)

    def address(self) -> tuple[str, dict[str, str]]:
        """With what is wanted as its query; the service's own endpointing is off."""
        settings, key = self._settings, self._settings.key()
        if fault := settings.missing("asr.deepgram") or (key_fault(key) and f"the key {key_fault(key)}"):
            raise RemoteError(fault)
        query = [
            ("model", settings.model),
            ("language", self._language),
            ("encoding", "linear16"),
            ("sample_rate", str(UPLINK_RATE_HZ)),
            ("channels", "1"),
            ("interim_results", "true"),
            ("endpointing", "false"),
            ("smart_format", "true"),
        ]
        # Each generation of models refuses the other's word for it.
        name = "keyterm" if settings.model.startswith(("nova-3", "flux")) else "keywords"
        query += [(name, word) for word in hotwords(settings.hotwords, self.names)]
        url = f"{settings.url}{'&' if '?' in settings.url else '?'}{urlencode(query)}"
        return url, {"Authorization": f"Token {key}"}

    def dialect(self) -> "DeepgramDialect":
        """For a new connection."""
        return DeepgramDialect()
