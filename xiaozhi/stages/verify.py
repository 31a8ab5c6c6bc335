"""Try a fetched model in the engine that will use it, before it is put in place."""

import asyncio
from pathlib import Path
from typing import Literal

from xiaozhi.models.catalogue import Model
from xiaozhi.settings import AsrSettings, SherpaVoiceSettings, TtsSettings


def verify(model: Model, folder: Path) -> str:
    """An empty text when the model in `folder` loads, else one line why not. Blocking; for a thread without a loop."""
    match model.role:
        case "recognition":
            return _recognition(model, folder)
        case "voice":
            return asyncio.run(_voice(folder))


def _recognition(model: Model, folder: Path) -> str:
    from xiaozhi.stages.asr.engine import EngineError
    from xiaozhi.stages.asr.registry import build_recognizer

    engine: Literal["sense-voice", "zipformer"] = "sense-voice" if model.name == "sense-voice" else "zipformer"
    try:
        build_recognizer(AsrSettings(engine=engine, model_dir=folder), folder.parent, ()).recognizer.close()
    except EngineError as error:
        return str(error)
    return ""


async def _voice(folder: Path) -> str:
    from xiaozhi.stages.tts.engine import VoiceError
    from xiaozhi.stages.tts.registry import build_voices

    settings = TtsSettings(engines=("sherpa",), sherpa=SherpaVoiceSettings(model_dir=folder))
    try:
        voice = build_voices(settings, folder.parent).chain
        try:
            await voice.warm()
        finally:
            await voice.close()
    except VoiceError as error:
        return str(error)
    return ""
