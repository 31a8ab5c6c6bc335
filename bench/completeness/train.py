"""Make `xiaozhi/turn/completeness.npz`: `python -m bench.completeness.train`; needs jieba, pypinyin, pyyaml.

A whole utterance counts once as whole; beginnings of it, cut between words, and beginnings with a hesitation behind
them count as unfinished. What is at once a beginning and a whole utterance counts as whole. Anything that is equal or
nearly equal to a sentence of `tests/data/completeness.tsv`, the table this is judged by, is left out. Some examples are
seen again as a recogniser would write them: with a word wrong, with homophones, as toned pinyin, cut inside a word.

How sure it is comes from a twelfth of the sentences and templates that are held out; then it learns from all of them.
"""

import argparse
import csv
import math
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import jieba
import numpy as np
import numpy.typing as npt
from pypinyin import Style, lazy_pinyin

from bench.completeness.sources import Sentence, everything, lexicon
from xiaozhi.turn.completeness import MODEL_FILE, features, words

TABLE: Final = Path(__file__).parents[2] / "tests" / "data" / "completeness.tsv"
_BUCKETS: Final = 1 << 18
_CUTS: Final = 4  # beginnings of each sentence
_EARLY: Final = {1: 0.35, 2: 0.7}  # few pause right behind their first word, many say but one or two
_MID_WORD: Final = 0.5  # share of the sentences that are cut inside a word as well
_HESITATIONS: Final = {
    "zh": "嗯|呃|那个|就是|额|然后|就是说|嗯嗯|呃那个|就|啊就是|这个".split("|"),
    "en": "um|uh|er|like|you know|and|so|I mean|hmm|the uh|but|and um|or".split("|"),
}
# Weights: our own sentences are what people say to a companion, house commands are many of a few kinds.
_WEIGHT: Final = {
    "own": 1.0,
    "chatterbot-corpus": 1.0,
    "hsk-sentences-audio": 1.0,
    "home-assistant-intents": 0.5,
    "ovos-skills": 0.7,
    "compound": 0.6,
}


@dataclass
class Example:
    """A text, whether it is whole, and how much it counts."""

    text: str
    whole: bool
    weight: float


