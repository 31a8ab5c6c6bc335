"""Which language a text is in, by its script, and which of our two it is answered in."""

import re
from collections.abc import Iterator
from typing import Final

_CHINESE: Final = frozenset({"zh", "yue"})
_EAST_ASIAN: Final = frozenset({"zh", "yue", "ja", "ko"})

_HAN: Final = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
_KANA: Final = re.compile("[\u3040-\u30fa\u30fc-\u30ff]+")
_HANGUL: Final = re.compile("[\uac00-\ud7af]")
# Other scripts, with the language that most of their readers speak. A single letter is a sign.
_SCRIPTS: Final = {
    "ru": re.compile("[\u0400-\u052f]{2,}"),
    "el": re.compile("[\u0370-\u03ff\u1f00-\u1fff]{2,}"),
    "he": re.compile("[\u0590-\u05ff]{2,}"),
    "ar": re.compile("[\u0600-\u06ff]{2,}"),
    "hi": re.compile("[\u0900-\u097f]{2,}"),
    "th": re.compile("[\u0e00-\u0e7f]{2,}"),
}
_ALSO_WRITTEN: Final = {"ru": "uk be bg sr mk kk mn".split(), "ar": "fa ur".split(), "hi": "mr ne".split()}
# Characters that no Japanese text has.
_CHINESE_ONLY: Final = re.compile("[们这说吗呢吧么你哪语词谢]")
_CHINESE_MARK: Final = re.compile("[，。！？；：、…《》]")

# What stands in quotes or brackets is mentioned, in whatever language.
_QUOTED: Final = re.compile(
    r"“[^“”]*”|「[^「」]*」|『[^『』]*』|《[^《》]*》|【[^【】]*】|（[^（）]*）|\([^()]*\)|\"[^\"]*\"|`[^`]*`"
)
_RUN: Final = re.compile("[!-~\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f’]+")
_CODE: Final = re.compile(r"[0-9@/\\_=<>{}]|[.:](?=\w)")
_WORD: Final = re.compile("[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]+(?:['’][A-Za-z]+)*")
_VOWEL: Final = re.compile("[aeiouy\u00e0-\u024f]", re.IGNORECASE)
# Between the words of a title these belong to it.
_LINKING: Final = frozenset("of the and a an in on to for with at by from or de la le des van von".split())
# A single word with a capital is a name, unless it is one of those that are a sentence by themselves.
_INTERJECTIONS: Final = frozenset(
    "hello hi hey yes no ok okay sure thanks sorry please great good well right bye goodbye welcome wow oh what why "
    "how stop wait help maybe really absolutely certainly exactly".split()
)
_FUNCTIONS: Final = frozenset("sin cos tan log exp lim max min".split())
_LETTERS_PER_SYLLABLE: Final = 3.0
# Names are of no language: a quarter of their length counts.
_NAME_SHARE: Final = 0.25
# What is spoken around is left only for what clearly prevails, and the marks of a sentence tell as much as its words.
_STAY: Final = 2.0
_MARKED: Final = 2.0


def is_chinese(language: str) -> bool:
    """Whether this user is answered in Chinese (`zh`, `yue`); everybody else is answered in English."""
    return language in _CHINESE


def language_of(text: str, *, default: str = "zh") -> str:
    """The language of most of a text: `zh`, `en`, `ja`, `ko`, `ru`, `el`, `he`, `ar`, `hi`, `th`, or `default`.

    Names, brands, addresses and what is quoted do not make a text another language.

    Args:
        text: any text.
        default: what is spoken around it. Returned when there is nothing to go by (digits, symbols, names alone), and
            where the script fits it as well as our guess: Chinese characters are `yue` for a user of `yue`, Latin
            letters `de` for a user of `de`.
    """
    bare = _QUOTED.sub(" ", text)
    if not any(map(str.isalpha, bare)):
        bare = text
    han, hangul, kana = len(_HAN.findall(bare)), len(_HANGUL.findall(bare)), _KANA.findall(bare)
    syllables = sum(map(len, kana))
    asian = float(han + hangul + syllables)
    weights = list(_word_weights(bare, among_asian=default in _EAST_ASIAN))
    words = [weight for weight in weights if weight >= 1.0]
    latin = sum(weights) + (0.0 if default in _EAST_ASIAN else sum(words) * (_STAY - 1.0))
    for language, script in _SCRIPTS.items():
        if sum(map(len, script.findall(bare))) / _LETTERS_PER_SYLLABLE > asian + latin:
            return default if default in _ALSO_WRITTEN.get(language, ()) else language
    marked = _CHINESE_MARK.search(bare) is not None
    if not asian:
        if not words or (marked and len(words) == 1 and default in _EAST_ASIAN):
            return default or "en"
    elif default in _EAST_ASIAN and next(filter(str.isalpha, bare), "") > "\u2e80":
        latin = 0.0  # an Asian sentence that names something
    asian *= (_STAY if default in _EAST_ASIAN else 1.0) * (_MARKED if marked else 1.0)
    latin *= _MARKED if bare.rstrip().endswith((".", "!", "?")) else 1.0
    if latin > asian or (latin == asian and default not in _EAST_ASIAN):
        return default if default and default not in _EAST_ASIAN else "en"
    if hangul > han and hangul > syllables:
        return "ko"
    chinese = default in _CHINESE and len(kana) < 2 and (syllables <= han or _CHINESE_ONLY.search(bare) is not None)
    if kana and syllables * 4 >= han and not chinese:
        return "ja"
    return default if default in {"yue", "ja"} else "zh"


def _word_weights(text: str, *, among_asian: bool) -> Iterator[float]:
    """How long each word in Latin letters sounds, in syllables: at least one of an ordinary word, less of a name."""
    words: list[str] = []
    first = set[int]()  # words with which a sentence begins
    for run in _RUN.findall(text):
        if not _CODE.search(run.rstrip(".,:;!?")):
            words += _WORD.findall(run)
        if run.endswith(("!", "?")):
            first.add(len(words))
    if words and next(filter(str.isalpha, text), "") == words[0][0]:
        first.add(0)
    named = False
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) and index + 1 not in first else ""
        if not _VOWEL.search(word) or word in _FUNCTIONS:  # km, http, GPS
            named = True
        elif index in first and word[1:].islower():  # the capital of a sentence
            alone = not following and among_asian and word.lower() not in _INTERJECTIONS
            named = word[0].isupper() and (alone or following[:1].isupper())
        elif word in _LINKING and named:
            named = following[:1].isupper() or following in _LINKING
        else:
            named = word[0].isupper() or not word.islower() or len(word) == 1
            named = named and word.partition("'")[0].partition("’")[0] not in {"I", "a"}
        syllables = len(word) / _LETTERS_PER_SYLLABLE
        yield min(0.99, syllables * _NAME_SHARE) if named else max(1.0, syllables)
