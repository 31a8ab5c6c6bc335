"""Whether two questions have one answer, in Chinese and English. Pure.

Three steps, each precise rather than generous, because a wrong answer costs more than asking the model once more:

1. `gist` takes away what does not change the answer: politeness, fillers, articles, the place of a question word.
2. Vectors of character n-grams over the gist find candidates, by one matrix product over all questions.
3. `contradiction` and `same_content` refuse candidates: a number, name, place, unit, date, opposite, a negation, the
   kind of question or the order of the words that differs makes another question.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from xiaozhi.text.question_words import (
    DATES_EN,
    DATES_ZH,
    NEGATIONS_EN,
    NEGATIONS_ZH,
    OPPOSITES_EN,
    OPPOSITES_ZH,
    PLACES_EN,
    PLACES_ZH,
    UNITS_EN,
    UNITS_ZH,
)
from xiaozhi.text.same_words import normal_form

Vector: TypeAlias = npt.NDArray[np.float32]

DIMENSIONS: Final = 512
"""Length of a vector. 256 gives chance collisions above the threshold between short questions, 1024 no better order."""

_HAN: Final = re.compile(r"[\u3400-\u9fff]")
_NUMBER: Final = re.compile(r"⟨[^⟩]*⟩|<[^>]*>|\d+(?:[.:/%]\d*)*")

# Longest first; what a user says around a question.
_FILLERS_ZH: Final = re.compile(
    "你好小智|小智小智|嘿小智|小智|我想问你一下|我想问一下|我想知道|我想问"
    "|我问一下|问你一下|问一下|你能不能告诉我|能不能告诉我|你可以告诉我|可以告诉我"
    "|请告诉我|告诉我|你知不知道|你知道|知道(?!分子)|请问一下|请问|麻烦你|麻烦(?!制)|请你"
    "|请(?!帖|假|柬|愿|求)|帮我|给我|跟我|为我|你能不能|能不能给|你能|你可以|可不可以|能否"
    "|说一下|说一说|说说|讲一下|讲一讲|讲讲|介绍一下|介绍介绍|介绍(?!信|人)"
    "|解释一下|解释解释|解释(?!器|权|学|性|变|型|说|语|量)|科普一下"
    "|一下(?!子)|到底|究竟|其实|那个|这个|大概(?!率)|大约(?!数)|差不多|一般来说|一般(?!等|过|人|将|现|纳|法|性)|通常(?!量)"
)
_KINDS_ZH: Final = (
    (
        "why",
        "(?:为什么|为何|为啥)会(?![长计议员所诊])|为什么|为何|为啥|怎么会(?![长计议员所诊])|怎么就|是什么原因|什么原因|原因是什么|是因为什么",
    ),
    ("how", "怎么样才能|怎样才能|怎么才能|如何|怎么样|怎么|怎样|咋"),
    ("when", "什么时候|何时|哪一年|哪年|几月几号|哪一天|哪天|什么时间|啥时候|几点"),
    ("where", "在哪里|在哪儿|在哪个地方|在什么地方|位于哪里|哪里|哪儿|什么地方|在哪"),
    ("who", "是谁|谁是|是哪位|什么人|谁"),
    ("many", "有多少|是多少|多少|有几|是几|几|有多"),
    ("which", "哪一个|哪个|哪一种|哪种|哪些"),
    ("what", "是什么意思|什么意思|是什么东西|是什么|什么是|指的是什么|什么叫做|什么叫|有什么|有啥|是啥|什么|啥"),
)
_KIND_ZH: Final = tuple((kind, re.compile(pattern)) for kind, pattern in _KINDS_ZH)
# What carries no meaning where it is not in a word: 目的, 的士, 了解, 是非, 吗啡, 酒吧, 喇嘛 are words. Others that are
# often light (有, 地, 得, 着, 个, 会, 要) belong to too many words: 地铁 is no 铁.
_LIGHT_ZH: Final = re.compile(
    "(?<!目)的(?![士确])|了(?![解结断事却望])|(?<!于)是(?![非否])"
    "|(?:吗|呢|(?<![酒网水餐贴茶书])吧|啊|呀|哦|(?<!喇)嘛|呐|么|啦|哈)+$"
)
_HESITATION_ZH: Final = re.compile("^(?:嗯|呃|额(?!头|度|外|定)|诶|哎|唉|哦|啊)+")

_FILLERS_EN: Final = re.compile(
    r"\b(?:hey xiaozhi|xiaozhi|hey|hi|hello|excuse me|please|actually|(?<!a )(?<!the )well|so|um|uh|okay|ok|"
    r"now then|by the way|just(?! war)|"
    r"exactly|roughly|approximately|about how|"
    r"(?:can|could|would|will) you (?:please )?(?:kindly )?(?:tell|explain to|explain) me|"
    r"(?:can|could|would|will) you (?:please )?(?:tell|explain)|can i ask|may i ask"
    r"|i want to know|i would like to know|i wonder|i was wondering|do you know|"
    r"do you happen to know|tell me|explain to me|explain|describe|let me know|give me)\b"
)
_KIND_EN: Final = tuple(
    (kind, re.compile(rf"\b(?:{pattern})\b"))
    for kind, pattern in (
        ("why", "why|how come|for what reason|what is the reason|the reason"),
        ("many", "how many|how much|what number of|the number of"),
        ("measure", "how (?=(?:tall|high|long|big|large|old|far|fast|deep|heavy|hot|cold|wide|often)\\b)"),
        ("how", "how|in what way|what is the way to|the way to"),
        ("when", "when|what year|which year|what date|on what day|in what year|in which year"),
        ("where", "where|in what place|in which place"),
        ("who", "who|whom|whose"),
        ("which", "which"),
        ("what", "what"),
    )
)
_LIGHT_EN: Final = frozenset(
    "a an the doe is are was were be been do does did there it s that of in you will would can could "
    "should i me we mean meaning means called".split()
)
_SYNONYMS_EN: Final = {
    "large": "big", "largest": "biggest", "begin": "start", "began": "start", "started": "start", "film": "movie",
    "quick": "fast", "mt": "mount", "usa": "america", "invented": "invent", "wrote": "write", "written": "write",
    "written by": "write", "u.s": "america", "states": "america", "kid": "child", "children": "child", "men": "man",
    "discovered": "discover", "painted": "paint", "cooked": "cook", "made": "make",
}  # fmt: skip
_SYNONYMS_ZH: Final = (
    ("西红柿", "番茄"), ("土豆", "马铃薯"), ("地瓜", "红薯"), ("计算机", "电脑"), ("自行车", "单车"), ("公里", "千米"),
    ("开创", "创立"), ("发明人", "发明者"), ("妈妈", "母亲"), ("爸爸", "父亲"), ("最高的山峰", "最高峰"),
    ("漂亮", "好看"), ("公斤", "千克"), ("月亮", "月球"), ("写的", "写"), ("学会", "学"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gist:
    """What is asked, without how it is put.

    Attributes:
        text: the words that are left, for vectors.
        content: the words or characters that carry the meaning, in order.
        kind: of question: `why`, `how`, `many` …, empty for a request or a question that wants yes or no.
        chinese: written in Chinese characters.
        form: the whole text in normal form, for the rules.
    """

    text: str
    content: tuple[str, ...]
    kind: str
    chinese: bool
    form: str


@lru_cache(maxsize=512)
def gist(text: str) -> Gist:
    """The gist of a question; empty content when it has none."""
    return _gist_zh(text) if _HAN.search(text) else _gist_en(text)


def _gist_zh(text: str) -> Gist:
    form = normal_form(text)
    # Fillers go before numbers are read: the 一 of 一下 counts nothing. 是不是 asks as 是 does.
    plain = _HESITATION_ZH.sub("", _PUNCTUATION.sub("", text))
    left = normal_form(_A_NOT_A.sub(r"\1", _FILLERS_ZH.sub("", plain)))
    for written, meant in _SYNONYMS_ZH:
        left = left.replace(written, meant)
    kind = ""
    for name, pattern in _KIND_ZH:
        if pattern.search(left):
            kind = kind or name
            left = pattern.sub("", left)
    if not kind and _asks_for_about(form):
        kind = "what"
    if kind == "where" and "首都" in left:
        kind = "what"
    if kind == "which" or (kind == "what" and "首都" in left):
        kind = "what"
    content = tuple(re.findall(r"⟨[^⟩]*⟩|[a-z0-9]+|.", _LIGHT_ZH.sub("", left)))
    return Gist(left, content, kind, True, normal_form(_FILLERS_ZH.sub("", plain)))


def _asks_for_about(form: str) -> bool:
    return re.search(r"介绍|解释|讲讲|说说|讲.1.下|说.1.下|科普", form) is not None or (
        "告诉我" in form and not form.endswith("吗")
    )


# Blanks, and what recognisers set at the ends; a comma or point inside belongs to a number perhaps.
_PUNCTUATION: Final = re.compile(r"\s+|^[，。、？！,.?!…]+|[，。、？！,.?!…]+$|(?<=[嗯呃额诶哎唉哦啊])[，。、,…]+")
_A_NOT_A: Final = re.compile(r"([是能会有要可])[不没]\1")


def _gist_en(text: str) -> Gist:
    lowered = text.lower().replace("’", "'")
    lowered = re.sub(r"\b(what|who|where|when|how|why)'?s\b", r"\1 is", lowered)
    lowered = re.sub(r"'s\b", "", lowered)
    words_form = _NOT_WORD.sub(" ", _CONTRACTED_NOT.sub(r" not ", lowered))
    left = " ".join(_FILLERS_EN.sub(" ", words_form).split())
    kind = ""
    for name, pattern in _KIND_EN:
        if pattern.search(left):
            kind = kind or name
            left = " ".join(pattern.sub(" ", left).split())
    if not kind and re.search(r"\b(?:tell me (?:about|the)|explain|describe)\b", lowered):
        kind = "what"
    left = re.sub(r"^about ", "", left)
    if kind == "which":
        kind = "what"
    if kind == "where" and "capital" in left:
        kind = "what"
    words = [word if word in _PRESENT_EN | _PAST_EN else _stem(word) for word in _belonging(left.split())]
    content = tuple(word for word in words if word not in _LIGHT_EN)
    return Gist(" ".join(words), content, kind, False, normal_form(text))


_NOT_WORD: Final = re.compile(r"[^a-z0-9.%:/+\-]+|(?<![0-9])[.:/+\-]|[.:/+\-](?![0-9])")
_CONTRACTED_NOT: Final = re.compile(r"n't\b|\bcannot\b")


def _belonging(words: Sequence[str]) -> list[str]:
    """`capital of France` in the order of `France capital`; words before a preposition go behind what it brings."""
    segments: list[list[str]] = [[]]
    for word in words:
        if word in {"of", "in"}:
            segments.append([])
        else:
            segments[-1].append(word)
    return [word for segment in reversed(segments) for word in segment]


# No plurals of the word without its end.
_OWN_WORDS_EN: Final = frozenset(
    "arms savings customs goods jeans manners news means odds minutes grounds spirits works glasses spectacles physics "
    "mathematics economics politics ethics series species lens mars texas athens wales gas bias colds forces".split()
)


def _stem(word: str) -> str:
    word = _SYNONYMS_EN.get(word, word)
    if word in _OWN_WORDS_EN:
        return word
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word[:-1]
    return _SYNONYMS_EN.get(word, word)


def vector(text: str) -> Vector:
    """A question as float32[DIMENSIONS] of length 1: hashed n-grams of one to three characters of its gist."""
    asked = gist(text)
    padded = f"^{asked.text.replace(' ', '_')}$"
    counts = np.zeros(DIMENSIONS, np.float32)
    for length in (1, 2, 3):
        for start in range(len(padded) - length + 1):
            gram = padded[start : start + length]
            if gram in {"^", "$", "_"}:
                continue
            digest = zlib.crc32(gram.encode())
            counts[digest % DIMENSIONS] += 1.0 if digest & 0x10000 else -1.0  # signs cancel chance collisions
    norm = float(np.linalg.norm(counts))
    return counts / norm if norm else counts


def alike(one: str, other: str) -> float:
    """Cosine of two questions' vectors, -1 to 1."""
    return float(vector(one) @ vector(other))


