"""What a chat model is."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from xiaozhi.events import Message as Message  # part of this contract: offered again from here


class ChatError(Exception):
    """A chat model could not answer or went silent half way; one line saying which endpoint and why."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed reply. `text` is what may be spoken; never a model's hidden reasoning."""

    text: str


class ChatModel(Protocol):
    """Streams replies. One object serves every conversation."""

    name: str

    def stream(self, messages: Sequence[Message], *, language: str) -> AsyncGenerator[Delta, None]:
        """Answer the last message. `language` (`zh`, `en` …) is what the talker spoke.

        Closing the iterator closes the upstream request at once.

        Raises:
            ChatError: the endpoint refused, timed out, answered nonsense, or the stream broke.
        """
        ...

    async def warm(self) -> None:
        """Open what can be opened ahead (connections) without spending tokens; never raises for an upstream."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
