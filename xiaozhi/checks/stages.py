"""The stages: every engine is built and tried as the server would."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

# PyAV cannot be imported by two threads at once, and the voices are built in threads.
import xiaozhi.audio.stream_decode  # noqa: F401 - see above
from xiaozhi.checks.finding import Finding, Level, bad, ok, warn
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import AsrSettings, TtsSettings, VadSettings
from xiaozhi.settings.tts import VOICES
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.recogniser import Recognizer, RecognizerContext
from xiaozhi.stages.asr.registry import build_alone, build_recognizer
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.vad.silero import VadError, load_silero
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN

VOICE_TRIAL_S = 8.0
"""Longest wait for a voice to say two syllables."""

LOCAL_VOICES = frozenset(name for name, table in VOICES.items() if not table.needs_network)
"""Voices that need no network."""


def voice_activity(settings: VadSettings) -> Finding:
    """Whether the Silero model is there and loads. Blocking."""
    try:
        return ok("vad", load_silero(settings).name)
    except VadError as error:
        return bad("vad", str(error))


def recognition(settings: AsrSettings, models_dir: Path) -> Finding:
    """Whether the recogniser is there, loads and decodes. Blocking."""
    try:
        built = build_recognizer(settings, models_dir, SPOKEN_COMMANDS_EN)
        try:
            asyncio.run(_run_once(built.recognizer))
        finally:
            built.recognizer.close()
    except EngineError as error:
        return bad("asr", str(error))
    return warn("asr", f"{built.why}; {built.hint}") if built.hint else ok("asr", built.why)


async def _run_once(recognizer: Recognizer) -> None:
    pool = WorkerPool(1, "check")
    try:
        await recognizer.warm(pool)
    finally:
        pool.close()


async def voices(settings: TtsSettings, models_dir: Path) -> list[Finding]:
    """Whether each voice of the list speaks, as it would in a turn; all are tried at once."""
    return list(await asyncio.gather(*(voice(name, settings, models_dir) for name in settings.engines)))


async def voice(name: str, settings: TtsSettings, models_dir: Path) -> Finding:
    """Whether one voice can be had, which is required, and says two syllables, which is not: others stand in for it."""
    subject = f"tts {name}"
    try:
        built = await asyncio.to_thread(build_voices, settings.model_copy(update={"engines": (name,)}), models_dir)
    except VoiceError as error:
        return bad(subject, str(error))
    samples = 0
    try:
        async with asyncio.timeout(VOICE_TRIAL_S), aclosing(built.chain.speak("你好。", language="zh")) as speech:
            async for pcm in speech:
                samples += len(pcm)
    except VoiceError as error:
        _, keyless, hint = built.why[0].partition("; no key")
        line = f"{error}{keyless}{hint}"
        return bad(subject, line, required=False) if name in LOCAL_VOICES or keyless else warn(subject, line)
    except TimeoutError:
        return warn(subject, f"says nothing within {VOICE_TRIAL_S:.0f} s")
    finally:
        await built.chain.close()
    if not samples:
        return bad(subject, "speaks without a sound", required=False)
    return ok(subject, f"speaks: {built.why[0]}")


async def remote_recognition(settings: AsrSettings) -> Finding | None:
    """Whether the recogniser on another machine can be reached and takes the key; None where there is none."""
    if not getattr(getattr(settings, settings.engine, None), "needs_network", False):
        return None
    try:
        remote = build_alone(settings.engine, RecognizerContext(settings, Path(), ()))
    except EngineError:
        return None  # said of the recogniser as a whole
    subject = f"asr {remote.name}"
    try:
        async with asyncio.timeout(settings.remote.timeout_s):
            await remote.connect()
    except RemoteError as error:
        return bad(subject, str(error), required=False)
    except TimeoutError:
        return warn(subject, f"does not answer within {settings.remote.timeout_s:g} s")
    finally:
        await remote.disconnect()
    return ok(subject, "answers")


def last_resort(settings: TtsSettings, tried: Sequence[Finding]) -> Finding | None:
    """Whether a device can be left without a voice; nothing to say when it cannot."""
    if tried and all(finding.level is not Level.OK for finding in tried):
        return bad("tts", 'no voice of tts.engines works now: add "espeak", which always does, at the end')
    if not LOCAL_VOICES & set(settings.engines):
        return warn(
            "tts", 'no local voice in tts.engines: devices are mute when the network is; add "espeak" at the end'
        )
    return None