def contradiction(one: str, other: str) -> str:
    """Why two questions cannot have one answer, as one word; empty when no rule speaks against it.

    `language`, `number`, `negation`, `kind`, `mood`, `unit`, `place`, `date`, `opposite`.
    """
    first, second = gist(one), gist(other)
    if first.chinese != second.chinese:
        return "language"
    if _numbers(first) != _numbers(second):
        return "number"
    if _negations(first) != _negations(second):
        return "negation"
    if first.kind != second.kind:
        return "kind"
    if _mood(first) != _mood(second) or _another_time(first, second):
        return "mood"
    for reason, zh, en in (
        ("unit", UNITS_ZH, UNITS_EN),
        ("place", PLACES_ZH, PLACES_EN),
        ("date", DATES_ZH, DATES_EN),
    ):
        if _among(first, zh, en) != _among(second, zh, en):
            return reason
    return "opposite" if _opposed(first, second) else ""


def same_content(one: str, other: str) -> bool:
    """Whether two questions say the same things in the same order, light words aside."""
    return bool(gist(one).content) and gist(one).content == gist(other).content


def shared_content(one: str, other: str) -> float:
    """Share of the words or characters that two questions have in common, 0 to 1."""
    first, second = set(gist(one).content), set(gist(other).content)
    return len(first & second) / len(first | second) if first | second else 0.0


