"""One-click trials of the stages: does it work, how long does it take, and if not, why."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.workers import JobDropped
from xiaozhi.console.endpoints import merged
from xiaozhi.console.listing import models_of
from xiaozhi.console.secret_values import secrets_of
from xiaozhi.console.settings_file import SettingsFile
from xiaozhi.console.trial_runs import ENGLISH, Result, asked, decoded, spoken, trouble_of, try_vad
from xiaozhi.conversation.services import Services
from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.schema import keys
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.llm.engine import ChatError
from xiaozhi.stages.llm.registry import build_model
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.stages.tts.voice_request import VoiceRequest
from xiaozhi.stages.vad.silero import VadError
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.text.language import is_chinese, language_of

_log = logging.getLogger(__name__)

LIMIT_S: Final = 30.0
_LONGEST_TEXT: Final = 200
_MAX_SOUND_S: Final = 15.0
# Enough for a first word of a model that first sends an empty piece or thinks a little.
_MAX_TOKENS: Final = 16
# For one whose answers begin with a thought.
_MAX_TOKENS_THINKING: Final = 2000
_CHINESE: Final = "今天天气怎么样"
_GREETING: Final = "你好，我是小智。"
_HIDDEN: Final = "(hidden)"


class Trials:
    """Tries one stage at a time, each for 30 s at most.

    Args:
        services: the running stages; what was not changed is tried with them.
        file: where settings are that were not saved yet come on top of.
    """

    def __init__(self, services: Services, file: SettingsFile) -> None:
        self._services = services
        self._file = file
        self._busy = False
        self.made = 0
        """Trials since the start."""

    async def run(self, stage: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Try a stage.

        Args:
            stage: `vad`, `asr`, `llm` or `tts`.
            body: `endpoint` (a name, or all its fields), `engine`, `voice`, `text`, `changes` (settings not saved yet).

        Returns:
            `Result.message()`; what goes wrong is in there as well.

        Raises:
            SettingsError: the settings to be tried do not hold.
        """
        if self._busy:
            return Result(False, None, "another test is still running; wait for it").message() | {"busy": True}
        self._busy = True
        try:
            settings = await self._settings(body)
            self.made += 1
            trials: Mapping[str, Callable[[Settings, Mapping[str, Any]], Awaitable[Result]]] = {
                "vad": self._vad, "asr": self._asr, "llm": self._llm, "tts": self._tts,
            }  # fmt: skip
            try:
                async with asyncio.timeout(LIMIT_S):
                    result = await trials[stage](settings, body)
            except ChatError as error:
                result = Result(False, None, str(error), trouble=trouble_of(error))
            except (VadError, EngineError, VoiceError, JobDropped) as error:
                result = Result(False, None, str(error) or type(error).__name__)
            except TimeoutError:
                result = Result(False, None, f"no result within {LIMIT_S:.0f} s", trouble="time")
            return self._clean(result, settings, body)
        finally:
            self._busy = False

    async def models(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Which models an endpoint offers.

        Args:
            body: `endpoint`, as for `run`.

        Returns:
            `models`, or what `Result.message()` says of a failure.

        Raises:
            SettingsError: the endpoint does not hold, or its key was given for another address.
        """
        settings = self._services.settings
        endpoint = await self._endpoint(body.get("endpoint"), settings)
        try:
            return {"ok": True, "models": await models_of(endpoint)}
        except ChatError as error:
            return self._clean(Result(False, None, str(error), trouble=trouble_of(error)), settings, body)

    def _clean(self, result: Result, settings: Settings, body: Mapping[str, Any]) -> dict[str, Any]:
        """Upstreams repeat what they were sent: no key goes back into the page."""
        shown = result.message()
        endpoint = body.get("endpoint")
        typed = set[str]()
        if isinstance(endpoint, dict):
            headers = endpoint.get("extra_headers")
            given = [endpoint.get("api_key"), *(headers.values() if isinstance(headers, dict) else ())]
            typed = {str(one) for one in given if one}
        for secret in secrets_of(settings) | secrets_of(self._services.settings) | typed:
            if len(secret) >= 6:
                shown["detail"] = shown["detail"].replace(secret, _HIDDEN)
        shown["detail"] = shown["detail"][:600]
        return shown

    async def _settings(self, body: Mapping[str, Any]) -> Settings:
        changes = body.get("changes", {})
        if not isinstance(changes, dict):
            raise SettingsError(["changes: must be an object"])
        if not changes:
            return self._services.settings
        return await asyncio.to_thread(self._file.preview, changes)

    # VAD ----------------------------------------------------------------------------------------------------------

    async def _vad(self, settings: Settings, _body: Mapping[str, Any]) -> Result:
        return await asyncio.to_thread(try_vad, settings)

    # ASR ----------------------------------------------------------------------------------------------------------

    async def _asr(self, settings: Settings, body: Mapping[str, Any]) -> Result:
        engine = body.get("engine")
        if engine is not None:
            settings = _with_engine(settings, "asr", engine)
        text = _text(body, _CHINESE if is_chinese(settings.asr.language) else ENGLISH)
        pcm = await asyncio.to_thread(spoken, text)
        if settings.asr == self._services.settings.asr:
            found, took_s = await decoded(self._services.recognition, pcm)
            name = self._services.recognition.engine.name
        else:
            built = await asyncio.to_thread(build_recognizer, settings.asr, settings.models.dir, SPOKEN_COMMANDS_EN)
            try:
                tried = Recognition(built.recognizer, self._services.recognition.pool)
                tried.early.wanted = False
                await decoded(tried, pcm[: UPLINK_RATE_HZ // 2])  # the first run of a model is slower than all others
                found, took_s = await decoded(tried, pcm)
            finally:
                await built.recognizer.disconnect()
                await asyncio.to_thread(built.recognizer.close)
            name = built.recognizer.name
        heard = f"heard “{found.text}”" if found.text else "heard nothing"
        seconds = len(pcm) / UPLINK_RATE_HZ
        detail = f"{name}: {heard}; a synthetic voice said “{text}” ({seconds:.1f} s)"
        return Result(bool(found.text), took_s * 1000.0, detail)

    # LLM ----------------------------------------------------------------------------------------------------------

    async def _llm(self, settings: Settings, body: Mapping[str, Any]) -> Result:
        wanted = body.get("endpoint")
        if wanted is None and not settings.llm.endpoints:
            return await asked(self._services.chat, "the built-in responder", _text(body, ENGLISH))
        endpoint = await self._endpoint(wanted, settings)
        llm = settings.llm.model_copy(update={"first_token_timeout_s": LIMIT_S - 5.0})
        most = _MAX_TOKENS_THINKING if endpoint.begins_in_thought else _MAX_TOKENS
        chat = await asyncio.to_thread(build_model, endpoint.model_copy(update={"max_tokens": most}), llm)
        try:
            await chat.warm()
            return await asked(chat, f"{endpoint.name}, {endpoint.model}", _text(body, "你好"))
        finally:
            await chat.close()

    async def _endpoint(self, wanted: object, settings: Settings) -> LlmEndpoint:
        """The endpoint of that name, the first where none is named, or one as a page has it. Raises `SettingsError`."""
        if isinstance(wanted, dict):
            owners = await asyncio.to_thread(self._file.owners)
            return merged(wanted, settings.llm.endpoints, owners.llm.endpoints)
        known = {one.name: one for one in settings.llm.endpoints}
        if wanted is None and known:
            return settings.llm.endpoints[0]
        if isinstance(wanted, str) and wanted in known:
            return known[wanted]
        raise SettingsError([f"endpoint: there is none of this name; there are {', '.join(known) or 'none'}"])

    # TTS ----------------------------------------------------------------------------------------------------------

    async def _tts(self, settings: Settings, body: Mapping[str, Any]) -> Result:
        engine = body.get("engine")
        if engine is None:
            engine = settings.tts.engines[0]
        settings = _with_engine(settings, "tts", engine)
        tts = settings.tts.model_copy(
            update={"engines": (engine,), "first_audio_timeout_s": 20.0, "idle_timeout_s": 10.0, "retry_after_s": 0.0}
        )
        text = _text(body, _GREETING)
        voice = body.get("voice", "")
        request = VoiceRequest(voice=voice[:100] if isinstance(voice, str) else "")
        built = await asyncio.to_thread(build_voices, tts, settings.models.dir)
        pieces: list[PcmInt] = []
        samples, first_s = 0, None
        began_s = time.monotonic()
        try:
            part = ReplyPart(ReplyVoices(request))
            speech = built.chain.speak(text, language=language_of(text), part=part, urgent=True)
            async with aclosing(speech):
                async for pcm in speech:
                    if first_s is None:
                        first_s = time.monotonic() - began_s
                    pieces.append(pcm)
                    samples += len(pcm)
                    if samples > _MAX_SOUND_S * DOWNLINK_RATE_HZ:
                        break
        finally:
            await built.chain.close()
        if first_s is None:
            return Result(False, None, f"{engine}: there is nothing to say in this text")
        detail = f"{built.why[0]}: {samples / DOWNLINK_RATE_HZ:.1f} s of speech in {time.monotonic() - began_s:.2f} s"
        return Result(True, first_s * 1000.0, detail, np.concatenate(pieces))


def _with_engine(settings: Settings, table: str, engine: object) -> Settings:
    """The settings with one engine, checked as the file would be. Raises `SettingsError`."""
    name = "engine" if table == "asr" else "engines"
    section, allowed = getattr(settings, table), keys()[table, name].choices
    if engine not in allowed:
        raise SettingsError([f"{table}.{name}: must be one of {', '.join(allowed)}"])
    value = engine if table == "asr" else (engine,)
    return settings.model_copy(update={table: section.model_copy(update={name: value})})


def _text(body: Mapping[str, Any], default: str) -> str:
    text = body.get("text")
    if text is None or text == "":
        return default
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise SettingsError([f"text: must be a text of at most {_LONGEST_TEXT} characters"])
    return text
