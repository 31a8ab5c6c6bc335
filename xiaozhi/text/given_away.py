"""Whether an answer tells something of the conversation before it. Pure.

A model leans on what it was told: asked why cats purr, it may answer "as Momo does". Such an answer is not for others,
although the question is everybody's. What counts is any telling word that was said before, stands in the answer, and
was not asked for: names first of all, but no list tells names from other words. In doubt the answer is given away.
"""

import re
from collections.abc import Sequence
from typing import Final

_LATIN: Final = re.compile(r"[^\W\d_]{3,}(?:['’][^\W\d_]+)?", re.UNICODE)
_NUMBER: Final = re.compile(r"\d{3,}")
_HAN: Final = re.compile(r"[\u3400-\u9fff]+")
_CAPITAL: Final = re.compile(r"(?<=[\w,;:] )[A-Z][^\W\d_]{2,}")

# Characters of which function words are made: two neighbours of which one is among them tell nothing.
_EMPTY_HAN: Final = frozenset(
    "的了是在不有我你您他她它们这那什么怎为可以会能要就都和也到说个一上下来去吗呢啊吧呀哦嗯多少谁哪几因所但如果而且或与及其"
    "很最更还又再被把让给从向对于关没无非之得地着过做想知道请问好起出里中时候样种些每只才跟比像用叫听看吃住喜欢"
)
# Words that tell nothing of who has said them.
_EMPTY_LATIN: Final = frozenset(
    "the and but for not you your yours are was were has have had does did doing done can could will would shall "
    "should may might must who whom whose what when where which why how this that these those here there then than "
    "they them their his her hers him she its our ours all any some many much more most few little less least very "
    "too also just only even still yet ever never always often sometimes about above after again against among "
    "around because before behind below beneath beside between beyond during each either every from into like near "
    "off once one onto other out over own per same since such through toward towards under until upon while with "
    "within without yes well good great nice right sure okay please thank thanks thing things something anything "
    "nothing everything someone anyone everyone way ways lot lots kind kinds part parts make makes made making take "
    "takes took taken get gets got give gives gave given say says said tell tells told know knows knew known think "
    "thinks thought see sees saw seen look looks use uses used using want wants need needs let lets come comes came "
    "goes going went gone keep keeps put find found mean means call called calls help helps two three four five six "
    "seven eight nine ten first second last next long big small new old people day time being been both another "
    "whether though although however really quite rather almost perhaps maybe usually called live lives lived work "
    "works seem seems become becomes it's that's don't doesn't isn't can't i'm you're there's what's".split()
)


def gives_away(answer: str, question: str, asked: Sequence[str], answered: Sequence[str] = ()) -> bool:
    """Whether the answer holds a telling word of the conversation that the question does not hold.

    Args:
        answer: what the model said.
        question: what it was asked.
        asked: what the user said before.
        answered: what was answered before; of that only what looks like a name counts, since answers share many words.
    """
    allowed = _telling(question)
    said = _telling(answer) - allowed
    if any(said & _telling(text) for text in asked):
        return True
    names = _names(answer) - allowed
    return any(names & _names(text) for text in answered)


def _telling(text: str) -> set[str]:
    """Words of Latin script, long numbers, and pairs of neighbouring Chinese characters."""
    words = {_stem(word.lower()) for word in _LATIN.findall(text) if word.lower() not in _EMPTY_LATIN}
    words.update(_NUMBER.findall(text))
    return words | _neighbours(text, 2)


def _names(text: str) -> set[str]:
    """What looks like a name: a capital within a sentence, three Chinese characters that belong together."""
    return {_stem(word.lower()) for word in _CAPITAL.findall(text)} | _neighbours(text, 3)


def _neighbours(text: str, count: int) -> set[str]:
    return {
        piece
        for run in _HAN.findall(text)
        for start in range(len(run) - count + 1)
        if not _EMPTY_HAN & set(piece := run[start : start + count])
    }


def _stem(word: str) -> str:
    """Without the endings that a word takes in English."""
    word = word.removesuffix("'s").removesuffix("’s")
    return word[:-1] if word.endswith("s") and len(word) > 3 else word
