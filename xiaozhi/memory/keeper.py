"""Collects what is said, and draws facts from it when a conversation is over. One per process."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from typing import Final, Protocol

from cachetools import LRUCache

from xiaozhi.concurrency.retirement import Retirement
from xiaozhi.memory.extraction import MAX_ANSWER_CHARS, FoundFacts, SaidTurn, questions, read_answer, talk_language
from xiaozhi.memory.facts import FactChanges, Known, Proposal, merge, same_fact, search, surplus
from xiaozhi.memory.mem0 import Mem0, Mem0Error, Mem0Event
from xiaozhi.settings import Settings
from xiaozhi.stages.llm.engine import ChatError, ChatModel, ChatRequest
from xiaozhi.store import Store, StoreError
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)

# Nobody waits for facts, and turns must not wait for them either.
_AT_ONCE: Final = 2
_MAX_TURNS: Final = 40
# Devices whose last few words are kept for the next conversation; about 1 MB, who was silent for longest goes first.
_MAX_DEVICES: Final = 1000
_ANONYMOUS: Final = "anonymous-"


class MemoryHost(Protocol):
    """What of the process is needed here; engines and settings are exchanged while it runs."""

    @property
    def chat(self) -> ChatModel:
        """Finds facts where no service does."""
        ...

    @property
    def settings(self) -> Settings:
        """Whether to, and the bounds."""
        ...

    @property
    def store(self) -> Store:
        """Where facts are kept."""
        ...

    @property
    def retirement(self) -> Retirement:
        """Who uses the chat model."""
        ...


class MemoryKeeper:
    """Draws facts from conversations in the background, and carries out "remember" and "forget".

    What it keeps lies in the store (`store.memories`), each fact under its device; a mem0 service only finds the facts.

    Args:
        house: `Services`.
    """

    def __init__(self, house: MemoryHost) -> None:
        self._house = house
        self._settings = house.settings.memory
        self._store = house.store
        self._service = Mem0(self._settings) if self._settings.engine == "mem0" else None
        self._said: LRUCache[str, deque[SaidTurn]] = LRUCache(_MAX_DEVICES)
        self._forgetting: set[str] = set()  # the turn that asked to forget is not to be remembered
        self._forgotten: dict[str, int] = {}  # of devices whose conversation is being read: how often they forgot
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self.read = 0
        """Conversations that were read for facts."""
        self.failed = 0
        """Those that the model could not read."""
        self.added = 0
        """Facts that were new."""
        self.replaced = 0
        """Facts that were taken back because a newer one speaks against them."""
        self.service_failed = 0
        """Requests the memory service did not answer well; the chat model took its place."""
        self.recalled = 0
        """Facts that were handed to conversations."""
        self.erased = 0
        """Facts that were erased because the user wished it."""
        self.refused = 0
        """Wishes to remember that held nothing to keep."""

    @property
    def enabled(self) -> bool:
        """Facts are drawn from conversations."""
        wanted = self._settings.engine != "off" and self._house.settings.store.conversations
        return wanted and (self._has_model or self._service is not None)

    @property
    def _has_model(self) -> bool:
        return self._house.settings.llm.has_model

    # The conversation ---------------------------------------------------------------------------------------------

    def turn(self, device_id: str, trace: TurnTrace) -> None:
        """A turn is over; for `Services.on_turn`."""
        if device_id in self._forgetting:
            self._forgetting.discard(device_id)
            return
        if not self.enabled or not trace.heard.strip() or device_id.startswith(_ANONYMOUS):
            return
        self._said.setdefault(device_id, deque(maxlen=_MAX_TURNS)).append(SaidTurn(trace.heard, trace.said))

    def ended(self, device_id: str) -> bool:
        """A conversation is over: read it for facts in the background, unless it was short. Never waits.

        Returns:
            Whether it will be read; a short one is added to the next.
        """
        self._forgetting.discard(device_id)
        said = self._said.get(device_id, ())
        if len(said) < self._settings.min_turns or device_id in self._tasks:
            return False
        del self._said[device_id]
        self._forgotten[device_id] = 0
        task = asyncio.get_running_loop().create_task(self._read(device_id, tuple(said)), name=f"facts-{device_id}")
        self._tasks[device_id] = task
        task.add_done_callback(lambda _task: self._done(device_id))
        return True

    def _done(self, device_id: str) -> None:
        self._tasks.pop(device_id, None)
        self._forgotten.pop(device_id, None)

    async def settled(self) -> None:
        """Wait until everything that is under way is done."""
        while running := [*self._tasks.values(), *self._errands]:
            await asyncio.gather(*running, return_exceptions=True)

    async def close(self) -> None:
        """End what is under way."""
        running = [*self._tasks.values(), *self._errands]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._service is not None:
            await self._service.close()

    # What is asked for --------------------------------------------------------------------------------------------

    async def known(self, device_id: str, about: str = "") -> list[Known]:
        """What is known of a device's users, the oldest first; with `about` only what has to do with it, best first.

        Raises:
            StoreError: the store cannot be read.
        """
        facts = await self._known(device_id)
        found = search(facts, about) if about.strip() else facts
        self.recalled += len(found)
        return found

    async def _known(self, device_id: str) -> list[Known]:
        return [Known(memory.id, memory.text) for memory in await self._store.memories.list(device_id)]

    async def remember(self, device_id: str, fact: str) -> None:
        """Keep a fact because the user asked for it.

        Raises:
            ValueError: there is nothing to keep.
            StoreError: it cannot be written.
        """
        known = await self._known(device_id)
        changes = merge(known, [Proposal(fact)], longest=self._settings.max_fact_chars)
        if not changes.add and not any(same_fact(fact, one.text) for one in known):
            self.refused += 1
            raise ValueError("there is nothing to remember")
        await self._apply(device_id, changes)
        if self._service is not None and changes.add:
            self._errand(
                self._service.add(service_user(device_id), [SaidTurn(text, "") for text in changes.add]), device_id
            )

    async def forget(self, device_id: str, about: str = "") -> int:
        """Erase what mentions a subject, everything when it is empty; returns how many facts went.

        What was said in this conversation until now is not read for facts any more either.

        Raises:
            StoreError: it cannot be written.
        """
        self._said.pop(device_id, None)
        self._forgetting.add(device_id)
        if device_id in self._forgotten:
            self._forgotten[device_id] += 1
        gone = await self._store.memories.forget(device_id, about)
        self.erased += gone
        if self._service is not None:
            self._errand(self._service.forget(service_user(device_id), about), device_id)
        return gone

    def _errand(self, work: Awaitable[object], device_id: str) -> None:
        async def run() -> None:
            try:
                await work
            except Mem0Error as error:
                self.service_failed += 1
                _log.warning("%s", error, extra={"device": device_id})

        task = asyncio.get_running_loop().create_task(run(), name=f"memory-service-{device_id}")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # Reading a conversation ---------------------------------------------------------------------------------------

    async def _read(self, device_id: str, turns: Sequence[SaidTurn]) -> None:
        try:
            async with self._slots:
                known = await self._known(device_id)
                changes = await self._find(device_id, turns, known)
                self.read += 1
                # The user may have asked to forget meanwhile, or the device may have been removed with all it said.
                if not self._forgotten[device_id] and await self._store.devices.get(device_id):
                    await self._apply(device_id, changes)
        except (ChatError, TimeoutError) as error:
            self.failed += 1
            _log.debug("no facts: %s", error or "too slow", extra={"device": device_id})
        except StoreError as error:
            _log.debug("no facts: %s", error, extra={"device": device_id})
        except Exception:  # noqa: BLE001 - nobody awaits this; it is logged whole
            self.failed += 1
            _log.exception("reading a conversation for facts failed", extra={"device": device_id})

    async def _find(self, device_id: str, turns: Sequence[SaidTurn], known: Sequence[Known]) -> FactChanges:
        longest = self._settings.max_fact_chars
        if self._service is not None:
            try:
                return _changes(await self._service.add(service_user(device_id), turns), known, longest)
            except Mem0Error as error:
                self.service_failed += 1
                _log.warning("%s; facts come from the chat model", error, extra={"device": device_id})
        if not self._has_model:
            return FactChanges()
        asking = asyncio.create_task(self._ask(self._house.chat, turns, known), name=f"ask-facts-{device_id}")
        self._house.retirement.until(asking)
        async with asyncio.timeout(self._settings.timeout_s):
            found = await asking
        return merge(known, found.proposals, longest=longest, outdated=found.outdated)

    async def _ask(self, chat: ChatModel, turns: Sequence[SaidTurn], known: Sequence[Known]) -> FoundFacts:
        answer = ""
        request = ChatRequest(questions(turns, known), talk_language(turns))
        async with aclosing(chat.stream(request)) as deltas:
            async for delta in deltas:
                answer += "" if delta.aside else delta.text
                if len(answer) >= MAX_ANSWER_CHARS:
                    break
        found = read_answer(answer, known)
        if found is None:
            raise ChatError("the answer holds no facts that can be read")
        return found

    async def _apply(self, device_id: str, changes: FactChanges) -> None:
        """Write it down; what is new first, so that a power cut between the two loses nothing."""
        for text in changes.add:
            await self._store.memories.add(device_id, text)
        for number in changes.remove:
            await self._store.memories.remove(device_id, number)
        self.added += len(changes.add)
        self.replaced += len(changes.remove)
        if changes.add:
            memories = sorted(await self._store.memories.list(device_id), key=lambda memory: memory.changed_at)
            facts = [Known(memory.id, memory.text) for memory in memories]
            for number in surplus(facts, self._settings.max_facts):
                await self._store.memories.remove(device_id, number)


def service_user(device_id: str) -> str:
    """What a device is called at a service that others may use as well."""
    return f"xiaozhi:{device_id}"


def _changes(events: Sequence[Mem0Event], known: Sequence[Known], longest: int) -> FactChanges:
    """What a service did, done to what is known here."""
    proposals: list[Proposal] = []
    outdated: list[int] = []
    for event in events:
        old = event.text if event.kind == "DELETE" else event.before
        number = next((fact.id for fact in known if old and same_fact(fact.text, old)), 0)
        if event.kind == "DELETE":
            outdated.append(number)
        else:
            proposals.append(Proposal(event.text, number))
    return merge(known, proposals, longest=longest, outdated=outdated)
