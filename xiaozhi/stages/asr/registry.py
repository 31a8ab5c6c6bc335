"""Choosing the recogniser. Engines are imported only when chosen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from xiaozhi.program import program
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.recogniser import Recognizer

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


def build_recognizer(settings: AsrSettings, models_dir: Path, phrases: Sequence[str]) -> Built:
    """Build the recogniser that the settings name. Blocking: seconds for a full-size model.

    `auto` takes SenseVoice or else a zipformer where a valid one is found (`settings.model_dir`, or `models_dir` and
    the engine's name), otherwise pocketsphinx; a folder that is there but unfit is named in `why`.

    Args:
        settings: the `[asr]` table.
        models_dir: `dir` of the `[models]` table.
        phrases: what the built-in responder understands, for the embedded recogniser's grammar.

    Raises:
        EngineError: an engine named in the settings cannot be built; one line with what to do.
    """
    match settings.engine:
        case "sense-voice":
            return _sense_voice(settings, settings.model_dir or models_dir / "sense-voice")
        case "zipformer":
            return _zipformer(settings, settings.model_dir or models_dir / "zipformer")
        case "two-pass":
            return _two_pass(settings, models_dir)
        case "pocketsphinx":
            return _pocketsphinx(phrases, "pocketsphinx, as asked for")
        case "openai" | "funasr":
            return _remote(settings, models_dir, phrases)
        case "auto":
            return _auto(settings, models_dir, phrases)


def _auto(settings: AsrSettings, models_dir: Path, phrases: Sequence[str]) -> Built:
    if settings.model_dir is not None:
        builders = [(_zipformer if any(settings.model_dir.glob("encoder*.onnx")) else _sense_voice, settings.model_dir)]
    else:
        places = ((_sense_voice, models_dir / "sense-voice"), (_zipformer, models_dir / "zipformer"))
        builders = [(build, folder) for build, folder in places if folder.exists()]
    unfit = []
    for build, folder in builders:
        try:
            return build(settings, folder)
        except EngineError as error:
            unfit.append(str(error))
    return _pocketsphinx(phrases, "pocketsphinx (embedded), because " + ("; ".join(unfit) or "no model is installed"))


def _sense_voice(settings: AsrSettings, folder: Path) -> Built:
    from xiaozhi.stages.asr.model_files import find_sense_voice, precisions

    files = find_sense_voice(folder, precisions(settings.precision, settings.provider))
    from xiaozhi.stages.asr.sense_voice import SenseVoice

    def build(model: Path) -> SenseVoice:
        return SenseVoice(
            replace(files, model=model),
            language=settings.language,
            itn=settings.itn,
            threads=settings.threads,
            provider=settings.provider,
        )

    why = f"sense-voice ({files.model}), language {settings.language}, on {settings.provider}"
    if settings.rewrite and settings.provider == "cpu":
        from xiaozhi.stages.asr.rewritten import fastest

        copy = fastest(files.model)
        if copy != files.model:
            try:
                return Built(build(copy), f"{why} rewritten for this CPU")
            except EngineError as error:  # the copy has been damaged since it was made; the original is good
                _log.warning("%s; going on with %s", error, files.model)
                copy.unlink(missing_ok=True)
    return Built(build(files.model), why)


def _zipformer(settings: AsrSettings, folder: Path) -> Built:
    from xiaozhi.stages.asr.model_files import find_transducer, precisions

    files = find_transducer(folder, precisions(settings.precision, settings.provider))
    from xiaozhi.stages.asr.zipformer import Zipformer

    engine = Zipformer(files, language=settings.language, threads=settings.threads, provider=settings.provider)
    return Built(engine, f"zipformer ({files.encoder}), streaming, on {settings.provider}")


def _two_pass(settings: AsrSettings, models_dir: Path) -> Built:
    from xiaozhi.stages.asr.two_pass import TwoPass

    # The small one first: where it is missing, nobody has waited for the large one.
    first = _zipformer(settings, settings.streaming_model_dir or models_dir / "zipformer")
    second = _sense_voice(settings, settings.model_dir or models_dir / "sense-voice")
    return Built(TwoPass(first.recognizer, second.recognizer), f"two-pass: {first.why}, confirmed by {second.why}")


def _remote(settings: AsrSettings, models_dir: Path, phrases: Sequence[str]) -> Built:
    from xiaozhi.stages.asr.fallback import Fallback
    from xiaozhi.stages.asr.remote import RemoteRecognizer

    here = build_recognizer(settings.model_copy(update={"engine": settings.fallback}), models_dir, phrases)
    remote: RemoteRecognizer
    hint = ""
    if settings.engine == "openai":
        from xiaozhi.stages.asr.openai_transcription import OpenAITranscription

        speech = settings.openai
        remote = OpenAITranscription(speech, settings.remote, settings.language)
        why = f"openai {speech.model} from {speech.base_url}"
        if not speech.key() and speech.base_url.startswith("https://"):
            hint = "no key: set asr.openai.api_key" + (f" or {speech.api_key_env}" if speech.api_key_env else "")
    else:
        from xiaozhi.stages.asr.funasr import Funasr

        remote = Funasr(settings.funasr, settings.remote, settings.language, itn=settings.itn)
        why = f"funasr {settings.funasr.mode} from {settings.funasr.url}"
    return Built(Fallback(remote, remote.remote, here.recognizer), f"{why}; when it fails: {here.why}", hint)


def _pocketsphinx(phrases: Sequence[str], why: str) -> Built:
    from xiaozhi.stages.asr.pocketsphinx_engine import Pocketsphinx

    return Built(Pocketsphinx(phrases), why, _EMBEDDED_HINT)
