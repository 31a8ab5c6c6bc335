"""One-click trials of the stages: does it work, how long does it take, and if not, why."""

import asyncio
import base64
import io
import logging
import time
import wave
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt, to_float
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.console.editing import edited
from xiaozhi.console.endpoints import merged
from xiaozhi.console.secret_values import secrets_of
from xiaozhi.console.settings_file import SettingsFile, check_names
from xiaozhi.services import Services
from xiaozhi.settings import EspeakVoiceSettings, LlmEndpoint, Settings
from xiaozhi.settings.errors import SettingsError
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.hearing import Ears
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.remote import WithFallback
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Message
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.espeak import say
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.wishes import VoiceWish
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, STATE_WIDTH, WINDOW_SAMPLES, VadError, load_silero
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.text.language import language_of
from xiaozhi.workers import JobDropped, Priority

_log = logging.getLogger(__name__)

LIMIT_S: Final = 30.0
_LONGEST_TEXT: Final = 200
_MOST_SOUND_S: Final = 15.0
# Enough for a first word of a model that first sends an empty piece or thinks a little.
_MOST_TOKENS: Final = 16
_ENGLISH: Final = "what time is it"
_CHINESE: Final = "今天天气怎么样"
_GREETING: Final = "你好，我是小智。"
_HIDDEN: Final = "(hidden)"


