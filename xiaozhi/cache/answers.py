"""Answers to questions that were asked before, word for word or worded differently. Lives on the loop, never waits."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from xiaozhi.text.cacheable import MAX_QUESTION_CHARS, Why, history_counts, may_use
from xiaozhi.text.same_words import normal_form
from xiaozhi.text.similarity import (
    DIMENSIONS,
    Vector,
    contradiction,
    gist,
    same_question,
    shared_content,
    vector,
)

How: TypeAlias = Literal["exact", "similar", "common"]
"""How an answer was found: the same words, other words, or among the replies that are there from the start."""

COMMON: Final = ""
"""The scope of replies that are there from the start: every agent and language."""
# Two questions that an embeddings model finds alike must share at least half of their words: names are what they
# differ in most often, and models hardly see it ("who is Li Bai", "who is Du Fu").
_MIN_SHARED: Final = 0.5
# Candidates looked at for one question, best first.
_CANDIDATES: Final = 8
# What an entry costs beside its texts and its vector: objects and places in the tables.
_ENTRY_BYTES: Final = 800

_Id: TypeAlias = tuple[str, str]  # scope, normal form


@dataclass(frozen=True, slots=True)
class Found:
    """An answer as the model gave it, emoji and all, and how it was found."""

    answer: str
    how: How


@dataclass(slots=True)
class _Entry:
    question: str
    answer: str
    expires: float  # infinite for common replies
    vector: Vector
    embedding: Vector | None
    size: int


class AnswerCache:
    """Bounded by entries, bytes and time; the least recently used answer is forgotten first, common replies never.

    Args:
        max_entries: of answers, common replies not counted.
        max_bytes: of texts and vectors.
        ttl_s: life of an answer, in seconds.
        similar: also look for questions that are worded differently.
        threshold: cosine from which questions are compared closely, by the built-in measure.
        embedding_threshold: the same for vectors of an embeddings endpoint.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        ttl_s: float,
        similar: bool,
        threshold: float,
        embedding_threshold: float = 0.92,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hits = 0
        """Questions answered from the same words."""
        self.similar_hits = 0
        """Questions answered from other words."""
        self.common_hits = 0
        """Questions answered by a reply that was there from the start."""
        self.misses = 0
        """Questions that might have been answered, and were not."""
        self.refused = 0
        """Questions that must not be answered from a cache."""
        self.evicted = 0
        """Answers forgotten to make room."""
        self.bytes = 0
        """What is held, in bytes."""
        self.similar = similar
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._threshold = threshold
        self._embedding_threshold = embedding_threshold
        self._clock = clock
        self._entries: OrderedDict[_Id, _Entry] = OrderedDict()
        self._common: dict[_Id, _Entry] = {}
        self._tables: dict[str, tuple[list[_Entry], Vector]] = {}  # per scope, built when asked, dropped when changed

    def __len__(self) -> int:
        """How many answers are held, common replies not counted."""
        return len(self._entries)

    @property
    def hit_rate(self) -> float:
        """Share of all questions answered from here, 0 to 1."""
        hits = self.hits + self.similar_hits + self.common_hits
        asked = hits + self.misses + self.refused
        return hits / asked if asked else 0.0

    def resize(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        ttl_s: float,
        similar: bool,
        threshold: float,
        embedding_threshold: float,
    ) -> None:
        """Other limits from now on; what is held keeps the life it was given."""
        self._max_entries, self._max_bytes, self._ttl_s = max_entries, max_bytes, ttl_s
        self.similar, self._threshold, self._embedding_threshold = similar, threshold, embedding_threshold
        while self._entries and (len(self._entries) > max_entries or self.bytes > max_bytes):
            self._remove(next(iter(self._entries)))
            self.evicted += 1

    def preload(self, replies: Iterable[tuple[str, str]]) -> None:
        """Add common replies: questions with their answers. They never expire."""
        for question, answer in replies:
            entry = _entry(question, answer, float("inf"), None)
            self._common[COMMON, normal_form(question)] = entry
        self._tables.pop(COMMON, None)

    def forget_common(self) -> None:
        """Take the common replies out; others are preloaded afterwards."""
        self._common.clear()
        self._tables.pop(COMMON, None)

    def admits(self, question: str, history: list[str], *, has_image: bool) -> bool:
        """Whether a question may be answered from here; counts those that may not."""
        known = len(question) <= MAX_QUESTION_CHARS and (COMMON, normal_form(question)) in self._common
        if known and not has_image and not history_counts(history):
            return True  # written down by the owner, whatever kind of question it is
        if may_use(question, history, has_image=has_image) is Why.OK:
            return True
        self.refused += 1
        return False

    def find_exact(self, question: str, scope: str) -> Found | None:
        """The answer to the same words; counts a hit, never a miss."""
        form = normal_form(question)
        entry = self._entries.get((scope, form))
        if entry is not None and self._alive((scope, form), entry):
            self._entries.move_to_end((scope, form))
            self.hits += 1
            return Found(entry.answer, "exact")
        common = self._common.get((COMMON, form))
        if common is not None:
            self.common_hits += 1
            return Found(common.answer, "common")
        return None

    def has_candidates(self, scope: str) -> bool:
        """Whether there is anything that other words could be compared with."""
        return self.similar and bool(self._table(scope)[0])

    def find_similar(self, question: str, scope: str, embedding: Vector | None = None) -> Found | None:
        """The answer to a question of the same meaning; counts a hit, never a miss.

        Args:
            question: what the user said.
            scope: agent, language and models.
            embedding: of the question, by the endpoint; None takes the built-in measure.
        """
        if not self.similar or not gist(question).content:
            return None
        found = self._by_embedding(question, scope, embedding) if embedding is not None else None
        if found is None:
            found = self._by_vector(question, scope)
        if found is not None:
            self.similar_hits += 1
            return Found(found.answer, "similar")
        common = self._by_vector(question, COMMON)
        if common is not None:
            self.common_hits += 1
            return Found(common.answer, "common")
        return None

    def keep(self, question: str, answer: str, scope: str, embedding: Vector | None = None) -> None:
        """Keep an answer that `may_cache` allowed."""
        key = (scope, normal_form(question))
        if not key[1] or scope == COMMON:
            return
        if key in self._entries:
            self._remove(key)
        entry = _entry(question, answer, self._clock() + self._ttl_s, embedding)
        if entry.size > self._max_bytes:
            return
        while self._entries and (len(self._entries) >= self._max_entries or self.bytes + entry.size > self._max_bytes):
            self._remove(next(iter(self._entries)))
            self.evicted += 1
        self._entries[key] = entry
        self.bytes += entry.size
        self._tables.pop(scope, None)

    def clear(self) -> None:
        """Forget all answers; common replies stay."""
        for key in list(self._entries):
            self._remove(key)

    def _alive(self, key: _Id, entry: _Entry) -> bool:
        if entry.expires > self._clock():
            return True
        self._remove(key)
        return False

    def _remove(self, key: _Id) -> None:
        self.bytes -= self._entries.pop(key).size
        self._tables.pop(key[0], None)

    def _table(self, scope: str) -> tuple[list[_Entry], Vector]:
        """The entries of a scope and their vectors, float32[entries, DIMENSIONS]."""
        if scope not in self._tables:
            where = self._common if scope == COMMON else self._entries
            entries = [entry for (of, _), entry in where.items() if of == scope]
            vectors = (
                np.stack([entry.vector for entry in entries]) if entries else np.empty((0, DIMENSIONS), np.float32)
            )
            self._tables[scope] = (entries, vectors)
        return self._tables[scope]

    def _by_vector(self, question: str, scope: str) -> _Entry | None:
        entries, vectors = self._table(scope)
        for index in _best(vectors @ vector(question), self._threshold):
            entry = entries[index]
            if entry.expires > self._clock() and same_question(question, entry.question, self._threshold):
                return entry
        return None

    def _by_embedding(self, question: str, scope: str, embedding: Vector) -> _Entry | None:
        entries = [
            entry
            for entry in self._table(scope)[0]
            if entry.embedding is not None and entry.embedding.shape == embedding.shape
        ]
        if not entries:
            return None
        vectors = np.stack([entry.embedding for entry in entries if entry.embedding is not None])
        for index in _best(vectors @ embedding, self._embedding_threshold):
            entry = entries[index]
            if (
                entry.expires > self._clock()
                and not contradiction(question, entry.question)
                and shared_content(question, entry.question) >= _MIN_SHARED
            ):
                return entry
        return None


def _entry(question: str, answer: str, expires: float, embedding: Vector | None) -> _Entry:
    size = len(question.encode()) + len(answer.encode()) + DIMENSIONS * 4 + _ENTRY_BYTES
    size += embedding.nbytes if embedding is not None else 0
    return _Entry(question, answer, expires, vector(question), embedding, size)


def _best(cosines: Vector, least: float) -> list[int]:
    """Places of the highest values, best first."""
    above = np.flatnonzero(cosines >= least)
    return [int(index) for index in above[np.argsort(-cosines[above], kind="stable")][:_CANDIDATES]]
