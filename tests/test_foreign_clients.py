"""`xiaozhi-sdk`, a client that other people wrote, unmodified, against a whole server: turns, access, tools, eyes."""

import asyncio
import importlib
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pytest

from bench.standins.chat import ChatStandIn
from tests.foreign_client import MAC, SDK, Client, client, client_id_of, with_sdk
from tests.house import House, house
from tests.test_tool_turns import Model, call, come_true, in_pieces, offered
from tests.test_turns import LONG_ANSWER
from xiaozhi.access.auth import TokenAuth
from xiaozhi.access.identity import Identity
from xiaozhi.access.token_keys import load_keys, rotate_keys
from xiaozhi.settings import AuthSettings

DAY_S: Final = 86_400.0

SdkResult: TypeAlias = tuple[Any, bool]


# Whole turns ----------------------------------------------------------------------------------------------------------


@with_sdk
@pytest.mark.parametrize(("recording", "rate_hz"), [("16k_greet.wav", 16_000), ("test_24k.wav", 24_000)])
async def test_a_recording_is_heard_answered_and_spoken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recording: str, rate_hz: int
) -> None:
    caplog.set_level(logging.ERROR, "xiaozhi_sdk")
    async with house(tmp_path, auth={"mode": "token"}) as home, client(home, audio_sample_rate=rate_hz) as mine:
        assert mine.sdk.url == home.url
        await mine.speak(recording)
        await mine.until("tts stop")
        assert mine.kinds() == ["stt", "tts start", "llm", "tts sentence_start", "tts stop"]
        heard, _, face, said, _ = mine.told
        assert heard["text"] == "what time is it"
        assert (face["emotion"], said["text"]) == ("happy", "It is ten past nine.")
        assert {message["session_id"] for message in mine.told} == {mine.sdk.session_id}
        played = np.concatenate([np.ravel(frame) for frame in mine.sdk.output_audio_queue])
        assert len(played) > 0.5 * rate_hz
        assert np.abs(played).max() > 1000
    assert not [record.message for record in caplog.records if record.name == "xiaozhi_sdk"]


@with_sdk
async def test_it_takes_turns_in_auto_mode(tmp_path: Path) -> None:
    """After every reply it opens its microphone by `listen/start`."""
    async with house(tmp_path) as home, client(home, connect=False) as mine:
        mine.sdk.mode = "auto"
        assert await mine.sdk.init_connection(MAC)
        for turn in range(2):
            start = len(mine.told)
            await mine.speak("16k_play_music.wav")
            await mine.until("tts stop", start)
            assert mine.words(start) == "It is ten past nine."
            assert len(home.asked) == turn + 1


@with_sdk
async def test_a_microphone_that_sends_bare_samples_is_heard(tmp_path: Path) -> None:
    async with house(tmp_path) as home, client(home, audio_format="pcm") as mine:
        await mine.speak("16k_say_hello.wav")
        await mine.until("tts stop")
        assert mine.told[0]["text"] == "what time is it"
        assert len(home.asked) == 1
        assert home.server.services.batcher.stats.errors == 0


@with_sdk
async def test_an_abort_silences_and_the_conversation_goes_on_after_a_reconnect(tmp_path: Path) -> None:
    async with house(tmp_path, LONG_ANSWER) as home:
        async with client(home) as mine:
            await mine.sdk.send_text("tell me a long story")
            await come_true(lambda: len(mine.sdk.output_audio_queue) > 5)
            await mine.sdk.send_abort()
            await mine.until("tts stop")
            await home.chat.idle()
            assert "number 9" not in mine.words()
        home.chat.answer = "🙂 Yes."
        async with client(home) as mine:
            assert await mine.ask("do you remember") == "Yes."
            earlier = [message["content"] for message in home.asked[-1]]
        assert "tell me a long story" in earlier


@with_sdk
@pytest.mark.parametrize("path", ["", "/", "/xiaozhi/v1"])
async def test_an_address_without_the_path_is_understood(tmp_path: Path, path: str) -> None:
    """Both the library's and xiaozhi-client's instructions connect to `ws://host:port`."""
    async with house(tmp_path) as home:
        address = f"ws://127.0.0.1:{home.server.port}{path}"
        async with client(home, url=address, ota_url=None) as mine:
            assert await mine.ask("hello there") == "It is ten past nine."


# Who may connect ------------------------------------------------------------------------------------------------------


