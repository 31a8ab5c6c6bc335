"""All agents of a server: the presets of the package, those of the store over them, and the settings' own prompt."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Final

from xiaozhi.agents.agent import Agent, AgentError, agent_from_json, agent_from_toml
from xiaozhi.agents.prompt import PromptError, check_template
from xiaozhi.agents.switching import names_of, wanted_agent
from xiaozhi.settings import Settings
from xiaozhi.store.store import Store
from xiaozhi.turn.endpointing import plain

_log = logging.getLogger(__name__)

# What the command line changes is known to a running server so soon.
_FRESH_S: Final = 2.0

HOUSE_AGENT: Final = "xiaozhi"
"""The agent whose prompt is the setting `llm.system_prompt`."""


def presets() -> list[Agent]:
    """The agents that come along, by name. Blocking, reads files of the package.

    Raises:
        AgentError: a file of the package is damaged.
    """
    folder = resources.files("xiaozhi.agents") / "presets"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return [agent_from_toml(file.read_text(encoding="utf-8-sig"), file.name) for file in files]


class Roster:
    """Who there is. Made by `load`; refreshed when the store's agents change.

    Args:
        settings: the default agent and its prompt.
        presets: what comes along.
        stored: what people made or changed; wins over a preset of the same name.

    Raises:
        AgentError: `llm.system_prompt` is no template.
    """

    def __init__(self, settings: Settings, presets: Iterable[Agent], stored: Iterable[Agent] = ()) -> None:
        self._settings = settings
        self._presets = {agent.name: agent for agent in presets}
        self._stored: dict[str, Agent] = {}
        self._agents: dict[str, Agent] = {}
        self._names: dict[str, Agent] = {}
        self._refreshed_at = -_FRESH_S
        self._house = self._house_agent()
        self.replace(stored)

    @classmethod
    async def load(cls, settings: Settings, store: Store) -> "Roster":
        """Read the presets and the store.

        Raises:
            AgentError: `llm.system_prompt` is no template.
            StoreError: the store cannot be read.
        """
        roster = cls(settings, await asyncio.to_thread(presets))
        await roster.refresh(store)
        if settings.agents.default not in roster:
            _log.warning("agents.default: there is no agent %r; %r answers", settings.agents.default, HOUSE_AGENT)
        return roster

    async def refresh(self, store: Store) -> None:
        """Read the store's agents again. Raises `StoreError`."""
        agents = []
        for row in await store.agents.list():
            try:
                agents.append(agent_from_json(row.definition, f"agent {row.name}"))
            except AgentError as error:
                _log.warning("%s; it is left out", error)
        self.replace(agents)

    async def refresh_now_and_then(self, store: Store) -> None:
        """Read them again unless that was done in the last seconds. Raises `StoreError`."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at >= _FRESH_S:
            self._refreshed_at = now
            await self.refresh(store)

    def replace(self, stored: Iterable[Agent]) -> None:
        """Take these as what people made or changed."""
        self._stored = {agent.name: agent for agent in stored}
        self._agents = {HOUSE_AGENT: self._house} | {**self._presets, HOUSE_AGENT: self._house, **self._stored}
        # What people made is meant when a preset has the same name to be called by.
        own = list(self._stored.values())
        self._names = names_of(own + [agent for agent in self._agents.values() if agent.name not in self._stored])

    def _house_agent(self) -> Agent:
        known = self._presets.get(HOUSE_AGENT) or Agent(name=HOUSE_AGENT, aliases=("小智",))
        try:
            check_template(self._settings.llm.system_prompt)
        except PromptError as error:
            raise AgentError(f"llm.system_prompt: {error}") from None
        # Of any length: it is the owner's own setting, and was so before there were agents.
        return known.model_copy(update={"prompt": self._settings.llm.system_prompt.strip()})

    def __contains__(self, name: str) -> bool:
        return name in self._agents

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def default(self) -> Agent:
        """The agent of devices that have none."""
        return self._agents.get(self._settings.agents.default, self._house)

    def of(self, name: str) -> Agent:
        """The agent of a device: the default one for an empty name, or one that is gone."""
        return self._agents.get(name, self.default)

    def find(self, name: str) -> Agent | None:
        """An agent by its name or one of its aliases, however they are written."""
        return self._agents.get(name) or self._names.get(plain(name))

    def origin(self, agent: Agent) -> str:
        """`own`, `changed` (a preset that was changed) or `preset`."""
        if agent.name not in self._stored:
            return "preset"
        return "changed" if agent.name in self._presets else "own"

    def wanted(self, text: str) -> Agent | None:
        """The agent that a spoken sentence asks to switch to; `None` for all other sentences."""
        return wanted_agent(text, self._names) if self._settings.agents.switch_by_voice else None
