"""Understanding "switch to …": exact intents that change the agent. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from xiaozhi.agents.agent import Agent
from xiaozhi.turn.endpointing import plain

# Whole sentences only: "tell me how to switch to fifth gear" is a question. Written over what `plain` leaves: lower
# case, no blanks and no marks.
_POLITE_ZH: Final = r"(?:小智)?(?:请|麻烦)?(?:你)?(?:帮我|给我)?"
_CHANGE_ZH: Final = r"(?:切换到|切换成|切换为|切换|换成|换到|换为|换个|变成|我想跟|我想和|我要跟|我要和|让)"
_TAIL_ZH: Final = r"(?:模式|角色|来聊天|聊天|聊聊|说话|来说|出来|跟我说|和我说)?(?:吧|好吗|可以吗|一下)?"
_ZH: Final = re.compile(f"{_POLITE_ZH}{_CHANGE_ZH}(?P<name>.+?){_TAIL_ZH}")
_LONGEST: Final = 80  # no name is that long, and hostile texts cost nothing
_ARTICLES_EN: Final = ("", "the", "an", "a", "my")
_EN: Final = re.compile(
    r"(?:hey|ok|okay)?(?:please|canyou|couldyou|idliketo|i'dliketo|iwantto|letme)?"
    r"(?:switchto|switchoverto|changeto|talkto|talkwith|speakto|speakwith|letmetalkto|giveme)"
    r"(?P<name>.+?)(?:mode|agent)?(?:now|please)?"
)


def names_of(agents: Sequence[Agent]) -> dict[str, Agent]:
    """Every spoken name, as `plain` leaves it, with its agent; the first of a list wins."""
    names: dict[str, Agent] = {}
    for agent in agents:
        for name in agent.names:
            names.setdefault(plain(name), agent)
    names.pop("", None)
    return names


def wanted_agent(text: str, names: dict[str, Agent]) -> Agent | None:
    """The agent that a sentence asks for; `None` when it asks for none that there is.

    Args:
        text: what the user said, as recognised.
        names: from `names_of`.
    """
    said = plain(text)
    if not said or len(said) > _LONGEST:
        return None
    for pattern in (_ZH, _EN):
        match = pattern.fullmatch(said)
        if match is None:
            continue
        # The shortest name comes first; what looks like a tail may belong to the name ("…来聊天吧").
        for name in (match["name"], said[match.start("name") :]):
            for article in _ARTICLES_EN:
                agent = names.get(name.removeprefix(article))
                if agent is not None:
                    return agent
    return None
