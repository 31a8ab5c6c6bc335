"""Streaming recognisers of DashScope (paraformer-realtime, fun-asr-realtime and their kin): a task for each stream.

The parameters are those of Model Studio's pages on real-time speech recognition; how a sentence's end is known
differs between these (`sentence_end`) and the official SDK (`end_time`), so either is taken.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import reduce
from typing import Any, Final

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings.asr import DashscopeAsrSettings, RemoteAsrSettings
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.dashscope_realtime import QwenRecognizer
from xiaozhi.stages.asr.engine import run_on
from xiaozhi.stages.asr.live import Heard, LiveRecognizer, Sound, in_background
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.upstream.dashscope import DashscopeError, DashscopeSockets, DashscopeTask

_HINTED: Final = frozenset({"zh", "en", "ja", "ko", "yue"})


class DashscopeRecognizer(LiveRecognizer):
    """Recognises through DashScope, over connections that are kept.

    Args:
        settings: model, key and words.
        remote: limits.
        language: what is spoken.
        itn: write numbers as digits and set punctuation.
    """

    name = "dashscope"

    def __init__(
        self, settings: DashscopeAsrSettings, remote: RemoteAsrSettings, language: Language, *, itn: bool
    ) -> None:
        super().__init__(remote)
        self._settings, self._language, self._itn = settings, language, itn
        self._sockets = DashscopeSockets(settings, "asr.dashscope", remote.connect_timeout_s)

    @classmethod
    def build(cls, context: RecognizerContext) -> LiveRecognizer:
        """The service of `[asr.dashscope]`, in the protocol that its model speaks."""
        asr = context.settings
        engine: LiveRecognizer
        if asr.dashscope.is_realtime:
            engine = QwenRecognizer(asr.dashscope, asr.remote, asr.language)
        else:
            engine = cls(asr.dashscope, asr.remote, asr.language, itn=asr.itn)
        engine.about = f"{cls.name} {asr.dashscope.model} from {asr.dashscope.url}"
        return engine

    def payload(self) -> dict[str, Any]:
        """Of `run-task`."""
        settings = self._settings
        parameters: dict[str, Any] = {
            "format": "pcm",
            "sample_rate": UPLINK_RATE_HZ,
            "punctuation_prediction_enabled": self._itn,
            "inverse_text_normalization_enabled": self._itn,
            "max_sentence_silence": settings.max_sentence_silence_ms,
        }
        if settings.remove_fillers:
            parameters["disfluency_removal_enabled"] = True
        if self._language in _HINTED:
            parameters["language_hints"] = [self._language]
        if settings.vocabulary_id:
            parameters["vocabulary_id"] = settings.vocabulary_id
        return {
            "task_group": "audio",
            "task": "asr",
            "function": "recognition",
            "model": settings.model,
            "parameters": parameters,
            "input": {},
        }

    async def converse(self, sound: Sound, heard: Heard) -> str:
        """Recognise one stream.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        sentences = Sentences()
        try:
            async with self._sockets.task(self.payload()) as task, in_background(_send(task, sound)):
                async for output in task.outputs:
                    if not isinstance(output, bytes) and sentences.take(output):
                        heard(sentences.text)
                task.raise_error()
                return sentences.text
        except DashscopeError as error:
            raise self._failed(error) from error

    async def connect(self) -> None:
        """Have a connection ready, with the key; costs nothing.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        try:
            await self._sockets.connect()
        except DashscopeError as error:
            raise self._failed(error) from error

    async def disconnect(self) -> None:
        """Close the connections."""
        await self._sockets.close()

    def _failed(self, error: DashscopeError) -> RemoteError:
        return RemoteError(f"{self.name}: {error}")


class Sentences:
    """The sentences of a task: those that are over, and the one that goes on."""

    def __init__(self) -> None:
        self._over: list[tuple[object, str]] = []  # which, what
        self._open = ""

    @property
    def text(self) -> str:
        """All of them."""
        return reduce(run_on, (sentence for _, sentence in (*self._over, (None, self._open))))

    def take(self, output: Mapping[str, Any]) -> bool:
        """Take the `output` of a result. Returns whether it said anything.

        Raises:
            DashscopeError: it is no sentence.
        """
        said = output.get("sentence")
        if said is None:
            return False
        if not isinstance(said, dict) or not isinstance(text := said.get("text", ""), str):
            raise DashscopeError("answered something that is no sentence")
        if said.get("heartbeat") is True:
            return False
        which = said.get("sentence_id") or said.get("begin_time")
        ended = said.get("sentence_end") is True or said.get("end_time") is not None
        if self._over and which is not None and self._over[-1][0] == which:  # corrected once more
            if ended:
                self._over[-1] = which, text
        elif ended:
            self._over.append((which, text))
            self._open = ""
        else:
            self._open = text
        return True


async def _send(task: DashscopeTask, sound: Sound) -> None:
    """Send sound as it comes. A connection that is lost is told by what comes."""
    with suppress(DashscopeError):
        async for piece in sound:
            await task.send_sound(piece)
        await task.finish()
