"""Building the recogniser that the settings name. Engines are imported only when chosen."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.program import program
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import RECOGNIZERS
from xiaozhi.settings.engines import load_engine
from xiaozhi.settings.section import Language
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.recogniser import Quickest, Recognizer, RecognizerContext
from xiaozhi.stages.asr.two_pass import TwoPass
from xiaozhi.text.one_line import one_line

_log = logging.getLogger(__name__)

_EMBEDDED_HINT: Final = (
    f"English only, plain; for Chinese and far better English run: {program()} models pull sense-voice"
)


@dataclass(frozen=True, slots=True)
class Built:
    """A recogniser that is ready.

    Attributes:
        recognizer: the engine.
        why: one line for the start-up banner: which engine and why.
        hint: what to do for a better one, empty where there is none.
    """

    recognizer: Recognizer
    why: str
    hint: str = ""


def build_recognizer(
    settings: AsrSettings, models_dir: Path, phrases: Sequence[str], quickest: Quickest | None = None
) -> Built:
    """Build the recogniser that the settings name. Blocking: seconds for a full-size model.

    `auto` takes SenseVoice or else a zipformer where a valid one is found (`settings.model_dir`, or `models_dir` and
    the engine's name), both as two passes where the zipformer knows what is spoken, otherwise pocketsphinx; a folder
    that is there but unfit is named in `why`. One on another machine gets the one that `settings.fallback` names behind
    it.

    Args:
        settings: the `[asr]` table.
        models_dir: `dir` of the `[models]` table.
        phrases: what the built-in responder understands, for the embedded recogniser's grammar.
        quickest: what was measured of this machine; None where nothing was.

    Raises:
        EngineError: an engine named in the settings cannot be built; one line with what to do.
    """
    context = RecognizerContext(settings, models_dir, phrases, quickest or Quickest())
    if settings.engine == "auto":
        return _auto(context)
    engine = build_alone(settings.engine, context)
    if engine.remote is not None:
        own = settings.model_copy(update={"engine": settings.fallback})
        here = build_recognizer(own, models_dir, phrases, quickest)
        both = Fallback(engine, engine.remote, here.recognizer)
        return Built(both, f"{engine.about}; when it fails: {here.why}", keyless(settings.engine, settings))
    if settings.engine == "pocketsphinx":
        return Built(engine, "pocketsphinx, as asked for", _EMBEDDED_HINT)
    return Built(engine, engine.about)


def build_alone(name: str, context: RecognizerContext) -> Recognizer:
    """Build one engine, without another behind it. Blocking.

    Raises:
        EngineError: it cannot be built; one line with what to do.
    """
    try:
        engine: Recognizer = load_engine(RECOGNIZERS, name).build(context)
    except EngineError:
        raise
    except Exception as error:  # whatever a package does, one line says which one it is
        raise EngineError(f"asr.engine {name}: {type(error).__name__}: {one_line(error)}") from error
    return engine


def keyless(name: str, settings: AsrSettings) -> str:
    """What an engine lacks of its credentials, with what to do; empty where nothing is missing."""
    table = getattr(settings, name, None)
    return str(table.missing(f"asr.{name}")) if table is not None else ""


def _auto(context: RecognizerContext) -> Built:
    settings = context.settings
    names = ["sense-voice", "zipformer"]
    if settings.model_dir is not None:
        names = [names[any(settings.model_dir.glob("encoder*.onnx"))]]
    else:
        names = [name for name in names if context.folder(name).exists()]
    unfit, fit = [], list[Recognizer]()
    for name in names:
        try:
            fit.append(build_alone(name, context))
        except EngineError as error:
            unfit.append(str(error))
    if len(fit) == 2 and _knows(fit[1], settings.language):
        both = TwoPass(fit[1], fit[0])
        return Built(both, both.about)
    if fit:
        for other in fit[1:]:
            other.close()
        return Built(fit[0], fit[0].about)
    engine = build_alone("pocketsphinx", replace(context, settings=settings.model_copy(update={"model_dir": None})))
    why = "pocketsphinx (embedded), because " + ("; ".join(unfit) or "no model is installed")
    return Built(engine, why, _EMBEDDED_HINT)


async def warm_recognizer(engine: Recognizer, pool: WorkerPool) -> None:
    """Run a recogniser once, so that the first user does not pay for the first run."""
    began = time.monotonic()
    await engine.warm(pool)
    _log.info("recogniser %s warm after %.0f ms", engine.name, (time.monotonic() - began) * 1000.0)


async def close_recognizer(engine: Recognizer) -> None:
    """Free a recogniser and its connections."""
    await engine.disconnect()
    await asyncio.to_thread(engine.close)


def _knows(streaming: Recognizer, language: Language) -> bool:
    """Whether a streaming recogniser may be believed: its text is the answer when there is too much to do for two."""
    spoken = {"zh", "en"} if language == "auto" else {language}
    return spoken <= streaming.languages
