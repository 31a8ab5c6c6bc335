"""New settings for a server that talks: nothing is lost, nothing invalid gets in, what was exchanged is closed."""

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from tests.house import House, brief, house, question, settings_for
from tests.test_serve_cli import Running, free_port
from xiaozhi.cli import main
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.concurrency.retirement import Retirement
from xiaozhi.reload.parts import engines_for
from xiaozhi.reload.reloader import Reloader, changed_keys, held_back
from xiaozhi.reload.watch import Changes, FileWatch
from xiaozhi.settings import Settings
from xiaozhi.settings.documents import readme_table
from xiaozhi.settings.load import load_settings


def changed(settings: Settings, **tables: dict[str, Any]) -> Settings:
    """These settings with other values in some tables."""
    copy = settings
    for table, values in tables.items():
        old = getattr(copy, table)
        given = {name: getattr(old, name) for name in old.model_fields_set} | values
        copy = copy.model_copy(update={table: type(old).model_validate(given)})
    return copy


@contextlib.asynccontextmanager
async def other_upstreams(answer: str) -> AsyncIterator[tuple[ChatStandIn, SpeechStandIn]]:
    async with ChatStandIn(answer) as chat, SpeechStandIn(sound=brief) as speech:
        yield chat, speech


def endpoint(chat: ChatStandIn, name: str = "other") -> dict[str, Any]:
    return {"name": name, "base_url": f"{chat.url}/v1", "model": "bench", "api_key": "none"}


async def until_closed(home: House, engines: int) -> None:
    """Wait until so many former engines have been closed."""
    retirement = home.server.services.retirement
    async with asyncio.timeout(30):
        while retirement.closed < engines:  # noqa: ASYNC110 - closing tells nobody
            await asyncio.sleep(0.05)


async def test_the_next_turn_has_the_new_endpoint_prompt_profile_and_recogniser(tmp_path: Path) -> None:
    model = tmp_path / "other-model"
    build_tiny(model, "good morning")
    async with (
        house(tmp_path) as home,
        other_upstreams("🙂 The other one answers.") as (chat, _),
        home.device() as device,
    ):
        first = await device.turn(question())
        assert first.outcome == "answered" and first.heard == "what time is it"
        services, reloader = home.server.services, home.server.reloader
        old = services.chat
        wanted = changed(
            services.settings,
            llm={"endpoints": (endpoint(chat),), "system_prompt": "You are somebody else."},
            turn={"profile": "aggressive"},
            asr={"model_dir": model},
            log={"level": "debug"},
        )
        outcome = await reloader.apply(wanted)
        assert not outcome.errors and not outcome.restart
        assert {"llm.endpoints", "llm.system_prompt", "turn.soft_end_ms", "asr.model_dir"} <= set(outcome.applied)
        assert logging.getLogger("xiaozhi").level == logging.DEBUG
        second = await device.turn(question())
        assert second.outcome == "answered" and second.heard == "good morning"
        asked = [request.body for request in chat.requests if "messages" in request.body]
        assert asked[-1]["messages"][0]["content"].startswith("You are somebody else.")
        assert len(home.asked) == 1, "the former endpoint was not asked again"
        assert services.chat is not old
        await until_closed(home, 2)
        assert services.retirement.retiring <= 1  # the caches linger, in case a clause is still being made


async def test_no_turn_is_lost_while_everything_is_exchanged_under_load(tmp_path: Path) -> None:
    models = [tmp_path / "sense-voice", tmp_path / "other-model"]
    build_tiny(models[1], "what time is it")
    async with (
        house(tmp_path, asr={"workers": 2}) as home,
        other_upstreams("🙂 It is ten past nine.") as (chat, speech),
    ):
        reloader, services = home.server.reloader, home.server.services
        first = services.settings
        second = changed(
            first,
            llm={"endpoints": (endpoint(chat),), "system_prompt": "Be short."},
            turn={"profile": "aggressive"},
            asr={"model_dir": models[1]},
            tts={"openai": {**first.tts.openai.model_dump(), "base_url": f"{speech.url}/v1"}},
            load={"turns_at_once": 4},
            vad={"threads": 2},
        )
        done, over = asyncio.Event(), asyncio.Event()
        ended = itertools.count(1)
        services.on_turn.append(lambda _device, _trace: over.set() if next(ended) % 3 == 0 else None)

        async def talk(device: Device, turns: int) -> list[str]:
            return [(await device.turn(question())).outcome for _ in range(turns)]

        async def exchange() -> int:
            times = 0
            while not done.is_set():
                over.clear()
                outcome = await reloader.apply(second if times % 2 == 0 else first)
                assert not outcome.errors and outcome.applied
                times += 1
                await over.wait()  # until three of the four have ended a turn: the other is in the middle of its own
            return times

        async with contextlib.AsyncExitStack() as stack:
            devices = [await stack.enter_async_context(home.device(number)) for number in range(1, 5)]
            exchanging = asyncio.create_task(exchange())
            outcomes = await asyncio.gather(*(talk(device, 3) for device in devices))
            done.set()
            over.set()
            assert await exchanging >= 3
        assert [outcome for each in outcomes for outcome in each] == ["answered"] * 12
        assert len(home.asked) + len([one for one in chat.requests if "messages" in one.body]) >= 12
        assert speech.requests and home.speech.requests


