"""Several voices as one: who speaks when others fail."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest

from bench.standins.sound import TONE_HZ
from bench.standins.speech import SpeechStandIn
from tests.sounds import heard, loudest_hz, sine
from tests.virtual_loop import in_virtual_time
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.settings import OpenAIVoiceSettings, SherpaVoiceSettings, TtsSettings
from xiaozhi.stages.tts.engine import ClauseVoice, TextRefused, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.preference import Preference
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.text.units import longest_speech_s
from xiaozhi.upstream.breaker import Admission


class Endless(ClauseVoice):
    """A voice that never ends: a second of sound, or one sample, after each pause."""

    name = "endless"

    def __init__(self, piece: PcmInt, pause_s: float) -> None:
        self._piece = piece
        self._pause_s = pause_s

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        while True:
            yield self._piece
            await asyncio.sleep(self._pause_s)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Scripted(ClauseVoice):
    """A voice that plays pieces; an exception among them is raised, None waits for ever."""

    def __init__(self, name: str, *script: PcmInt | Exception | None) -> None:
        self.name = name
        self.script = list(script)
        self.asked = 0
        self.closed = 0
        self.reachable = True

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        self.asked += 1
        try:
            for item in self.script:
                if item is None:
                    await asyncio.Event().wait()
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield item
        finally:
            self.closed += 1

    async def warm(self) -> None:
        if not self.reachable:
            raise VoiceError(f"{self.name}: cannot be reached")

    async def close(self) -> None:
        self.closed += 100


BROKEN = VoiceError("broken")
SHORT = sine(200, 0.1)
LONG = sine(300, 1.0)
SILENCE = np.zeros(12_000, np.int16)


def chain(*voices: Scripted, clock: Clock | None = None, first_s: float = 0.02, slots: int = 40) -> VoiceChain:
    return VoiceChain(voices, first_s, 0.02, 30.0, clock or Clock(), slots)


async def hz(pieces: AsyncGenerator[PcmInt, None]) -> float:
    return loudest_hz(await heard(pieces), DOWNLINK_RATE_HZ)


# Preference -------------------------------------------------------------------------------------------------------


def test_an_engine_that_failed_is_left_out_for_its_time_and_then_tried_by_one() -> None:
    preference = Preference(["a", "b", "c"], 30.0)
    assert preference.first(0.0) == 0
    assert preference.failed(0, preference.admit(0, 10.0), 10.0, "why")
    assert preference.first(10.0) == preference.first(39.9) == 1
    assert preference.admit(0, 39.9) is Admission.REFUSED
    assert preference.first(40.0) == 0
    assert preference.admit(0, 40.0) is Admission.PROBE
    assert preference.admit(0, 40.0) is Admission.REFUSED, "the others wait for what the probe finds"
    assert preference.first(40.0) == 1
    assert preference.states[0].last_error == "why"


def test_a_probe_that_nobody_waited_for_leaves_its_place_to_another() -> None:
    preference = Preference(["a", "b"], 30.0)
    preference.failed(0, preference.admit(0, 0.0), 0.0, "why")
    preference.dropped(0, preference.admit(0, 30.0), 30.0)
    assert preference.admit(0, 30.0) is Admission.PROBE


def test_the_last_engine_is_never_left_out() -> None:
    preference = Preference(["a", "b"], 30.0)
    preference.failed(0, preference.admit(0, 0.0), 0.0, "why")
    preference.failed(1, preference.admit(1, 0.0), 0.0, "why")
    assert preference.first(1.0) == 1
    assert preference.admit(1, 1.0) is not Admission.REFUSED
    assert preference.admit(1, 1.0) is not Admission.REFUSED, "nor for a second sentence at the same time"


def test_only_changes_are_news() -> None:
    preference = Preference(["a", "b"], 30.0)
    first, second = preference.admit(0, 10.0), preference.admit(0, 10.0)
    assert not preference.spoke(0, preference.admit(0, 10.0), 10.0)
    assert preference.failed(0, first, 10.0, "one")
    assert not preference.failed(0, second, 11.0, "two sentences were under way")
    assert preference.failed(0, preference.admit(0, 41.0), 41.0, "again")
    assert preference.spoke(0, preference.admit(0, 80.0), 80.0)
    assert not preference.spoke(0, preference.admit(0, 80.0), 80.0)
    assert (preference.states[0].failed, preference.states[0].spoken) == (3, 3)


def test_texts_that_an_engine_refuses_count_only_when_there_are_several_in_a_row() -> None:
    preference = Preference(["a", "b"], 30.0)
    for text in ("①", "①", "②", "①"):
        assert not preference.failed(0, preference.admit(0, 0.0), 0.0, "why", text=text)
    preference.spoke(0, preference.admit(0, 0.0), 0.0)
    for text in ("①", "②"):
        assert not preference.failed(0, preference.admit(0, 0.0), 0.0, "why", text=text)
    assert preference.first(1.0) == 0
    assert preference.failed(0, preference.admit(0, 1.0), 1.0, "why", text="③")
    assert preference.first(2.0) == 1
    assert not preference.failed(0, preference.admit(0, 31.0), 31.0, "why", text="④")
    assert preference.admit(0, 31.0) is Admission.PROBE, "a text that it refuses tells nothing of whether it is back"


def test_there_must_be_an_engine() -> None:
    with pytest.raises(ValueError, match="engine"):
        Preference([], 30.0)


# The chain --------------------------------------------------------------------------------------------------------


async def test_the_first_voice_speaks_when_it_can() -> None:
    first, second = Scripted("a", LONG), Scripted("b", SHORT)
    assert await hz(chain(first, second).speak("你好", language="zh")) == pytest.approx(300, abs=2)
    assert second.asked == 0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([BROKEN], id="fails"),
        pytest.param([], id="sends nothing"),
        pytest.param([np.empty(0, np.int16)], id="sends empty pieces"),
        pytest.param([SILENCE, SILENCE], id="sends silence"),
        pytest.param([None], id="hangs"),
        pytest.param([SILENCE, None], id="hangs after silence"),
        pytest.param([SHORT, BROKEN], id="breaks at once"),
        pytest.param([SHORT, None], id="goes silent at once"),
    ],
)
async def test_another_voice_speaks_the_same_sentence(script: list[PcmInt | Exception | None]) -> None:
    first, second = Scripted("a", *script), Scripted("b", LONG)
    voices = chain(first, second)
    pcm = await heard(voices.speak("你好", language="zh"))
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(300, abs=2)
    assert first.closed == 1
    assert (voices.states[0].failed, voices.states[1].spoken) == (1, 1)


async def test_a_voice_that_failed_is_skipped_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    first, second = Scripted("a", BROKEN), Scripted("b", LONG)
    voices = chain(first, second, clock=clock)
    for _ in range(3):
        await heard(voices.speak("你好", language="zh"))
    assert first.asked == 1
    first.script = [SHORT]
    clock.now += 29.9
    await heard(voices.speak("你好", language="zh"))
    assert first.asked == 1
    clock.now += 0.1
    for _ in range(2):
        assert await hz(voices.speak("你好", language="zh")) == pytest.approx(200, abs=6)
    assert [record.message for record in caplog.records] == ["voice passed over for 30 s: broken", "voice a is back"]


async def test_a_sentence_that_broke_off_late_is_not_begun_again() -> None:
    first, second = Scripted("a", LONG, BROKEN), Scripted("b", SHORT)
    voices = chain(first, second)
    pcm = await heard(voices.speak("你好", language="zh"))
    assert len(pcm) == pytest.approx(len(LONG), abs=100)
    assert second.asked == 0
    assert await hz(voices.speak("再见", language="zh")) == pytest.approx(200, abs=6), "the next one is another's"


async def test_when_every_voice_fails_the_error_says_why() -> None:
    voices = chain(Scripted("a", VoiceError("a: no key")), Scripted("b", None))
    with pytest.raises(VoiceError, match=r"a: no key; b: no sound within 0\.02 s"):
        await heard(voices.speak("你好", language="zh"))
    with pytest.raises(VoiceError, match=r"^b: no sound"):
        await heard(voices.speak("你好", language="zh"))


@pytest.mark.parametrize(
    "error", [AttributeError("'NoneType' has no text"), UnicodeEncodeError("ascii", "键", 0, 1, "x")]
)
async def test_whatever_a_voice_s_library_raises_another_speaks(error: Exception) -> None:
    first, second = Scripted("a", error), Scripted("b", LONG)
    voices = chain(first, second)
    assert await hz(voices.speak("你好", language="zh")) == pytest.approx(300, abs=2)
    assert voices.states[0].last_error == f"a: {type(error).__name__}"
    assert voices.first_in_line() == "b"
    alone = chain(Scripted("a", error))
    with pytest.raises(VoiceError, match=f"a: {type(error).__name__}"):
        await heard(alone.speak("你好", language="zh"))


async def test_cancelling_is_no_failure() -> None:
    first, second = Scripted("a", None), Scripted("b", LONG)
    voices = chain(first, second, first_s=60.0)
    speaking = asyncio.create_task(heard(voices.speak("你好", language="zh")))
    await asyncio.sleep(0)
    speaking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await speaking
    assert (voices.states[0].failed, second.asked, voices.first_in_line()) == (0, 0, "a")


async def test_one_text_that_a_voice_refuses_does_not_take_it_away_from_others() -> None:
    first, second = Scripted("a", TextRefused("a: no")), Scripted("b", LONG)
    voices = chain(first, second)
    for _ in range(4):
        assert await hz(voices.speak("①②③", language="zh")) == pytest.approx(300, abs=2)
    first.script = [SHORT]
    assert await hz(voices.speak("你好", language="zh")) == pytest.approx(200, abs=6)
    first.script = [SILENCE]
    for text in ("一", "二", "三"):
        assert voices.first_in_line() == "a"
        await heard(voices.speak(text, language="zh"))
    assert voices.first_in_line() == "b"


async def test_marks_alone_are_nobodys_fault() -> None:
    first = Scripted("a", BROKEN)
    voices = chain(first)
    assert len(await heard(voices.speak("……！", language="zh"))) == 0
    assert first.asked == 0


async def test_the_silence_before_the_first_sound_is_cut() -> None:
    pcm = await heard(
        chain(Scripted("a", SILENCE, np.concatenate([SILENCE, LONG]), SILENCE)).speak("你", language="zh")
    )
    assert len(pcm) == pytest.approx(len(LONG) + len(SILENCE) + 480, abs=10)
    assert np.abs(pcm[:470]).max() < 64 <= np.abs(pcm[:500]).max()


async def test_closing_closes_the_voice_that_speaks() -> None:
    voice = Scripted("a", LONG, None)
    pieces = chain(voice).speak("你好", language="zh")
    await anext(pieces)
    await pieces.aclose()
    assert voice.closed == 1


async def test_only_so_many_sentences_wait_for_their_first_sound() -> None:
    release = asyncio.Event()
    waiting = most = 0

    class Slow(Scripted):
        async def speak(
            self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
        ) -> AsyncGenerator[PcmInt, None]:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            await release.wait()
            waiting -= 1
            yield LONG

    voices = chain(Slow("a"), first_s=20.0, slots=2)
    speaking = [asyncio.create_task(heard(voices.speak("你好", language="zh"))) for _ in range(6)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert waiting == 2
    release.set()
    assert all(len(pcm) for pcm in await asyncio.gather(*speaking))
    assert most == 2


async def test_one_sentence_tries_a_voice_again_for_all() -> None:
    clock = Clock()
    first, second = Scripted("a", BROKEN), Scripted("b", LONG)
    voices = chain(first, second, clock=clock, first_s=20.0)
    await heard(voices.speak("你好", language="zh"))
    first.script = [None]
    clock.now += 30.0
    probe = asyncio.create_task(heard(voices.speak("你好", language="zh")))
    await asyncio.sleep(0)
    assert await hz(voices.speak("你好", language="zh")) == pytest.approx(300, abs=2)
    assert first.asked == 2, "the others do not wait for a voice that is perhaps dead"
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    first.script = [SHORT]
    assert await hz(voices.speak("你好", language="zh")) == pytest.approx(200, abs=6), "the place of the probe is free"


async def test_the_first_sentence_of_a_reply_goes_before_later_ones() -> None:
    release = asyncio.Event()
    order: list[str] = []

    class Slow(Scripted):
        async def speak(
            self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
        ) -> AsyncGenerator[PcmInt, None]:
            order.append(text)
            await release.wait()
            yield LONG

    voices = chain(Slow("a"), first_s=20.0, slots=1)
    speaking = [
        asyncio.create_task(heard(voices.speak(text, language="zh", urgent=urgent)))
        for text, urgent in (("一", True), ("二", False), ("三", False), ("四", True))
    ]
    for _ in range(20):
        await asyncio.sleep(0)
    release.set()
    await asyncio.gather(*speaking)
    assert order == ["一", "四", "二", "三"]


async def test_a_request_reaches_every_voice_that_is_tried() -> None:
    requests: list[VoiceRequest] = []

    class Listening(Scripted):
        async def speak(
            self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
        ) -> AsyncGenerator[PcmInt, None]:
            requests.append(request)
            async for piece in super().speak(text, language=language):
                yield piece

    request = VoiceRequest(gender="male", rate_percent=10)
    voices = chain(Listening("a", BROKEN), Listening("b", LONG))
    await heard(voices.speak("你好", language="zh", part=ReplyPart(ReplyVoices(request))))
    assert requests == [request, request]


async def test_warming_finds_who_cannot_be_reached() -> None:
    first, second = Scripted("a", LONG), Scripted("b", SHORT)
    first.reachable = False
    voices = chain(first, second)
    await voices.warm()
    assert await hz(voices.speak("你好", language="zh")) == pytest.approx(200, abs=6)
    assert first.asked == 0
    second.reachable = False
    with pytest.raises(VoiceError, match="a: cannot be reached; b: cannot be reached"):
        await voices.warm()
    await voices.close()
    assert (first.closed, second.closed) == (100, 101)


# Real voices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["hang", "reset", "error-500", "error-429", "silence", "html", "json", "empty"])
async def test_the_embedded_voice_speaks_when_a_server_does_not(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with SpeechStandIn() as server:
        settings = TtsSettings(
            engines=("openai", "espeak"),
            # Long enough for an answer on a busy machine, where one comes at all.
            first_audio_timeout_s=0.3 if fault == "hang" else 5.0,
            openai=OpenAIVoiceSettings.model_validate({"base_url": server.base_url, "api_key": "k"}),
        )
        voices = build_voices(settings, Path()).chain
        if fault != "hang":
            assert await hz(voices.speak("你好", language="zh")) == pytest.approx(TONE_HZ, abs=2)
        server.fault = fault
        pcm = await heard(voices.speak("你好", language="zh"))
        assert len(pcm) > 5000
        assert loudest_hz(pcm, DOWNLINK_RATE_HZ) != pytest.approx(TONE_HZ, abs=2)
        assert [(state.name, state.failed) for state in voices.states] == [("openai", 1), ("espeak", 0)]
        await voices.close()


def test_the_registry_says_what_it_built_and_what_would_be_better() -> None:
    built = build_voices(TtsSettings(engines=("espeak",)), Path())
    assert built.why == ("espeak cmn, English en-us+f2 (embedded, always there)",)
    assert "edge" in built.hint
    built = build_voices(TtsSettings(engines=("edge", "espeak")), Path())
    assert built.why[0].startswith("edge zh-CN-XiaoxiaoNeural")
    assert built.hint == ""
    built = build_voices(TtsSettings(engines=("edge",)), Path())
    assert '"espeak"' in built.hint


def test_a_missing_key_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (why,) = build_voices(TtsSettings(engines=("openai",)), Path()).why
    assert "no key: set tts.openai.api_key or OPENAI_API_KEY" in why


def test_a_local_voice_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    settings = TtsSettings(engines=("sherpa", "espeak"), sherpa=SherpaVoiceSettings())
    with pytest.raises(VoiceError, match="xiaozhi models pull"):
        build_voices(settings, tmp_path)


@pytest.mark.parametrize(
    ("piece", "pause_s"),
    [(sine(300, 1.0), 1.0), (sine(300, 1.0), 0.0), (sine(300, 600.0), 0.0), (sine(300, 0.001), 0.9)],
    ids=["as fast as life", "at once", "one piece of ten minutes", "a trickle"],
)
def test_a_voice_that_does_not_end_is_cut_and_the_next_one_has_the_rest(piece: PcmInt, pause_s: float) -> None:
    async def talk() -> None:
        loop = asyncio.get_running_loop()
        good = Scripted("good", LONG)
        voices = VoiceChain([Endless(piece, pause_s), good], 2.0, 5.0, 30.0, loop.time)
        began_s = loop.time()
        said = await heard(voices.speak("Yes.", language="en"))
        assert len(said) / DOWNLINK_RATE_HZ <= longest_speech_s("Yes.") < 8.0
        assert loop.time() - began_s < 16.0
        assert "does not end" in voices.states[0].last_error
        assert await hz(voices.speak("And more.", language="en")) == pytest.approx(300, abs=3)
        assert good.asked == 1 + (pause_s == 0.9), "of a trickle too little was heard: the sentence is said again"

    in_virtual_time(talk())


@pytest.mark.parametrize(
    "text", ["好。", "It is ten past nine.", "3.14159265358979", "从前有一座山，山里有一座庙，庙里有个老和尚。", "USA"]
)
def test_a_voice_at_a_quarter_of_the_pace_is_not_cut(text: str) -> None:
    slowest_s = sum(
        4 * 0.35 if char.isdigit() or char.isupper() or char > "~" else 4 / 14 for char in text if char.isalnum()
    )
    assert longest_speech_s(text) > slowest_s
