"""Which voice comes closest to what is asked for, and who speaks first when voices are scarce."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.stages.tts.voice_request import KNOWN, VoiceRequest, closest, gender_of, numbered
from xiaozhi.upstream.slots import PrioritySlots

XIAOXIAO, EMMA = "zh-CN-XiaoxiaoNeural", "en-US-EmmaMultilingualNeural"


@pytest.mark.parametrize(
    ("engine", "asked", "language", "configured", "expected"),
    [
        ("edge", VoiceRequest(), "zh", XIAOXIAO, XIAOXIAO),
        ("edge", VoiceRequest("zh-CN-YunyangNeural"), "zh", XIAOXIAO, "zh-CN-YunyangNeural"),
        ("edge", VoiceRequest("edge:zh-CN-YunyangNeural"), "en", EMMA, "zh-CN-YunyangNeural"),
        ("azure", VoiceRequest("edge:zh-CN-YunyangNeural"), "zh", XIAOXIAO, "zh-CN-YunyangNeural"),
        ("edge", VoiceRequest("zh-CN-liaoning-XiaobeiNeural"), "zh", XIAOXIAO, "zh-CN-liaoning-XiaobeiNeural"),
        ("edge", VoiceRequest("en-US-GuyNeural"), "zh", XIAOXIAO, "zh-CN-YunxiNeural"),
        ("edge", VoiceRequest("en-US-GuyNeural"), "en", EMMA, "en-US-GuyNeural"),
        ("edge", VoiceRequest("onyx"), "zh", XIAOXIAO, "zh-CN-YunxiNeural"),
        ("openai", VoiceRequest("zh-CN-YunxiNeural"), "zh", "alloy", "onyx"),
        ("openai", VoiceRequest(gender="female"), "zh", "alloy", "alloy"),
        ("openai", VoiceRequest("openai:my-own"), "zh", "alloy", "my-own"),
        ("iflytek", VoiceRequest("zh-CN-XiaoyiNeural"), "zh", "xiaoyan", "xiaoyan"),
        ("iflytek", VoiceRequest(gender="male"), "en", "xiaoyan", "aisjiuxu"),
        ("espeak", VoiceRequest(gender="male"), "zh", "cmn", "cmn+m3"),
        ("espeak", VoiceRequest(gender="female"), "en", "en-us+f2", "en-us+f2"),
        ("edge", VoiceRequest("sherpa:3"), "zh", XIAOXIAO, XIAOXIAO),
        ("edge", VoiceRequest(gender="male"), "xx", XIAOXIAO, XIAOXIAO),
        ("sherpa", VoiceRequest(gender="male"), "zh", "", ""),
    ],
)
def test_the_closest_voice(engine: str, asked: VoiceRequest, language: str, configured: str, expected: str) -> None:
    assert closest(engine, asked, language, configured) == expected


@given(
    st.sampled_from([*KNOWN, "sherpa"]),
    st.text(max_size=20) | st.sampled_from([voice.name for voices in KNOWN.values() for voice in voices]),
    st.sampled_from(["", "female", "male"]),
    st.sampled_from(["zh", "en", "ja", "ko", "yue", "auto", ""]),
)
def test_a_wish_never_leaves_an_engine_without_a_voice(engine: str, voice: str, gender: str, language: str) -> None:
    found = closest(engine, VoiceRequest(voice, gender), language, "configured")  # type: ignore[arg-type]  # sampled
    names = {known.name for known in KNOWN.get(engine, ())}
    assert found == "configured" or found in names or found in (voice, voice.partition(":")[2])


def test_every_known_voice_has_a_gender_and_one_name() -> None:
    for voices in KNOWN.values():
        assert len({voice.name for voice in voices}) == len(voices)
    assert gender_of("onyx") == "male"
    assert gender_of("nobody") == ""


def test_numbered_voices_are_wished_by_number() -> None:
    assert numbered("sherpa", VoiceRequest("sherpa:12")) == 12
    assert [numbered("sherpa", VoiceRequest(name)) for name in ("12", "sherpa:x", "edge:1", "sherpa:９", "")] == [
        None
    ] * 5


def test_a_rate_out_of_bounds_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="rate_percent"):
        VoiceRequest(rate_percent=101)


async def test_the_urgent_go_first_and_others_in_their_order() -> None:
    slots = PrioritySlots(1)
    order: list[str] = []

    async def one(name: str, *, urgent: bool) -> None:
        async with slots.hold(urgent=urgent):
            order.append(name)

    async with slots.hold():
        tasks = [asyncio.create_task(one(name, urgent=name.isupper())) for name in ("a", "b", "C", "D", "gone")]
        await asyncio.sleep(0)
        assert slots.waiting == 5
        tasks[-1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["C", "D", "a", "b"]
    assert (slots.waiting, slots.waited) == (0, 5)
    async with asyncio.timeout(1), slots.hold():
        pass


async def test_a_place_that_was_given_to_one_who_left_goes_to_the_next() -> None:
    slots = PrioritySlots(1)
    entered = asyncio.Event()

    async def wait() -> None:
        async with slots.hold():
            entered.set()

    async with slots.hold():
        leaving, staying = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
    leaving.cancel()  # in the moment it was given the place
    await asyncio.gather(leaving, staying, return_exceptions=True)
    assert leaving.cancelled() and entered.is_set()


def test_there_must_be_a_slot() -> None:
    with pytest.raises(ValueError, match="slot"):
        PrioritySlots(0)
