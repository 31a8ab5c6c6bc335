"""The console of a whole server: what it shows of turns, and what can be changed and tried there."""

import asyncio
import json
import logging
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import tomlkit
from aiohttp import web

from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from tests.console_browser import CONSOLE, browser, set_password
from tests.house import House, brief, house, question, settings_for
from tests.test_models_pull import dead_url
from xiaozhi.app.server import serving
from xiaozhi.settings.load import SettingsSource

KEY = "sk-endpoint-secret-0123456789"


class Events:
    """Reads `text/event-stream`."""

    def __init__(self, stream: aiohttp.ClientResponse) -> None:
        self._stream = stream

    async def next(self, kind: str) -> Any:
        """The data of the next event of this kind."""
        name = ""
        async with asyncio.timeout(10.0):
            async for line in self._stream.content:
                words = line.decode().rstrip("\n")
                if words.startswith("event: "):
                    name = words.removeprefix("event: ")
                elif words.startswith("data: ") and name == kind:
                    return json.loads(words.removeprefix("data: "))
        raise AssertionError(f"the stream ended before {kind}")


@asynccontextmanager
async def from_file(folder: Path, **tables: dict[str, Any]) -> AsyncIterator[tuple[House, SettingsSource]]:
    """A server whose settings are a file with comments."""
    set_password(folder / "data")
    async with AsyncExitStack() as stack:
        chat = await stack.enter_async_context(ChatStandIn("🙂 It is ten past nine."))
        speech = await stack.enter_async_context(SpeechStandIn(sound=brief))
        settings = settings_for(folder, chat.url, speech.url, console=CONSOLE, **tables)
        values = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        values["llm"]["endpoints"][0]["api_key"] = KEY
        path = folder / "settings.toml"
        path.write_text("# my own words\n" + tomlkit.dumps(values), encoding="utf-8")
        source = SettingsSource(path, {}, {})
        server = await stack.enter_async_context(serving(source.load().settings, source))
        yield House(server, chat, speech), source


