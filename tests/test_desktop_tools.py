"""Pages of tools as py-xiaozhi, the desktop client, makes them, acted out after its own rules."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.test_tool_turns import Model, call, offered, talk, used
from xiaozhi.client.mcp import DeviceMcpServer, DeviceTool, Parameter


@dataclass(slots=True)
class DesktopTools(DeviceMcpServer):
    """Pages as py-xiaozhi makes them: 8000 characters of JSON in ASCII, cursors are names, failures results."""

    pages: int = 0

    def _list(self, params: dict[str, Any]) -> dict[str, object]:
        entries = [{**tool.listing(), "annotations": None} for tool in self.tools.values()]
        names = [str(entry["name"]) for entry in entries]
        page: list[dict[str, object]] = []
        size = 0
        self.pages += 1
        for entry in entries[names.index(params["cursor"]) if params.get("cursor") else 0 :]:
            length = len(json.dumps(entry))
            if size + length + 100 > 8000:
                return {"tools": page, "nextCursor": entry["name"]}
            page.append(entry)
            size += length
        return {"tools": page}

    def answer(self, payload: dict[str, Any]) -> dict[str, object] | None:
        reply = DeviceMcpServer.answer(self, payload)
        if reply is not None and "error" in reply and payload.get("params", {}).get("name") in self.tools:
            text = str(reply["error"]["message"])  # type: ignore[index]  # made a line above
            return {**reply, "error": None, "result": {"content": [{"type": "text", "text": text}], "isError": True}}
        return reply


def desktop() -> DesktopTools:
    """Long Chinese descriptions, defaults, names with and without `self.`, and one that the server has as well."""
    gear = DesktopTools(board="py-xiaozhi", version="2.1.1")
    gear.tools = {}
    told = "查询、创建、修改或者删除日程；用户提到会议、提醒、安排或者计划的时候使用这个工具。" * 2
    kinds = ["music_player", "self.calendar", "self.application", "self.bazi", "timer"]
    for number in range(25):
        name = f"{kinds[number % 5]}.action_{number}"
        parameters = (
            Parameter("title", "string"),
            Parameter("category", "string", default="默认"),
            Parameter("minutes", "integer", default=15, minimum=1, maximum=3600),
        )
        gear.tools[name] = DeviceTool(name, told, parameters, lambda **given: " ".join(map(str, given.values())))
    volume = Parameter("volume", "integer", minimum=0, maximum=100)
    for own in (
        DeviceTool("self.audio_speaker.set_volume", "Set the volume.", (volume,), gear._set_volume),
        DeviceTool("self.audio_speaker.get_volume", "The volume now.", (), lambda: gear.volume),
        DeviceTool("get_weather", "Weather by the client.", (), lambda: "by the client"),
    ):
        gear.tools[own.name] = own
    return gear


async def test_three_pages_of_a_desktop_clients_tools_are_listed_called_and_answered(tmp_path: Path) -> None:
    gear = desktop()
    plans = [
        tuple(call(name.replace(".", "_"), title=f"t{number}") for number, name in chosen)
        for start in range(0, 25, 5)
        for chosen in [list(enumerate(gear.tools))[start : start + 5]]
    ]
    rounds = *(("", plan) for plan in plans), ("All done.", ())
    async with talk(tmp_path, *rounds, gear=gear, tools={"max_rounds": 8, "max_calls": 8}) as (home, device):
        assert gear.pages == 3
        connection = home.server.devices.find(device.identity.device_id)
        assert connection is not None and connection.tools.mcp is not None
        assert [tool.name for tool in connection.tools.tools()] == list(gear.tools)
        assert connection.tools.mcp.server == "py-xiaozhi 2.1.1"
        report = await device.turn_text("do all that you can")
        assert report.text == "All done."
        assert set(home_names := offered(home, 0)) >= {name.replace(".", "_") for name in gear.tools}
        assert home_names.count("get_weather") == 1
        assert [failed for _, failed in used(report)] == [False] * 25
        answers = [message["content"] for message in home.asked[-1] if message["role"] == "tool"]
        assert answers == [f"t{number} 默认 15" for number in range(25)]

        Model(("", (call("timer_action_4", title="x", minutes=9000),)), ("Too long.", ())).install(home)
        assert (await device.turn_text("in nine thousand minutes")).text == "Too long."
        assert "3600" in home.asked[-1][-1]["content"]

        asked = len(home.asked)
        assert "85" in (await device.turn_text("turn it up a bit")).text
        assert gear.volume == 85
        assert len(home.asked) == asked, "and its volume is known without the firmware's status"
