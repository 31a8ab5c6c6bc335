"""The agents: what one names of its own is there, and works as it would in a turn; else the server's own is used."""

import asyncio
import dataclasses
from collections.abc import Awaitable

from xiaozhi.agents import AgentError, Roster
from xiaozhi.checks import stages
from xiaozhi.checks.finding import Finding, Level, bad, ok
from xiaozhi.conversation.agent_engines import faults
from xiaozhi.settings import Settings
from xiaozhi.store import Store, StoreError


async def agents(settings: Settings) -> list[Finding]:
    """A line for each agent that has something of its own, and for each engine that the server does not have."""
    file = settings.server.data_dir / settings.store.file
    if not file.is_file():  # those that come along have nothing of their own
        return []
    try:
        store = await Store.open(file)
        try:
            roster = await Roster.load(settings, store)
        finally:
            await store.close()
    except (StoreError, AgentError) as error:
        return [bad("agents", str(error), required=False)]
    found: list[Finding] = []
    recognizers, voices = set[str](), set[str]()
    for agent in roster:
        engine = agent.voice.engine
        wrong = faults(agent, settings)
        found += [
            bad(f"agent {agent.name}", f"{line}; the server's own is used", required=False) for line in wrong.values()
        ]
        own = {"recogniser": agent.recognizer, "endpoint": agent.endpoint, "voice": engine}
        if named := [f"{kind} {name}" for kind, name in own.items() if name and kind not in wrong]:
            found.append(ok(f"agent {agent.name}", ", ".join(named)))
        recognizers |= {agent.recognizer} if "recogniser" not in wrong else set()
        voices |= {engine} if "voice" not in wrong else set()
    tried: list[Awaitable[Finding | None]] = [
        _recogniser(name, settings) for name in sorted(recognizers - {"", "auto", settings.asr.engine})
    ]
    tried += [
        stages.voice(name, settings.tts, settings.models.dir) for name in sorted(voices - {"", *settings.tts.engines})
    ]
    for finding in await asyncio.gather(*tried):
        if finding is not None:
            level = finding.level
            line = finding.text if level is Level.OK else f"{finding.text}; the server's own is used"
            found.append(dataclasses.replace(finding, text=line, required=False))
    return found


async def _recogniser(name: str, settings: Settings) -> Finding | None:
    asr = settings.asr.model_copy(update={"engine": name})
    return await stages.remote_recognition(asr) or await asyncio.to_thread(stages.recognition, asr, settings.models.dir)
