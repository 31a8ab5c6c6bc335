"""Answers that need no model: looked up before anybody is asked, and kept afterwards when others may have them."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from xiaozhi.cache.answers import AnswerCache, Found
from xiaozhi.cache.redis_answers import SharedAnswers
from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.engine import ChatRequest, Delta
from xiaozhi.text.cacheable import Why, may_cache
from xiaozhi.text.similarity import Vector

if TYPE_CHECKING:
    from xiaozhi.cache.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question that was looked up, with what is needed to keep the model's answer to it.

    Attributes:
        question: what the user said.
        scope: what the answer depends on beside it: agent, language and models.
        asked: the user's earlier texts of this conversation.
        answered: what was answered to them.
        found: the answer; None when the model is to be asked.
        embedding: of the question, where an endpoint was asked for it.
    """

    question: str
    scope: str
    asked: Sequence[str]
    answered: Sequence[str]
    found: Found | None
    embedding: Vector | None = None


class CachedAnswers:
    """The answers of this process, and of the other nodes.

    Args:
        answers: the cache.
        embeddings: judges likeness; None for the built-in measure.
        models: what the answers depend on beside the conversation, see `models_key`.
        shared: answers of other nodes; None for a node that is alone.
    """

    def __init__(
        self, answers: AnswerCache, embeddings: "Embeddings | None", models: str, shared: SharedAnswers | None
    ) -> None:
        self._answers = answers
        self._embeddings = embeddings
        self._models = models
        self._shared = shared

    async def look_up(self, request: ChatRequest) -> Lookup | None:
        """Look for an answer; None for a question that is not for the cache. Counts hits and misses."""
        messages, answers = request.messages, self._answers
        if not messages or messages[-1].role != "user" or any(message.role == "tool" for message in messages):
            return None
        question = messages[-1].content
        asked = [message.content for message in messages[:-1] if message.role == "user"]
        if not question or not answers.admits(question, asked, has_image=request.with_image):
            return None
        answered = [message.content for message in messages if message.role == "assistant"]
        scope = self._scope(request)
        found, embedding = answers.find_exact(question, scope), None
        elsewhere = await self._shared.find(question, scope) if found is None and self._shared is not None else None
        if elsewhere is not None:
            answers.hits += 1
            answers.keep(question, elsewhere, scope)
            found = Found(elsewhere, "exact")
        if found is None:
            if self._embeddings is not None and answers.similar:
                embedding = await self._embeddings.vector(question)
            found = answers.find_similar(question, scope, embedding)
            answers.misses += found is None
        return Lookup(question, scope, asked, answered, found, embedding)

    def keep(self, lookup: Lookup, answer: str, *, used_tools: bool, names: Sequence[str]) -> Why:
        """Keep an answer that was committed and spoken to its end, if others may have it.

        Args:
            lookup: what was asked, and not found.
            answer: as the model gave it, whole.
            used_tools: the model has called tools for it.
            names: words that belong to this user alone.

        Returns:
            Whether it was kept, or why not.
        """
        why = may_cache(
            lookup.question, answer, lookup.asked, used_tools=used_tools, names=names, answered=lookup.answered
        )
        if why is Why.OK:
            self._answers.keep(lookup.question, answer, lookup.scope, lookup.embedding)
            if self._shared is not None:
                self._shared.keep(lookup.question, answer, lookup.scope)
        return why

    def _scope(self, request: ChatRequest) -> str:
        """Agent, language and models; what a memory puts into the system message makes a scope of its own."""
        prompts = [message.content for message in request.messages if message.role == "system"]
        parts = [prompts, request.language, request.tier, request.endpoint, self._models]
        return hashlib.blake2b(orjson.dumps(parts), digest_size=16).hexdigest()


async def said(answer: str) -> AsyncGenerator[Delta, None]:
    """An answer that is there already, as a model streams it."""
    yield Delta(answer)


def models_key(settings: LlmSettings) -> str:
    """The models that may answer, and what shapes their answers."""
    return "\n".join(endpoint.model_dump_json(exclude={"api_key", "api_key_env"}) for endpoint in settings.endpoints)
