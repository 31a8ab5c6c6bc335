"""How likely a recognised text is a whole utterance: logistic regression over hashed n-grams of its words. Pure.

The words are Chinese characters, Latin words and numbers, so that mixed text is nothing special, and syllables where a
recogniser writes toned pinyin. The features look at the end, at the beginning, at both together and at what stands
between. The weights are made by `python -m bench.completeness.train` and lie beside this file with their licences.
"""

import math
import re
import unicodedata
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

MODEL_FILE: Final = Path(__file__).with_name("completeness.npz")
# Words before these say nothing about the end.
MAX_WORDS: Final = 12
_VOWEL: Final = "a-zü\u00e0-\u01dc"  # of Latin words, toned pinyin included
_WORD: Final = re.compile(rf"[\u3400-\u9fff]|[{_VOWEL}][{_VOWEL}'’]*|[0-9]+|[?？]")
_TONED: Final = re.compile("[āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ]")
_FINAL: Final = "aeiouüāáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ"
_SYLLABLE: Final = re.compile(rf"(?:[zcs]h|[b-df-hj-np-tw-z])?[{_FINAL}]+(?:ng(?![{_FINAL}])|[nr](?![{_FINAL}]))?")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; a question mark stays when it is the last.

    Chinese characters stand alone; "wǒxiǎngwèn" is three syllables.
    """
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if _TONED.search(word):
            found += _SYLLABLE.findall(word) or [word]
        else:
            found.append(word.replace("’", "'"))
    ends = found[-1:] if found[-1:] == ["?"] else []
    return [word for word in found if word != "?"] + ends


def _features(found: list[str]) -> Iterator[str]:
    asked = found[-1:] == ["?"]
    if asked:
        found = found[:-1]
        yield "?"
    count = len(found)
    yield f"n{min(count, 16)}"
    if not count:
        return
    near = found[-MAX_WORDS:]
    last, first = near[-1], found[0]
    for length in range(1, min(5, count) + 1):
        end = " ".join(near[-length:])
        yield f"${length}{end}"
        if length <= 2:
            yield f"n{min(count, 3 + count // 4)}${end}"
            yield f"^{first}${end}"
            yield f"^{' '.join(found[:2])}${end}"
    for length in range(1, min(4, count) + 1):
        yield f"^{length}{' '.join(found[:length])}"
    for back in range(2, min(5, count) + 1):
        yield f"-{back}{near[-back]}"
        if back < len(near):
            yield f"-{back}{near[-back - 1]} {near[-back]}"
    if count <= 6:
        yield f"={' '.join(found)}"
    for at, word in enumerate(near[:-1]):
        yield f"w{word}"
        yield f"w{word}${last}"
        yield f"b{word} {near[at + 1]}"
    if len(last) > 2:
        yield f"e{last[-2:]}"
        yield f"e{last[-3:]}"


def features(text: str, buckets: int) -> npt.NDArray[np.int64]:
    """The hashed features of a text, int64[n], each in [0, buckets)."""
    return np.fromiter((zlib.crc32(one.encode()) % buckets for one in _features(words(text))), np.int64)


class CompletenessModel:
    """Weights int8[buckets], their scale and the bias.

    Raises:
        OSError, ValueError, KeyError: the file is missing or no such model.
    """

    def __init__(self, file: Path = MODEL_FILE) -> None:
        with np.load(file, allow_pickle=False) as stored:
            self._weights: npt.NDArray[np.int8] = stored["weights"]
            self._scale = float(stored["scale"])
            self._bias = float(stored["bias"])
        if self._weights.dtype != np.int8 or self._weights.ndim != 1 or not len(self._weights):
            raise ValueError(f"{file}: not weights of completeness")

    def log_odds(self, text: str) -> float:
        """The log-odds of `text` being whole, were as many texts at a pause whole as not; 0.0 without any word."""
        if not words(text):
            return 0.0
        found = features(text[-200:], len(self._weights))
        return self._bias + self._scale * float(self._weights[found].sum(dtype=np.int64))

    def probability(self, text: str) -> float:
        """The same as a probability, 0 to 1; 0.5 without any word."""
        return 1.0 / (1.0 + math.exp(-min(30.0, max(-30.0, self.log_odds(text)))))


@lru_cache(maxsize=1)
def shipped_model() -> CompletenessModel:
    """The model that ships with the product, read once."""
    return CompletenessModel()
