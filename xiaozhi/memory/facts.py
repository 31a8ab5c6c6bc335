"""What becomes of new facts beside those that are known: said already, newer, or to be kept. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from xiaozhi.text.same_words import normal_form
from xiaozhi.text.similarity import alike, contradiction, gist, shared_content

MAX_CHARS: Final = 3800
"""Of all facts of a device together: a prompt takes 4000 characters of them, their bullets included."""

# Two sentences that differ in less than this say the same; found on the pairs of the tests, "likes apples" beside
# "likes pears" is well below.
_SAME: Final = 0.93
_SAME_WORDS: Final = 0.8
# A sentence and its negation share all words but one.
_OPPOSED_WORDS: Final = 0.6
_MAX_NAMES: Final = 50

_BULLET: Final = re.compile(r"^(?:[-*•·]|\(?\d{1,3}[.)、])\s*")
_EDGES: Final = " \t\r\n\"'`“”‘’「」"
_CALLED_ZH: Final = re.compile('(?:名字叫做?|名叫|叫做|昵称是|小名是?|名字是|名为|叫)[“「"]?([一-鿿A-Za-z·]{2,12})')
_ENDS_ZH: Final = re.compile("的|是|和|与|在|今年|喜欢|住|了")
_CALLED_EN: Final = re.compile(r"\b(?:called|named|name is|names are|nicknamed)\s+([\w'’-]+)", re.IGNORECASE)
_CAPITAL: Final = re.compile(r"(?<![.!?]\s)(?<!^)\b([A-Z][\w'’-]+)")
_NO_NAMES: Final = frozenset({"The", "User", "They", "She", "He", "It", "And", "I'm", "I've", "I'd", "I'll"})


@dataclass(frozen=True, slots=True)
class Known:
    """A fact that is kept already: its number in the store and its words."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A fact that somebody proposes; `replaces` is the number of a known one that it takes the place of, 0 for none."""

    text: str
    replaces: int = 0


@dataclass(slots=True)
class FactChanges:
    """What is to be done: texts to add, and numbers of known facts to remove."""

    add: list[str] = field(default_factory=list)
    remove: list[int] = field(default_factory=list)


def tidy(text: str, longest: int) -> str:
    """A fact on one line, without the bullet or the quotes around it, cut to `longest` characters; may be empty."""
    text = _BULLET.sub("", " ".join(text.split()).strip(_EDGES)).strip(_EDGES)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def same_fact(one: str, other: str) -> bool:
    """Whether two sentences say the same: equal in normal form, or alike with nothing that speaks against it."""
    if normal_form(one) == normal_form(other):
        return True
    if contradiction(one, other):
        return False
    return alike(one, other) >= _SAME and shared_content(one, other) >= _SAME_WORDS


def outdates(new: str, old: str) -> bool:
    """Whether both cannot be true at once, as far as rules can tell: another number, or a negation of the same.

    What only somebody who understands it can tell (another name, another town) is left to the model that proposes.
    """
    reason = contradiction(new, old)
    if reason == "number":
        return bool(_words(new)) and _words(new) == _words(old)
    return reason in {"negation", "opposite"} and shared_content(new, old) >= _OPPOSED_WORDS


def _words(text: str) -> list[str]:
    return [part for part in gist(text).content if not any(char.isdigit() for char in part)]


def merge(
    known: Sequence[Known], proposals: Iterable[Proposal], *, longest: int, outdated: Iterable[int] = ()
) -> FactChanges:
    """What to add and to remove; the newest wins.

    Args:
        known: what is kept, the oldest first.
        proposals: new facts in the order they were said.
        longest: characters of one fact.
        outdated: numbers of known facts that are no longer true.
    """
    left = {fact.id: fact.text for fact in known}
    changes = FactChanges()

    def remove(number: int) -> None:
        if left.pop(number, None) is not None:
            changes.remove.append(number)

    for number in outdated:
        remove(number)
    for proposal in proposals:
        text = tidy(proposal.text, longest)
        if len(text) < 2:
            continue
        if proposal.replaces in left and not same_fact(text, left[proposal.replaces]):
            remove(proposal.replaces)
        for number in [number for number, old in left.items() if outdates(text, old)]:
            remove(number)
        changes.add = [one for one in changes.add if not outdates(text, one)]
        if not any(same_fact(text, one) for one in (*left.values(), *changes.add)):
            changes.add.append(text)
    return changes


def surplus(facts: Sequence[Known], most: int) -> list[int]:
    """The numbers of those that are too many or too long together, the oldest first; `facts` has the oldest first."""
    chars, kept = 0, 0
    for fact in reversed(facts):
        chars += len(fact.text) + 3
        if kept == most or chars > MAX_CHARS:
            break
        kept += 1
    return [fact.id for fact in facts[: len(facts) - kept]]


def fitting(texts: Sequence[str]) -> tuple[str, ...]:
    """The newest texts that fit into a prompt together, the oldest first so that its beginning stays as it is."""
    numbered = [Known(number, text) for number, text in enumerate(texts)]
    gone = set(surplus(numbered, len(numbered)))
    return tuple(fact.text for fact in numbered if fact.id not in gone)


def search(facts: Sequence[Known], about: str) -> list[Known]:
    """Those that have to do with a subject, the best first: they mention it, or share its words."""
    subject = about.casefold().strip()
    if not subject:
        return list(facts)
    scored = [(2.0 if subject in fact.text.casefold() else shared_content(about, fact.text), fact) for fact in facts]
    return [fact for score, fact in sorted(scored, key=lambda pair: -pair[0]) if score >= 0.2]


def names_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Words that belong to this user alone: names of people, animals and places in what is remembered."""
    found: dict[str, None] = {}
    for text in texts:
        for match in _CALLED_ZH.finditer(text):
            found[_ENDS_ZH.split(match[1])[0]] = None
        for pattern in (_CALLED_EN, _CAPITAL):
            for match in pattern.finditer(text):
                word = match[1].removesuffix("'s").removesuffix("’s")
                if word not in _NO_NAMES:
                    found[word] = None
    return tuple(name for name in found if len(name) > 1)[:_MAX_NAMES]
