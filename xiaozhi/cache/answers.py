"""Answers to questions that were asked before, word for word or worded differently. Lives on the loop, never waits."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from cachetools import LRUCache

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


@dataclass(slots=True, eq=False)
class _Entry:
    question: str
    answer: str
    expires: float  # infinite for common replies
    size: int = 0
    embedding_length: int = 0


class _Index:
    """Entries with the vectors of their questions in one matrix; adding and removing one costs one row.

    The matrix is doubled when it is full, which takes 2 ms at 5000 vectors.
    """

    def __init__(self, dimensions: int) -> None:
        self._vectors: Vector = np.empty((1, dimensions), np.float32)
        self._entries: list[_Entry] = []  # in the order of the rows
        self._rows: dict[_Entry, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: _Entry, vector: Vector) -> None:
        """Take in an entry with its vector, float32[dimensions]."""
        row = len(self._entries)
        if row == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        self._vectors[row] = vector
        self._entries.append(entry)
        self._rows[entry] = row

    def remove(self, entry: _Entry) -> None:
        """Take out an entry, if it is there; the last one takes its row."""
        row = self._rows.pop(entry, None)
        if row is None:
            return
        last = self._entries.pop()
        if last is not entry:
            self._entries[row] = last
            self._rows[last] = row
            self._vectors[row] = self._vectors[len(self._entries)]

    def nearest(self, vector: Vector, least: float) -> list[_Entry]:
        """Up to `_CANDIDATES` entries whose cosine with a vector is `least` or more, best first."""
        cosines = self._vectors[: len(self._entries)] @ vector
        above = np.flatnonzero(cosines >= least)
        best = above[np.argsort(-cosines[above], kind="stable")][:_CANDIDATES]
        return [self._entries[row] for row in best]


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How much is kept, and when two questions are taken for one.

    Attributes:
        max_entries: of answers, common replies not counted.
        max_bytes: of texts and vectors.
        ttl_s: life of an answer, in seconds.
        similar: also look for questions that are worded differently.
        threshold: cosine from which questions are compared closely, by the built-in measure.
        embedding_threshold: the same for vectors of an embeddings endpoint.
    """

    max_entries: int
    max_bytes: int
    ttl_s: float
    similar: bool
    threshold: float
    embedding_threshold: float


