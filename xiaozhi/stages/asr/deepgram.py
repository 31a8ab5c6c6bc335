"""Deepgram's streaming recognition (`/v1/listen`): raw samples up, JSON with what is final and what is not down.

Names of messages, fields and parameters are those of the SDK `deepgram-sdk` 7.17 (`listen/v1`). A connection without
sound is closed after 10 s (NET-0001) unless it says `KeepAlive`. `Finalize` has everything recognised that was sent;
the answer carries `from_finalize`, but none comes where hardly anything was left to recognise: so what counts is up to
where the sound is final, which every result says in seconds since the connection was opened.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt
from xiaozhi.settings.asr import DeepgramAsrSettings, RemoteAsrSettings
from xiaozhi.settings.pasted import key_fault
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import Transcript, join, run_on
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_stream import Message, StreamConnection, StreamRecognizer, as_json
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS

_KEEP_ALIVE: Final = as_json(type="KeepAlive")
_FINALIZE: Final = as_json(type="Finalize")
_ROUNDING_S: Final = 0.02


class DeepgramProtocol:
    """One connection's messages."""

    def __init__(self) -> None:
        self.text = ""
        self.answered = 0
        self._final = ""
        self._cut = False  # a question ended the last final piece, not the service
        self._sent_samples = self._begun_samples = 0  # since the connection was opened
        self._final_s = 0.0  # what lies before is final
        self._asked: deque[tuple[float, float]] = deque()  # sound up to there is voiced, and was sent, in seconds
        self._finalizes: deque[float] = deque()  # what had been sent at each that is not answered

    def begin(self) -> Sequence[Message]:
        """Forget the utterance before."""
        self.text = self._final = ""
        self.answered, self._cut = 0, False
        self._begun_samples = self._sent_samples
        self._asked.clear()
        return ()  # an answer that is still due is known by its time

    def sound(self, pcm: PcmInt) -> Sequence[Message]:
        """The samples as they are."""
        self._sent_samples += len(pcm)
        return [pcm.astype("<i2", copy=False).tobytes()]

    def ask(self, voiced_samples: int) -> Sequence[Message]:
        """Ask for what is not final yet; where all that is voiced is, there is nothing to ask."""
        voiced_s, sent_s = (self._begun_samples + voiced_samples) / UPLINK_RATE_HZ, self._sent_samples / UPLINK_RATE_HZ
        self._asked.append((voiced_s, sent_s))
        if self._answer(0.0):
            return ()
        self._finalizes.append(sent_s)
        return [_FINALIZE]

    def _answer(self, finalized_s: float) -> int:
        """Count the questions that are answered, as all sound up to `finalized_s` has been recognised."""
        before = self.answered
        while self._asked and (self._asked[0][0] <= self._final_s + _ROUNDING_S or self._asked[0][1] <= finalized_s):
            self._asked.popleft()
            self.answered += 1
        return self.answered - before

    def keep_alive(self) -> Sequence[Message]:
        """Against the ten seconds."""
        return [_KEEP_ALIVE]

    def receive(self, said: Any) -> None:
        """Take a result; all else is news about the voice, which is found here.

        Raises:
            RemoteError: an error of the service.
        """
        kind = said["type"]
        if kind == "Error":
            why = ": ".join(str(said[name]) for name in ("variant", "code", "description", "message") if said.get(name))
            raise RemoteError(f"deepgram: {one_line(why, MAX_SHOWN_CHARS)}")
        if kind != "Results":
            return
        end_s = float(said["start"]) + float(said["duration"])
        piece = said["channel"]["alternatives"][0]["transcript"]
        if not isinstance(piece, str):
            raise TypeError("a transcript that is no text")
        by_question = said.get("from_finalize") is True
        finalized_s = 0.0
        while by_question and self._finalizes and (not finalized_s or self._finalizes[0] <= end_s + _ROUNDING_S):
            finalized_s = self._finalizes.popleft()
        if end_s <= self._begun_samples / UPLINK_RATE_HZ + _ROUNDING_S:
            return  # of the utterance before
        if said.get("is_final") is not True and not by_question:
            self.text = self._with(piece)
            return
        if piece:
            self._final, self._cut = self._with(piece), by_question
        self.text, self._final_s = self._final, end_s
        self._answer(finalized_s)

    def _with(self, piece: str) -> str:
        if self._cut:
            return join(Transcript(self._final), Transcript(piece)).text
        return run_on(self._final, piece)


class Deepgram(StreamRecognizer):
    """Recognises through Deepgram.

    Args:
        settings: where, which key and model.
        remote: limits.
        language: what is spoken.
    """

    name = "deepgram"
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

    def address(self) -> str:
        """With what is wanted as its query; the service's own endpointing is off."""
        settings = self._settings
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
        query += [(name, word) for word in settings.hotwords]
        return f"{settings.url}{'&' if '?' in settings.url else '?'}{urlencode(query)}"

    async def dial(self) -> StreamConnection:
        """Open a connection; all that is wanted stands in its address.

        Raises:
            aiohttp.ClientError, OSError: it cannot be reached.
            RemoteError: the key is missing or none.
        """
        key = self._settings.key()
        fault = self._settings.missing("asr.deepgram") or (key_fault(key) and f"the key {key_fault(key)}")
        if fault:
            raise RemoteError(f"{self.name}: {fault}")
        socket = await self.socket(self.address(), {"Authorization": f"Token {key}"})
        return StreamConnection(socket, DeepgramProtocol())
