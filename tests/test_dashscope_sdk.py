"""The stand-ins for DashScope, judged by the official SDK; and what we send, compared with what it sends."""

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

from bench.standins.dashscope import DashscopeStandIn
from bench.standins.dashscope_realtime import QwenAsrStandIn, QwenTtsStandIn
from bench.standins.sound import tone
from xiaozhi.settings.asr import DashscopeAsrSettings, RemoteAsrSettings
from xiaozhi.settings.tts import DashscopeVoiceSettings
from xiaozhi.stages.asr.dashscope import DashscopeRecognizer
from xiaozhi.stages.asr.dashscope_realtime import QwenRecognizer
from xiaozhi.stages.tts.dashscope import DashscopeVoice
from xiaozhi.stages.tts.dashscope_realtime import QwenVoice
from xiaozhi.stages.tts.engine import Mark

_BUILD: Final = Path(__file__).parent.parent / "build" / "dashscope-sdk" / "bin" / "python"
PYTHON: Final = Path(os.environ.get("XIAOZHI_DASHSCOPE_SDK", _BUILD))
HOW: Final = (
    "the official SDK is not there; get it with: python -m venv build/dashscope-sdk && "
    "build/dashscope-sdk/bin/pip install dashscope==2.0.2"
)
pytestmark = [pytest.mark.real_time, pytest.mark.skipif(not PYTHON.exists(), reason=HOW)]  # another process


async def sdk(what: str, url: str, key: str) -> dict[str, Any]:
    """What the SDK has got."""
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "PYTHONPATH")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    script = Path(__file__).with_name("dashscope_sdk.py")
    process = await asyncio.create_subprocess_exec(
        PYTHON, script, what, url, key, env=plain, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(out.splitlines()[-1]))


async def test_the_sdk_is_heard_and_we_ask_with_its_fields() -> None:
    async with DashscopeStandIn() as service:
        assert await sdk("hear", service.ws_url, service.key) == {"sentences": ["what time is it"], "errors": []}
        (task,) = service.requests
        assert task.seconds == pytest.approx(1.2)
        settings = DashscopeAsrSettings.model_validate({"url": service.ws_url, "api_key": service.key})
        ours = DashscopeRecognizer(settings, RemoteAsrSettings(), "auto", itn=True).payload()
        assert {name: ours[name] for name in ours if name != "parameters"} == {
            name: value for name, value in task.payload.items() if name not in ("parameters", "resources")
        }
        both = task.payload["parameters"]
        assert (ours["parameters"]["format"], ours["parameters"]["sample_rate"]) == (
            both["format"],
            both["sample_rate"],
        )


async def test_the_sdk_speaks_and_we_send_what_it_sends() -> None:
    async with DashscopeStandIn() as service:
        got = await sdk("speak", service.ws_url, service.key)
        sound = tone("你好，").tobytes() + tone("今天天气很好。").tobytes()
        assert got == {
            "sha256": hashlib.sha256(sound).hexdigest(),
            "errors": [],
            "types": ["sentence-begin", "sentence-end"] * 2,
        }
        voice = DashscopeVoice(
            DashscopeVoiceSettings.model_validate({"url": service.ws_url, "api_key": service.key}), 3
        )
        session = voice.open()
        await session.send("你好，", "zh")
        await session.send("今天天气很好。", "zh")
        await session.end()
        heard = b"".join([item.tobytes() async for item in session.sound() if not isinstance(item, Mark)])
        assert heard == sound
        theirs, ours = service.requests
        assert ours.inputs[:3] == theirs.inputs
        assert ours.finished == theirs.finished
        assert {**theirs.payload["parameters"], **ours.payload["parameters"]} == theirs.payload["parameters"]
        assert {**theirs.payload, "parameters": 0} == {**ours.payload, "parameters": 0}
        await voice.close()


async def test_the_sdk_cancels_as_we_do() -> None:
    async with DashscopeStandIn(sound=lambda text: tone(text * 100)) as service:
        assert (await sdk("cancel", service.ws_url, service.key))["errors"] == []
        assert service.requests[0].finished == [{"directive": "cancel"}]


async def test_the_sdk_is_heard_by_qwen_and_we_ask_with_its_fields() -> None:
    async with QwenAsrStandIn() as service:
        assert await sdk("qwen", service.ws_url, service.key) == {"texts": ["what time is it"], "errors": []}
        (session,) = service.requests
        settings = DashscopeAsrSettings.model_validate({"url": service.ws_url, "context": "小智"})
        ours = QwenRecognizer(settings, RemoteAsrSettings(), "zh").session()
        assert set(ours) <= set(session.session)
        assert ours["input_audio_transcription"] == session.session["input_audio_transcription"]
        assert set(ours["turn_detection"]) <= set(session.session["turn_detection"])
        for name in ("modalities", "input_audio_format", "sample_rate"):
            assert ours[name] == session.session[name]


async def test_the_sdk_speaks_with_qwen_and_we_ask_as_it_does() -> None:
    async with QwenTtsStandIn() as service:
        url = f"{service.url.replace('http', 'ws', 1)}/api-ws/v1/inference"
        sound = hashlib.sha256(tone("今天天气很好。").tobytes()).hexdigest()
        assert await sdk("say", url, service.key) == {"sha256": sound, "errors": []}
        (session,) = service.requests
        assert session.texts == ["今天天气很好。"]
        ours = QwenVoice(DashscopeVoiceSettings(model="qwen3-tts-flash-realtime"), 3).session("zh")
        assert ours == session.session