@with_sdk
async def test_absent_foreign_expired_and_stolen_tokens_are_refused_at_the_upgrade(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "token"}) as home, client(home) as owner:
        token = owner.sdk.websocket_token
        who = Identity(MAC, owner.sdk.client_id, "")
        ring = home.server.devices._access.token_auth.ring
        others = load_keys(tmp_path / "other", time.time())
        expired = TokenAuth(AuthSettings(), ring, lambda: time.time() - 31 * DAY_S).token_for(who)
        foreign = TokenAuth(AuthSettings(), others).token_for(who)
        for wrong in ("", expired, foreign, token + "x", "test-token"):
            assert not await owner.sdk.connect_websocket(wrong)
        async with client(home, connect=False) as thief:
            thief.sdk.mac_addr, thief.sdk.url = "02:00:00:00:00:02", home.url
            thief.sdk.client_id = owner.sdk.client_id
            assert not await thief.sdk.connect_websocket(token)
        assert home.server.devices._access.token_auth.refused == 6
        assert len(home.server.devices) == 1


@with_sdk
async def test_older_tokens_hold_when_the_key_rotates_and_not_when_it_is_forgotten(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "token"}) as home:
        access = home.server.devices._access
        async with client(home) as mine:
            first = mine.sdk.websocket_token
        rotate_keys(tmp_path / "data", time.time(), 30 * DAY_S)
        await access.refresh()
        async with client(home) as mine:
            second = mine.sdk.websocket_token
            assert first.split(".")[0] != second.split(".")[0]
        async with client(home, connect=False) as mine:
            mine.sdk.mac_addr, mine.sdk.client_id, mine.sdk.url = MAC, client_id_of(MAC), home.url
            assert await mine.sdk.connect_websocket(first)
        rotate_keys(tmp_path / "data", time.time(), 30 * DAY_S, forget=True)
        await access.refresh()
        async with client(home, connect=False) as mine:
            mine.sdk.mac_addr, mine.sdk.client_id, mine.sdk.url = MAC, client_id_of(MAC), home.url
            assert not await mine.sdk.connect_websocket(second)
        async with client(home) as mine:
            assert await mine.ask("hello there") == "It is ten past nine."


@with_sdk
async def test_a_new_device_hears_its_code_is_bound_and_talks(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "activate"}, asr={"language": "zh"}) as home, client(home) as mine:
        assert mine.sdk.wait_device_activated
        await come_true(lambda: "再说一遍" in mine.words())
        digits = "".join(character for character in mine.words().split("再说一遍")[0] if character.isdecimal())
        assert len(digits) == 6
        assert home.asked == []
        store = home.server.services.store
        bound = await store.pending.bind(digits)
        assert bound is not None and bound.id == MAC
        await come_true(lambda: not mine.sdk.wait_device_activated)  # it has connected anew and said "hi"
        await come_true(lambda: any(message.get("text") == "hi" for message in mine.told))
        await come_true(lambda: mine.words().endswith("It is ten past nine."))
        assert home.asked[-1][-1]["content"] == "hi"


@with_sdk
async def test_a_device_whose_key_is_known_must_answer_the_challenge_with_it(tmp_path: Path) -> None:
    key = bytes(range(32))
    async with house(tmp_path, auth={"mode": "activate"}) as home, client(home, connect=False) as mine:
        client_id = client_id_of(MAC)
        ota = importlib.import_module("xiaozhi_sdk.ota").OtaDevice(MAC, client_id, home.server.ota_url, "SN-1")
        section = (await ota.activate_device())["activation"]
        store = home.server.services.store
        await store.devices.update(MAC, serial="SN-1", hmac_key=key)
        assert await store.pending.bind(section["code"]) is not None
        assert not await ota.check_activate(section["challenge"], "")
        assert not await ota.check_activate(section["challenge"], bytes(32).hex())
        assert not await ota.check_activate("another challenge", key.hex())
        assert await ota.check_activate(section["challenge"], key.hex())
        assert await mine.sdk.init_connection(MAC)
        assert await mine.ask("hello there") == "It is ten past nine."


# What it can do -------------------------------------------------------------------------------------------------------


