"""Volcengine's streaming recognition (Doubao, API v3): gzip'd binary frames over a WebSocket, one for each stream.

The fields are those of document 6561/1354869. A stream ends with its last packet, and its connection with it: nothing
is said of using one again, and one that is open without sound is given up by the service after some seconds. So none
is kept; it is opened at the onset of speech, and is there long before the end of it.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings.asr import RemoteAsrSettings, VolcengineAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.hotwords import hotwords
from xiaozhi.stages.asr.live import Heard, LiveRecognizer, Sound, in_background
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.stages.volcengine import LAST, Frame, Kind, ServiceError, VolcengineSocket, access_headers, connect, packed
from xiaozhi.upstream.connections import Connections

_MAX_MESSAGES: Final = 10_000  # of one stream: at one for each packet, more than ten minutes
# An utterance without speech is none: 45000002 "empty audio"; 1013 in the payload, as the service still says it.
_NO_SPEECH: Final = frozenset({45000002, 1013})
_MAX_WORD_CHARS: Final = 100  # of all hot words together, about
_WELL: Final = frozenset({0, 1000, 20000000})
# Of the languages that have to be named; Chinese, its dialects and English are told apart by the service.
_LANGUAGES: Final = {"en": "en-US", "ja": "ja-JP", "ko": "ko-KR"}


class Volcengine(LiveRecognizer):
    """Recognises through Volcengine.

    Args:
        settings: account, resource and words.
        remote: limits.
        language: what is spoken.
        itn: write numbers as digits and set punctuation.
    """

    name = "volcengine"

    def __init__(
        self, settings: VolcengineAsrSettings, remote: RemoteAsrSettings, language: Language, *, itn: bool
    ) -> None:
        super().__init__(remote)
        self._settings = settings
        self._language = language
        self._itn = itn
        self._whole = settings.url.rstrip("/").endswith("_nostream")  # one text, at the end
        self._connections = Connections(None, connect_s=remote.connect_timeout_s)
        self._user = uuid.uuid4().hex
        self.tells_partials = not self._whole

    @classmethod
    def build(cls, context: RecognizerContext) -> "Volcengine":
        """The account of `[asr.volcengine]`."""
        asr = context.settings
        engine = cls(asr.volcengine, asr.remote, asr.language, itn=asr.itn)
        engine.about = f"{cls.name} {asr.volcengine.resource_id} from {asr.volcengine.url}"
        return engine

    def request(self) -> dict[str, Any]:
        """What the first frame asks for: all text of the stream in each answer, and no ends but ours."""
        settings = self._settings
        audio: dict[str, Any] = {"format": "pcm", "codec": "raw", "rate": UPLINK_RATE_HZ, "bits": 16, "channel": 1}
        if self._whole and self._language in _LANGUAGES:
            audio["language"] = _LANGUAGES[self._language]
        request: dict[str, Any] = {
            "model_name": "bigmodel",
            "enable_itn": self._itn,
            "enable_punc": self._itn,
            "result_type": "full",
            "show_utterances": True,
        }
        told = hotwords(settings.hotwords, self.names, max_chars=_MAX_WORD_CHARS)
        words = [{"word": word} for word in told]
        corpus = {
            "boosting_table_name": settings.boosting_table,
            "correct_table_name": settings.correct_table,
            "context": orjson.dumps({"hotwords": words}).decode() if words else "",  # JSON in a string
        }
        if any(corpus.values()):
            request["corpus"] = {name: value for name, value in corpus.items() if value}
        return {"user": {"uid": self._user}, "audio": audio, "request": request}

    async def converse(self, sound: Sound, heard: Heard) -> str:
        """Recognise one stream.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        try:
            async with self._connection() as socket:
                await socket.send(packed(Kind.REQUEST, orjson.dumps(self.request())))
                said = self._said(socket, await socket.receive())  # to the request alone
                text = ""
                async with in_background(_send(socket, sound, self.piece_bytes)):
                    for _ in range(_MAX_MESSAGES):
                        text = text if said.text is None else said.text
                        if said.last:
                            return text
                        heard(text)
                        said = self._said(socket, await socket.receive())
                raise ServiceError("sends without an end")
        except ServiceError as error:
            if error.code in _NO_SPEECH:
                return ""
            raise RemoteError(f"{self.name}: {error}") from error

    async def connect(self) -> None:
        """Connect once, with the key; without a stream it costs nothing, and it is not kept.

        Raises:
            RemoteError: it cannot be reached, or refuses the key or the resource.
        """
        try:
            async with self._connection():
                pass
        except ServiceError as error:
            raise RemoteError(f"{self.name}: {error}") from error

    async def disconnect(self) -> None:
        """Close what is open."""
        await self._connections.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[VolcengineSocket]:
        settings, table = self._settings, "asr.volcengine"
        if missing := settings.missing(table):
            raise ServiceError(missing)
        headers = access_headers(settings.credential("app_id"), settings.key(), settings.resource_id, table)
        socket = await connect(self._connections, settings.url, headers, table)
        try:
            yield socket
        finally:
            await socket.close()

    def _said(self, socket: VolcengineSocket, frame: Frame) -> "_Said":
        """An answer.

        Raises:
            ServiceError: it is none, or tells of an error.
        """
        said = frame.json()
        code = said.get("code", 0)
        if isinstance(code, int) and code not in _WELL:
            raise socket.refusal(code, frame.says())
        result = said.get("result")
        parts = result if isinstance(result, list) else [result]  # the documents have both
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        if frame.kind is not Kind.ANSWER or not all(isinstance(text, str | None) for text in texts):
            raise ServiceError(socket.about("answered without a text"))
        known = [text for text in texts if text is not None]
        return _Said("".join(known) if known else None, frame.last)


@dataclass(frozen=True, slots=True)
class _Said:
    """One answer: all text of the stream so far, None where it says nothing of that; and whether it is the last."""

    text: str | None
    last: bool


async def _send(socket: VolcengineSocket, sound: Sound, piece_bytes: int) -> None:
    """Send all sound and that it was all; a connection that breaks is told to whoever reads."""
    with suppress(ServiceError):
        short = False
        async for piece in sound:
            short = len(piece) < piece_bytes  # it is the last one, and says so
            await socket.send(packed(Kind.SOUND_UP, piece, flags=LAST if short else 0))
        if not short:
            await socket.send(packed(Kind.SOUND_UP, b"", flags=LAST))
