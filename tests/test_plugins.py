"""Engines from outside: an installed package with a recogniser and a voice, of which this program knows nothing.

Entry points are read when the settings are imported, so each scene has a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugin"


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the package is installed."""
    paths = os.pathsep.join((str(PLUGIN), str(ROOT)))
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environ}
    return subprocess.run([sys.executable, *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=110)


def test_a_turn_is_heard_and_spoken_by_engines_of_a_package(tmp_path: Path) -> None:
    scene = """
import asyncio, sys
from pathlib import Path
import numpy as np
from tests.house import house, question
from tests.sounds import loudest_hz
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ

async def main():
    asr = {"engine": "parrot", "parrot": {"sentence": "how late is it over there"}}
    tts = {"engines": ["whistle"], "whistle": {"pitch_hz": 600, "api_key": "k"}}
    async with house(Path(sys.argv[1]), answer="It is late.", asr=asr, tts=tts) as home, home.device() as device:
        report = await device.turn(question())
        assert (report.answered, report.heard) == (True, "how late is it over there"), report
        banner = "\\n".join(home.server.services.banner)
        assert "asr  parrot, says 'how late is it over there'" in banner, banner
        assert "tts  whistle at 600 Hz" in banner and "no key" not in banner, banner
        assert report.trace["engine"] == "parrot" and report.trace["voice"] == "whistle", report.trace

asyncio.run(main())
"""
    done = run("-c", scene, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]


def test_all_else_about_an_engine_follows_from_its_class() -> None:
    scene = """
import logging
logging.basicConfig(level=logging.WARNING)
from xiaozhi.console.fields import tables
from xiaozhi.settings import AsrSettings, Settings, TtsSettings
from xiaozhi.settings.schema import find
from xiaozhi.stages.tts.voice_request import VoiceRequest, closest

assert "parrot" in find(("asr", "engine")).choices and "whistle" in find(("tts", "engines")).choices
assert "broken" not in find(("asr", "engine")).choices
form = {table["name"]: table for table in tables(Settings(), {}, {})}
assert form["asr.parrot"]["title_zh"] == "识别 · 鹦鹉" and form["tts.whistle"]["title_en"] == "Voice, whistle"
fields = {field["key"]: field for field in form["tts.whistle"]["fields"]}
assert fields["tts.whistle.pitch_hz"]["max"] == 4000 and fields["tts.whistle.api_key"]["type"] == "secret"
assert form["tts.whistle"]["doc"] == "Whistles." and fields["tts.whistle.pitch_hz"]["doc_zh"] == "音高（赫兹）。"
assert TtsSettings().whistle.missing("tts.whistle") == "no key: set tts.whistle.api_key or WHISTLE_KEY"
assert closest("whistle", VoiceRequest(gender="female"), "zh", "low") == "high"
assert type(TtsSettings().espeak).__name__ == "EspeakVoiceSettings"
"""
    done = run("-c", scene)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the engine broken (toy_settings:no_such_thing) is left out" in done.stderr
    assert "the engine espeak (toy_settings:WhistleSettings) is left out: has a name that is taken" in done.stderr


def test_the_check_tries_the_engines_of_a_package(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        '[server]\nport = 0\ndata_dir = "data"\n[asr]\nengine = "parrot"\n[tts]\nengines = ["whistle", "espeak"]\n'
    )
    done = run("-m", "xiaozhi", "check", "--settings", str(file))
    assert "parrot, says 'what time is it'" in done.stdout, done.stdout + done.stderr
    assert "whistle at 440 Hz; no key: set tts.whistle.api_key or WHISTLE_KEY" in done.stdout, done.stdout


def test_an_engine_whose_package_is_damaged_is_one_line() -> None:
    scene = """
import sys
sys.modules["toy_parrot"] = None
from pathlib import Path
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.registry import build_recognizer
try:
    build_recognizer(AsrSettings(engine="parrot"), Path(), ())
except EngineError as error:
    print(error)
"""
    (line,) = run("-c", scene).stdout.splitlines()
    assert line.startswith("asr.engine parrot: ModuleNotFoundError: ")
