"""The console's calls about agents, voices and the talk page."""

import time

import orjson
from aiohttp import web

from xiaozhi.access.addresses import WEBSOCKET_PATH
from xiaozhi.access.guests import Guests
from xiaozhi.agents.agent import Agent, AgentError, agent_from_json
from xiaozhi.console.request_guard import SESSION, Guard, Refused, answer, body_of
from xiaozhi.conversation.agent_engines import faults
from xiaozhi.conversation.services import Services
from xiaozhi.http.openapi import takes
from xiaozhi.settings.asr import RECOGNIZERS
from xiaozhi.settings.tts import VOICES
from xiaozhi.stages.tts.voice_request import KNOWN


class AgentRoutes:
    """Answers the pages for agents, and hands out passes for the talk page.

    Args:
        services: store, agents and voices.
        guests: passes for the talk page.
        guard: knows what the browser sees.
    """

    def __init__(self, services: Services, guests: Guests, guard: Guard) -> None:
        self._services = services
        self._store = services.store
        self._guests = guests
        self._guard = guard

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the calls."""
        router.add_get("/api/agents", self.agents)
        router.add_put("/api/agents/{name}", self.put_agent)
        router.add_delete("/api/agents/{name}", self.remove_agent)
        router.add_get("/api/voices", self.voices)
        router.add_get("/api/talk", self.talk)

    async def agents(self, _request: web.Request) -> web.Response:
        """Every agent, how many devices have it, what is wrong with it, and what it may name of its own."""
        roster = self._services.roster
        await roster.refresh(self._store)
        counts: dict[str, int] = {}
        for device in await self._store.devices.list():
            counts[device.agent] = counts.get(device.agent, 0) + 1
        default = roster.default.name
        settings = self._services.settings
        failed = self._services.for_agents.failed
        rows = [
            {
                **agent.model_dump(),
                "problems": [
                    *faults(agent, settings).values(),
                    *(
                        failed[what]
                        for what in (f"recogniser {agent.recognizer}", f"voice {agent.voice.engine}")
                        if what in failed
                    ),
                ],
                "origin": roster.origin(agent),
                "default": agent.name == default,
                "devices": counts.get(agent.name, 0) + (counts.get("", 0) if agent.name == default else 0),
            }
            for agent in roster
        ]
        choices = {
            "recognizers": list(RECOGNIZERS),
            "endpoints": [endpoint.name for endpoint in settings.llm.endpoints],
            "voices": list(VOICES),
        }
        return answer({"agents": rows, "default": default, "choices": choices})

    @takes(Agent)
    async def put_agent(self, request: web.Request) -> web.Response:
        """Make or change an agent."""
        name = request.match_info["name"]
        body = await body_of(request)
        values = {key: value for key, value in body.items() if key not in ("origin", "default", "devices", "problems")}
        agent = agent_from_json(orjson.dumps({**values, "name": values.get("name", name)}).decode(), "agent")
        if agent.name != name:
            raise AgentError("agent: name: is another one than in the address; make a new agent instead")
        await self._store.agents.put(agent.name, agent.model_dump_json())
        await self._services.roster.refresh(self._store)
        return answer({**agent.model_dump(), "origin": self._services.roster.origin(agent)})

    async def remove_agent(self, request: web.Request) -> web.Response:
        """Delete an agent that people made; one that came along is as it was before it was changed."""
        if not await self._store.agents.remove(request.match_info["name"]):
            raise Refused(404, "there is no agent of your own of this name")
        await self._services.roster.refresh(self._store)
        return answer({"removed": request.match_info["name"]})

    async def voices(self, _request: web.Request) -> web.Response:
        """The voices that are known of each engine; those of the settings' engines first."""
        wanted = list(self._services.settings.tts.engines)
        engines = wanted + [engine for engine in KNOWN if engine not in wanted]
        rows = [
            {
                "engine": engine,
                "name": voice.name,
                "id": f"{engine}:{voice.name}",
                "language": voice.language,
                "gender": voice.gender,
                "used": engine in wanted,
            }
            for engine in engines
            for voice in KNOWN.get(engine, ())
        ]
        return answer({"voices": rows, "engines": wanted})

    async def talk(self, request: web.Request) -> web.Response:
        """A pass with which this browser may connect as a device of its own."""
        host = self._guard.host(request)
        if not host:
            raise Refused(400, "the Host header is not valid")
        granted = self._guests.issue(request[SESSION].name, time.monotonic())
        scheme = "wss" if self._guard.secure(request) else "ws"
        return answer(
            {
                "websocket": f"{scheme}://{host}{WEBSOCKET_PATH}",
                "token": granted.token,
                "device_id": granted.device_id,
                "client_id": granted.client_id,
                "query": {"device-id": granted.device_id, "client-id": granted.client_id, "token": granted.token},
            }
        )