async def test_a_turn_is_seen_while_it_happens_and_afterwards(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page, home.device() as device:
        device_id = "02:00:00:00:00:01"
        await page.call("PATCH", f"devices/{device_id}", {"name": "厨房"})
        async with page.http.get(f"{page.base}/console/api/events") as stream:
            events = Events(stream)
            assert (await events.next("overview"))["devices_online"] == 1
            report = await device.turn(question())
            assert report.outcome == "answered" and report.trace is not None
            turn = await events.next("turn")
            assert (turn["device"], turn["device_name"]) == (device_id, "厨房")
            assert (turn["heard"], turn["said"]) == ("what time is it", "It is ten past nine.")
            assert turn["trace"]["spans"] == report.trace["spans"]
            logging.getLogger("xiaozhi").warning("something is odd", extra={"device": device_id})
            line = await events.next("log")
            assert (line["level"], line["device"], line["text"]) == ("warning", device_id, "something is odd")
            newest = await events.next("overview")
            assert newest["turns_total"] == 1 and "series" not in newest
        shown = await page.get("overview")
        assert shown["latency_ms"]["p50"] == pytest.approx(report.trace["spans"]["first_packet"], abs=0.2)
        assert 0 <= shown["own_ms"]["p50"] <= shown["latency_ms"]["p50"] and shown["failed_total"] == 0
        endpoint = shown["endpoints"][0]
        assert (endpoint["name"], endpoint["state"], endpoint["requests"]) == ("stand-in", "closed", 1)
        assert [voice["name"] for voice in shown["voices"]] == ["openai", "espeak"]
        assert shown["voices"][0]["first_sound_ms"] >= 0 and shown["voices"][0]["first"]
        assert shown["memory_mb"] > 10 and shown["series"] == []
        stored = (await page.get(f"devices/{device_id}/turns"))["turns"]
        assert [one["id"] for one in stored] == [turn["id"]] and stored[0]["agent"] == "xiaozhi"
        assert (await page.get(f"turns?before={turn['id']}")) == {"turns": []}
        assert (await page.get("turns?device=other")) == {"turns": []}
        found = (await page.get("logs?level=warning"))["lines"]
        assert [one["text"] for one in found if one["logger"] == "xiaozhi"] == ["something is odd"]
        assert (await page.call("DELETE", f"devices/{device_id}/turns"))[1] == {"removed": 1}
        assert (await page.get("turns")) == {"turns": []}


async def test_what_was_said_is_not_shown_where_it_is_not_wanted(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with (
        house(tmp_path, console={"enabled": True, "transcripts": False}, log={"transcripts": True}) as home,
        browser(home.server) as page,
        home.device() as device,
    ):
        await device.turn(question())
        for path in ("turns", "devices/02:00:00:00:00:01/turns", "logs?level=debug", "overview"):
            text = json.dumps(await page.get(path))
            assert "what time" not in text and "ten past nine" not in text
        assert len((await page.get("turns"))["turns"]) == 1


async def test_a_setting_is_changed_beside_the_owners_file_and_holds_from_the_next_turn_on(tmp_path: Path) -> None:
    async with from_file(tmp_path) as (home, source), browser(home.server) as page:
        before = source.path.read_text("utf-8")
        shown = await page.get("settings")
        assert (shown["file"], shown["path"]) == (None, str(source.local)) and shown["writable"] and not shown["errors"]
        assert shown["owners_file"] == str(source.path) and shown["overridden"] == []
        fields = {field["key"]: field for table in shown["tables"] for field in table["fields"]}
        assert fields["llm.idle_timeout_s"]["set_by"] == "file" and fields["llm.idle_timeout_s"]["value"] == 1.0
        changes = {"llm.system_prompt": "You are brief.", "asr.workers": 3, "llm.idle_timeout_s": 2.5}
        status, data = await page.call("PUT", "settings", {"changes": changes, "unset": ["tts.idle_timeout_s"]})
        assert status == 200
        assert data == {
            "applied": ["llm.system_prompt", "llm.idle_timeout_s", "tts.idle_timeout_s"],
            "restart": ["asr.workers"],
            "overridden": [],
        }
        assert source.path.read_text("utf-8") == before, "the owner's file is never written"
        after = source.local.read_text("utf-8")
        assert tomllib.loads(after) == {
            "llm": {"system_prompt": "You are brief.", "idle_timeout_s": 2.5},
            "asr": {"workers": 3},
        }
        assert source.local.stat().st_mode & 0o777 == 0o600 and KEY not in after
        running = home.server.services.settings
        assert running.llm.system_prompt == "You are brief." and running.asr.workers == 1
        async with home.device() as device:
            await device.turn(question())
        assert home.asked[-1][0]["content"].startswith("You are brief.")
        shown = await page.get("settings")
        fields = {field["key"]: field for table in shown["tables"] for field in table["fields"]}
        told = fields["llm.idle_timeout_s"]
        assert (told["value"], told["set_by"], told["overrides"], told["file_value"]) == (2.5, "local", True, 1.0)
        assert shown["overridden"] == ["asr.workers", "llm.idle_timeout_s"]
        status, data = await page.call("PUT", "settings", {"changes": {}, "unset": ["llm.idle_timeout_s"]})
        assert status == 200 and home.server.services.settings.llm.idle_timeout_s == 1.0
        kept = source.local.read_text("utf-8")
        status, data = await page.call("PUT", "settings", {"changes": {"asr.workers": 99}})
        assert (status, data) == (422, {"errors": ["asr.workers = 99: must be at most 64"]})
        status, data = await page.call("PUT", "settings", {"changes": {"asr.model_dir": "models/no-such-folder"}})
        assert status == 422 and "no-such-folder" in data["errors"][0], "what cannot be loaded is not written either"
        assert source.local.read_text("utf-8") == kept


async def test_what_cannot_be_written_does_not_hold_either(tmp_path: Path) -> None:
    async with from_file(tmp_path) as (home, source), browser(home.server) as page:
        source.local.with_name(source.local.name + ".bak").mkdir()
        source.local.write_text("[llm]\nhistory_turns = 3\n")
        status, data = await page.call("PUT", "settings", {"changes": {"llm.system_prompt": "You are gone."}})
        assert status == 422 and "cannot be written" in data["errors"][0] and "make the folder" in data["errors"][0]
        assert home.server.services.settings.llm.system_prompt != "You are gone."
        assert source.local.read_text("utf-8") == "[llm]\nhistory_turns = 3\n"


async def test_no_key_and_no_variable_is_sent_where_nobody_sent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "zz-not-for-you")
    monkeypatch.setenv("OPENAI_API_KEY", "zz-openai-key")
    async with (
        from_file(tmp_path) as (home, _source),
        browser(home.server) as page,
        ChatStandIn("hello") as evil,
        SpeechStandIn(sound=brief) as ear,
    ):
        (mine,) = (await page.get("llm-endpoints"))["endpoints"]
        address = f"{evil.url}/v1"
        plain = {"name": "x", "base_url": address, "model": "m"}
        tries: list[tuple[str, dict[str, Any]]] = [
            ("test/llm", {"endpoint": {**plain, "api_key_env": "DATABASE_PASSWORD"}}),
            ("test/llm", {"endpoint": {**plain, "preset": "openai"}}),
            ("test/llm", {"endpoint": {**mine, "base_url": address}}),
            ("llm-endpoints/models", {"endpoint": {**plain, "api_key_env": "DATABASE_PASSWORD"}}),
            ("llm-endpoints/models", {"endpoint": {**mine, "base_url": address}}),
            ("test/tts", {"engine": "openai", "changes": {"tts.openai.base_url": f"{ear.url}/v1"}}),
            ("test/asr", {"engine": "openai", "changes": {"asr.openai.base_url": f"{ear.url}/v1"}}),
        ]
        for path, body in tries:
            status, data = await page.call("POST", path, body)
            assert status == 422 and data["errors"], (path, data)
        assert evil.requests == [] and ear.requests == []
        typed = {**plain, "api_key": "sk-typed-0123456789", "extra_headers": {"X-Team": "typed"}}
        status, data = await page.call("POST", "test/llm", {"endpoint": typed})
        assert status == 200 and data["ok"], data
        headers = [{name.lower(): value for name, value in request.headers.items()} for request in evil.requests]
        assert all(one["authorization"] == "Bearer sk-typed-0123456789" for one in headers)
        assert all(one["x-team"] == "typed" for one in headers)


async def test_an_endpoint_is_tried_before_it_is_saved_and_its_key_never_comes_back(tmp_path: Path) -> None:
    async with from_file(tmp_path) as (home, source), browser(home.server) as page:
        rows = (await page.get("llm-endpoints"))["endpoints"]
        assert rows[0]["api_key"] is None and rows[0]["api_key_set"]
        edited = {**rows[0], "model": "another"}
        status, data = await page.call("POST", "test/llm", {"endpoint": edited})
        assert status == 200 and data["ok"] and data["latency_ms"] >= 0, data
        assert home.chat.requests[-1].body["model"] == "another" and home.chat.requests[-1].body["max_tokens"] == 16
        moved = {**edited, "base_url": home.speech.url + "/v1"}
        status, data = await page.call("POST", "test/llm", {"endpoint": moved})
        assert status == 422 and "give the key again" in data["errors"][0], "a kept key goes nowhere else"
        status, data = await page.call("POST", "test/llm", {"endpoint": {**moved, "api_key": "sk-typed-0123456789"}})
        assert status == 200 and not data["ok"] and data["detail"] and "typed" not in json.dumps(data)
        status, data = await page.call("PUT", "llm-endpoints", {"endpoints": [edited, {"preset": "ollama"}]})
        assert (status, data) == (200, {"applied": ["llm.endpoints"], "restart": [], "overridden": []})
        kept = source.load().settings.llm.endpoints
        assert [one.model for one in kept] == ["another", "qwen2.5:7b"] and kept[0].key() == KEY
        assert [state["name"] for state in (await page.get("overview"))["endpoints"]] == ["stand-in", "ollama"]
        assert any(preset["name"] == "qwen" for preset in (await page.get("presets"))["presets"])


async def test_an_endpoint_is_asked_for_its_models_with_the_key_that_was_entered_and_nobody_else_is(
    tmp_path: Path,
) -> None:
    seen: list[tuple[str, str, str]] = []

    async def models(request: web.Request) -> web.StreamResponse:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        seen.append((request.match_info["kind"], key, request.headers.get("X-Team", "")))
        match request.match_info["kind"]:
            case "openai":
                return web.json_response(
                    {"data": [{"id": "b"}, {"id": "a"}, {"id": "bad\nname"}, 5, {"id": "x" * 999}]}
                )
            case "ollama":
                return web.json_response({"models": [{"name": "qwen2.5:7b"}]})
            case "page":
                return web.Response(text="<html>", content_type="text/html")
            case "endless":
                return web.Response(body=b" " * 5_000_000)
            case "away":
                raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{port}/there/models")
            case status:
                return web.Response(status=int(status))

    app = web.Application()
    app.router.add_get("/{kind}/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    wanted: list[tuple[str, object]] = [
        ("openai", ["a", "b"]), ("ollama", ["qwen2.5:7b"]), ("404", []), ("401", "key"), ("402", "money"),
        ("429", "busy"), ("500", "server"), ("page", "answer"), ("endless", "answer"), ("away", "address"),
    ]  # fmt: skip
    async with from_file(tmp_path) as (_home, _source), browser(_home.server) as page:
        for kind, found in wanted:
            row = {
                "name": "x",
                "base_url": f"http://127.0.0.1:{port}/{kind}",
                "model": "m",
                "api_key": "sk-typed-123456",
                "extra_headers": {"X-Team": "home"},
            }
            status, data = await page.call("POST", "llm-endpoints/models", {"endpoint": row})
            assert status == 200, data
            assert data.get("models") == found if data["ok"] else data["trouble"] == found, (kind, data)
        status, data = await page.call(
            "POST", "llm-endpoints/models", {"endpoint": {"name": "x", "base_url": dead_url(), "model": "m"}}
        )
        assert (data["ok"], data["trouble"]) == (False, "network")
        row = {"name": "x", "base_url": f"http://127.0.0.1:{port}/openai", "model": "m", "api_key": "sk-密钥"}
        for path in ("llm-endpoints/models", "test/llm"):
            status, data = await page.call("POST", path, {"endpoint": row})
            assert (data["ok"], data["trouble"]) == (False, "key"), data
            assert "holds characters that no key has" in data["detail"]
    await runner.cleanup()
    assert [kind for kind, _, _ in seen] == [kind for kind, _ in wanted], "a redirection is not followed"
    assert {(key, team) for _, key, team in seen} == {("sk-typed-123456", "home")}


async def test_every_stage_can_be_tried(tmp_path: Path) -> None:
    async with from_file(tmp_path) as (home, _source), browser(home.server) as page:
        for stage, words in (("vad", "windows"), ("asr", "what time is it"), ("llm", "begins"), ("tts", "speech in")):
            status, data = await page.call("POST", f"test/{stage}", {})
            assert status == 200 and data["ok"] and data["latency_ms"] >= 0 and words in data["detail"], data
        assert data["audio"].startswith("UklGR")
        changes = {"tts.espeak.rate_wpm": 300}
        status, data = await page.call(
            "POST", "test/tts", {"engine": "espeak", "text": "hello there", "changes": changes}
        )
        assert status == 200 and data["ok"], data
        assert home.server.services.settings.tts.espeak.rate_wpm != 300
        wrong: list[tuple[str, dict[str, Any], str]] = [
            ("tts", {"engine": "parrot"}, "tts.engines: must be one of"),
            ("tts", {"text": "x" * 500}, "text: must be a text of at most 200"),
            ("tts", {"changes": {"tts.espeak.rate_wpm": 1}}, "tts.espeak.rate_wpm = 1: must be at least 80"),
            ("llm", {"endpoint": "nobody"}, "endpoint: there is none of this name"),
            ("asr", {"engine": "ear"}, "asr.engine: must be one of"),
        ]
        for stage, body, error in wrong:
            status, data = await page.call("POST", f"test/{stage}", body)
            assert status == 422 and data["errors"][0].startswith(error), data
        status, data = await page.call("POST", "test/asr", {"engine": "zipformer"})
        assert status == 200 and not data["ok"] and "zipformer" in data["detail"]
        first, second = await asyncio.gather(*(page.call("POST", "test/vad", {}) for _ in range(2)))
        assert {first[1].get("busy", False), second[1].get("busy", False)} == {True, False}


async def test_no_secret_is_in_any_answer(tmp_path: Path) -> None:
    secrets = [f"zz-secret-{number:02d}-zz" for number in range(8)]
    tables: dict[str, Any] = {
        "metrics": {"token": secrets[0]},
        "auth": {"mode": "open", "tokens": [secrets[1]]},
        "tts": {
            "engines": ["openai", "espeak"],
            "azure": {"api_key": secrets[2]},
            "iflytek": {"api_key": secrets[3], "api_secret": secrets[4]},
        },
        "tools": {"home_assistant": {"token": secrets[5]}, "search": {"api_key": secrets[6]}},
        "cache": {"embeddings": {"api_key": secrets[7]}},
    }
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE, **tables) as home, browser(home.server) as page:
        logging.getLogger("xiaozhi").error("an upstream repeats %s", " and ".join(secrets))
        kept = home.server.services.store.devices
        await kept.update("02:00:00:00:00:09", hmac_key=b"zz-secret-hmac-zz", serial="s")
        code = (await home.server.services.store.pending.ask("02:00:00:00:00:09", "client-1")).code
        paths = (
            "overview turns logs?level=debug settings llm-endpoints presets devices agents voices session talk".split()
        )
        for path in paths:
            text = json.dumps(await page.get(path), ensure_ascii=False)
            assert "zz-secret" not in text and "zz-hmac" not in text, path
            assert path == "session" or page.csrf not in text
            assert f'"{code}"' not in text
        assert "(hidden)" in json.dumps(await page.get("logs?level=error"))


