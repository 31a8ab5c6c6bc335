"""Rolling summaries: what a conversation has outgrown, summed up by the model in the background."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from xiaozhi.events import Message
from xiaozhi.settings import Settings
from xiaozhi.stages.llm.engine import ChatError, ChatModel, ChatRequest
from xiaozhi.store import Store
from xiaozhi.text.language import is_chinese, language_of
from xiaozhi.turn.history import History, PastTurn

_log = logging.getLogger(__name__)

# Nobody waits for a summary, and turns must not wait for it either.
_AT_ONCE: Final = 2
_TIMEOUT_S: Final = 30.0
_LONGEST: Final = 800

_TASK_ZH: Final = (
    "你负责整理一段语音对话的要点。把“已有摘要”和“新的对话”合并成一份新的摘要，用中文，三到六句，不超过三百字。"
    "保留：对方的名字、喜好、家人和计划，聊过的话题，说好的事，还没讲完的故事或没答完的问题。"
    "略去寒暄和过时的信息，不要编造，不要评论，只写摘要本身。"
)
_TASK_EN: Final = (
    "You keep the notes of a spoken conversation. Merge the earlier summary and the new turns into one new summary in "
    "English, three to six sentences, at most 150 words. Keep the user's name, likes, family and plans, the "
    "subjects, what was agreed, and stories or questions that are still open. Leave out greetings and what is out of "
    "date. Invent nothing, comment nothing; write only the summary."
)


class Summariser:
    """Sums up in the background: one conversation at most once at a time, `2` conversations at once.

    Args:
        chat: who writes the summary.
        settings: whether to, and whether there is a model at all.
        store: where summaries are kept.
    """

    def __init__(self, chat: ChatModel, settings: Settings, store: Store) -> None:
        self._chat = chat
        self._store = store
        self._keeps = settings.store.conversations
        self._enabled = settings.llm.history_summary and settings.llm.has_model
        self._running: dict[str, asyncio.Task[None]] = {}
        self.made = 0
        """Summaries that were written."""
        self.failed = 0
        """Those the model did not manage; the oldest turns are then forgotten as they are."""

    def renew(self, chat: ChatModel, settings: Settings) -> list[asyncio.Task[None]]:
        """Ask another model from now on; returns what is still under way with the former one."""
        self._chat = chat
        self._keeps = settings.store.conversations
        self._enabled = settings.llm.history_summary and settings.llm.has_model
        return list(self._running.values())

    def consider(self, device_id: str, agent: str, history: History, *, stored: bool) -> bool:
        """Called after a reply: begin a summary where one is due. Never waits.

        Args:
            device_id: whose conversation it is.
            agent: the agent it is with.
            history: shortened when the summary is there.
            stored: keep the summary for the next connection as well.

        Returns:
            Whether one was begun.
        """
        if not self._enabled or device_id in self._running or len(self._running) >= _AT_ONCE:
            return False
        turns = history.outgrown()
        if not turns:
            return False
        task = asyncio.get_running_loop().create_task(
            self._sum_up(device_id, agent, history, turns, stored), name=f"summary-{device_id}"
        )
        self._running[device_id] = task
        task.add_done_callback(lambda _task: self._running.pop(device_id, None))
        return True

    async def close(self) -> None:
        """End what is under way."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _sum_up(
        self, device_id: str, agent: str, history: History, turns: Sequence[PastTurn], stored: bool
    ) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                summary = await self._ask(history.summary, turns)
        except (ChatError, TimeoutError) as error:
            self.failed += 1
            _log.debug("no summary: %s", error or "too slow", extra={"device": device_id})
            return
        if not summary:
            self.failed += 1
            return
        self.made += 1
        history.sum_up(turns, summary)
        if stored and self._keeps and turns[-1].id:
            self._store.turns.summarise(device_id, agent, summary, turns[-1].id)

    async def _ask(self, before: str, turns: Sequence[PastTurn]) -> str:
        chinese = is_chinese(language_of("".join(turn.user for turn in turns)))
        you, other = ("对方", "你") if chinese else ("User", "You")
        lines = [(f"{you}: {turn.user}\n" if turn.user else "") + f"{other}: {turn.assistant}" for turn in turns]
        parts = ["已有摘要：" if chinese else "Earlier summary:", before or ("（无）" if chinese else "(none)")]
        parts += ["新的对话：" if chinese else "New turns:", *lines]
        task = Message("system", _TASK_ZH if chinese else _TASK_EN)
        request = ChatRequest([task, Message("user", "\n".join(parts))], "zh" if chinese else "en")
        text = ""
        async with aclosing(self._chat.stream(request)) as deltas:
            async for delta in deltas:
                text += "" if delta.aside else delta.text  # what is said instead of an answer is no summary
                if len(text) >= _LONGEST:
                    break
        return text.strip()[:_LONGEST]
