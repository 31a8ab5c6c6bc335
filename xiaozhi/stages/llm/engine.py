"""What a chat model is."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from xiaozhi.events import Message as Message  # part of this contract: offered again from here
from xiaozhi.events import ProviderFields, ToolCall, ToolSpec
from xiaozhi.turn.trace import RouteNote as RouteNote  # likewise
from xiaozhi.upstream.failure import FailureKind

ToolChoice: TypeAlias = Literal["auto", "none", "required"]
"""Whether the model may, must not or must call one of the tools."""


class ChatError(Exception):
    """A chat model could not answer or went silent half way; one line saying which endpoint and why.

    Args:
        line: that line.
        kind: how it failed.
        status: of the HTTP response that refused; 0 where there was none.
        rest_s: the endpoint said when to come back, in seconds from now.
    """

    def __init__(
        self, line: str, *, kind: FailureKind = FailureKind.SERVER, status: int = 0, rest_s: float | None = None
    ) -> None:
        super().__init__(line)
        self.kind = kind
        self.status = status
        self.rest_s = rest_s


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a chat model.

    Attributes:
        messages: the conversation, what is to be answered last.
        language: what the user spoke: `zh`, `en` ….
        tools: what the model may call.
        tool_choice: whether it may, must not or must; without meaning when there are no tools.
        tier: what the device or its agent prefers, `edge` or `cloud`; empty for no preference.
        conversation: whose it is, for services that keep the past themselves: the same for every question of one device
            to one agent; empty for what is nobody's conversation, such as a summary.
        endpoint: the name of the endpoint that the agent prefers; empty for none. Another answers where it is not well.
        aimed_at: the name of the endpoint that is going to be asked first, see `Chat.aim`; empty where nobody looked.
        permission: waited for before an endpoint is asked that does things while it answers and was not aimed at; None:
            any may be asked now.
        has_image: a picture belongs to the question, even where `messages` do not show it.
        on_note: called when it is known who answers, and again when that changes.
    """

    messages: Sequence[Message]
    language: str
    tools: Sequence[ToolSpec] = ()
    tool_choice: ToolChoice = "auto"
    tier: str = ""
    conversation: str = ""
    endpoint: str = ""
    aimed_at: str = ""
    permission: Callable[[], Awaitable[None]] | None = None
    has_image: bool = False
    on_note: Callable[[RouteNote], None] | None = None

    @property
    def with_image(self) -> bool:
        """Whether a model that sees is needed."""
        return self.has_image or any(message.image for message in self.messages)

    @property
    def preferred(self) -> str:
        """The endpoint to ask first: the one whose thoughts are in the messages, since it alone can go on from them."""
        thinks = (one.provider.endpoint for one in reversed(self.messages) if one.provider)
        return next(thinks, "") or self.aimed_at or self.endpoint


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed reply.

    Attributes:
        text: what may be spoken; never a model's hidden reasoning.
        tool_calls: all the calls the model wants, whole; at most once, in the last delta of a stream.
        calling: a tool call has begun to arrive: there is no text in this delta, and the calls follow at the end.
        aside: spoken, but no part of the answer: others must not get it from a cache.
        provider: beside `tool_calls`: what goes back with them.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    calling: bool = False
    aside: bool = False
    provider: ProviderFields | None = None


class ChatModel(Protocol):
    """Streams replies: an endpoint, the built-in responder, several as one. One object serves every conversation."""

    name: str

    def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message.

        Closing the iterator closes the upstream request at once.

        Raises:
            ChatError: the endpoint refused, timed out, answered nonsense, or the stream broke.
        """
        ...

    async def warm(self) -> str:
        """Open what can be opened ahead (connections) without spending tokens.

        Returns:
            Why it is not there; empty when it is, or when nothing can be opened. Never raises for an upstream.
        """
        ...

    async def close(self) -> None:
        """Close connections. Closing twice is harmless."""
        ...
