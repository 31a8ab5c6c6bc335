"""Conversations that a platform keeps: which one belongs to whom, and what of the past it does not know. No I/O."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

from xiaozhi.events import Message
from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.stages.llm.request_body import without_tools
from xiaozhi.text.language import is_chinese
from xiaozhi.text.messages import unasked_mark
from xiaozhi.text.surrogates import without_halves

MAX_THREADS: Final = 2000
"""Conversations remembered for one endpoint: twenty for each of 100 devices. The one not used longest goes first."""
# Questions remembered of one: more than a history holds by default, so that what was asked is not told again.
_MAX_ASKED: Final = 32
# What goes along of a past that the platform does not know: the newest part of it.
_MAX_PAST_CHARS: Final = 4000
_UNASKED: Final = (unasked_mark("zh"), unasked_mark("en"))


@dataclass(slots=True)
class Thread:
    """One conversation at a platform.

    Attributes:
        user: whose it is, in a form that tells nobody anything.
        id: the platform's name for it; empty until it has given one.
        asked: the newest questions that it was asked there.
        stopping: an answer is being broken off: the next question waits for that.
    """

    user: str
    id: str = ""
    asked: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_ASKED))
    stopping: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """The platform knows it no longer."""
        self.id = ""
        self.asked.clear()

    def unseen(self, request: ChatRequest) -> Sequence[Message]:
        """What this conversation has not heard yet, the newest message last; no system message.

        Answers to questions that it was asked are its own, even where less of them was heard; what was said to the user
        unasked is no matter of its.
        """
        messages = [message for message in without_tools(request).messages if message.role in ("user", "assistant")]
        known = max((n for n, one in enumerate(messages[:-1]) if _words(one) in self.asked), default=None)
        rest, answered = messages[(known or 0) + (known is not None) :], known is not None
        unseen: list[Message] = []
        for message in rest:
            if message.role == "user":
                answered = message.content in _UNASKED
            if not answered:
                unseen.append(message)
        return unseen

    def question(self, request: ChatRequest) -> str:
        """The newest text, behind what has been said without this conversation, if anything."""
        *past, newest = self.unseen(request)
        you, other = ("用户", "你") if is_chinese(request.language) else ("User", "You")
        told = "\n".join(f"{you if one.role == 'user' else other}: {one.content}" for one in past)[-_MAX_PAST_CHARS:]
        if told:
            told = f"（此前的对话：\n{told}\n）\n" if is_chinese(request.language) else f"(Said before:\n{told}\n)\n"
        return without_halves(told + newest.content)

    def ask(self, request: ChatRequest) -> None:
        """The platform has taken the question."""
        self.asked.append(_words(request.messages[-1]))

    def has_past(self, request: ChatRequest) -> bool:
        """Whether a question that it was asked belongs to the past of a request."""
        return any(message.role == "user" and _words(message) in self.asked for message in request.messages[:-1])


def _words(message: Message) -> str:
    """The user's own words: notes below them may change."""
    return message.content.partition("\n")[0] if message.role == "user" else ""


class Threads:
    """The conversations of one endpoint, one for each that `ChatRequest.conversation` names."""

    def __init__(self) -> None:
        self._threads: LRUCache[str, Thread] = LRUCache(MAX_THREADS)

    def of(self, request: ChatRequest) -> Thread:
        """The conversation that a request goes on with; a new one where its history is another."""
        user = hashlib.blake2b(request.conversation.encode("utf-8", "replace"), digest_size=12).hexdigest()
        thread = self._threads.get(request.conversation)
        if thread is None or not thread.has_past(request):
            thread = Thread(f"xiaozhi-{user}", stopping=thread.stopping if thread is not None else None)
            if request.conversation:
                self._threads[request.conversation] = thread
        return thread