@dataclass(frozen=True, slots=True)
class Result:
    """What a trial found.

    Attributes:
        ok: the stage works.
        latency_ms: until its first useful output; None where there was none.
        detail: one line: what came out, or what is wrong and what to do.
        audio: int16[n] at 24 kHz, of a voice.
    """

    ok: bool
    latency_ms: float | None
    detail: str
    audio: PcmInt | None = None

    def message(self) -> dict[str, Any]:
        """As JSON."""
        shown: dict[str, Any] = {
            "ok": self.ok,
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 1),
            "detail": " ".join(self.detail.split()),
        }
        if self.audio is not None:
            shown["audio"] = base64.b64encode(_wav(self.audio)).decode()
        return shown


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
            except (VadError, EngineError, ChatError, VoiceError, JobDropped) as error:
                result = Result(False, None, str(error) or type(error).__name__)
            except TimeoutError:
                result = Result(False, None, f"no result within {LIMIT_S:.0f} s")
            return self._clean(result, settings, body)
        finally:
            self._busy = False

    def _clean(self, result: Result, settings: Settings, body: Mapping[str, Any]) -> dict[str, Any]:
        """Upstreams repeat what they were sent: no key goes back into the page."""
        shown = result.message()
        endpoint = body.get("endpoint")
        typed = {str(endpoint["api_key"])} if isinstance(endpoint, dict) and endpoint.get("api_key") else set[str]()
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
        check_names(changes, ())
        return await asyncio.to_thread(self._file.preview, lambda text: edited(text, changes))

    # VAD ----------------------------------------------------------------------------------------------------------

    async def _vad(self, settings: Settings, _body: Mapping[str, Any]) -> Result:
        return await asyncio.to_thread(_try_vad, settings)

    # ASR ----------------------------------------------------------------------------------------------------------

    async def _asr(self, settings: Settings, body: Mapping[str, Any]) -> Result:
        engine = body.get("engine")
        if engine is not None:
            settings = _with_engine(settings, "asr", engine)
        text = _text(body, _CHINESE if settings.asr.language in ("zh", "yue") else _ENGLISH)
        pcm = await asyncio.to_thread(_spoken, text)
        if settings.asr == self._services.settings.asr:
            found, took_s = await _decoded(self._services.ears, pcm)
            name = self._services.ears.engine.name
        else:
            built = await asyncio.to_thread(build_recognizer, settings.asr, settings.models.dir, SPOKEN_COMMANDS_EN)
            try:
                ears = Ears(built.recognizer, self._services.ears.pool, early_decode=False)
                await _decoded(ears, pcm[: UPLINK_RATE_HZ // 2])  # the first run of a model is slower than all others
                found, took_s = await _decoded(ears, pcm)
            finally:
                if isinstance(built.recognizer, WithFallback):
                    await built.recognizer.aclose()
                await asyncio.to_thread(built.recognizer.close)
            name = built.recognizer.name
        heard = f"heard “{found.text}”" if found.text else "heard nothing"
        seconds = len(pcm) / UPLINK_RATE_HZ
        detail = f"{name}: {heard}; a synthetic voice said “{text}” ({seconds:.1f} s)"
        return Result(bool(found.text), took_s * 1000.0, detail)

    # LLM ----------------------------------------------------------------------------------------------------------

    async def _llm(self, settings: Settings, body: Mapping[str, Any]) -> Result:
        wanted = body.get("endpoint")
        known = {one.name: one for one in settings.llm.endpoints}
        if wanted is None and not known:
            return await _asked(self._services.chat, "the built-in responder", _text(body, _ENGLISH))
        endpoint: LlmEndpoint
        if isinstance(wanted, dict):
            endpoint = merged(wanted, known)
        elif wanted is None:
            endpoint = settings.llm.endpoints[0]
        elif isinstance(wanted, str) and wanted in known:
            endpoint = known[wanted]
        else:
            raise SettingsError([f"endpoint: there is none of this name; there are {', '.join(known) or 'none'}"])
        from xiaozhi.stages.llm.openai_chat import OpenAIChat

        llm = settings.llm.model_copy(update={"first_token_timeout_s": LIMIT_S - 5.0})
        chat = await asyncio.to_thread(OpenAIChat, endpoint.model_copy(update={"max_tokens": _MOST_TOKENS}), llm)
        try:
            await chat.warm()
            return await _asked(chat, f"{endpoint.name}, {endpoint.model}", _text(body, "你好"))
        finally:
            await chat.close()

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
        wish = VoiceWish(voice=voice[:100] if isinstance(voice, str) else "")
        built = await asyncio.to_thread(build_voices, tts, settings.models.dir)
        pieces: list[PcmInt] = []
        samples, first_s = 0, None
        began_s = time.monotonic()
        try:
            speech = built.chain.speak(text, language=language_of(text), wish=wish, urgent=True)
            async with aclosing(speech):
                async for pcm in speech:
                    if first_s is None:
                        first_s = time.monotonic() - began_s
                    pieces.append(pcm)
                    samples += len(pcm)
                    if samples > _MOST_SOUND_S * DOWNLINK_RATE_HZ:
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
    section = getattr(settings, table)
    allowed = _ASR_ENGINES if table == "asr" else _TTS_ENGINES
    if engine not in allowed:
        raise SettingsError([f"{table}.{name}: must be one of {', '.join(allowed)}"])
    value = engine if table == "asr" else (engine,)
    return settings.model_copy(update={table: section.model_copy(update={name: value})})


def _choices(table: str, name: str) -> tuple[str, ...]:
    from xiaozhi.settings.schema import find

    key = find((table, name))
    return key.choices if key is not None else ()


_ASR_ENGINES: Final = _choices("asr", "engine")
_TTS_ENGINES: Final = _choices("tts", "engines")


def _text(body: Mapping[str, Any], default: str) -> str:
    text = body.get("text")
    if text is None or text == "":
        return default
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise SettingsError([f"text: must be a text of at most {_LONGEST_TEXT} characters"])
    return text


def _spoken(text: str) -> PcmFloat:
    """A synthetic voice, float32[n] at 16 kHz, with a little silence around it; never twice exactly the same.

    What is exactly the same would be answered from the cache of recognised sounds. Blocking.
    """
    pcm = say(text, language_of(text), EspeakVoiceSettings())
    resampler = StreamResampler(DOWNLINK_RATE_HZ, UPLINK_RATE_HZ)
    spoken = to_float(np.concatenate([resampler.feed(pcm), resampler.flush()]))
    quiet = np.zeros(UPLINK_RATE_HZ // 5, np.float32)
    whole = np.concatenate([quiet, spoken, quiet])
    noise = np.random.default_rng().normal(0.0, 3e-4, len(whole)).astype(np.float32)
    sound: PcmFloat = np.clip(whole + noise, -1.0, 1.0).astype(np.float32)
    return sound


def _try_vad(settings: Settings) -> Result:
    """Blocking."""
    model = load_silero(settings.vad, settings.models.dir)
    pcm = _spoken(_ENGLISH)
    states = np.zeros((2, 1, STATE_WIDTH), np.float32)
    context = np.zeros(CONTEXT_SAMPLES, np.float32)
    found: list[float] = []
    began_s = time.perf_counter()
    for start in range(0, len(pcm) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        window = pcm[start : start + WINDOW_SAMPLES]
        judged, states = model.probabilities(np.concatenate([context, window])[None, :], states)
        context = window[-CONTEXT_SAMPLES:]
        found.append(float(judged[0]))
    each_ms = (time.perf_counter() - began_s) * 1000.0 / len(found)
    voiced = sum(probability >= settings.vad.threshold for probability in found)
    detail = (
        f"{model.name}: speech in {voiced} of {len(found)} windows of 32 ms, highest probability {max(found):.2f},"
        f" {each_ms:.2f} ms a window"
    )
    if not voiced:
        return Result(False, each_ms, f"{detail}; nothing reached vad.threshold = {settings.vad.threshold:g}: lower it")
    return Result(True, each_ms, detail)


async def _decoded(ears: Ears, pcm: PcmFloat) -> tuple[Transcript, float]:
    """The text of a sound, and how long it took in seconds."""
    hearing = ears.open()
    try:
        hearing.feed(pcm)
        began_s = time.monotonic()
        found = await hearing.transcribe(Priority.FINAL, lambda: False, lambda _early: None)
        return found, time.monotonic() - began_s
    finally:
        hearing.close()


async def _asked(chat: Any, name: str, text: str) -> Result:
    """The first words of a chat model."""
    request = ChatRequest([Message("user", text)], language_of(text))
    began_s = time.monotonic()
    async with aclosing(chat.stream(request)) as deltas:
        async for delta in deltas:
            if delta.text.strip():
                return Result(
                    True, (time.monotonic() - began_s) * 1000.0, f"{name} begins: “{delta.text.strip()[:80]}”"
                )
    return Result(False, None, f"{name} answered nothing")


def _wav(pcm: PcmInt) -> bytes:
    with io.BytesIO() as held:
        with wave.open(held, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(DOWNLINK_RATE_HZ)
            file.writeframes(pcm.astype("<i2", copy=False).tobytes())
        return held.getvalue()
