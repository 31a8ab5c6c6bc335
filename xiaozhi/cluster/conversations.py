"""What was said to a device, for the node it comes to next: its last turns and their summary.

Every node keeps its own file. After each turn the end of a conversation, as the file has it, is written to Redis under
the time of its last turn; an older end never replaces a newer one. A node that a device comes to and that finds a newer
end there writes the missing turns into its own file first: so everything that reads the file (prompts, summaries, the
console, an export) sees one conversation.
"""

import asyncio
import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from xiaozhi.cluster.link import Gone, RedisLink, Use, bytes_of
from xiaozhi.cluster.values import pack, unpack
from xiaozhi.store import StoreError
from xiaozhi.store.turns import Past, TurnRecord, Turns
from xiaozhi.text.tool_note import MAX_NOTE_CHARS

_log = logging.getLogger(__name__)

_VERSION: Final = 1
# Conversations on their way; more come only when Redis hangs.
_MAX_WAITING: Final = 200
# One hash for each device: for each agent the time of the last turn and the document. Only newer ones are taken.
_WRITE: Final = """
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1] .. '|at') or '0')
if before >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1] .. '|at', ARGV[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
# Two nodes' files hold one turn under the same time, which went through JSON.
_SAME_S: Final = 1e-3


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a conversation as it lies in Redis."""

    summary: str
    turns: tuple[TurnRecord, ...]


class ConversationMirror:
    """Keeps the ends of conversations where every node finds them.

    Args:
        link: to Redis.
        turns: this node's own file.
    """

    def __init__(self, link: RedisLink, turns: Turns) -> None:
        self.taken_over = 0
        """Conversations that another node had begun."""
        self.written = 0
        """Ends of conversations that were written."""
        self.dropped = 0
        """Those that could not be written; the next turn writes them again."""
        self._link = link
        self._turns = turns
        self._jobs: set[asyncio.Task[None]] = set()

    def _key(self, device_id: str) -> str:
        return self._link.key("talk", device_id)

    async def catch_up(self, device_id: str, agent: str, past: Past, most: int) -> Past:
        """What a conversation goes on with: `past`, or what another node has added to it meanwhile.

        Args:
            device_id: whose.
            agent: the agent.
            past: from this node's file.
            most: turns at most.
        """
        end = await self._read(device_id, agent)
        newest = past.turns[-1].at if past.turns else 0.0
        if end is None or not end.turns or end.turns[-1].at <= newest + _SAME_S:
            return past
        missing = [turn for turn in end.turns if turn.at > newest + _SAME_S]
        known = [turn for turn in past.turns if turn.at >= end.turns[0].at - _SAME_S]
        before = known[0].id - 1 if known else self._turns.last_id
        added = [self._add(turn, past.conversation) for turn in missing]
        if end.summary:
            self._turns.summarise(device_id, agent, end.summary, before)
        self.taken_over += 1
        _log.info("goes on where another node left it: %d turns", len(added), extra={"device": device_id})
        kept = known if end.summary else list(past.turns)
        return Past(past.conversation, end.summary or past.summary, [*kept, *added][-most:])

    def _add(self, turn: TurnRecord, conversation: int) -> TurnRecord:
        own = replace(turn, id=self._turns.next_id(), conversation=conversation)
        self._turns.add(own)
        return own

    async def _read(self, device_id: str, agent: str) -> _End | None:
        async def read(redis: Any) -> _End | None:
            stored = bytes_of(await redis.hget(self._key(device_id), agent))
            value = unpack(stored, self._link.max_bytes) if stored is not None else None
            return _end_of(value, device_id, agent) if value is not None else None

        try:
            return await self._link.ask(Use.CONVERSATIONS, read)
        except Gone:
            return None

    def keep(self, device_id: str, agent: str, most: int) -> None:
        """A turn was written down: let the other nodes know, in the background."""
        if len(self._jobs) >= _MAX_WAITING:
            self.dropped += 1
            return
        task = asyncio.get_running_loop().create_task(self._keep(device_id, agent, most), name="mirror-conversation")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _keep(self, device_id: str, agent: str, most: int) -> None:
        try:
            past = await self._turns.past(device_id, agent, most)
            if past.turns:
                await self._write(device_id, agent, past)
                self.written += 1
        except (Gone, StoreError):
            self.dropped += 1

    async def _write(self, device_id: str, agent: str, past: Past) -> None:
        turns = list(past.turns)
        document = _document(past.summary, turns)
        while len(document) > self._link.max_bytes and len(turns) > 1:  # very long turns: the newest count most
            turns = turns[len(turns) // 2 :]
            document = _document(past.summary, turns)
        if len(document) > self._link.max_bytes:
            return
        life_ms = int(self._link.settings.conversation_days * 86_400_000)
        packed = pack(document)

        async def write(redis: Any) -> Any:
            return await redis.eval(_WRITE, 1, self._key(device_id), agent, repr(turns[-1].at), packed, life_ms)

        await self._link.ask(Use.CONVERSATIONS, write)

    async def close(self) -> None:
        """Write what is on its way."""
        while self._jobs:
            await asyncio.gather(*self._jobs)


def _document(summary: str, turns: list[TurnRecord]) -> bytes:
    rows = [
        {
            "at": turn.at,
            "heard": turn.heard,
            "said": turn.said,
            "played": turn.played,
            "cut": turn.interrupted,
            "note": turn.note,
        }
        for turn in turns
    ]
    return orjson.dumps({"v": _VERSION, "summary": summary, "turns": rows})


def _end_of(value: bytes, device_id: str, agent: str) -> _End | None:
    """None for a document that this version does not understand."""
    try:
        document: Any = orjson.loads(value)
        if document["v"] != _VERSION:
            return None
        turns = tuple(
            TurnRecord(
                id=0,
                device=device_id,
                conversation=0,
                agent=agent,
                at=float(row["at"]),
                heard=str(row["heard"]),
                said=str(row["said"]),
                played=str(row["played"]),
                interrupted=bool(row["cut"]),
                note=str(row.get("note", ""))[:MAX_NOTE_CHARS],  # nodes of before wrote none, and read past it
            )
            for row in document["turns"]
        )
        timely = all(math.isfinite(turn.at) for turn in turns)
        return _End(str(document["summary"]), turns) if timely else None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
