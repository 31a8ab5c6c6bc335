"""The marks of models' templates, where they are left in the text: special tokens, tags of thoughts and of calls. Pure.

Learnt from the published templates of Qwen, DeepSeek, Llama, Mistral, GLM, Kimi, MiniMax, gpt-oss (harmony), Gemma,
Phi, Granite, InternLM, Seed and those derived from them.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple


class MarkKind(Enum):
    """What a mark means."""

    NONE = auto()  # it is none
    TOKEN = auto()  # nothing to a listener
    THOUGHT = auto()
    THOUGHT_END = auto()
    CALL = auto()
    CALL_END = auto()
    END = auto()  # of what somebody says
    HEADER = auto()  # the role, or the channel, follows
    HEADER_END = auto()
    OWN_ROLE = auto()
    OTHER_ROLE = auto()


class Marker(NamedTuple):
    """One mark.

    Attributes:
        kind: what it means.
        end: where the text goes on.
        thinks: it is of a thought proper, and not of a tool's result that was made up.
    """

    kind: MarkKind
    end: int
    thinks: bool = False


# <|im_end|>, <｜end▁of▁sentence｜>; <think>, <function=x>, <invoke name="x">; [TOOL_CALLS]; ◁think▷; <<SYS>>.
_MARKER: Final = re.compile(
    r"<[|｜](?P<bar>[^<>|｜\n]{1,64})[|｜]>"
    r"|<(?P<tag>/?(?:[|｜]\w{1,16}[|｜])?[A-Za-z_][\w.:-]{0,60})(?P<more>(?:=[\w.\"'-]{1,80})?(?:\s[^<>]{0,200}?)?)(?P<empty>/?)>"
    r"|\[(?P<square>/?[A-Z_]{3,24})\]|◁(?P<kimi>/?think)▷|<<(?P<system>/?SYS)>>"
)
_BEGUN: Final = re.compile(
    r"<(?:[|｜][^<>|｜\n]{0,64}[|｜]?|<(?:/?S?Y?S?>?)|/?(?:[|｜](?:\w{0,16}[|｜]?))?(?:[A-Za-z_][\w.:-]{0,60})?"
    r"(?:(?<=[\w.:-])=[\w.\"'-]{0,80})?/?)\Z"
    r"|</?(?:[|｜]\w{1,16}[|｜])?(?:\w{1,16}:)?(?:think\w*|thought|reasoning|invoke|function\w*|tool_\w+)\s[^<>]{0,200}\Z"
    r"|\[(?:/?[A-Z_]{0,24})\Z|◁/?t?h?i?n?k?\Z"
)
_THOUGHT: Final = re.compile(r"(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|antthinking|inner_monologue)")
# What a model makes up in the place of a tool's answer.
_RESULT: Final = re.compile(r"(?:tool|function)_?(?:response|result|output)s?(?:_section)?")
_CALL: Final = re.compile(
    r"(?:tool|function)_?calls?(?:_section)?|tool_?code|tool_use|invoke|function|action|python_tag"
)
_BARE_WORDS: Final = frozenset({"function", "action", "invoke"})  # marks of calls only where a name is with them
_ENDS: Final = frozenset(
    "im_end eot_id eom_id eot eom endoftext end_of_text end return call end_of_turn end_of_sentence "
    "end_of_utterance".split()
)
_HEADERS: Final = frozenset("im_start start start_header_id start_of_turn start_of_role role channel".split())
_HEADER_ENDS: Final = frozenset("message end_header_id end_of_role im_sep".split())
OWN_ROLES: Final = frozenset("assistant model bot chatbot ai".split())
"""The names under which a model speaks itself."""
OTHER_ROLES: Final = frozenset("user system human tool observation environment ipython developer".split())
"""The names of the others in a conversation."""
_TOKENS: Final = frozenset(
    "s bos eos pad unk mask cls sep sop eop gmask end_of_utterance sys system_prompt available_tools".split()
)

_UNUSED: Final = re.compile(r"(?:unused|reserved_|extra_id_)\d+")


def marker_at(text: str, at: int, *, final: bool) -> Marker | None:
    """The mark at a place; None while it cannot be told whether there is one before more has come."""
    match = _MARKER.match(text, at)
    if match is None:
        return None if not final and _BEGUN.match(text, at) else Marker(MarkKind.NONE, at + 1)
    form = "bar" if match["bar"] else "tag" if match["tag"] else "other"
    raw = next(filter(None, match.group("bar", "tag", "square", "kimi", "system")))
    name = re.sub(r"^/?(?:[|｜]\w+[|｜])?(?:\w+:)?", "", raw).lower()
    name = re.sub(r"[▁ -]", "_", name)
    kind, thinks = _kind(name, form, closes=raw.startswith("/"), named=bool(match["more"]))
    if match["empty"] and kind is not MarkKind.NONE:
        kind = MarkKind.TOKEN  # <think/>
    return Marker(kind, at + 1 if kind is MarkKind.NONE else match.end(), thinks)


def _kind(name: str, form: str, *, closes: bool, named: bool) -> tuple[MarkKind, bool]:
    if name == "inst":  # what stands inside is the user's
        return (MarkKind.OWN_ROLE if closes else MarkKind.OTHER_ROLE), False
    if form == "bar" or name in {"start_of_turn", "end_of_turn"}:
        for names, kind in (
            (_ENDS, MarkKind.END),
            (_HEADERS, MarkKind.HEADER),
            (_HEADER_ENDS, MarkKind.HEADER_END),
            (OWN_ROLES, MarkKind.OWN_ROLE),
            (OTHER_ROLES, MarkKind.OTHER_ROLE),
        ):
            if name in names:
                return kind, False
    core = re.sub(r"^(?:begin|start|end)_(?:of_)?|_(?:begin|start|end)$", "", name)
    closes = closes or name.startswith("end_") or name.endswith("_end")
    if (thinks := _THOUGHT.fullmatch(core) is not None) or _RESULT.fullmatch(core):
        return (MarkKind.THOUGHT_END if closes else MarkKind.THOUGHT), thinks
    if _CALL.fullmatch(core) and (core not in _BARE_WORDS or form == "bar" or (form == "tag" and (closes or named))):
        return (MarkKind.CALL_END if closes else MarkKind.CALL), False
    is_token = form == "bar" or name in _TOKENS or _UNUSED.fullmatch(name)
    return (MarkKind.TOKEN if is_token else MarkKind.NONE), False
