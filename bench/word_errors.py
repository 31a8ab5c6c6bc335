"""Word error rates."""

import re
from collections.abc import Sequence


def words(text: str) -> list[str]:
    """The words of an English text, small letters, without punctuation."""
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def pieces(text: str, language: str) -> list[str]:
    """What errors are counted in: English words; of Chinese the characters, or the letters of its pinyin."""
    return words(text) if language == "en" else [char for char in text.lower() if char.isalnum()]


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """How many words were inserted, left out or replaced."""
    row = list(range(len(heard) + 1))
    for index, word in enumerate(said, 1):
        before, row[0] = row[0], index
        for column, other in enumerate(heard, 1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (word != other))
    return row[-1]