def same_question(one: str, other: str, threshold: float) -> bool:
    """Whether the answer to one question serves for the other, by the built-in measure."""
    return not contradiction(one, other) and same_content(one, other) and alike(one, other) >= threshold


def _numbers(asked: Gist) -> list[str]:
    return _NUMBER.findall(asked.form)


def _words(asked: Gist) -> set[str]:
    return {*asked.text.split(), *(_stem(word) for word in asked.text.split())}


def _negations(asked: Gist) -> int:
    if asked.chinese:
        # "是不是", "能不能" and "有没有" ask, they do not deny.
        plain = re.sub(r"(.)[不没]\1|有没有|差不多|不同|不过", "", asked.form)
        return sum(plain.count(mark) for mark in NEGATIONS_ZH)
    return sum(word in NEGATIONS_EN for word in asked.text.split())


# "Can dogs eat it", "should they" and "do they" have three answers, and what was is not what is.
_MOODS_EN: Final = {
    "can": "can", "could": "can", "may": "may", "might": "may", "must": "must", "shall": "shall", "should": "shall",
    "will": "will", "would": "will",
}  # fmt: skip
_PRESENT_EN: Final = frozenset("is are am do does".split())
_PAST_EN: Final = frozenset("was were did".split())


def _mood(asked: Gist) -> frozenset[str]:
    return (
        frozenset() if asked.chinese else frozenset(_MOODS_EN[word] for word in asked.text.split() if word in _MOODS_EN)
    )


