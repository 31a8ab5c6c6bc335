"""The console as its owner uses it: a real Chromium signs in, talks and changes an endpoint of a whole server."""

import json
import re
import tomllib
import wave
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from bench.sense_voice_model import build_tiny
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from tests.browser import Page, chromium, needs_chromium
from tests.console_browser import PASSWORD, set_password
from tests.contrast import TOO_FAINT
from tests.house import brief, question
from tests.test_models_pull import Mirror
from tests.test_pulls import published
from xiaozhi.app.server import serving
from xiaozhi.settings.load import SettingsSource

pytestmark = pytest.mark.real_time  # a real browser

STATIC = Path(__file__).resolve().parents[1] / "xiaozhi" / "console" / "static"
KEY = "sk-a-secret-of-the-owner"

_SETTINGS = """\
# The house at the lake
[server]
host = "127.0.0.1"
port = 0
data_dir = "{data}"
drain_s = 0.0

[models]
dir = "{data}/models"
auto_pull = false

[asr]
engine = "sense-voice"
model_dir = "{model}"
language = "en"
workers = 1

[tts]
engines = ["openai", "espeak"]  # the cloud first
[tts.openai]
base_url = "{speech}/v1"
format = "pcm"

# the one that answers quickly
[[llm.endpoints]]
name = "quick"
base_url = "{chat}/v1"
model = "bench"  # small
api_key = "{key}"
"""


