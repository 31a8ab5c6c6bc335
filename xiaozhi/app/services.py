"""What all conversations share, built in one place: loaded, warmed, closed at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from xiaozhi.agents import Roster
from xiaozhi.cluster.shared import join_shared
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.caches import open_caches
from xiaozhi.conversation.engines import About
from xiaozhi.conversation.services import Services
from xiaozhi.memory.summaries import Summariser
from xiaozhi.overload.admission import TurnAdmission
from xiaozhi.overload.load_shedder import LoadShedder
from xiaozhi.overload.usage import cores
from xiaozhi.reload.calibrating import about_box, standing
from xiaozhi.settings import Settings
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.registry import build_recognizer, close_recognizer, warm_recognizer
from xiaozhi.stages.llm.registry import build_chat
from xiaozhi.stages.tts.encoding import voice_percent, workers_for
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import load_silero
from xiaozhi.store.store import StoreKeeper
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.tools.external_config import configured_servers
from xiaozhi.turn.completeness import shipped_model


@asynccontextmanager
async def running_services(settings: Settings) -> AsyncIterator[Services]:
    """Load every model, warm it, and close everything at the end.

    Raises:
        EngineError, VoiceError, VadError: a part that was asked for by name cannot be used; one line says what to do.
        StoreError: the store was written by a newer version of this program.
        AgentError: `llm.system_prompt` is no template.
        McpConfigError: the file `tools.mcp_config` cannot be used.
    """
    await asyncio.to_thread(configured_servers, settings.tools)  # what cannot be used is known before anything is open
    models_dir = settings.models.dir
    recognition = WorkerPool(settings.asr.workers, "asr", niceness=settings.asr.niceness)
    audio = settings.audio
    codec = WorkerPool(audio.codec_workers or workers_for(cores()), "codec")
    silero = await asyncio.to_thread(load_silero, settings.vad)
    await asyncio.to_thread(shipped_model)  # 80 ms, which no first turn is to wait for
    calibration = await asyncio.to_thread(standing, settings)
    quickest = calibration.quickest if calibration is not None else None
    built = await asyncio.to_thread(build_recognizer, settings.asr, models_dir, SPOKEN_COMMANDS_EN, quickest)
    built_chat = build_chat(settings.llm, settings.server.timezone, edge=settings.cluster.tier == "edge")
    voices = build_voices(settings.tts, models_dir)
    batcher = VadBatcher(silero, settings.vad)
    keeper = await StoreKeeper.open(settings)
    try:
        roster = await Roster.load(settings, keeper.store)
    except Exception:
        await keeper.close()
        raise
    try:
        shared = await join_shared(settings.cluster, keeper.store)
    except Exception:
        await keeper.close()
        raise
    link = shared.link if shared is not None else None
    caches = await open_caches(settings, voices.chain, codec, voices.why, link=link)
    services = Services(
        settings=settings,
        model=silero,
        batcher=batcher,
        recognition=Recognition(built.recognizer, recognition, settings.asr, settings.cache),
        chat=built_chat.chat,
        voice=voices.chain,
        codec=codec,
        load_shedder=LoadShedder(
            settings.load, recognition, codec, await codec.run(voice_percent, audio.bitrate_bps, audio.complexity)
        ),
        admission=TurnAdmission(settings.load.turns_at_once, settings.load.turn_wait_s),
        store=keeper.store,
        roster=roster,
        summaries=Summariser(built_chat.chat, settings, keeper.store),
        caches=caches,
        shared=shared,
        about={
            "vad": About((silero.name,)),
            "asr": About((built.why,), built.hint),
            "llm": About((built_chat.why,), built_chat.hint),
            "tts": About(voices.why, voices.hint),
            **({"box": about_box(calibration, settings)} if settings.asr.calibrate else {}),
        },
        calibration=calibration,
    )
    try:
        services.prewarm()
        services.tools.start()
        await warm_recognizer(built.recognizer, recognition)
        yield services
    finally:
        await services.stop_warming()
        await services.tools.close()
        await services.retirement.close()
        await services.for_agents.close()
        await services.summaries.close()
        await services.memory.close()
        await services.caches.close()
        await services.chat.close()
        await services.voice.close()
        if services.shared is not None:
            await services.shared.close()
        await keeper.close()
        batcher.close()
        recognition.close()
        codec.close()
        await close_recognizer(services.recognition.engine)