class AnswerCache:
    """Bounded by entries, bytes and time; the least recently used answer is forgotten first, common replies never.

    Args:
        limits: how much is kept.
        clock: monotonic time in seconds.
    """

    def __init__(self, limits: AnswerLimits, clock: Callable[[], float] = time.monotonic) -> None:
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
        self._limits = limits
        self._clock = clock
        # Its size is in bytes. What goes to make room is chosen here, for two limits that may change.
        self._entries: LRUCache[_Id, _Entry] = LRUCache(math.inf, getsizeof=lambda entry: entry.size)
        self._common: dict[str, _Entry] = {}  # by normal form
        self._by_words: dict[str, _Index] = {}  # per scope
        self._by_meaning: dict[tuple[str, int], _Index] = {}  # per scope and length of the embeddings

    def __len__(self) -> int:
        """How many answers are held, common replies not counted."""
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What is held, in bytes, common replies not counted."""
        return int(self._entries.currsize)

    @property
    def hit_rate(self) -> float:
        """Share of all questions answered from here, 0 to 1."""
        hits = self.hits + self.similar_hits + self.common_hits
        asked = hits + self.misses + self.refused
        return hits / asked if asked else 0.0

    @property
    def similar(self) -> bool:
        """Whether questions that are worded differently are looked for, too."""
        return self._limits.similar

    def resize(self, limits: AnswerLimits) -> None:
        """Other limits from now on; what is held keeps the life it was given."""
        self._limits = limits
        self._make_room(limits.max_entries, limits.max_bytes)

    def preload(self, replies: Iterable[tuple[str, str]]) -> None:
        """Add common replies: questions with their answers. They never expire."""
        index = self._by_words.setdefault(COMMON, _Index(DIMENSIONS))
        for question, answer in replies:
            form = normal_form(question)
            if (former := self._common.get(form)) is not None:
                index.remove(former)
            self._common[form] = entry = _Entry(question, answer, math.inf)
            index.add(entry, vector(question))

    def forget_common(self) -> None:
        """Take the common replies out; others are preloaded afterwards."""
        self._common.clear()
        self._by_words.pop(COMMON, None)

    def admits(self, question: str, history: list[str], *, has_image: bool) -> bool:
        """Whether a question may be answered from here; counts those that may not."""
        known = len(question) <= MAX_QUESTION_CHARS and normal_form(question) in self._common
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
        if entry is not None and entry.expires <= self._clock():
            self._remove((scope, form))
        elif entry is not None:
            self.hits += 1
            return Found(entry.answer, "exact")
        common = self._common.get(form)
        if common is not None:
            self.common_hits += 1
            return Found(common.answer, "common")
        return None

    def find_similar(self, question: str, scope: str, embedding: Vector | None = None) -> Found | None:
        """The answer to a question of the same meaning; counts a hit, never a miss.

        Args:
            question: what the user said.
            scope: agent, language and models.
            embedding: of the question, by the endpoint; None takes the built-in measure.
        """
        if not self._limits.similar or not gist(question).content:
            return None
        found = self._nearest_meaning(question, scope, embedding) if embedding is not None else None
        if found is None:
            found = self._nearest_words(question, scope)
        if found is not None:
            self.similar_hits += 1
            return Found(found.answer, "similar")
        common = self._nearest_words(question, COMMON)
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
        size = len(question.encode()) + len(answer.encode()) + DIMENSIONS * 4 + _ENTRY_BYTES
        size += embedding.nbytes if embedding is not None else 0
        if size > self._limits.max_bytes:
            return
        self._make_room(self._limits.max_entries - 1, self._limits.max_bytes - size)
        length = len(embedding) if embedding is not None else 0
        self._entries[key] = entry = _Entry(question, answer, self._clock() + self._limits.ttl_s, size, length)
        self._by_words.setdefault(scope, _Index(DIMENSIONS)).add(entry, vector(question))
        if embedding is not None:
            self._by_meaning.setdefault((scope, length), _Index(length)).add(entry, embedding)

    def clear(self) -> None:
        """Forget all answers; common replies stay."""
        for key in list(self._entries):
            self._remove(key)

    def _make_room(self, max_entries: int, max_bytes: int) -> None:
        """Forget the answers that were not used for longest, until so much is left."""
        while self._entries and (len(self._entries) > max_entries or self.bytes > max_bytes):
            (scope, _), entry = self._entries.popitem()
            self._unindex(scope, entry)
            self.evicted += 1

    def _remove(self, key: _Id) -> None:
        self._unindex(key[0], self._entries.pop(key))

    def _unindex(self, scope: str, entry: _Entry) -> None:
        self._by_words[scope].remove(entry)
        if not self._by_words[scope]:
            del self._by_words[scope]
        if entry.embedding_length:
            meant = scope, entry.embedding_length
            self._by_meaning[meant].remove(entry)
            if not self._by_meaning[meant]:
                del self._by_meaning[meant]

    def _nearest_words(self, question: str, scope: str) -> _Entry | None:
        index = self._by_words.get(scope)
        for entry in index.nearest(vector(question), self._limits.threshold) if index is not None else ():
            if entry.expires > self._clock() and same_question(question, entry.question, self._limits.threshold):
                return entry
        return None

    def _nearest_meaning(self, question: str, scope: str, embedding: Vector) -> _Entry | None:
        index = self._by_meaning.get((scope, len(embedding)))
        for entry in index.nearest(embedding, self._limits.embedding_threshold) if index is not None else ():
            if (
                entry.expires > self._clock()
                and not contradiction(question, entry.question)
                and shared_content(question, entry.question) >= _MIN_SHARED
            ):
                return entry
        return None
