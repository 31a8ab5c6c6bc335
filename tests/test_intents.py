"""Exact intents: their order, what they need, and what they leave to the model."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from tests.tool_host import tool_host
from xiaozhi.agents import Agent
from xiaozhi.conversation.context import ConversationContext
from xiaozhi.conversation.planning import Intents
from xiaozhi.settings import ToolsSettings, TurnSettings
from xiaozhi.text.tool_note import tool_note
from xiaozhi.tools.built_in import calculator
from xiaozhi.tools.tool import ToolContext, ToolResult
from xiaozhi.tools.toolbox import Registry, Toolbox
from xiaozhi.turn.greetings import Greetings

CHEF = Agent(name="chef", aliases=("大厨",))


class People:
    """What intents ask of a conversation's memory: who there is to switch to."""

    def wanted(self, text: str) -> Agent | None:
        return CHEF if text == "换成大厨" else None


class Dials:
    """A device with a volume only."""

    def __init__(self) -> None:
        self.turned: list[tuple[str, Mapping[str, Any]]] = []
        self.listing = False

    async def listed(self) -> None: ...

    def offers(self, name: str) -> bool:
        return name == "self.audio_speaker.set_volume"

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        self.turned.append((name, arguments))
        return ToolResult("true")


def intents(device: Dials | None = None, allow: Sequence[str] = ("*",)) -> Intents:
    box = Toolbox(Registry(calculator.tools(tool_host())), ToolContext(device=device), ToolsSettings(), allow=allow)
    return Intents(cast(ConversationContext, People()), Greetings(TurnSettings()), box)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("换成大厨", "agent"),
        ("再见", "goodbye"),
        ("音量调到三十", "volume"),
        ("三加五等于几", "calculate"),
        ("3英里是多少公里", "convert_units"),
    ],
)
def test_each_exact_wish_is_understood(text: str, name: str) -> None:
    intent = intents(Dials()).of(text, "zh")
    assert intent is not None and intent.name == name
    assert (intent.script is None) == (intent.action is not None)
    assert intent.ends == (name == "goodbye")
    assert (intent.agent is CHEF) == (name == "agent")


@pytest.mark.parametrize("text", ["", "音量", "讲个故事", "what is love", "三", "亮度调到三十", "how loud is loud"])
def test_everything_else_is_the_models(text: str) -> None:
    assert intents(Dials()).of(text, "zh") is None


def test_without_a_device_a_dial_is_the_models() -> None:
    assert intents().of("音量调到三十", "zh") is None


@pytest.mark.parametrize("text", ["音量调到三十", "三加五等于几", "3英里是多少公里"])
def test_a_agent_without_tools_gets_the_words_themselves(text: str) -> None:
    assert intents(Dials(), allow=()).of(text, "zh") is None


async def test_a_deed_is_done_only_when_it_is_called_for() -> None:
    device = Dials()
    intent = intents(device).of("音量调到三十", "zh")
    assert intent is not None and intent.action is not None and device.turned == []
    assert await intent.action() == ToolResult("好的，音量调到30了。")
    assert device.turned == [("self.audio_speaker.set_volume", {"volume": 30})]


def test_a_note_of_tools_is_short_and_names_failures() -> None:
    assert tool_note([], chinese=True) == ""
    note = tool_note([("get_time", "9:10", False), ("fly", "x" * 500, True)], chinese=False)
    assert "get_time: 9:10" in note and "fly (failed): xxx" in note
    assert len(tool_note([("a", "y" * 100, False)] * 50, chinese=True)) < 500
