"""Asking a chat model for lasting facts: the question, and reading whatever it answers. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from xiaozhi.events import Message
from xiaozhi.memory.facts import Known, Proposal
from xiaozhi.text import bounded_json
from xiaozhi.text.language import is_chinese, language_of

# One question: the end of a long conversation counts, and a model that answers more than this has misunderstood.
MAX_ANSWER_CHARS: Final = 6000
_MAX_TALK_CHARS: Final = 6000
_MAX_TURN_CHARS: Final = 600
_MAX_PROPOSALS: Final = 12

_TASK_ZH: Final = (
    "你从一段语音对话里找出关于“对方”（说话的人）的长期事实：姓名、家人、宠物、喜好、忌口、健康、工作、住处、习惯、"
    "重要的日子、长期计划。只写对方自己说过的、以后还有用的事；不写寒暄、提问、一次性的请求、助手说的话、猜测，"
    "也不写密码、证件号、银行卡号，以及对方要求忘记的事。每条是一句独立的短句，用对方说话的语言，不超过四十个字。"
    "“已知”里已经有的不要再写。新的事实如果推翻了某条已知的，就在 replaces 里写它的编号；"
    "不再成立又没有新说法的，把编号写进 outdated。没有就留空。只输出 JSON，不要别的："
    '{"facts": [{"text": "…", "replaces": 0}], "outdated": []}'
)
_TASK_EN: Final = (
    "From a spoken conversation, collect lasting facts about the user: name, family, pets, likes, food they cannot "
    "eat, health, work, home, habits, important dates, long-term plans. Only what the user said themselves and what "
    "will matter later; no greetings, questions, one-off requests, words of the assistant or guesses, no passwords, "
    "document or card numbers, and nothing they asked to forget. Each fact is one short sentence that stands by "
    "itself, in the language the user spoke, at most 20 words. Do not repeat what is known already. Where a new "
    "fact overturns a known one, give its number as replaces; a known fact that is no longer true and has no "
    "successor goes into outdated. Both may be empty. Answer with JSON only: "
    '{"facts": [{"text": "…", "replaces": 0}], "outdated": []}'
)


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """One turn: what the user said and what was answered."""

    user: str
    assistant: str


@dataclass(frozen=True, slots=True)
class FoundFacts:
    """What a model found: new facts, and numbers of known ones that are no longer true."""

    proposals: tuple[Proposal, ...] = ()
    outdated: tuple[int, ...] = ()


def talk_language(turns: Sequence[SaidTurn]) -> str:
    """`zh` or `en`: what the user speaks."""
    return "zh" if is_chinese(language_of("".join(turn.user for turn in turns))) else "en"


def questions(turns: Sequence[SaidTurn], known: Sequence[Known]) -> list[Message]:
    """What to ask a chat model.

    Known facts are numbered from 1 as they are listed, not by their numbers in the store: small numbers are repeated
    without mistakes.
    """
    chinese = talk_language(turns) == "zh"
    you, other = ("对方", "助手") if chinese else ("User", "Assistant")
    lines: list[str] = []
    room = _MAX_TALK_CHARS
    for turn in reversed(turns):
        line = f"{you}: {turn.user[:_MAX_TURN_CHARS]}\n{other}: {turn.assistant[:_MAX_TURN_CHARS]}"
        room -= len(line)
        if room < 0 and lines:
            break
        lines.insert(0, line)
    facts = [f"{number}. {fact.text}" for number, fact in enumerate(known, start=1)]
    parts = [
        "已知：" if chinese else "Known:",
        *(facts or ["（无）" if chinese else "(nothing)"]),
        "对话：" if chinese else "Conversation:",
        *lines,
    ]
    return [Message("system", _TASK_ZH if chinese else _TASK_EN), Message("user", "\n".join(parts))]


def read_answer(answer: str, known: Sequence[Known]) -> FoundFacts | None:
    """What a model answered, however it dressed it up; None when there is no JSON of use in it.

    Args:
        answer: its words; fences, chatter around the JSON, bare lists and other names for the fields are understood.
        known: as they were given to `questions`.
    """
    value = _json_in(answer)
    if isinstance(value, list):
        value = {"facts": value}
    if not isinstance(value, dict):
        return None
    listed: list[Any] = []
    for name in ("facts", "memories", "memory", "add"):
        if not listed and isinstance(value.get(name), list):
            listed = value[name]
    proposals = [proposal for item in listed[: 4 * _MAX_PROPOSALS] if (proposal := _proposal(item, known)) is not None]
    outdated = value.get("outdated", value.get("remove", []))
    gone = [_number(item, known) for item in outdated[:100]] if isinstance(outdated, list) else []
    return FoundFacts(tuple(proposals[:_MAX_PROPOSALS]), tuple(number for number in gone if number))


def _proposal(item: object, known: Sequence[Known]) -> Proposal | None:
    if isinstance(item, str):
        return Proposal(item) if item.strip() else None
    if not isinstance(item, dict):
        return None
    text = next((item[key] for key in ("text", "fact", "memory", "content") if isinstance(item.get(key), str)), "")
    return Proposal(text, _number(item.get("replaces", 0), known)) if text.strip() else None


def _number(value: object, known: Sequence[Known]) -> int:
    """The store's number of the known fact that is called `value` in the question; 0 for none."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, str):
        digits = re.search(r"\d{1,4}", value)
        value = int(digits[0]) if digits else 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return known[value - 1].id if isinstance(value, int) and 0 < value <= len(known) else 0


def _json_in(answer: str) -> Any:
    """The first whole JSON object or list in a text."""
    answer = answer[:MAX_ANSWER_CHARS]
    for opening, closing in sorted((("{", "}"), ("[", "]")), key=lambda pair: answer.find(pair[0]) % (1 << 30)):
        start, end = answer.find(opening), answer.rfind(closing)
        if 0 <= start < end:
            try:
                return bounded_json.loads(answer[start : end + 1])
            except orjson.JSONDecodeError:
                continue
    return None
