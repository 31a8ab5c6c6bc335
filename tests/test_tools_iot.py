"""Things of firmware before 1.8 as tools."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.tools.iot import MAX_METHODS, MAX_THINGS, IotError, IotThings

# As firmware 1.6.2 sends it.
SPEAKER: dict[str, Any] = {
    "type": "iot",
    "update": True,
    "session_id": "S",
    "descriptors": [
        {
            "name": "Speaker",
            "description": "扬声器",
            "properties": {"volume": {"description": "当前音量值", "type": "number"}},
            "methods": {
                "SetVolume": {
                    "description": "设置音量",
                    "parameters": {
                        "volume": {"description": "0到100之间的整数", "type": "number", "required": True},
                    },
                },
                "Mute": {"description": "", "parameters": {}},
            },
        }
    ],
}


def things(*messages: dict[str, Any]) -> IotThings:
    made = IotThings()
    for message in messages:
        made.receive(message)
    return made


def test_methods_become_tools_and_calls_become_commands() -> None:
    speaker = things(SPEAKER)
    names = [tool.name for tool in speaker.tools()]
    assert names == ["iot_Speaker_SetVolume", "iot_Speaker_Mute", "iot_get_state"]
    volume = speaker.tools()[0]
    assert volume.description == "扬声器: 设置音量"
    assert volume.parameters == {
        "type": "object",
        "properties": {"volume": {"type": "integer", "description": "0到100之间的整数"}},
        "required": ["volume"],
    }
    assert speaker.command("iot_Speaker_SetVolume", {"volume": 50.0, "other": 1}) == {
        "type": "iot",
        "commands": [{"name": "Speaker", "method": "SetVolume", "parameters": {"volume": 50}}],
    }


def test_states_are_remembered_as_far_as_the_descriptor_names_them() -> None:
    speaker = things(
        SPEAKER,
        {"type": "iot", "states": [{"name": "Speaker", "state": {"volume": 70, "secret": "x"}}, {"name": "Lamp"}]},
    )
    assert speaker.state() == {"Speaker": {"volume": 70}}
    assert speaker.ignored == 1


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("iot_Speaker_Explode", {}, "no iot_Speaker_Explode"),
        ("iot_Speaker_SetVolume", {}, "needs volume"),
        ("iot_Speaker_SetVolume", {"volume": "50"}, "type integer"),
        ("iot_Speaker_SetVolume", {"volume": True}, "type integer"),
        ("iot_Speaker_SetVolume", {"volume": 1e300}, "type integer"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(tool: str, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(IotError, match=why):
        things(SPEAKER).command(tool, arguments)


def test_what_a_device_describes_is_bounded() -> None:
    flood = things()
    for number in range(100):
        methods = {f"M{one}": {"description": "d" * 10_000} for one in range(100)}
        flood.receive({"descriptors": [{"name": f"T{number}", "methods": methods, "description": "x" * 10_000}]})
    assert len(flood) == MAX_THINGS
    assert len(flood.tools()) == MAX_THINGS * MAX_METHODS
    assert max(len(tool.description) for tool in flood.tools()) <= 602


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "methods", "properties", "parameters", "state", "type", "description", "A_B", "C"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={"descriptors": JSON, "states": JSON}))
def test_any_message_is_taken_and_names_fit_chat_apis(message: dict[str, Any]) -> None:
    made = things(SPEAKER, message)
    names = [tool.name for tool in made.tools()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
    json.dumps([dict(tool.parameters) for tool in made.tools()])