def _another_time(first: Gist, second: Gist) -> bool:
    """Whether one asks of the present and the other of the past; where one says neither, it may be either."""
    if first.chinese:
        return False
    one, other = set(first.text.split()), set(second.text.split())
    times = [(bool(words & _PRESENT_EN), bool(words & _PAST_EN)) for words in (one, other)]
    return sorted(times) == [(False, True), (True, False)]


def _among(asked: Gist, zh: tuple[str, ...], en: frozenset[str]) -> frozenset[str]:
    if not asked.chinese:
        return frozenset(_words(asked) & en)
    text = _NO_UNIT_ZH.sub("", asked.text)
    return frozenset(name for name in zh if name in text)


# Words that hold the name of a unit and are none.
_NO_UNIT_ZH: Final = re.compile(
    "速度|温度|高度|长度|宽度|深度|角度|态度|程度|难度|天空|天气|天上|玉米|小米|大米|虾米|月球|月饼|年糕|升起|克隆"
)


def _opposed(first: Gist, second: Gist) -> bool:
    if first.chinese:
        mine, other = set(first.content), set(second.content)
        only_mine = "".join(part for part in first.content if part not in other)
        only_other = "".join(part for part in second.content if part not in mine)
        return any(
            (a in only_mine and b in only_other) or (b in only_mine and a in only_other) for a, b in OPPOSITES_ZH
        )
    mine, other = _words(first), _words(second)
    return any(
        (a in mine - other and b in other - mine) or (b in mine - other and a in other - mine) for a, b in OPPOSITES_EN
    )