def near_table(texts: list[str]) -> set[str]:
    """Those of the texts that equal a sentence of the table, or nearly: 80 % of their pairs of words are alike."""

    def pairs(text: str) -> frozenset[str]:
        found = ["^", *words(text), "$"]
        return frozenset(f"{one} {other}" for one, other in pairwise(found))

    with TABLE.open(encoding="utf-8") as file:
        table = [pairs(row["text"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    holding: dict[str, list[int]] = defaultdict(list)
    for at, one in enumerate(table):
        for pair in one:
            holding[pair].append(at)
    near = set()
    for text in texts:
        own = pairs(text)
        shared: dict[int, int] = defaultdict(int)
        for pair in own:
            for at in holding.get(pair, ()):
                shared[at] += 1
        if any(2 * count >= 0.8 * (len(own) + len(table[at])) for at, count in shared.items()):
            near.add(text)
    return near


def _segments(one: Sentence) -> list[str]:
    """The words between which a talker may pause, each with the blank behind it."""
    if one.language == "zh":
        return [part for part in jieba.lcut(one.text) if part.strip()]
    return [part + " " for part in one.text.split()]


def _inside_a_word(parts: list[str], random: Random) -> str:
    """A beginning that ends inside a word, as recognisers write the first half of it; empty where no word is long."""
    at = [
        place for place, part in enumerate(parts) if len(part.strip()) > (1 if part.strip().isascii() is False else 4)
    ]
    if not at:
        return ""
    place = random.choice(at)
    word = parts[place].strip()
    return "".join(parts[:place]) + word[: random.randrange(1, len(word))]


def _misheard(one: Sentence, text: str, random: Random, homophones: dict[str, list[str]], words_en: list[str]) -> str:
    """The text with one word wrong or missing, never the last."""
    if one.language == "zh":
        if len(text) < 4:
            return text
        at = random.randrange(len(text) - 1)
        return text[:at] + random.choice(homophones.get(lazy_pinyin(text[at])[0], [text[at]])) + text[at + 1 :]
    parts = text.split()
    if len(parts) < 3:
        return text
    at = random.randrange(len(parts) - 1)
    parts[at : at + 1] = [random.choice(words_en)] if random.random() < 0.6 else []
    return " ".join(parts)


def _often(one: Sentence) -> float:
    """Short utterances are said more often than a list of sentences has them."""
    count = len(words(one.text)) / (1.6 if one.language == "zh" else 1.0)
    return 3.0 if count <= 2 else 2.0 if count <= 4 else 1.0


def pinyin(text: str) -> str:
    """Run together and toned, as the pinyin recogniser writes."""
    return "".join(lazy_pinyin(text, style=Style.TONE))


def examples(sentences: list[Sentence], joined: int, seed: int) -> list[Example]:
    """What to learn from."""
    random = Random(seed)
    jieba.setLogLevel(60)
    wholes = {" ".join(words(one.text)) for one in sentences if one.whole}
    homophones: dict[str, list[str]] = defaultdict(list)
    for char in sorted(
        {char for one in sentences if one.language == "zh" for char in one.text if "\u4e00" <= char <= "\u9fff"}
    ):
        homophones[lazy_pinyin(char)[0]].append(char)
    words_en = sorted({word.lower() for one in sentences if one.language == "en" for word in one.text.split()})
    made: list[Example] = []

    def add(one: Sentence, text: str, whole: bool, weight: float) -> None:
        text = text.strip()
        if not whole and " ".join(words(text)) in wholes:
            return
        made.append(Example(text, whole, weight))
        if random.random() < 0.15:
            made.append(Example(_misheard(one, text, random, homophones, words_en), whole, 0.5 * weight))
        if one.language == "zh" and random.random() < 0.25:
            made.append(Example(pinyin(text), whole, 0.7 * weight))

    for one in [*sentences, *compounds(sentences, joined, random)]:
        weight = _WEIGHT[one.source]
        if not one.whole:
            add(one, one.text, False, weight)
            continue
        parts = _segments(one)
        add(one, one.text + ("?" if one.asked and random.random() < 0.5 else ""), True, weight * _often(one))
        cuts = list(range(1, len(parts)))
        chosen = random.sample(cuts, min(_CUTS, len(cuts)))
        if cuts and cuts[-1] not in chosen and random.random() < 0.7:
            chosen[0] = cuts[-1]
        for cut in chosen:
            add(one, "".join(parts[:cut]), False, _EARLY.get(cut, 1.0) * weight / len(chosen))
        if parts and random.random() < _MID_WORD and (inside := _inside_a_word(parts, random)):
            add(one, inside, False, 0.5 * weight)
        if parts and random.random() < 0.2:
            cut = random.randrange(1, len(parts) + 1)
            begun = "".join(parts[:cut])
            add(one, begun + random.choice(_HESITATIONS[one.language]), False, 0.7 * weight)
    return made


_JOINED: Final = {
    "zh": "因为 但是 可是 不过 所以 然后 而且 或者 还有 于是 结果 就是 要不然 因此 如果 虽然 后来 接着".split(),
    "en": (
        "because|but|and|so|and then|or|if|when|although|while|until|so that|unless|since|before|after|and also"
        "|but then"
    ).split("|"),
}
_CONDITIONS: Final = {
    "zh": (
        "如果{}的话|要是{}|如果{}|等{}以后|等{}|当{}的时候|只要{}|虽然{}|因为{}|既然{}|就算{}|除非{}|不管{}|每次{}|自从{}|{}的时候|{}以前"
        "|{}之后|假如{}|即使{}"
    ).split("|"),
    "en": (
        "if {}|when {}|because {}|since {}|although {}|while {}|as soon as {}|even if {}|unless {}|after {}|before {}"
        "|whenever {}|even though {}|until {}|once {}|in case {}"
    ).split("|"),
}
_JOINABLE: Final = ("own", "hsk-sentences-audio")


def compounds(sentences: list[Sentence], count: int, random: Random) -> list[Sentence]:
    """Two sentences joined, and what is open until the second comes: "A because", "if A"."""
    made = []
    for language in ("zh", "en"):
        plain = [
            one
            for one in sentences
            if one.language == language and one.whole and not one.asked and one.source in _JOINABLE
            if 3 <= len(words(one.text)) <= 12
        ]
        blank = "" if language == "zh" else " "
        for _ in range(count // 2):
            one, other = random.sample(plain, 2)
            joint = random.choice(_JOINED[language])
            made.append(Sentence(language, blank.join([one.text, joint, other.text]), "compound"))
            made.append(Sentence(language, blank.join([one.text, joint]), "compound", whole=False))
            one, other = random.sample(plain, 2)
            opened = random.choice(_CONDITIONS[language]).format(one.text)
            made.append(Sentence(language, blank.join([opened, other.text]), "compound"))
            made.append(Sentence(language, opened, "compound", whole=False))
    return made


Sparse: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
Weights: TypeAlias = tuple[npt.NDArray[np.float64], float]
_CHINESE: Final = re.compile(r"[\u3400-\u9fffāáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ]")


def hashed(texts: list[str], known: dict[str, str]) -> Sparse:
    """All features one after another, and where those of each text begin, with the end behind."""
    found = [features(text, _BUCKETS, known) for text in texts]
    starts = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(one) for one in found], out=starts[1:])
    return np.concatenate(found), starts


def fit(
    sparse: Sparse, whole: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], epochs: int, l2: float, seed: int
) -> Weights:
    """Weights and bias by Adagrad over small batches."""
    flat, starts = sparse
    weights, squares = np.zeros(_BUCKETS), np.full(_BUCKETS, 1e-2)
    bias, bias_square = 0.0, 1e-2
    order = np.arange(len(whole))
    rng = np.random.default_rng(seed)
    counts = np.diff(starts)
    for epoch in range(epochs):
        rng.shuffle(order)
        rate = 0.15 / (1 + 0.5 * epoch)
        for first in range(0, len(order), 256):
            rows = order[first : first + 256]
            index = np.concatenate([flat[starts[row] : starts[row + 1]] for row in rows])
            of_row = np.repeat(np.arange(len(rows)), counts[rows])
            odds = bias + np.bincount(of_row, weights[index], len(rows))
            error = (1 / (1 + np.exp(-odds)) - whole[rows]) * weight[rows]
            touched, inverse = np.unique(index, return_inverse=True)
            gradient = np.bincount(inverse, error[of_row]) + l2 * weights[touched]
            squares[touched] += gradient**2
            weights[touched] -= rate * gradient / np.sqrt(squares[touched])
            bias_square += error.sum() ** 2
            bias -= rate * error.sum() / math.sqrt(bias_square)
    return weights, bias


def score(sparse: Sparse, weights: npt.NDArray[np.float64], bias: float) -> npt.NDArray[np.float64]:
    """Log-odds of every text."""
    flat, starts = sparse
    return np.asarray(bias + np.add.reduceat(weights[flat], starts[:-1]))


def auc(whole: npt.NDArray[np.bool_], odds: npt.NDArray[np.float64]) -> float:
    """Share of pairs of a whole and an unfinished text that are told apart."""
    ranks = np.empty(len(odds))
    ranks[np.argsort(odds)] = np.arange(1, len(odds) + 1)
    ones = int(whole.sum())
    return float((ranks[whole].sum() - ones * (ones + 1) / 2) / (ones * (len(odds) - ones)))


def save(weights: npt.NDArray[np.float64], bias: float, temperature: float, known: dict[str, str], file: Path) -> None:
    """Eight bits a weight; the greatest few are clipped."""
    scale = float(np.quantile(np.abs(weights[weights != 0]), 0.9995)) / 127
    stored = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for word, kind in sorted(known.items()):
        by_kind[kind].append(word)
    text = "\n".join(" ".join([kind, *of_kind]) for kind, of_kind in sorted(by_kind.items()))
    np.savez_compressed(
        file,
        weights=stored,
        scale=np.float64(scale * temperature),
        bias=np.float64(bias * temperature),
        lexicon=np.frombuffer(text.encode(), np.uint8),
    )


def _learned(made: list[Example], known: dict[str, str], args: argparse.Namespace) -> Weights:
    whole = np.array([one.whole for one in made], np.float64)
    weight = np.array([one.weight for one in made])
    # As many whole as unfinished, in each language alike.
    chinese = np.array([bool(_CHINESE.search(one.text)) for one in made])
    for of_language in (chinese, ~chinese):
        for value in (0.0, 1.0):
            rows = of_language & (whole == value)
            weight[rows] *= 0.25 * len(made) / max(1e-9, weight[rows].sum())
    return fit(hashed([one.text for one in made], known), whole, weight, args.epochs, args.l2, 4)


def _temperature(held: list[Example], odds: npt.NDArray[np.float64]) -> tuple[float, float]:
    """By what the odds must be multiplied to be right on what was held out, and the log loss then."""
    whole = np.array([one.whole for one in held])
    share = np.array([one.weight for one in held])
    share[whole] /= share[whole].sum()
    share[~whole] /= share[~whole].sum()
    grid = np.linspace(0.2, 1.5, 66)
    losses = [float((share * np.logaddexp(0, np.where(whole, -odds, odds) * one)).sum()) / 2 for one in grid]
    return float(grid[int(np.argmin(losses))]), min(losses)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.completeness.train", description="Train completeness.")
    parser.add_argument("--downloads", type=Path, default=Path("build/completeness"))
    parser.add_argument("--out", type=Path, default=MODEL_FILE)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--l2", type=float, default=2e-4)
    parser.add_argument("--without", nargs="*", default=[], help="sources to leave out")
    args = parser.parse_args()
    began = time.perf_counter()
    sentences = [one for one in everything(args.downloads) if one.source not in args.without]
    known = lexicon(args.downloads)
    near = near_table([one.text for one in sentences])
    sentences = [one for one in sentences if one.text not in near]
    groups = sorted({one.group or one.text for one in sentences})
    held_groups = set(Random(1).sample(groups, len(groups) // 12))
    made = examples([one for one in sentences if (one.group or one.text) not in held_groups], 8000, 2)
    held = examples([one for one in sentences if (one.group or one.text) in held_groups], 500, 3)
    close = near_table([one.text for one in made + held])
    made, held = ([one for one in some if one.text not in close and words(one.text)] for some in (made, held))
    print(
        f"{len(sentences)} sentences, {len(near)} near the table left out; {len(made) + len(held)} examples, "
        f"{len(close)} left out; {time.perf_counter() - began:.0f} s"
    )
    odds = score(hashed([one.text for one in held], known), *_learned(made, known, args))
    temperature, loss = _temperature(held, odds)
    weights, bias = _learned(made + held, known, args)
    save(weights, bias, temperature, known, args.out)
    apart = auc(np.array([one.whole for one in held]), odds)
    print(
        f"held out: {len(held)} examples, AUC {apart:.3f}, log loss {loss:.3f}, "
        f"temperature {temperature:.2f}; {args.out.stat().st_size / 1e3:.0f} kB; {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