async def test_caches_keep_what_they_hold_with_other_sizes_and_go_when_they_are_switched_off(tmp_path: Path) -> None:
    caches = {"answers": True, "speech": True, "recognition": True, "premake": False}
    async with house(tmp_path, answer="Bees make honey.", cache=caches) as home, home.device() as device:
        services, reloader = home.server.services, home.server.reloader
        assert (await device.turn_text("what do bees make")).answered
        answers, kept = services.caches.answers, services.caches.speech.cache
        recognised = services.recognition.cache
        assert answers is not None and kept is not None and recognised is not None
        assert len(answers) == 1 and kept.misses >= 1
        smaller = changed(services.settings, cache={"max_entries": 5, "speech_memory_mb": 1, "recognition_entries": 3})
        assert len((await reloader.apply(smaller)).applied) == 3
        assert services.caches.answers is answers and services.caches.speech.cache is not None
        assert services.caches.speech.cache is kept
        assert (await device.turn_text("what do bees make")).answered
        assert answers.hits == 1 and kept.hits >= 1 and len(home.asked) == 1
        off = changed(services.settings, cache={"answers": False, "speech": False})
        assert (await reloader.apply(off)).applied == ("cache.answers", "cache.speech")
        now = services.caches
        assert now.answers is None and now.speech.cache is None
        assert (await device.turn_text("what do bees make")).answered and len(home.asked) == 2


async def test_what_cannot_be_used_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        services, reloader = home.server.services, home.server.reloader
        before = services.settings, services.chat, services.voice, services.recognition.engine, services.caches
        wanted = changed(
            services.settings, asr={"model_dir": tmp_path / "nothing-here"}, llm={"system_prompt": "Other."}
        )
        outcome = await reloader.apply(wanted)
        assert len(outcome.errors) == 1 and "nothing-here" in outcome.errors[0] and not outcome.applied
        outcome = await reloader.apply(changed(services.settings, llm={"system_prompt": "{{ broken"}))
        assert len(outcome.errors) == 1 and outcome.errors[0].startswith("llm.system_prompt")
        after = services.settings, services.chat, services.voice, services.recognition.engine, services.caches
        assert all(one is other for one, other in zip(before, after, strict=True))
        assert (await device.turn(question())).outcome == "answered" and reloader.refused == 2


