"""The built-in responder: answers simple questions when no language model is configured."""

import re
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Final

from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.small_talk import Question, answer
from xiaozhi.text.language import is_chinese, language_of
from xiaozhi.upstream.failure import FailureKind

# A Chinese character, a word with the blanks behind it, or blanks: about what a language model sends at a time.
_WORD: Final = re.compile(r"[\u3400-\u9fff]|[^\u3400-\u9fff\s]+\s*|\s+")


def _local_time() -> datetime:
    return datetime.now().astimezone()


class BuiltInResponder:
    """A `ChatModel` of patterns: time, date, sums, jokes, small talk; it says itself that it is no language model.

    Args:
        now: the user's clock; the local time of the server when left out.
    """

    name = "built-in"

    def __init__(self, now: Callable[[], datetime] = _local_time) -> None:
        self._now = now

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message word by word, without delay; it calls no tools.

        Raises:
            ChatError: the last message is not the user's.
        """
        messages = request.messages
        if not messages or messages[-1].role != "user":
            raise ChatError("built-in responder: there is no question", kind=FailureKind.REQUEST)
        text = messages[-1].content
        said_before = "\n".join(message.content for message in messages if message.role == "assistant")
        chinese = is_chinese(language_of(text, default=request.language))
        for word in _WORD.findall(answer(Question(text, chinese, self._now(), said_before))):
            yield Delta(word)

    async def warm(self) -> str:
        """There is nothing to open."""
        return ""

    async def close(self) -> None:
        """There is nothing to close."""
