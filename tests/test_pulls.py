"""A server that is there at once, with what is embedded, and better as soon as a model has come."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.sense_voice_model import build_tiny
from tests.console_browser import CONSOLE, browser, set_password
from tests.house import House, house, question
from tests.speech import SPEECH_DIR, needs_speech, read_wav, recordings, say
from tests.test_console_live import Events
from tests.test_models_pull import Mirror, dead_url
from tests.test_models_pull import serving as mirroring
from tests.test_reload import until_closed
from xiaozhi.audio.pcm import to_int16
from xiaozhi.models import catalogue
from xiaozhi.models.catalogue import Download, Model, ModelSource, find
from xiaozhi.reload import model_pulls as pulls
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.known_languages import is_unknown
from xiaozhi.stages.asr.pocketsphinx_engine import Pocketsphinx

WORDS = "a model has come"
FREE: dict[str, Any] = {"engine": "auto", "model_dir": None, "language": "auto"}


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def published(folder: Path, monkeypatch: pytest.MonkeyPatch, **how: Any) -> AsyncIterator[Mirror]:
    """A mirror that has a recogniser under SenseVoice's name; nothing else can be fetched."""
    built = build_tiny(folder / "published", WORDS)
    async with mirroring(Mirror({path.name: path.read_bytes() for path in built.iterdir()}, **how)) as mirror:
        real = find("sense-voice")
        assert real is not None
        downloads = tuple(Download(f"{mirror.url}/{file}", file) for file in real.files)
        dead = ModelSource("hf-mirror", (Download(f"{dead_url()}/x", "x"),))
        use(monkeypatch, replace(real, sources=(dead, ModelSource("github", downloads))))
        yield mirror


def use(monkeypatch: pytest.MonkeyPatch, *models: Model) -> None:
    """Let these be had, and no others."""
    away = (ModelSource("github", (Download(f"{dead_url()}/x", "x"),)),)
    given = {model.name: model for model in models}
    known = tuple(given.get(model.name) or replace(model, sources=away) for model in catalogue.MODELS)
    monkeypatch.setattr(catalogue, "MODELS", known)
    monkeypatch.setattr(pulls, "MODELS", known)


async def heard_by(home: House, engine: str) -> None:
    """Wait until another recogniser is in use, and the former one is closed."""
    async with asyncio.timeout(20):
        while home.server.services.recognition.engine.name != engine:  # noqa: ASYNC110 - it comes from outside
            await asyncio.sleep(0.05)
    await until_closed(home, 1)


async def test_speech_is_answered_while_a_model_is_fetched_and_heard_by_it_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_password(tmp_path / "data")
    async with (
        published(tmp_path, monkeypatch, bytes_s=4000.0) as mirror,
        house(tmp_path, asr=FREE, console=CONSOLE, models={"auto_pull": True}) as home,
        browser(home.server) as page,
        home.device() as device,
    ):
        fetching = asyncio.create_task(home.server.pulls.run())
        with caplog.at_level(logging.INFO, "xiaozhi"):
            assert (await device.turn(question())).heard == "what time is it"
            shown = await page.get("models")
            assert shown["hearing"] | {"unknown_at": 0} == {
                "engine": "pocketsphinx", "languages": ["en"], "unknown": 0, "unknown_at": 0
            }  # fmt: skip
            (one,) = shown["pulls"]
            assert (one["name"], one["state"], one["source"]) == ("sense-voice", "fetching", "github"), one
            async with page.http.get(f"{page.base}/console/api/events") as stream:
                events = Events(stream)
                came = 0.0
                while (told := await events.next("models"))["pulls"][0]["state"] == "fetching":
                    assert told["pulls"][0]["done_mb"] >= came
                    came = told["pulls"][0]["done_mb"]
                    mirror.bytes_s = 0.0
            await heard_by(home, "sense-voice")
            assert (await device.turn(question())).heard == WORDS
        log = [record.getMessage() for record in caplog.records]
        assert "fetching sense-voice (240 MB) from github" in log and "sense-voice is there and in use" in log
        assert {one["name"] for one in (await page.get("models"))["models"] if one["installed"]} == {"sense-voice"}
        fetching.cancel()


async def test_a_model_that_somebody_else_puts_there_is_taken_over_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "_LOOK_EVERY_S", 0.1)
    use(monkeypatch)
    async with house(tmp_path, asr=FREE) as home:
        looking = asyncio.create_task(home.server.pulls.run())
        (tmp_path / "models").mkdir()
        build_tiny(tmp_path / "new", WORDS).rename(tmp_path / "models" / "sense-voice")
        await heard_by(home, "sense-voice")
        looking.cancel()


async def test_without_internet_one_line_says_so_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch)
    async with house(tmp_path, asr=FREE, models={"auto_pull": True}) as home:
        with caplog.at_level(logging.INFO, "xiaozhi"):
            fetching = asyncio.create_task(home.server.pulls.run())
            async with asyncio.timeout(10):
                while not home.server.pulls.progress() or home.server.pulls.on_the_way:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        fetching.cancel()
        assert {one["state"] for one in home.server.pulls.progress()} == {"failed"}
        lines = [record.getMessage() for record in caplog.records if "no mirror can be reached" in record.getMessage()]
        assert len(lines) == 1 and lines[0].endswith("going on without it"), lines