async def test_devices_agents_and_memories_are_looked_after(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page, home.device():
        name = "devices/02:00:00:00:00:01"
        rows = (await page.get("devices"))["devices"]
        assert [(row["id"], row["online"], row["bound"]) for row in rows] == [("02:00:00:00:00:01", True, False)]
        words = {
            "name": "Kitchen",
            "room": "kitchen",
            "owner": "Ann",
            "agent": "xiaozhi",
            "language": "en",
            "priority": "high",
        }
        status, row = await page.call("PATCH", name, {**words, "allowed": True})
        assert status == 200 and row["bound"] and {key: row[key] for key in words} == words
        for body in (
            {"agent": "nobody"},
            {"priority": "x"},
            {"hmac_key": "x"},
            {"blocked": 1},
            {"name": "x" * 201},
            {"bound": True},
        ):
            assert (await page.call("PATCH", name, body))[0] == 422
        assert (await page.call("PATCH", "devices/none", {"name": "x"}))[0] == 404
        assert (await page.call("POST", "devices/none/say", {"text": "hi"}))[0] == 409
        assert (await page.call("POST", f"{name}/say", {"text": " "}))[0] == 422
        saying = asyncio.create_task(page.call("POST", f"{name}/say", {"text": "Dinner is ready."}))
        assert await saying == (200, {"told": "spoken"})
        status, memory = await page.call("POST", f"{name}/memories", {"text": "likes tea"})
        assert status == 200 and (await page.get(f"{name}/memories"))["memories"] == [memory]
        assert (await page.call("DELETE", f"{name}/memories/{memory['id']}"))[0] == 200
        assert (await page.call("DELETE", f"{name}/memories/{memory['id']}"))[0] == 404
        agent = {"about": "a pirate", "prompt": "You are a pirate.", "aliases": ["Jack"]}
        assert (await page.call("PUT", "agents/pirate two", agent))[0] == 200
        status, data = await page.call("PUT", "agents/pirate two", {**agent, "tier": "moon", "colour": 1})
        assert status == 422 and len(data["errors"]) == 2 and "tier" in data["errors"][0] + data["errors"][1]
        assert (await page.call("PUT", "agents/pirate", {**agent, "name": "other"}))[0] == 422
        own = {"recognizer": "sense-voice", "endpoint": "gone", "voice": {"engine": "espeak", "pitch_semitones": 2}}
        assert (await page.call("PUT", "agents/own", {**agent, **own, "problems": []}))[0] == 200
        listed = await page.get("agents")
        found = {row["name"]: row for row in listed["agents"]}
        assert found["own"]["voice"]["pitch_semitones"] == 2 and "endpoint 'gone'" in found["own"]["problems"][0]
        assert found["xiaozhi"]["problems"] == [] and "espeak" in listed["choices"]["voices"]
        assert (await page.call("PUT", "agents/own", {**agent, "voice": {"pitch_semitones": 13}}))[0] == 422
        assert found["pirate two"]["origin"] == "own" and found["xiaozhi"]["devices"] == 1
        assert (await page.call("PATCH", name, {"agent": "pirate two"}))[0] == 200
        assert (await page.call("DELETE", "agents/pirate two"))[0] == 200
        assert (await page.call("DELETE", "agents/pirate two"))[0] == 404
        code = (await home.server.services.store.pending.ask("02:00:00:00:00:05", "client-1")).code
        status, row = await page.call("POST", "devices/bind", {"code": code, "owner": "Bob"})
        assert status == 200 and (row["id"], row["owner"], row["bound"]) == ("02:00:00:00:00:05", "Bob", True)
        assert (await page.call("PATCH", name, {"blocked": True}))[1]["blocked"]
        async with asyncio.timeout(5.0):
            await home.server.devices.empty()
        assert (await page.call("DELETE", name))[0] == 200
        assert [row["id"] for row in (await page.get("devices"))["devices"]] == ["02:00:00:00:00:05"]


async def test_the_talk_page_has_a_whole_turn_and_leaves_nothing_behind(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page:
        talk = await page.get("talk")
        headers = {"Origin": page.base}
        async with page.http.ws_connect(talk["websocket"], params=talk["query"], headers=headers) as socket:
            hello = {"type": "hello", "version": 1, "transport": "websocket", "audio_params": {"format": "opus"}}
            await socket.send_json(hello)
            assert (await socket.receive_json(timeout=5.0))["type"] == "hello"
            await socket.send_json({"type": "listen", "state": "detect", "text": "what time is it"})
            packets, said = 0, ""
            while True:
                message = await socket.receive(timeout=10.0)
                if message.type is aiohttp.WSMsgType.BINARY:
                    packets += 1
                    continue
                data = json.loads(message.data)
                said += data.get("text", "") if data.get("state") == "sentence_start" else ""
                if (data["type"], data.get("state")) == ("tts", "stop"):
                    break
            assert packets > 3 and "ten past nine" in said
        turns = (await page.get("turns"))["turns"]
        assert [(turn["device_name"], turn["heard"]) for turn in turns] == [("Console", "what time is it")]
        url = f"http://127.0.0.1:{home.server.port}/xiaozhi/ota/"
        assert (await page.get("devices")) == {"devices": [], "ota_url": url, "needs_code": False}


async def test_pages_are_cached_by_their_content_and_packed(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, aiohttp.ClientSession(auto_decompress=False) as http:
        url = f"http://127.0.0.1:{home.server.port}/console/"
        async with http.get(url, headers={"Accept-Encoding": "gzip"}) as packed:
            small, tag = await packed.read(), packed.headers["ETag"]
            assert packed.headers["Content-Encoding"] == "gzip" and packed.headers["Vary"] == "Accept-Encoding"
        async with http.get(url, headers={"Accept-Encoding": "identity"}) as plain:
            assert len(await plain.read()) > len(small) and "Content-Encoding" not in plain.headers
        async with http.get(url, headers={"If-None-Match": f'"x", W/{tag}'}) as known:
            assert known.status == 304 and await known.read() == b""
