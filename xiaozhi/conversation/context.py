"""What one conversation knows: its agent, its device, what was said before and what is to be kept in mind."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from xiaozhi.agents import Agent
from xiaozhi.agents.prompt import Surroundings, render
from xiaozhi.cluster.conversations import ConversationMirror
from xiaozhi.concurrency.workers import Rank
from xiaozhi.conversation.engines import Engines
from xiaozhi.events import Clause, Message
from xiaozhi.memory import MemoryKeeper
from xiaozhi.memory.facts import fitting, names_in
from xiaozhi.memory.summaries import Summariser
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.store import DeviceRecord, Store, StoreError
from xiaozhi.store.turns import Past, TurnRecord
from xiaozhi.text.feelings import side_note
from xiaozhi.text.language import is_chinese, language_of
from xiaozhi.text.tool_note import tool_note, with_note
from xiaozhi.turn.history import History, PastTurn
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)

# A hello may wait so long for a slow disk; then the conversation begins without its past, which comes when it is read.
_LOAD_S: Final = 0.5
# Ids made up for clients that give none are different on every connection: nothing is kept under them.
_ANONYMOUS: Final = "anonymous-"
_PAUSE_STEP_MS: Final = 20.0  # a habit that has moved less is not worth a write
_RANKS: Final = {"high": Rank.HIGH, "low": Rank.LOW}


class ConversationContext:
    """One conversation's memory. Everything it asks of the store goes on in the background.

    Args:
        engines: the agents, and the settings.
        store: what was said before, and to whom.
        memory: facts about users.
        summaries: sums up what a history outgrows.
        shared: conversations that other nodes have; None for a node that is alone.
        device_id: whose conversation it is.
    """

    def __init__(
        self,
        engines: Engines,
        store: Store,
        memory: MemoryKeeper,
        summaries: Summariser,
        shared: ConversationMirror | None,
        device_id: str,
    ) -> None:
        self._engines = engines
        self._settings = engines.settings
        self._store = store
        self._memory = memory
        self._summaries = summaries
        self._shared = shared
        self._device = DeviceRecord(device_id)
        self._known = not device_id.startswith(_ANONYMOUS)
        self._kept_pause_ms = 0.0
        self._sends_echo: bool | None = None
        self._conversation = 0
        self._memories: tuple[str, ...] = ()
        self._note = ""  # behind the newest text
        self._switches = 0  # of the agent: what the store had before one is out of date
        self._tasks: set[asyncio.Task[None]] = set()
        self._zone = ZoneInfo(self._settings.server.timezone) if self._settings.server.timezone else None
        self.agent: Agent = engines.roster.default
        """Who answers now."""
        self._history = self._new_history()

    def _new_history(self) -> History:
        llm = self._settings.llm
        return History(max_turns=llm.history_turns, max_tokens=llm.history_max_tokens)

    @property
    def device(self) -> DeviceRecord:
        """The device as it was last read."""
        return self._device

    @property
    def expected_language(self) -> str:
        """What the user is known to speak; empty where nobody has said so."""
        fixed, agents = self._engines.settings.asr.language, self.agent.language
        return self._device.language or (fixed if fixed != "auto" else "" if agents == "auto" else agents)

    @property
    def rank(self) -> Rank:
        """Whether this device goes before or behind others where many wait."""
        return _RANKS.get(self._device.priority, Rank.NORMAL)

    @property
    def turns(self) -> int:
        """How many turns of the past go along with a question."""
        return len(self._history)

    # Loading ------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is known of the device. Returns after half a second at the latest, and goes on by itself."""
        if self._known:
            task = self._spawn(self._load, "load-conversation")
            await asyncio.wait([task], timeout=_LOAD_S)

    async def _load(self) -> None:
        await self._engines.roster.refresh_now_and_then(self._store)
        switches = self._switches
        device = await self._store.devices.seen(self._device.id)
        if switches == self._switches:
            self._take(device)
        await self._engines.for_agents.learn_names(self._store)
        await self._read_memories()
        if self._settings.store.conversations:
            agent, history = self.agent, self._history
            past = await self._store.turns.begin(self._device.id, agent.name, self._most())
            self._conversation = past.conversation
            self._restore(history, await self._caught_up(agent.name, past))

    async def _caught_up(self, agent: str, past: Past) -> Past:
        """With what another node has added meanwhile."""
        if self._shared is None or not self._known:
            return past
        return await self._shared.catch_up(self._device.id, agent, past, self._most())

    def _most(self) -> int:
        return max(1, self._settings.llm.history_turns)

    def _restore(self, history: History, past: Past) -> None:
        turns = [
            PastTurn.of(with_note(turn.heard, turn.note), turn.played, turn.id) for turn in past.turns if turn.played
        ]
        history.restore(turns, past.summary)

    def _take(self, device: DeviceRecord) -> None:
        self._device = device
        self._kept_pause_ms = device.pause_ms
        if self._sends_echo is not None:  # it has said so before it was known that it is no new device
            self.note_aec(self._sends_echo)
        agent = self._engines.roster.of(device.agent)
        if agent.name != self.agent.name:
            self._history = self._new_history()
        self.agent = agent
        self._engines.for_agents.prepare(agent)

    async def _read_memories(self) -> None:
        self._memories = fitting([fact.text for fact in await self._memory.known(self._device.id)])

    def _spawn(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_spared(work, self._device.id), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """The conversation is over; what has been written down stays, what is being read is given up."""
        self._memory.ended(self._device.id)
        for task in self._tasks:
            task.cancel()

    def keep_pause(self, pause_ms: float) -> None:
        """Write down how long the user pauses inside sentences, where it has changed."""
        if self._known and abs(pause_ms - self._kept_pause_ms) >= _PAUSE_STEP_MS:
            self._kept_pause_ms = pause_ms
            self._store.devices.note_pause(self._device.id, pause_ms)

    def note_aec(self, aec: bool) -> None:
        """Write down whether the device leaves the echo of its loudspeaker to the server, where that is new."""
        self._sends_echo = aec
        if self._known and aec is not self._device.aec:
            self._store.devices.note_aec(self._device.id, aec=aec)

    # Asking -------------------------------------------------------------------------------------------------------

    def messages(self, text: str, transcript: Transcript) -> list[Message]:
        """The conversation as the model gets it: the agent's prompt, the past, and the newest text."""
        user_chinese = is_chinese(language_of(text, default=transcript.language or "zh"))
        self._note = ""
        if self._settings.agents.feelings:
            self._note = side_note(transcript.emotion, transcript.events, chinese=user_chinese)
        return self._history.messages(self._prompt(), with_note(text, self._note))

    def _prompt(self) -> str:
        agent, device = self._engines.roster.of(self.agent.name), self._device  # as it is now
        language = agent.language if agent.language != "auto" else language_of(agent.prompt)
        around = Surroundings(
            day=self._today(),
            device=device.name,
            room=device.room,
            owner=device.owner,
            language=device.language or (agent.language if agent.language != "auto" else ""),
            memory=self._memories,
            summary=self._history.summary,
        )
        return render(agent.prompt, agent.name, around, chinese=is_chinese(language))

    def _today(self) -> date:
        return self.now().date()

    def now(self) -> datetime:
        """The user's time, with its zone."""
        return datetime.now(self._zone).astimezone(self._zone)

    # Keeping ------------------------------------------------------------------------------------------------------

    def add(
        self, trace: TurnTrace, spoken: Sequence[tuple[Clause, float]], played_ms: float, *, cut: bool = False
    ) -> None:
        """Remember a finished turn: what was heard of it goes along with the next question, and into the store.

        Args:
            trace: its record; without a text of the user's where the server began by itself.
            spoken: the clauses whose audio has begun to be sent, each with the milliseconds sent.
            played_ms: how much of all that audio was heard.
            cut: the device did not take the rest, although nobody broke in.
        """
        interrupted = cut or trace.interrupted is not None
        turn_id = self._store.turns.next_id()
        note = ""
        if trace.heard:
            uses = [(use.name, use.result, use.failed) for use in trace.tools]
            note = "\n".join(filter(None, (self._note, tool_note(uses, chinese=is_chinese(trace.language)))))
            self._note = ""
        user = with_note(trace.heard, note)  # to the letter what is restored: upstreams find what they have computed
        played = self._history.add(user, spoken, played_ms, interrupted=interrupted, turn_id=turn_id)
        if not trace.heard and not played:
            return
        stored = self._conversation > 0 and self._settings.store.conversations
        if stored:
            self._store.turns.add(
                TurnRecord(
                    id=turn_id,
                    device=self._device.id,
                    conversation=self._conversation,
                    agent=self.agent.name,
                    at=datetime.now().timestamp(),
                    heard=trace.heard,
                    said=trace.said,
                    played=played,
                    interrupted=interrupted,
                    trace=trace.message(),
                    note=note,
                )
            )
            if self._shared is not None and self._known:
                self._shared.keep(self._device.id, self.agent.name, self._most())
        self._summaries.consider(self._device.id, self.agent.name, self._history, stored=stored)
        if self._known:
            self._spawn(self._look_again, "look-again")

    def skip_turn(self) -> None:
        """A turn is over that is not remembered: pages tell turns apart by their numbers in the store."""
        self._store.turns.next_id()

    async def _look_again(self) -> None:
        """The command line or the console may have changed the device, its agent or its memories meanwhile."""
        await self._engines.roster.refresh_now_and_then(self._store)
        switches = self._switches
        device = await self._store.devices.get(self._device.id)
        if device is None:  # it was removed, with all that it said
            if self._conversation:
                self._conversation = 0
                self._memories = ()
                self._history.clear()
            return
        before = self.agent.name
        if switches == self._switches:  # else the user has taken another agent meanwhile, and the turn after looks
            self._take(device)
        await self._engines.for_agents.learn_names(self._store)
        await self._read_memories()
        if self.agent.name != before:
            await self._read_past()

    async def _read_past(self) -> None:
        if self._settings.store.conversations:
            history = self._history
            agent = self.agent.name
            past = await self._store.turns.past(self._device.id, agent, self._most())
            # The turns it goes on with are written down under the conversation that is under way.
            past = Past(self._conversation, past.summary, past.turns)
            self._restore(history, await self._caught_up(agent, past))

    # Agents -----------------------------------------------------------------------------------------------------

    def wanted(self, text: str) -> Agent | None:
        """The agent that a sentence asks to switch to; `None` for every other sentence."""
        return self._engines.roster.wanted(text)

    def switch(self, agent: Agent) -> None:
        """Another agent answers from now on; it goes on where this device left it."""
        if agent.name == self.agent.name:
            return
        self._switches += 1
        self._device = dataclasses.replace(self._device, agent=agent.name)
        self._history = self._new_history()
        self.agent = agent
        self._engines.for_agents.prepare(agent)
        if self._known:
            self._store.devices.assign(self._device.id, agent.name)
            self._spawn(self._read_past, "switch-agent")

    # What tools may ask -------------------------------------------------------------------------------------------

    def agents(self) -> Sequence[str]:
        """Names of the characters this device may take."""
        return [agent.name for agent in self._engines.roster]

    async def change_agent(self, name: str) -> None:
        """Take another character from the next reply on.

        Raises:
            ValueError: there is none of this name.
        """
        agent = self._engines.roster.find(name)
        if agent is None:
            raise ValueError(f"there is no agent {name!r}")
        self.switch(agent)

    async def remember(self, fact: str) -> None:
        """Keep a fact about this user for good.

        Raises:
            ValueError: there is nothing to keep.
            StoreError: it cannot be written.
        """
        await self._memory.remember(self._device.id, fact)
        await self._read_memories()

    async def known(self, about: str = "") -> Sequence[str]:
        """What is remembered of this user; with `about` only what has to do with it, the best first.

        Raises:
            StoreError: it cannot be read.
        """
        return [fact.text for fact in await self._memory.known(self._device.id, about)]

    @property
    def names(self) -> Sequence[str]:
        """Words that belong to this user alone: an answer with one of them is not for everybody."""
        return names_in([*self._memories, f"named {self._device.owner}" if self._device.owner else ""])

    async def forget(self, about: str) -> int:
        """Erase what is known about a subject, everything when it is empty; returns how many facts went.

        Raises:
            StoreError: it cannot be written.
        """
        gone = await self._memory.forget(self._device.id, about)
        await self._read_memories()
        return gone


def acknowledgement(agent: Agent) -> Clause:
    """What an agent says when somebody has switched to it, in its own language."""
    own = agent.language if agent.language != "auto" else language_of(agent.greeting or agent.prompt)
    name = next((alias for alias in agent.names if language_of(alias) == "zh"), agent.name)
    text = agent.greeting or (f"好的，我是{name}。" if is_chinese(own) else f"All right, this is {agent.name} now.")
    return Clause(text, text, language_of(text, default=own), "happy")


async def _spared(work: Callable[[], Awaitable[None]], device_id: str) -> None:
    """Background work of a conversation: a store that fails does not end it; the store has said so itself."""
    try:
        await work()
    except StoreError as error:
        _log.debug("%s", error, extra={"device": device_id})
    except Exception:  # noqa: BLE001 - nobody awaits this; it is logged whole
        _log.exception("background work failed", extra={"device": device_id})