async def test_the_console_fetches_what_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_password(tmp_path / "data")
    async with (
        published(tmp_path, monkeypatch),
        house(tmp_path, asr=FREE, console=CONSOLE) as home,
        browser(home.server) as page,
    ):
        assert (await page.get("models"))[
            "pulls"
        ] == [] and home.server.services.recognition.engine.name == "pocketsphinx"
        assert (await page.call("POST", "models/no-such-model/pull", {}))[0] == 404
        status, data = await page.call("POST", "models/sense-voice/pull", {})
        assert status == 202 and data["pulls"][0]["state"] == "fetching"
        await heard_by(home, "sense-voice")
        assert "sense-voice" in json.dumps((await page.get("overview"))["engines"])


# Languages ------------------------------------------------------------------------------------------------------------

MANDARIN = to_int16(say("今天天气怎么样，明天会下雨吗", "cmn"))


async def test_a_language_that_the_recogniser_does_not_know_is_not_answered_as_if_it_were_understood(
    tmp_path: Path,
) -> None:
    set_password(tmp_path / "data")
    async with (
        house(tmp_path, asr=FREE, console=CONSOLE) as home,
        browser(home.server) as page,
        home.device() as device,
    ):
        report = await device.turn(MANDARIN)
        said = report.text
        assert "我现在只听得懂英语" in said and "I only understand English" in said and "console" in said, said
        assert home.asked == [] and report.heard == "", "no model is asked about nonsense, and none is shown"
        hearing = (await page.get("overview"))["hearing"]
        assert hearing["unknown"] == 1 and hearing["unknown_at"] > 0
        (turn,) = (await page.get("turns"))["turns"]
        assert turn["heard"] == "" and "只听得懂" in turn["said"]
        assert (await device.turn(question())).heard == "what time is it"
        assert "天气" not in json.dumps(home.asked[-1]) and "只听得懂" not in json.dumps(
            home.asked[-1], ensure_ascii=False
        )


async def test_who_is_known_to_speak_chinese_is_told_so_whatever_the_english_words_look_like(tmp_path: Path) -> None:
    async with house(tmp_path, asr=FREE) as home, home.device() as device:
        store = home.server.services.store.devices
        await store.update("02:00:00:00:00:01", language="zh")
    async with house(tmp_path, asr=FREE) as home, home.device() as device:
        for words in ("我想听音乐", "把灯打开吧"):  # pocketsphinx is quite sure of what it makes of them
            report = await device.turn(to_int16(say(words, "cmn")))
            assert report.heard == "" and "只听得懂英语" in report.text, report
        assert home.asked == []
        assert (await device.turn(question())).heard == "what time is it", "a phrase that it knows is a phrase"
        assert (await device.turn_text("今天天气怎么样")).answered and len(home.asked) == 2, "and so is what was typed"


async def test_where_more_is_understood_soon_the_user_hears_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        published(tmp_path, monkeypatch, bytes_s=100.0),
        house(tmp_path, asr=FREE) as home,
        home.device() as device,
    ):
        home.server.pulls.start("sense-voice")
        said = (await device.turn(MANDARIN)).text
        assert "正在下载" in said and "on its way" in said


@needs_speech
def test_mandarin_is_doubted_and_english_that_was_heard_well_is_not() -> None:
    engine = Pocketsphinx(())
    try:
        mandarin = [one for kind in ("read", "spontaneous") for one in recordings("zh", kind)]
        mandarin = sorted(mandarin, key=lambda one: one.duration_s)[:10]  # the least to tell it by
        doubted = [engine.decode(read_wav(one.path)).confidence == "doubtful" for one in mandarin]
        assert sum(doubted) >= 0.8 * len(doubted) > 0
        for name in ("azure_weather", "goforward", "speechbrain_spk1_snt1", "cards_003", "cheetah_en", "librivox_0920"):
            heard = engine.decode(read_wav(SPEECH_DIR / "en" / f"{name}.wav"))
            assert heard.text and heard.confidence != "doubtful", (name, heard)
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("transcript", "known", "expected", "unknown"),
    [
        (Transcript("now show", confidence="doubtful"), {"en"}, "", True),
        (Transcript("now show", confidence="doubtful"), {"en"}, "en", False),
        (Transcript("now show", confidence="doubtful"), (), "", True),
        (Transcript("what time is it", confidence="sure"), {"en"}, "zh", False),
        (Transcript("what time is it"), {"en"}, "", False),
        (Transcript("what time is it"), {"en"}, "ja", True),
        (Transcript("what time is it"), (), "ja", False),
        (Transcript("今日天气"), {"zh"}, "yue", False),
        (Transcript("今天天气"), {"zh"}, "en", True),
        (Transcript(""), {"en"}, "zh", False),
    ],
)
def test_what_is_expected_decides_and_otherwise_the_recognisers_own_doubt(
    transcript: Transcript, known: set[str], expected: str, unknown: bool
) -> None:
    assert is_unknown(transcript, known, expected) is unknown