def tools_of(mine: Client, calls: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The library's own descriptions of tools, carried out here; `calls` notes what was called."""
    described = importlib.import_module("xiaozhi_sdk.utils.mcp_tool")
    picture = (Path(SDK.__file__).parent / "file" / "image" / "leijun.jpg").read_bytes()

    def set_volume(data: dict[str, Any]) -> SdkResult:
        calls.append(("set_volume", data["volume"]))
        return {}, False

    def status(_data: dict[str, Any]) -> SdkResult:
        return {"audio_speaker": {"volume": 50}, "platform": "a desktop"}, False

    async def take_photo(data: dict[str, Any]) -> SdkResult:
        calls.append(("take_photo", data["question"]))
        found: SdkResult = await mine.sdk.async_analyze_image(picture, data["question"])
        return found

    async def screenshot(data: dict[str, Any]) -> SdkResult:
        calls.append(("screenshot", data["question"]))
        found: SdkResult = await asyncio.to_thread(mine.sdk.sync_analyze_image, picture, data["question"])
        return found

    def brightness(_data: dict[str, Any]) -> SdkResult:
        raise OSError("no screen")

    return [
        {**described.get_device_status, "tool_func": status},
        {**described.set_volume, "tool_func": set_volume},
        {**described.set_brightness, "tool_func": brightness},
        {**described.take_photo, "tool_func": take_photo, "is_async": True},
        {**described.screenshot, "tool_func": screenshot, "is_async": True},
    ]


@asynccontextmanager
async def equipped(home: House) -> AsyncIterator[tuple[Client, list[tuple[str, Any]]]]:
    """A client of the library with tools that the server has listed."""
    calls: list[tuple[str, Any]] = []
    async with client(home, connect=False) as mine:
        tools = tools_of(mine, calls)
        await mine.sdk.set_mcp_tool(tools)
        assert await mine.sdk.init_connection(MAC)
        connection = home.server.devices.find(MAC)
        assert connection is not None
        await come_true(lambda: len(connection.tools.tools()) == len(tools))
        assert connection.tools.mcp is not None and connection.tools.mcp.timeouts == 0
        yield mine, calls


@with_sdk
async def test_its_tools_are_listed_called_and_answered_and_their_failures_told(tmp_path: Path) -> None:
    async with house(tmp_path) as home, equipped(home) as (mine, calls):
        rounds = ("", (call("get_device_status"), call("set_volume", volume=35))), ("", (call("set_brightness"),))
        Model(*rounds, ("Done.", ())).install(home)
        assert await mine.ask("make it comfortable in here") == "Done."
        assert {"get_device_status", "set_volume", "set_brightness", "take_photo", "screenshot"} <= set(offered(home))
        results = [message["content"] for message in home.asked[-1] if message["role"] == "tool"]
        assert json.loads(results[0]) == {"audio_speaker": {"volume": 50}, "platform": "a desktop"}
        assert results[1] == "{}"
        assert "brightness" in results[2], "its schema wants a value, so it was not called"
        assert calls == [("set_volume", 35)]
        Model(("", (call("set_brightness", brightness=3),)), ("It has none.", ())).install(home)
        assert await mine.ask("a darker screen if you can") == "It has none."
        assert home.asked[-1][-1]["content"] == "工具调用失败"


@with_sdk
async def test_the_volume_is_changed_without_a_model_whatever_the_client_calls_its_tools(tmp_path: Path) -> None:
    async with house(tmp_path) as home, equipped(home) as (mine, calls):
        assert "30" in await mine.ask("set the volume to 30")
        assert "65" in await mine.ask("turn it up a bit"), "its status says 50"
        assert calls == [("set_volume", 30), ("set_volume", 65)]
        assert home.asked == []


@with_sdk
async def test_its_tools_are_listed_where_nobody_looks_at_pictures(tmp_path: Path) -> None:
    """It expects an address for them, and would not answer `initialize` without one."""
    async with house(tmp_path, vision={"enabled": False}) as home, equipped(home) as (mine, _):
        assert (mine.sdk.explain_url, mine.sdk.explain_token) == ("", "")


@with_sdk
@pytest.mark.parametrize("tool", ["take_photo", "screenshot"])  # two ways of building the body
async def test_what_its_camera_sees_is_told(tmp_path: Path, tool: str) -> None:
    """It names itself nowhere in the upload: the token alone says whose picture it is."""

    def shows(message: dict[str, Any]) -> bool:
        return "image_url" in str(message["content"])

    def said(messages: list[dict[str, Any]]) -> str:
        last = messages[-1]
        if last["role"] == "tool":
            return f"I see {json.loads(last['content'])['response']}"
        return "a man who smiles." if shows(last) else ""

    def wants(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        look = messages[-1]["role"] == "user" and not shows(messages[-1])
        return in_pieces((call(tool, question="Who is this?"),)) if look else []

    async with ChatStandIn(said, tool_pieces=wants) as eyes:
        seeing = {"name": "eyes", "base_url": f"{eyes.url}/v1", "model": "see", "api_key": "none", "vision": True}
        async with house(tmp_path, llm={"endpoints": [seeing]}) as home, equipped(home) as (mine, calls):
            assert (await mine.ask("who is in the picture")).endswith("I see a man who smiles.")
            assert calls == [(tool, "Who is this?")]
            (shown,) = [
                body["messages"][-1]
                for body in (each.body for each in eyes.requests)
                if "messages" in body and shows(body["messages"][-1])
            ]
            assert "Who is this?" in str(shown["content"])
            mine.sdk.explain_token = mine.sdk.explain_token[:-1]
            refused, _ = await mine.sdk.async_analyze_image(b"\xff\xd8", "Who is this?")
            assert refused["success"] is False