async def test_what_needs_a_restart_is_named_and_left(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        services, reloader = home.server.services, home.server.reloader
        wanted = changed(services.settings, server={"port": 9999, "max_devices": 3}, asr={"workers": 4})
        outcome = await reloader.apply(wanted)
        assert outcome.restart == ("server.port", "asr.workers") and outcome.applied == ("server.max_devices",)
        assert services.settings.server.max_devices == 3 and services.settings.server.port == 0
        assert reloader.restart == outcome.restart
        assert (await reloader.apply(services.settings)).restart == ()


async def test_the_file_is_read_when_it_has_come_to_rest_and_a_mistake_in_it_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[log]\ntranscripts = false\n")
    async with house(tmp_path) as home:
        settings = home.server.services.settings

        def reread() -> Any:
            loaded = load_settings(file, {}, {})
            return type(loaded)(changed(settings, log={"transcripts": loaded.settings.log.transcripts}), file)

        reloader = Reloader(home.server.services, reread)
        watch = FileWatch(reloader, file)
        file.write_text("[log]\ntranscripts = true\n")
        assert (await reloader.reload()).applied == ("log.transcripts",)
        file.write_text('[log]\ntranscripts = 3\nlevl = "info"\n')
        with caplog.at_level(logging.ERROR, "xiaozhi"):
            task = asyncio.create_task(watch.run(looks=False))
            watch.ask()
            async with asyncio.timeout(10):
                while not reloader.refused:  # noqa: ASYNC110 - the log is the only one told
                    await asyncio.sleep(0.01)
            task.cancel()
        lines = [record.getMessage() for record in caplog.records if "not applied" in record.getMessage()]
        assert len(lines) == 1 and "log.transcripts" in lines[0] and "log.levl" in lines[0] and "\n" not in lines[0]
        assert home.server.services.settings.log.transcripts


async def test_whoever_edits_the_file_where_the_console_overrides_it_reads_so_once_and_whenever_they_ask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "settings.toml"
    (tmp_path / "settings.local.toml").write_text('[log]\nlevel = "warning"\n')

    def told() -> list[str]:
        lines = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
        caplog.clear()
        return lines

    async with house(tmp_path) as home:
        running = home.server.services.settings
        home.server.reloader.reread = lambda: replace(load_settings(file, {}, {}), settings=running)
        file.write_text('[log]\nlevel = "info"\n')
        await home.server.reloader.reload(asked=False)
        assert len(lines := told()) == 1 and 'log.level ("info" there, "warning" holds)' in lines[0]
        await home.server.reloader.reload(asked=False)
        assert told() == []
        await home.server.reloader.reload(asked=True)
        assert len(told()) == 1
        file.write_text('[log]\nlevel = "debug"\n')
        await home.server.reloader.reload(asked=False)
        assert '"debug" there' in told()[0]


@pytest.mark.real_time
async def test_sighup_and_the_file_change_a_real_process_in_the_middle_of_a_reply(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[server]\nreload = true\n")
    running = Running(tmp_path, free_port())
    try:
        async with Device(ClientIdentity.of("02:00:00:00:00:01")) as device:
            ota = await device.boot(f"http://127.0.0.1:{running.port}/xiaozhi/ota/")
            await device.connect(ota.url, ota.token)
            turn = asyncio.create_task(device.turn_text("what is two plus three"))
            await device.until(lambda: device.manners.speaker.playback.heard_ms > 100)
            file.write_text('[tts]\nengines = ["espeak"]\n[tts.espeak]\nrate_wpm = 1\n')
            running.process.send_signal(signal.SIGHUP)
            await said(running, "not applied: settings.toml: tts.espeak.rate_wpm = 1")
            file.write_text('[turn]\nprofile = "aggressive"\n[tts.espeak]\nrate_wpm = 200\n[auth]\nmode = "open"\n')
            await said(running, "settings applied: turn.profile")
            report = await turn
            assert (report.answered, report.dropped) == (True, {})
            assert (await device.turn_text("what is two plus four")).answered
        log = running.errors()
        assert "tts.espeak.rate_wpm" in log.split("settings applied: ")[1].splitlines()[0]
        assert "wait for a restart: auth.mode" in log and "Traceback" not in log
        assert running.stop() == 0
    finally:
        running.close()


async def said(running: Running, words: str) -> None:
    """Wait until a process has written this to its log."""
    async with asyncio.timeout(60):
        while words not in running.errors():  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)


def test_a_file_that_is_still_being_written_or_away_is_not_read() -> None:
    changes = Changes((1, 10, 7))
    assert not changes.look((1, 10, 7))
    assert not changes.look((2, 5, 7))  # half of it
    assert not changes.look((3, 12, 7))
    assert changes.look((3, 12, 7)) and not changes.look((3, 12, 7))
    assert not changes.look(None) and not changes.look(None)  # an editor replaces it
    assert not changes.look((4, 12, 8)) and changes.look((4, 12, 8))
    other = (5, 1, 9)  # the console's file comes, and its owner deletes it
    assert not changes.look((4, 12, 8), other) and changes.look((4, 12, 8), other)
    assert not changes.look((4, 12, 8)) and changes.look((4, 12, 8))
    lonely = Changes(None)
    assert not lonely.look(None, other) and lonely.look(None, other)


def test_differences_are_named_and_can_be_held_back() -> None:
    old = Settings()
    new = Settings.model_validate(
        {"server": {"port": 1, "drain_s": 3}, "tts": {"edge": {"voice": "other"}}, "llm": {"breaker": {"failures": 2}}}
    )
    assert changed_keys(old, new) == ["server.port", "server.drain_s", "llm.breaker.failures", "tts.edge.voice"]
    assert changed_keys(old, old) == []
    kept = held_back(old, new, ["server.port", "tts.edge.voice"])
    assert changed_keys(old, kept) == ["server.drain_s", "llm.breaker.failures"]
    assert held_back(old, new, []) is new


def test_the_command_line_says_when_a_change_of_each_setting_applies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--applies"]) == 0
    printed = capsys.readouterr().out
    assert printed == readme_table() and printed.count("\n") == len(Settings.model_fields) + 2
    for table in Settings.model_fields:
        assert f"| `[{table}]` |" in printed
    assert "| `[alerts]` |  | everything |  |  |" in printed and "| `[log]` |  | all others |  | `format` |" in printed


def test_what_an_engine_does_not_read_does_not_make_it_anew() -> None:
    live = ["asr.partials", "asr.timeout_s", "llm.system_prompt", "llm.history_turns", "tts.parallel_clauses"]
    assert engines_for([*live, "vad.batch_max", "vad.threshold"]) == set()
    read = ["asr.language", "asr.remote.timeout_s", "llm.endpoints", "llm.breaker.failures", "tts.edge.voice"]
    assert engines_for([*live, *read, "vad.model"]) == {"asr", "llm", "tts", "vad"}


async def test_a_former_engine_waits_for_those_who_were_there_and_no_others() -> None:
    retirement, order = Retirement(), list[str]()
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    later: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    closed = asyncio.Event()

    async def close() -> None:
        order.append("closed")
        closed.set()

    retirement.until(gate)
    retirement.retire(close)
    retirement.until(later)
    await asyncio.sleep(0)
    assert retirement.retiring == 1 and not order
    order.append("user gone")
    gate.set_result(None)
    await asyncio.wait_for(closed.wait(), 5)
    assert order == ["user gone", "closed"] and not later.done()
    retirement.retire(close)
    await retirement.close()
    assert order[-1] == "closed" and len(order) == 3 and retirement.retiring == 0


def test_the_settings_of_tests_load(tmp_path: Path) -> None:
    assert changed(settings_for(tmp_path, "http://a", "http://b"), log={"level": "debug"}).log.level == "debug"
