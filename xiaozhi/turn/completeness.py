"""How likely a recognised text is a whole utterance: logistic regression over hashed n-grams of its words. Pure.

The units are Chinese characters, Latin words and numbers, so that mixed text is nothing special, and syllables where a
recogniser writes toned pinyin. The features look at the end, at the beginning, at both together, at what stands between
and at the classes (verb, measure word, ...) of the words at the end, found in a small lexicon. Weights and lexicon are
made by `python -m bench.completeness.train`; `completeness.txt` says from what, and under which licences.
"""

import math
import re
import unicodedata
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

PLAINLY_WHOLE: Final = 0.2
"""Log-odds from which a text is plainly whole: half of the whole ones of the table, 2 to 4 % of the unfinished."""
PLAINLY_OPEN: Final = -1.0
"""Log-odds up to which a text plainly goes on."""
MODEL_FILE: Final = Path(__file__).with_name("completeness.npz")
# Words before these say nothing about the end.
MAX_WORDS: Final = 12
# A longer text is judged by its end.
MAX_CHARACTERS: Final = 200
_VOWEL: Final = "a-zü\u00e0-\u01dc"  # of Latin words, toned pinyin included
_WORD: Final = re.compile(rf"[\u3400-\u9fff]|[{_VOWEL}][{_VOWEL}'’]*|[0-9]+|[?？]")
_TONED: Final = re.compile("[āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ]")
_UNKNOWN: Final = re.compile("[\u3040-\u30ff\uac00-\ud7af]")  # kana and hangul
_FINAL: Final = "aeiouüāáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ"
_SYLLABLE: Final = re.compile(rf"(?:[zcs]h|[b-df-hj-np-tw-z])?[{_FINAL}]+(?:ng(?![{_FINAL}])|[nr](?![{_FINAL}]))?")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; a question mark stays when it is the last.

    Chinese characters stand alone; "wǒxiǎngwèn" is three syllables. Of Japanese and Korean nothing is known.
    """
    if _UNKNOWN.search(text):
        return []
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if _TONED.search(word):
            found += _SYLLABLE.findall(word) or [word]
        else:
            found.append(word.replace("’", "'"))
    ends = found[-1:] if found[-1:] == ["?"] else []
    return [word for word in found if word != "?"] + ends


_MAX_LEXICON_WORD: Final = 4  # Chinese characters
_ENDINGS: Final = (("ing", "VBG"), ("ly", "RB"), ("ed", "VBD"), ("'s", "POS"), ("s", "NNS"))
_CHINESE: Final = re.compile("[\u3400-\u9fff]")


def word_class(word: str, lexicon: dict[str, str]) -> str:
    """The class of a word: from the lexicon, or a guess."""
    known = lexicon.get(word)
    if known is not None:
        return known
    if word.isdigit():
        return "CD"
    if _CHINESE.match(word):
        return "zh"
    if _TONED.search(word):
        return "py"
    return next((guess for ending, guess in _ENDINGS if word.endswith(ending)), "NN")


def classes_backwards(found: list[str], lexicon: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Words with their classes, the last first; characters join to the longest word of the lexicon that ends here."""
    end = len(found)
    while end > 0:
        size = 1
        if _CHINESE.match(found[end - 1]):
            for longer in range(min(_MAX_LEXICON_WORD, end), 1, -1):
                if "".join(found[end - longer : end]) in lexicon:
                    size = longer
                    break
        word = "".join(found[end - size : end])
        yield word, word_class(word, lexicon)
        end -= size


def _features(found: list[str], lexicon: dict[str, str]) -> Iterator[str]:
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
    yield from _class_features(first, near, count, lexicon)


def _class_features(first: str, near: list[str], count: int, lexicon: dict[str, str]) -> Iterator[str]:
    tagged = list(islice(classes_backwards(near, lexicon), 6))
    kinds = [kind for _, kind in tagged]
    word = tagged[0][0]
    whole = len(tagged) < 6 and sum(len(one) if _CHINESE.match(one) else 1 for one, _ in tagged) == count
    for length in range(1, min(4, len(kinds)) + 1):
        end = " ".join(kinds[:length])
        yield f":${end}"
        yield f":^{first}${end}"
        if whole and length == len(kinds):
            yield f":={end}"
    yield f":{word}"
    yield f":{min(count, 8)}{kinds[0]}"
    for kind in dict.fromkeys(kinds[1:]):
        yield f":w{kind}${kinds[0]}"
        yield f":w{kind}${word}"
    for one, _ in tagged[1:]:
        yield f":w{one}${kinds[0]}"
    if len(tagged) > 1:
        yield f":{tagged[1][0]}${kinds[0]}"
        yield f":{kinds[1]}${word}"
    if len(tagged) > 2:
        yield f":{tagged[2][0]} {kinds[1]}${kinds[0]}"
        yield f":{kinds[2]} {tagged[1][0]}${kinds[0]}"


def features(text: str, buckets: int, lexicon: dict[str, str]) -> npt.NDArray[np.int64]:
    """The hashed features of a text, int64[n], each in [0, buckets)."""
    return np.fromiter((zlib.crc32(one.encode()) % buckets for one in _features(words(text), lexicon)), np.int64)


class CompletenessModel:
    """Weights int8[buckets], their scale and the bias, and the lexicon: lines of a class and its words.

    Raises:
        OSError, ValueError, KeyError: the file is missing or no such model.
    """

    def __init__(self, file: Path = MODEL_FILE) -> None:
        with np.load(file, allow_pickle=False) as stored:
            self._weights: npt.NDArray[np.int8] = stored["weights"]
            self._scale = float(stored["scale"])
            self._bias = float(stored["bias"])
            lines = stored["lexicon"].tobytes().decode().split("\n")
        if self._weights.dtype != np.int8 or self._weights.ndim != 1 or not len(self._weights):
            raise ValueError(f"{file}: not weights of completeness")
        self._lexicon = {word: kind for kind, *of_kind in map(str.split, lines) for word in of_kind}

    def log_odds(self, text: str, unknown: float = 0.0) -> float:
        """The log-odds of `text` being whole, where half of all texts at a pause are; `unknown` without any word."""
        text = text[-MAX_CHARACTERS:]
        if not words(text):
            return unknown
        found = features(text, len(self._weights), self._lexicon)
        return self._bias + self._scale * float(self._weights[found].sum(dtype=np.int64))

    def probability(self, text: str) -> float:
        """The same as a probability, 0 to 1; 0.5 without any word."""
        return 1.0 / (1.0 + math.exp(-min(30.0, max(-30.0, self.log_odds(text)))))


@lru_cache(maxsize=1)
def shipped_model() -> CompletenessModel:
    """The model that ships with the product, read once."""
    return CompletenessModel()
