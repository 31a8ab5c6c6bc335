"""Prompt templates: what an agent's prompt becomes for one device on one day. Pure.

The order keeps what upstreams have computed for the beginning of a conversation useful: what never changes comes
first, then what changes seldom (device, memory, summary), and the date last. The time of day is left out: it would
make every prompt a new one; models get it from a tool.
"""

import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NAMES: Final = ("agent", "device", "room", "owner", "language", "memory", "summary", "date")
"""What a template may use."""

# Somebody else's text in the middle of a prompt: a name of a room is no essay.
_LONGEST_FACT: Final = 100
_LONGEST_MEMORY: Final = 4000

# Templates come from people who run the server, but also over its console and from imported files: nothing that can
# run for long or grow without end, so no loops, calls or arithmetic.
_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr, nodes.And,
    nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Filter, nodes.Test,
)  # fmt: skip
_FILTERS: Final = frozenset({"trim", "upper", "lower", "capitalize", "title", "default", "length"})
_TESTS: Final = frozenset({"defined", "undefined", "none", "equalto", "eq", "in"})

_WEEKDAYS_ZH: Final = "一二三四五六日"
_LANGUAGES: Final[Mapping[str, tuple[str, str]]] = {
    "zh": ("中文", "Chinese"),
    "en": ("英语", "English"),
    "ja": ("日语", "Japanese"),
    "ko": ("韩语", "Korean"),
    "yue": ("粤语", "Cantonese"),
}


class PromptError(ValueError):
    """A template is wrong; one line says where and why."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a prompt may say beside the agent.

    Attributes:
        day: today, where the device is; `None` to leave it out.
        device, room, owner: empty where nobody has said.
        language: that is fixed for this device; empty for the user's own.
        memory: what is to be kept in mind, a line each.
        summary: what was talked about before the messages that follow.
    """

    day: datetime.date | None = None
    device: str = ""
    room: str = ""
    owner: str = ""
    language: str = ""
    memory: tuple[str, ...] = ()
    summary: str = ""


_environment = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=False, cache_size=0
)


def check_template(text: str) -> None:
    """Say what is wrong with a template.

    Raises:
        PromptError: with the line and what to do.
    """
    _compile(text)


def render(prompt: str, agent: str, around: Surroundings, *, chinese: bool) -> str:
    """The system message of an agent.

    What the template does not use itself is added behind it, in a few words.

    Args:
        prompt: the template.
        agent: the agent's name.
        around: what is known.
        chinese: the language of what is added.

    Returns:
        The text; empty for an empty template with nothing around it.

    Raises:
        PromptError: the template is wrong.
    """
    template, used = _compile(prompt)
    words = _words(agent, around, chinese)
    try:
        text = template.render(words).strip()
    except jinja2.TemplateError as error:
        raise PromptError(str(error)) from None
    added = [line for name, line in _added(words, chinese) if name not in used]
    if not text:  # somebody wants no prompt: then no date either, only what would otherwise be forgotten
        added = [line for name, line in _added(words, chinese) if name in {"memory", "summary"}]
    return "\n\n".join(part for part in [text, *added] if part)


@functools.lru_cache(maxsize=256)
def _compile(text: str) -> tuple[jinja2.Template, frozenset[str]]:
    try:
        tree = _environment.parse(text)
        for node in tree.find_all(nodes.Node):
            _check(node)
    except jinja2.TemplateSyntaxError as error:
        raise PromptError(f"line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise PromptError("there are brackets in brackets without end") from None
    used = frozenset(meta.find_undeclared_variables(tree))
    for name in sorted(used - set(NAMES)):
        raise PromptError(f"there is no {{{{ {name} }}}}; there are {', '.join(NAMES)}")
    try:
        return _environment.from_string(tree), used
    except (jinja2.TemplateError, RecursionError, SyntaxError) as error:  # Python compiles it, too
        raise PromptError(str(error)) from None


def _check(node: nodes.Node) -> None:
    allowed = isinstance(node, _ALLOWED)
    if isinstance(node, nodes.Filter):
        allowed = node.name in _FILTERS
    elif isinstance(node, nodes.Test):
        allowed = node.name in _TESTS
    elif isinstance(node, nodes.Name):
        allowed = node.ctx == "load"
    if not allowed:
        what = type(node).__name__.lower()
        if isinstance(node, (nodes.Filter, nodes.Test)):
            what += f" {node.name!r}"
        raise PromptError(f"line {node.lineno}: {what} is not for prompts; {{{{ names }}}} and {{% if %}} are")


def _words(agent: str, around: Surroundings, chinese: bool) -> dict[str, str]:
    day = around.day
    date = ""
    if day is not None:
        date = (
            f"{day.year}年{day.month}月{day.day}日，星期{_WEEKDAYS_ZH[day.weekday()]}"
            if chinese
            else f"{day:%A}, {day.day} {day:%B} {day.year}"
        )
    names = _LANGUAGES.get(around.language)
    memory = "\n".join(f"- {_fact(line, 500)}" for line in around.memory)
    return {
        "agent": agent,
        "device": _fact(around.device),
        "room": _fact(around.room),
        "owner": _fact(around.owner),
        "language": names[0 if chinese else 1] if names else "",
        "memory": memory[:_LONGEST_MEMORY],
        "summary": around.summary.strip()[:_LONGEST_MEMORY],
        "date": date,
    }


def _fact(text: str, longest: int = _LONGEST_FACT) -> str:
    """Somebody's words on one line: a name must not look like a further paragraph of the prompt."""
    return " ".join(text.split())[:longest]


def _added(words: Mapping[str, str], chinese: bool) -> list[tuple[str, str]]:
    patterns = (
        ("device", "你所在的设备叫“{}”。", "The device you live in is called “{}”."),
        ("room", "它放在{}。", "It stands here: {}."),
        ("owner", "它的主人是{}。", "It belongs to {}."),
        ("language", "只用{}回答。", "Answer in {} only."),
        ("memory", "你要记住的事：\n{}", "Keep in mind:\n{}"),
        ("summary", "你们之前聊过：\n{}", "What you talked about before:\n{}"),
        ("date", "今天是{}。", "Today is {}."),
    )
    return [
        (name, (chinese_words if chinese else english_words).format(words[name]))
        for name, chinese_words, english_words in patterns
        if words[name]
    ]
