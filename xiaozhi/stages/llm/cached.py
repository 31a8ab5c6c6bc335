"""A chat model that answers from the cache what was asked before, and remembers what it may."""

import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import orjson

from xiaozhi.cache.answers import AnswerCache, Found, How
from xiaozhi.cache.embeddings import Embeddings
from xiaozhi.cache.redis_answers import SharedAnswers
from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.engine import ChatModel, ChatRequest, Delta, Message, RouteNote
from xiaozhi.text.cacheable import Why, may_cache
from xiaozhi.text.similarity import Vector

_log = logging.getLogger(__name__)


class Recall:
    """One turn's `ChatModel` in front of the real one.

    Args:
        chat: answers what is not found.
        answers: the cache.
        embeddings: judges likeness; None for the built-in measure.
        models: what the answers depend on beside the conversation, see `models_key`.
        on_hit: told how the answer was found, before its first piece.
        shared: answers of other nodes; None for a node that is alone.
    """

    def __init__(
        self,
        chat: ChatModel,
        answers: AnswerCache,
        embeddings: Embeddings | None,
        models: str,
        on_hit: Callable[[How], None],
        shared: SharedAnswers | None = None,
    ) -> None:
        self.name = chat.name
        self._chat = chat
        self._answers = answers
        self._embeddings = embeddings
        self._models = models
        self._on_hit = on_hit
        self._shared = shared
        self._asked = 0  # requests of this turn; a second one means that a tool was called
        self._tools = False
        self._whole: tuple[str, str, str, list[str], bool, Vector | None] | None = None
        self._answered: list[str] = []  # earlier in this conversation

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer at once when the cache has an answer, otherwise ask the model.

        Raises:
            ChatError: as the model.
        """
        self._asked += 1
        self._whole = None
        question, history = _question(request.messages)
        scope = self._scope(request)
        embedding: Vector | None = None
        admitted = (
            question and self._asked == 1 and self._answers.admits(question, history, has_image=request.with_image)
        )
        if admitted:
            found, embedding = await self._find(question, scope)
            if found is not None:
                self._on_hit(found.how)
                if request.on_note is not None:
                    request.on_note(RouteNote("cache", f"cache: {found.how}", attempts=0))
                yield Delta(found.answer)
                return
        pieces: list[str] = []
        aside = False  # an answer for want of a better one
        async with aclosing(self._chat.stream(request)) as deltas:
            async for delta in deltas:
                aside = aside or delta.aside
                self._tools = self._tools or delta.calling or bool(delta.tool_calls)
                pieces.append(delta.text)
                yield delta
        if admitted and not aside:
            self._whole = (question, "".join(pieces), scope, history, request.with_image, embedding)
            self._answered = [message.content for message in request.messages if message.role == "assistant"]

    async def _find(self, question: str, scope: str) -> tuple[Found | None, Vector | None]:
        answers = self._answers
        found = answers.find_exact(question, scope)
        if found is not None:
            return found, None
        if self._shared is not None and (answer := await self._shared.find(question, scope)) is not None:
            answers.hits += 1
            answers.keep(question, answer, scope)
            return Found(answer, "exact"), None
        embedding = None
        if self._embeddings is not None and answers.similar:
            embedding = await self._embeddings.vector(question)
        found = answers.find_similar(question, scope, embedding)
        if found is None:
            answers.misses += 1
        return found, embedding

    def keep(self, names: Sequence[str] = ()) -> Why | None:
        """The reply was committed and spoken to its end: remember the answer if others may have it.

        Args:
            names: words that belong to this user alone.

        Returns:
            Whether it was remembered, or why not; None when there was nothing to remember.
        """
        if self._whole is None:
            return None
        question, answer, scope, history, has_image, embedding = self._whole
        self._whole = None
        used_tools = self._tools or self._asked > 1
        why = may_cache(
            question,
            answer,
            history,
            used_tools=used_tools,
            has_image=has_image,
            names=names,
            answered=self._answered,
        )
        if why is Why.OK:
            self._answers.keep(question, answer, scope, embedding)
            if self._shared is not None:
                self._shared.keep(question, answer, scope)
        return why

    async def warm(self) -> None:
        """Warm the model."""
        await self._chat.warm()

    async def close(self) -> None:
        """Leave the model open: it serves everybody."""

    def _scope(self, request: ChatRequest) -> str:
        """Agent, language and models; what a memory puts into the system message makes a scope of its own."""
        prompts = [message.content for message in request.messages if message.role == "system"]
        parts = [prompts, request.language, request.tier, self._models]
        return hashlib.blake2b(orjson.dumps(parts), digest_size=16).hexdigest()


def _question(messages: Sequence[Message]) -> tuple[str, list[str]]:
    """What the user asks now, empty when the last message is not theirs, and what they said before."""
    if not messages or messages[-1].role != "user" or any(message.role == "tool" for message in messages):
        return "", []
    return messages[-1].content, [message.content for message in messages[:-1] if message.role == "user"]


def models_key(settings: LlmSettings) -> str:
    """The models that may answer, and what shapes their answers."""
    return "\n".join(endpoint.model_dump_json(exclude={"api_key", "api_key_env"}) for endpoint in settings.endpoints)
