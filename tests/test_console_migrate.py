"""Another server's settings by upload: seen first, then taken over by the console's usual writer."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.browser import chromium, needs_chromium
from tests.console_browser import PASSWORD, browser
from tests.test_console_live import from_file
from xiaozhi.migrate.yaml_file import MAX_FILE_BYTES

THEIRS = """\
selected_module: {LLM: DeepSeekLLM, TTS: EdgeTTS}
LLM:
  DeepSeekLLM: {api_key: SECRET-DEEPSEEK, url: 'http://127.0.0.1:9/v1'}
server: {auth: {tokens: [{token: SECRET-DEVICE}]}}
wakeup_words: [小爱同学]
tool_call_timeout: 30
plugins: {play_music: {music_dir: /etc}}
voiceprint: {url: "http://10.0.0.1"}
"""


async def test_a_file_is_seen_first_and_then_taken_over_beside_the_owners_file(tmp_path: Path) -> None:
    async with from_file(tmp_path) as (home, source), browser(home.server) as page:
        before = source.path.read_text("utf-8")
        status, seen = await page.call("POST", "migrate", {"text": THEIRS, "language": "en"})
        assert status == 200 and "SECRET" not in json.dumps(seen)
        lines = {line["theirs"]: line for line in seen["lines"]}
        assert lines["wakeup_words"] == {
            "fate": "taken",
            "theirs": "wakeup_words",
            "ours": "turn.wake_words",
            "text": "",
        }
        assert lines["voiceprint"]["fate"] == "left" and "speakers" in lines["voiceprint"]["text"]
        assert lines["server.auth.tokens"]["fate"] == "left", "a token is given in the file of the owner only"
        assert lines["plugins.play_music.music_dir"]["fate"] == "left", "no path of this machine"
        assert not source.local.exists(), "nothing was written"
        status, chinese = await page.call("POST", "migrate", {"text": THEIRS, "language": "zh"})
        assert "声纹" in json.dumps(chinese, ensure_ascii=False)

        status, outcome = await page.call("POST", "migrate", {"text": THEIRS, "apply": True})
        assert status == 200, outcome
        assert "turn.wake_words" in outcome["applied"] and "tools.timeout_s" in outcome["restart"]
        assert source.path.read_text("utf-8") == before
        assert source.local.stat().st_mode & 0o777 == 0o600
        written = tomllib.loads(source.local.read_text("utf-8"))
        assert written["llm"]["endpoints"][0]["api_key"] == "SECRET-DEEPSEEK"
        assert "auth" not in written
        settings = home.server.services.settings
        assert settings.turn.wake_words == ("小爱同学",)
        assert [endpoint.name for endpoint in settings.llm.endpoints] == ["DeepSeekLLM"]
        assert "SECRET-D" not in json.dumps(await page.get("settings"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "YAML"),
        ("- a", "no table"),
        ("a: !!python/name:os.system x", "tag"),
        ("x" * (MAX_FILE_BYTES + 1), "most"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    async with from_file(tmp_path) as (home, source), browser(home.server) as page:
        for body in ({"text": text}, {"text": text, "apply": True}):
            status, data = await page.call("POST", "migrate", body)
            assert status == 422 and said in data["error"] and "\n" not in data["error"]
        assert not source.local.exists()


async def test_a_known_key_is_not_sent_to_the_address_of_an_uploaded_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "SECRET-OF-THE-ENVIRONMENT")
    theirs = (
        "selected_module: {TTS: X}\nTTS: {X: {type: openai, api_url: 'http://10.0.0.66/v1/audio/speech', voice: a}}"
    )
    async with from_file(tmp_path) as (home, _), browser(home.server) as page:
        await page.call("POST", "migrate", {"text": theirs, "apply": True})
        voice = home.server.services.settings.tts.openai
        assert "10.0.0.66" not in voice.base_url or voice.key() == ""


@needs_chromium
@pytest.mark.real_time  # a real browser
async def test_an_owner_uploads_a_file_reads_the_report_and_takes_it_over(tmp_path: Path) -> None:
    async with from_file(tmp_path) as (home, source), chromium(tmp_path) as page:
        await page.size(360, 740, phone=True)
        await page.open(f"{home.server.base_url}/console/")
        await page.until("document.querySelector('input[type=password]')")
        await page.evaluate("localStorage.setItem('xiaozhi.language', 'zh')")
        await page.reload()
        await page.until("document.querySelector('input[type=password]')")
        await page.type("input[type=password]", PASSWORD, enter=True)
        await page.until("document.querySelector('.hero')")
        await page.evaluate("location.hash = '#/model-config/all'")
        await page.until("document.querySelector('[data-role=migrate]')")
        for text, awaited in (("a: [", ".note.bad"), (THEIRS, "[data-fate=taken]")):
            await page.evaluate(
                "(() => { const files = new DataTransfer();"
                f"files.items.add(new File([{json.dumps(text)}], 'x.yaml'));"
                "const field = document.querySelector('[data-role=migrate]'); field.files = files.files;"
                "field.dispatchEvent(new Event('change')); })()"
            )
            await page.until(f"document.querySelector('main {awaited}')")
        words = await page.evaluate("document.querySelector('main').innerText")
        assert "已采用" in words and "没有对应" in words and "声纹" in words and "SECRET" not in words
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        page.errors.clear()  # the browser reports the 422 of the broken file
        await page.click("[data-role=migrate-apply]")
        await page.until("document.body.innerText.includes('已保存')")
        assert tomllib.loads(source.local.read_text("utf-8"))["turn"]["wake_words"] == ["小爱同学"]
        assert page.errors == []