@needs_chromium
async def test_an_owner_signs_in_talks_types_and_changes_an_endpoint(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        chat = await stack.enter_async_context(ChatStandIn("🙂 It is ten past nine."))
        speech = await stack.enter_async_context(SpeechStandIn(sound=brief))
        data = tmp_path / "data"
        set_password(data)
        build_tiny(tmp_path / "model", "what time is it")
        file = tmp_path / "settings.toml"
        file.write_text(
            _SETTINGS.format(data=data, model=tmp_path / "model", chat=chat.url, speech=speech.url, key=KEY),
            encoding="utf-8",
        )
        source = SettingsSource(file)
        server = await stack.enter_async_context(serving(source.load().settings, source))
        page = await stack.enter_async_context(chromium(tmp_path, _microphone(tmp_path / "user.wav")))

        await _sign_in(page, server.base_url)
        await _talk(page, chat)
        await _read_the_turn(page)
        await _change_the_endpoint(page, chat, file)
        await _see_every_page(page)
        assert page.errors == []
        assert KEY not in await page.evaluate("document.documentElement.outerHTML")


async def _sign_in(page: Page, base_url: str) -> None:
    await page.size(1280, 860)
    await page.open(f"{base_url}/console/")
    await page.until("document.querySelector('input[type=password]')")
    await page.evaluate("localStorage.setItem('xiaozhi.language', 'en')")
    await page.type("input[type=password]", "not this one", enter=True)
    await page.until("document.querySelector('.note.bad')?.innerText.includes('wrong password')")
    page.errors.clear()  # the browser reports the 401 that was asked for
    await page.type("input[type=password]", PASSWORD, enter=True)
    await page.until("document.querySelector('.hero')")


async def _talk(page: Page, chat: ChatStandIn) -> None:
    await _go(page, "talk")
    await page.click("[data-role=start]")
    spoken = "document.querySelector('[data-role=words]').innerText"
    await page.until(f"{spoken}.includes('what time is it') && {spoken}.includes('It is ten past nine.')")
    await page.until("document.querySelector('[data-role=waterfall]')?.innerText.includes('first packet')")
    sound = await page.until(
        "(() => { const seen = document.querySelector('[data-role=face]').dataset;"
        "return Number(seen.decoded) > 9 && seen.decoded === seen.received && Number(seen.peak) > 0.02"
        " && JSON.stringify(seen); })()"
    )
    counted = {name: float(value) for name, value in json.loads(sound).items() if name not in ("role", "state")}
    assert counted["sent"] > 10
    assert any('"type":"hello"' in text for way, text in page.frames if way == "sent")

    asked = len(chat.requests)
    await page.until("document.querySelector('[data-role=face]').dataset.state === 'listening'")
    await page.type("[name=typed]", "tell me about <img src=x onerror=alert(1)>", enter=True)
    await page.until(f"{spoken}.includes('<img src=x') && {spoken}.split('It is ten past nine.').length > 2")
    assert len(chat.requests) > asked
    await page.until("document.querySelector('[data-role=face]').dataset.state === 'listening'")
    await page.click("[data-role=start]")
    await page.until("document.querySelector('[data-role=face]').dataset.state === 'idle'")


async def _read_the_turn(page: Page) -> None:
    await _go(page, "turns")
    await page.until("document.querySelectorAll('[data-turn]').length === 2")
    await page.click("li:last-child > [data-turn]")
    await page.until("document.querySelector('.aside [data-role=waterfall]')?.innerText.includes('first token')")
    assert "what time is it" in await page.evaluate("document.querySelector('.aside').innerText")


async def _change_the_endpoint(page: Page, chat: ChatStandIn, file: Path) -> None:
    await _go(page, "model-config/llm")
    await page.click("[data-endpoint=quick] .btn:nth-of-type(2)")
    await page.type("dialog [name=max_concurrent]", "7")
    asked = len(chat.requests)
    await page.click("dialog [data-role=test]")
    await page.until("/\\d ms/.test(document.querySelector('dialog [data-role=result]').innerText)")
    assert len(chat.requests) > asked, "the test asks the endpoint"
    await page.click("dialog .dialog-foot .btn.primary")
    await page.until("!document.querySelector('dialog') && document.body.innerText.includes('7 at once')")
    before, local = _text(file), file.with_name("settings.local.toml")
    (endpoint,) = tomllib.loads(_text(local))["llm"]["endpoints"]
    assert endpoint == {**endpoint, "name": "quick", "max_concurrent": 7, "api_key": KEY}

    await _go(page, "model-config/tts")
    field = "[data-key='tts.first_clause_wait_ms'] input"
    await page.type(field, "99999")
    await page.until("document.querySelector('.savebar .primary')?.disabled")
    await page.type(field, "300")
    await page.click(".savebar .primary")
    await page.until(
        "document.querySelector('.savebar[hidden]') && document.body.innerText.includes('Saved and in effect')"
    )
    assert tomllib.loads(_text(local))["tts"] == {"first_clause_wait_ms": 300}
    assert _text(file) == before, "the owner's file is never written"


async def _see_every_page(page: Page) -> None:
    await page.size(360, 740, phone=True)
    for language, theme in (("zh", "dark"), ("en", "light")):
        await page.evaluate(f"localStorage.setItem('xiaozhi.language', '{language}')")
        await page.evaluate(f"localStorage.setItem('xiaozhi.theme', '{theme}')")
        await page.reload()
        await page.until("document.querySelector('.hero, .setting, .page-head')")
        for name in ("overview", "turns", "model-config/all", "devices", "agents", "talk", "logs"):
            await _go(page, name)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360, (name, language)
            words = await page.evaluate("document.querySelector('main').innerText")
            assert not re.search(r"undefined|NaN|\[object|\{\w+\}", words), (name, language, words)
            assert await page.evaluate(TOO_FAINT) == [], (name, theme)
        await _go(page, "model-config/asr")
        explained = await page.evaluate("document.querySelector('[data-key=\"asr.workers\"] .doc').innerText")
        assert ("同时识别" in explained) == (language == "zh"), explained
        await _go(page, "devices")
        told = await page.evaluate("document.querySelector('main .address').textContent")
        assert re.fullmatch(r"http://[\w.-]+:\d+/xiaozhi/ota/", told), told


async def _go(page: Page, name: str) -> None:
    """Show a page and wait until nothing of it is being loaded any more."""
    await page.evaluate(f"location.hash = '#/{name}'")
    chosen = f"[aria-current=page][data-page='{name.partition('/')[0]}']"
    await page.until(
        f'location.hash === "#/{name}" && document.querySelector("{chosen}") && document.querySelector(".page")'
        ' && !document.querySelector("main [aria-busy=true]")'
    )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@needs_chromium
async def test_an_owner_is_told_beside_the_button_what_is_wrong_and_no_key_goes_astray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        chat = await stack.enter_async_context(ChatStandIn("hello"))
        other = await stack.enter_async_context(ChatStandIn("hello"))
        models = await stack.enter_async_context(published(tmp_path, monkeypatch, bytes_s=4000.0))
        data = tmp_path / "data"
        set_password(data)
        file = tmp_path / "settings.toml"
        file.write_text(
            f"""
            server = {{ host = "127.0.0.1", port = 0, data_dir = "{data}", drain_s = 0.0 }}
            models = {{ dir = "{data}/models", auto_pull = false }}
            asr = {{ workers = 1 }}
            tts = {{ engines = ["espeak"], espeak = {{ rate_wpm = 150 }} }}
            [[llm.endpoints]]
            name = "quick"
            base_url = "{chat.url}/v1"
            model = "bench"
            api_key = "{KEY}"
            """,
            encoding="utf-8",
        )
        source = SettingsSource(file)
        server = await stack.enter_async_context(serving(source.load().settings, source))
        page = await stack.enter_async_context(chromium(tmp_path))
        await _sign_in(page, server.base_url)
        await page.evaluate("localStorage.setItem('xiaozhi.language', 'zh')")
        await page.reload()
        await _download_ears(page, models)
        await _mistakes_in_the_form(page, chat, other)
        await _take_overrides_away(page, source)


async def _download_ears(page: Page, models: Mirror) -> None:
    """The recogniser knows no Chinese: the page says so, and fetches one that does."""
    await _go(page, "overview")
    await page.until("document.querySelector('[data-pull]').closest('.note.warn').innerText.includes('听不懂中文')")
    await page.click(".note [data-pull=sense-voice] button")
    await page.until("document.querySelector('.note [data-pull] progress')?.value >= 0")
    await page.until("document.querySelector('.note [data-pull]').innerText.includes('从 github 下载')")
    models.bytes_s = 0.0
    await page.until("!document.querySelector('[data-pull]')", 25.0)
    await _go(page, "model-config/asr")
    await page.until("document.querySelector('[data-model=sense-voice] .tag.good')?.innerText === '已安装'")


async def _mistakes_in_the_form(page: Page, chat: ChatStandIn, other: ChatStandIn) -> None:
    await _go(page, "model-config/llm")
    await page.click("[data-endpoint=quick] .btn:nth-of-type(2)")
    await page.click("dialog [data-role=list]")
    await page.until("document.querySelector('dialog [data-role=models] select')?.innerText.includes('bench')")
    # A key stays with its address.
    await page.type("dialog [name=base_url]", f"{other.url}/v1")
    for button, place in (("[data-role=test]", "result"), ("[data-role=list]", "models"), (".primary", "problem")):
        await page.click(f"dialog {button}")
        await page.until(f"document.querySelector('dialog [data-role={place}]').innerText.includes('请重新填写密钥')")
    assert other.requests == []
    # What the other side refuses is advice in the reader's language, with its own words below.
    other.fault = "401"
    await page.type("dialog [name=api_key]", "sk-wrong-0123456789")
    await page.click("dialog [data-role=test]")
    await page.until(
        "(() => { const words = document.querySelector('dialog [data-role=result]').innerText;"
        "return words.includes('密钥被拒绝') && words.includes('HTTP 401'); })()"
    )
    page.errors.clear()  # the browser reports the answers that were asked for
    # Another service: nothing of this one is left.
    await page.evaluate(
        "(() => { const preset = document.querySelector('dialog [name=preset]'); preset.value = 'deepseek';"
        "preset.dispatchEvent(new Event('change')); })()"
    )
    names = ["name", "base_url", "api_key", "extra_headers"]
    left = [await page.evaluate(f"document.querySelector('dialog [name={name}]').value") for name in names]
    assert left == ["deepseek", "https://api.deepseek.com/v1", "", ""]
    # Everything that can be set is there.
    await page.type("dialog [name=base_url]", f"{other.url}/v1")
    await page.type("dialog [name=api_key_env]", " ")
    await page.type("dialog [name=extra_headers]", "X-Team: home")
    await page.type("dialog [name=extra_body]", '{"top_p": 0.5')
    await page.click("dialog .primary")
    await page.until("document.querySelector('dialog [data-role=problem]').innerText.includes('不是有效的 JSON')")
    await page.type("dialog [name=extra_body]", '{"top_p": 0.5}')
    await page.click("dialog [name=vision]")
    other.fault = ""
    await page.click("dialog [data-role=test]")
    await page.until("/\\d ms/.test(document.querySelector('dialog [data-role=result]').innerText)")
    assert other.requests[-1].body["top_p"] == 0.5 and other.requests[-1].headers["x-team"] == "home"
    assert all(KEY not in str(request.headers) for request in other.requests)
    await page.click("dialog .primary")
    await page.until("!document.querySelector('dialog') && document.querySelector('[data-endpoint=deepseek]')")


async def _take_overrides_away(page: Page, source: SettingsSource) -> None:
    (endpoint,) = source.load().settings.llm.endpoints
    assert (endpoint.name, endpoint.vision, endpoint.headers()) == ("deepseek", True, {"X-Team": "home"})
    await _go(page, "model-config/tts")
    await page.click("[data-table='tts.espeak'] summary")
    await page.type("[data-key='tts.espeak.rate_wpm'] input", "200")
    await page.click(".savebar .primary")
    row = "document.querySelector('[data-role=remove-overrides]')"
    await page.until(f"{row} && document.body.innerText.includes('tts.espeak.rate_wpm')")
    assert source.load().settings.tts.espeak.rate_wpm == 200
    await page.click("[data-role=remove-overrides]")
    await page.until(f"!{row}")
    assert source.load().settings.tts.espeak.rate_wpm == 150
    assert list(source.overridden()) == ["llm.endpoints"]


def _microphone(path: Path) -> Path:
    """A second of silence, a spoken question, and the silence in which the answer is awaited."""
    pcm = np.concatenate([np.zeros(16_000, np.int16), question(), np.zeros(64_000, np.int16)])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm.tobytes())
    return path


def test_every_word_of_the_pages_is_there_in_both_languages() -> None:
    words = (STATIC / "js" / "strings.js").read_text(encoding="utf-8")
    known = dict(re.findall(r"^  '?([\w. -]+)'?: \[(.*)", words, re.MULTILINE))
    sources = [path.read_text(encoding="utf-8") for path in STATIC.rglob("*.js") if path.name != "strings.js"]
    used = {key for source in sources for key in re.findall(r"\bt\('([^']+)'", source)}
    assert used
    assert used <= known.keys()


def test_the_pages_ask_nobody_else_and_never_make_markup_of_text() -> None:
    for path in STATIC.rglob("*"):
        if path.suffix not in (".js", ".css", ".html", ".svg"):
            continue
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source), (
            path
        )
        addresses = set(re.findall(r"https?://[\w.-]+", source)) - {"http://www.w3.org"}
        assert not addresses, (path, addresses)
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=", source), path
