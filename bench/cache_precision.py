"""How often the answer cache would take one question for another: thousands of pairs out of templates, nothing asked.

Pairs that have one answer are made by politeness, particles, word order, digits, fillers, punctuation and what
recognisers add; pairs that have not, by exchanging what matters: names, numbers, units, places, times, negations,
opposites, who does what to whom, the kind of question, a word of which only a small part differs. A question matches as
the cache would match it: both must be allowed in, then the same words, or found alike.

Exit code 1 when one pair with two answers would match: then somebody would hear a wrong answer.
"""

import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from bench.cache_questions import questions_en, questions_zh
from bench.stats import table
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.text.cacheable import Why, may_ask
from xiaozhi.text.same_words import same_words
from xiaozhi.text.similarity import same_question

Match: TypeAlias = Literal["exact", "similar", ""]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, whether one answer serves for both, and what makes the difference."""

    one: str
    other: str
    same: bool
    what: str


def match(one: str, other: str, threshold: float) -> Match:
    """How the cache would find the answer to `one` when `other` is asked."""
    if may_ask(one) is not Why.OK or may_ask(other) is not Why.OK:
        return ""
    if same_words(one, other):
        return "exact"
    return "similar" if same_question(one, other, threshold) else ""


# What a user or a recogniser puts around a question; an answer serves for all.
_AROUND_ZH: Final = (
    ("politeness", "请问{}"), ("politeness", "你能告诉我{}吗"), ("politeness", "我想知道{}"),
    ("politeness", "麻烦你告诉我{}"),
    ("name", "小智，{}"), ("name", "你好小智{}"), ("particle", "{}呀"), ("particle", "{}啊？"), ("particle", "{}呢"),
    ("filler", "那个{}"), ("filler", "嗯，{}"), ("filler", "{}一下"), ("punctuation", "{}？"), ("punctuation", "{}。"),
    ("recogniser", "{}。。"), ("recogniser", " {} "), ("recogniser", "呃{}"),
)  # fmt: skip
_AROUND_EN: Final = (
    ("politeness", "please tell me {}"), ("politeness", "can you tell me {}"), ("politeness", "i want to know {}"),
    ("politeness", "excuse me, {}"), ("name", "hey xiaozhi, {}"), ("filler", "um {}"), ("filler", "well, {}"),
    ("filler", "so {}"), ("punctuation", "{}?"), ("punctuation", "{}."), ("recogniser", "{} "),
    ("recogniser", "uh, {}"), ("punctuation", "{}!"),
)  # fmt: skip


def pairs(count: int, seed: int, most: int = 400) -> list[Pair]:
    """Pairs of all questions with themselves put otherwise, with their neighbours, and `count` of any two.

    Args:
        count: pairs of any two questions, in each language.
        seed: of what is taken.
        most: pairs of neighbours about one thing, or of one kind.
    """
    dice = random.Random(seed)
    found: list[Pair] = []
    for questions, around in ((list(questions_zh()), _AROUND_ZH), (list(questions_en()), _AROUND_EN)):
        for _, question, ways in questions:
            found += [Pair(question, way, True, "order") for way in ways]
            for kind, pattern in dice.sample(around, 4):
                found.append(Pair(question, pattern.format(question), True, kind))
            for way in ways[:1]:
                kind, pattern = dice.choice(around)
                found.append(Pair(question, pattern.format(way), True, f"order and {kind}"))
        # Those that share a word are the hard ones: the same thing with another question, the same question of another.
        texts = [(asks, text) for asks, question, ways in questions for text in (question, *ways)]
        by_end: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for asks, text in texts:
            by_end[asks.partition(":")[0]].append((asks, text))
            by_end[f":{asks.partition(':')[2]}"].append((asks, text))
        for group in by_end.values():
            several = [(one, other) for one in group for other in group if one[0] < other[0]]
            for one, other in several if len(several) <= most else dice.sample(several, most):
                if one[1] != other[1]:
                    found.append(Pair(one[1], other[1], False, "neighbour"))
        for _ in range(count):
            one, other = dice.sample(texts, 2)
            if one[0] != other[0]:
                found.append(Pair(one[1], dice.choice(around)[1].format(other[1]), False, "any"))
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of all pairs.

    Attributes:
        wrong: pairs with two answers that would match.
        missed: pairs with one answer that would not.
        counts: pairs, exact and similar matches by what makes the pair.
    """

    wrong: list[Pair]
    missed: list[Pair]
    counts: dict[str, Counter[str]]

    @property
    def precision(self) -> float:
        """Share of matches that are right."""
        right = sum(count["exact"] + count["similar"] for what, count in self.counts.items() if what[0] == "=")
        return right / max(1, right + len(self.wrong))

    @property
    def recall(self) -> float:
        """Share of the pairs with one answer that match."""
        same = sum(count["pairs"] for what, count in self.counts.items() if what[0] == "=")
        return (same - len(self.missed)) / max(1, same)


def judge(every: Sequence[Pair], threshold: float) -> Verdict:
    """Match all pairs, both ways round."""
    verdict = Verdict([], [], defaultdict(Counter))
    for pair in every:
        there, back = match(pair.one, pair.other, threshold), match(pair.other, pair.one, threshold)
        count = verdict.counts[f"{'=' if pair.same else '≠'} {pair.what}"]
        count["pairs"] += 1
        count[there or back] += 1
        if pair.same and not (there and back):
            verdict.missed.append(pair)
        if not pair.same and (there or back):
            verdict.wrong.append(pair)
    return verdict


def show(verdict: Verdict) -> str:
    """By what makes the pairs, as a Markdown table."""
    rows = (
        (what, count["pairs"], count["exact"], count["similar"], count["pairs"] - count["exact"] - count["similar"])
        for what, count in sorted(verdict.counts.items())
    )
    return table(("pairs that are the same (=) or not (≠)", "pairs", "exact", "similar", "no match"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache_precision", description=__doc__)
    parser.add_argument("--others", type=int, default=2000, help="pairs of any two questions in each language")
    parser.add_argument("--most", type=int, default=400, help="pairs of neighbours about one thing, or of one kind")
    parser.add_argument("--pairs", type=int, help="try only so many, taken at random")
    parser.add_argument("--threshold", type=float, default=CacheSettings().threshold)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="so many of the wrong and of the missed pairs")
    given = parser.parse_args(arguments)
    began_s = time.process_time()
    every = pairs(given.others, given.seed, given.most)
    if given.pairs:
        every = random.Random(given.seed).sample(every, min(given.pairs, len(every)))
    verdict = judge(every, given.threshold)
    took_s = time.process_time() - began_s
    print(show(verdict))
    print(f"\n{len(every)} pairs in {took_s:.1f} s: precision {verdict.precision:.2%}, recall {verdict.recall:.1%}")
    for pair in verdict.wrong[: given.show]:
        print(f"WRONG: {pair.one} | {pair.other}")
    for pair in random.Random(given.seed).sample(verdict.missed, min(given.show, len(verdict.missed))):
        print(f"missed ({pair.what}): {pair.one} | {pair.other}")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
