"""Nobody meets a deaf, silent or hung-up conversation, whatever device, network and upstreams do; in virtual time."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import numpy as np
import pytest

from bench.interleavings import ANSWER_WITHIN_S, interleaving
from tests.speech import say
from tests.virtual_house import (
    ConversationLoop,
    Fate,
    VirtualDevice,
    VirtualRecogniser,
    VirtualStreaming,
    remote_engine,
    use_voices,
    virtual_services,
    virtual_settings,
)
from xiaozhi.audio.opus import OpusDecoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt, to_int16
from xiaozhi.concurrency.channel import Channel
from xiaozhi.conversation.reply import Reply
from xiaozhi.conversation.services import Services
from xiaozhi.events import MicPacket
from xiaozhi.settings import LlmSettings
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.recogniser import Recognizer
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.llm.engine import ChatRequest, Delta
from xiaozhi.stages.tts.engine import ClauseVoice
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.text.messages import message
from xiaozhi.turn.machine import ListeningMode, TurnState

AUTO, MANUAL, REALTIME = ListeningMode.AUTO, ListeningMode.MANUAL, ListeningMode.REALTIME
ASKED = "现在几点了"


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=ConversationLoop) as runner:
        runner.run(coroutine)


@asynccontextmanager
async def conversation(
    mode: ListeningMode = AUTO,
    *texts: str,
    sends: str = "always",
    engine: Callable[[Fate], Recognizer] = VirtualRecogniser,
    **turn: object,
) -> AsyncIterator[tuple[VirtualDevice, Services]]:
    """A device that listens; `texts` are understood one after the other, and then any words."""
    fate = Fate(random.Random(1), calm=True, texts=list(texts))
    services = virtual_services(virtual_settings(**turn), fate, engine(fate))
    device = VirtualDevice(fate, services, sends, 60)
    await asyncio.sleep(0)
    device.listen(mode)
    try:
        yield device, services
        assert not device.running.done(), "the conversation goes on"
    finally:
        await device.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def answered(device: VirtualDevice, since: float, within_s: float = ANSWER_WITHIN_S) -> float:
    """Wait for the first sound since then; how long it took from now, in seconds."""
    began = now()
    while device.heard_at <= since:
        assert now() - began <= within_s, f"no answer: {device.talk.doing}"
        await asyncio.sleep(0.01)
    return now() - began


async def ended(device: VirtualDevice) -> None:
    """Wait until the reply is over."""
    async with asyncio.timeout(60):
        while device.state == "speaking":  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)


async def said_and_answered(device: VirtualDevice) -> float:
    """Say something; how long after its end the answer began, in seconds."""
    await ended(device)
    await device.speak(1.0)
    took_s = await answered(device, now() - 1.0)
    await ended(device)
    return took_s


def told(device: VirtualDevice, kind: str) -> list[str]:
    return [what for _, what in device.told if what.startswith(kind)]


# Whose utterance it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AUTO, REALTIME])
@pytest.mark.parametrize("word", ["你好小智", ""])
@pytest.mark.parametrize("pause_s", [0.0, 0.3])
def test_a_wake_word_in_mid_sentence_leaves_nobody_deaf(mode: ListeningMode, word: str, pause_s: float) -> None:
    async def scene() -> None:
        async with conversation(mode) as (device, _):
            await device.speak(0.8, pause_s)
            assert device.talk._machine.state in (TurnState.HEARING, TurnState.PAUSED)
            device.talk.detect(word)
            for _ in range(3):
                await said_and_answered(device)
                await asyncio.sleep(0.5)
            assert len(told(device, "stt")) == 3, "half a sentence before a wake word is no turn"

    run(scene())


def test_a_wake_word_while_a_key_is_held_is_not_what_was_said_and_the_key_is_held_on() -> None:
    async def scene() -> None:
        async with conversation(MANUAL) as (device, _):
            await device.speak(0.5)
            device.talk.detect("你好小智")
            await device.speak(1.0)
            device.stop()
            await answered(device, now())

    run(scene())


class Late(ClauseVoice):
    """A voice that takes its time."""

    name = "late"

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        await asyncio.sleep(1.0)
        yield np.full(12_000, 3000, np.int16)


@pytest.mark.parametrize("over_s", [0.0, 0.4])
def test_an_onset_that_waits_while_the_server_begins_to_speak_leaves_nobody_deaf(
    monkeypatch: pytest.MonkeyPatch, over_s: float
) -> None:
    async def scene() -> None:
        async with conversation(REALTIME) as (device, services):
            talk, machine = device.talk, device.talk._machine
            voices = services.voice._voices
            use_voices(services, Late())
            put = Channel.put

            async def put_in_the_last_moment(channel: Channel[Any], item: object) -> None:
                await put(channel, item)
                if channel is talk._speech_input.heard:
                    monkeypatch.undo()
                    talk._apply(machine.reply_ready(machine.generation))  # before the onset is read
                    assert machine.state is TurnState.REPLYING

            monkeypatch.setattr(Channel, "put", put_in_the_last_moment)
            talk.say("茶好了，快来喝吧。")
            await device.speak(0.5 + over_s, 3.0)
            use_voices(services, *voices)
            for _ in range(2):
                await said_and_answered(device)
                await asyncio.sleep(0.5)

    run(scene())


def test_an_abort_while_a_key_is_held_leaves_it_held() -> None:
    async def scene() -> None:
        async with conversation(MANUAL) as (device, _):
            await device.speak(0.5)
            device.talk.abort("")
            await device.speak(1.0)
            device.stop()
            await answered(device, now())

    run(scene())


def test_a_key_whose_release_never_comes_is_not_held_for_ever() -> None:
    async def scene() -> None:
        async with conversation(MANUAL) as (device, _):
            await device.speak(1.0)
            device.unplugged = True
            for _ in range(60):
                await asyncio.sleep(1.0)
                device.talk.check_stall()
            assert device.talk.idle_s() > 0.0 and device.heard_at > 0.0

    run(scene())


@pytest.mark.parametrize("mode", [AUTO, MANUAL, REALTIME])
def test_who_hears_only_a_notice_is_not_listened_to_and_hung_up(mode: ListeningMode) -> None:
    async def scene() -> None:
        async with conversation(mode) as (other, services):
            device = VirtualDevice(other.fate, services, "always", 60, notice="请先绑定设备。")
            await asyncio.sleep(0)
            device.sound = "voice"
            device.listen(mode)
            await asyncio.sleep(6.0)
            assert told(device, "请先") and not told(device, "stt") and device.hung_up
            assert not device.talk._machine.turn
            await device.close()

    run(scene())


def test_a_server_that_stops_answers_what_is_being_said_and_hears_nothing_more() -> None:
    async def scene() -> None:
        async with conversation(REALTIME) as (device, _):
            await device.speak(0.6)
            device.talk.finish()
            await answered(device, now())
            await ended(device)
            await device.speak(1.0, 3.0)
            assert len(told(device, "stt")) == 1 and device.talk.idle_s() > 0.0

    run(scene())


# Replies that fail ----------------------------------------------------------------------------------------------------


class Failing:
    """A chat model whose every reply fails in a way that no endpoint is expected to."""

    name = "failing"
    _said: Sequence[Delta] = ()

    def __init__(self, error: Exception, after_s: float) -> None:
        self._error = error
        self._after_s = after_s

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(self._after_s)
        for delta in self._said:
            yield delta
        raise self._error

    async def warm(self) -> str:
        return ""

    async def close(self) -> None: ...


FAULTS = [
    UnicodeEncodeError("ascii", "clé", 2, 3, "ordinal not in range(128)"),
    TypeError("unsupported operand"),
    ExceptionGroup("several", [KeyError("choices")]),
]


@pytest.mark.parametrize("mode", [AUTO, MANUAL, REALTIME])
@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("after_s", [0.0, 2.0])
def test_a_reply_that_fails_in_any_way_is_excused_and_the_next_is_heard(
    mode: ListeningMode, error: Exception, after_s: float
) -> None:
    async def scene() -> None:
        async with conversation(mode, ASKED, ASKED) as (device, services):
            works = services.chat
            services.chat = Chat(LlmSettings(), [Failing(error, after_s)])
            await device.speak(1.0)
            if mode is MANUAL:
                device.stop()
            await answered(device, now())
            await ended(device)
            assert message("apology", "zh")[:4] in "".join(told(device, "抱歉"))
            services.chat = works
            if mode is MANUAL:
                device.listen(mode)
                await device.speak(1.0)
                device.stop()
                await answered(device, now())
            else:
                await said_and_answered(device)
            assert len(told(device, "抱歉")) == 1

    run(scene())


@pytest.mark.parametrize("fails", [1, 100])
def test_a_fault_in_the_reply_itself_ends_no_conversation(monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    """One is followed by an excuse. Where nothing can be said at all the device goes on listening."""
    whole, broken = Reply.run, [0]

    async def run_reply(reply: Reply) -> None:
        if broken[0] < fails:
            broken[0] += 1
            raise RuntimeError("a fault of ours")
        await whole(reply)

    monkeypatch.setattr(Reply, "run", run_reply)

    async def scene() -> None:
        nonlocal fails
        async with conversation(AUTO, ASKED) as (device, _):
            await device.speak(1.0)
            if fails == 1:
                await answered(device, now())
                assert told(device, "抱歉")
            else:
                await asyncio.sleep(5.0)
                assert device.talk.listens and device.state == "listening"
                fails = 0
            await said_and_answered(device)

    run(scene())


def test_a_prompt_that_cannot_be_rendered_is_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with conversation(AUTO, ASKED) as (device, _):
            with monkeypatch.context() as broken:
                broken.setattr("xiaozhi.conversation.context.render", lambda *_args, **_more: 1 + "a")  # type: ignore[operator]
                await said_and_answered(device)
            assert told(device, "抱歉")
            await said_and_answered(device)

    run(scene())


class Broken(ClauseVoice):
    """A voice with a fault that is no `VoiceError`."""

    name = "broken"
    _said: Sequence[PcmInt] = ()

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        for pcm in self._said:
            yield pcm
        raise UnicodeEncodeError("ascii", "clé", 2, 3, "ordinal not in range(128)")


def test_a_voice_that_fails_in_any_way_is_passed_over() -> None:
    async def scene() -> None:
        async with conversation() as (device, services):
            use_voices(services, Broken(), *services.voice._voices)
            await said_and_answered(device)
            assert services.voice.states[0].last_error == "broken: UnicodeEncodeError"

    run(scene())


# States that wait for sound -------------------------------------------------------------------------------------------


class Story:
    """A chat model that tells a long story."""

    name = "story"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        for number in "一二三四五六七八":
            yield Delta(f"这是故事的第{number}句话。")

    async def warm(self) -> str:
        return ""

    async def close(self) -> None: ...


@pytest.mark.parametrize("recognised_s", [0.1, 100.0])
def test_a_backchannel_and_then_no_more_packets_leave_no_reply_half_unheard(recognised_s: float) -> None:
    async def scene() -> None:
        async with conversation(REALTIME, *["嗯"] * 9) as (device, services):
            services.chat = Chat(LlmSettings(), [Story()])
            device.talk.typed("讲个故事")
            await answered(device, now())
            asyncio.get_running_loop().decode_s = lambda: recognised_s  # type: ignore[attr-defined]
            await device.speak(0.6)
            assert device.talk._machine.state is TurnState.PROBING
            device.unplugged = True
            await asyncio.sleep(30.0)
            assert device.state == "listening" and device.talk.idle_s() > 0.0
            assert len(told(device, "这是故事")) == 8
            assert not told(device, "stt 嗯")

    run(scene())


@pytest.mark.parametrize("after_s", [0.3, 4.0])
def test_who_goes_on_as_the_reply_begins_is_answered_once_and_who_speaks_later_twice(after_s: float) -> None:
    async def scene() -> None:
        texts = ["我想听听", *["小猪的故事"] * 9]
        async with conversation(REALTIME, *texts, trailing_ms=700) as (device, services):
            services.chat = Chat(LlmSettings(), [Story()])
            await device.speak(1.0)
            await answered(device, now())
            await asyncio.sleep(after_s)
            since = now()
            await device.speak(1.0)
            await answered(device, since + 0.5)
            soon = after_s < 1.0
            assert told(device, "stt") == ["stt 我想听听", f"stt {'我想听听' if soon else ''}小猪的故事"]
            await ended(device)
            assert device.talk._context.turns == (1 if soon else 2)

    run(scene())


@pytest.mark.parametrize("mode", [AUTO, REALTIME])
@pytest.mark.parametrize(
    ("sounds_s", "waits_s", "said", "joins"),
    [
        (0.4, 0.3, "小猪的故事", True),
        (3.0, 0.3, "小猪的故事", False),  # it was listened to
        (0.4, 3.0, "小猪的故事", False),  # he had finished, and begins anew
        (0.4, 0.3, "不对，我想去南京", False),
    ],
)
def test_who_aborts_a_reply_as_it_begins_and_goes_on_has_said_one_thing(
    mode: ListeningMode, sounds_s: float, waits_s: float, said: str, joins: bool
) -> None:
    async def scene() -> None:
        asked: list[str] = []

        class Asked(Story):
            async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
                asked.append(" | ".join(m.content for m in request.messages if m.role == "user"))
                async for delta in super().stream(request):
                    yield delta

        async with conversation(mode, "我想听听", *[said] * 9, trailing_ms=700) as (device, services):
            services.chat = Chat(LlmSettings(), [Asked()])
            await device.speak(1.0)
            await answered(device, now())
            await asyncio.sleep(sounds_s)
            device.talk.abort("")
            await asyncio.sleep(0.1)
            device.listen(mode)
            await asyncio.sleep(waits_s)
            since = now()
            await device.speak(1.0)
            await answered(device, since + 0.5)
            assert asked[-1] == (f"我想听听{said}" if joins else f"我想听听 | {said}")
            await ended(device)
            assert device.talk._context.turns == (1 if joins else 2)

    run(scene())


def test_a_reply_aborted_as_it_begins_is_in_the_history_when_nobody_goes_on() -> None:
    async def scene() -> None:
        async with conversation(AUTO, "我想听听", "", trailing_ms=700) as (device, services):
            services.chat = Chat(LlmSettings(), [Story()])
            await device.speak(1.0)
            await answered(device, now())
            device.talk.abort("")
            device.listen(AUTO)
            await device.speak(0.4)  # a noise
            await asyncio.sleep(5.0)
            assert device.talk._context.turns == 1 and told(device, "stt") == ["stt 我想听听"]

    run(scene())


class Speaking(ClauseVoice):
    """A voice that can be told from others."""

    name = "speaking"
    _said: Final = (
        "once upon a time there was a little pig",
        "it lived in a house of bricks beside the river",
        "every morning a hungry wolf came to the door",
        "nobody was afraid of him any more",
    )

    def __init__(self) -> None:
        self._count = 0

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        voice = say(self._said[self._count % len(self._said)])
        self._count += 1
        places = np.arange(0, len(voice), UPLINK_RATE_HZ / DOWNLINK_RATE_HZ)
        yield to_int16(np.interp(places, np.arange(len(voice)), voice).astype(np.float32))

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


class Echoing(VirtualDevice):
    """Its microphone hears its loudspeaker, 120 ms late and in a quiet room."""

    async def _send(self) -> None:
        self._playing = np.zeros(0, np.float32)
        self._decoder = OpusDecoder(UPLINK_RATE_HZ)
        dice, frame = np.random.default_rng(1), UPLINK_RATE_HZ * self.frame_ms // 1000
        while True:
            await asyncio.sleep(self.frame_ms / 1000.0)
            echo, self._playing = self._playing[:frame], self._playing[frame:]
            heard = np.pad(echo, (0, frame - len(echo))) + dice.normal(0.0, 0.0005, frame)
            if self.sound == "voice":
                heard = np.frombuffer(self._packet("voice"), np.int16) / 32_768.0
            self._late.append(to_int16(heard.astype(np.float32)).tobytes())
            if not self.stalled:
                for late in self._late:
                    self.talk.hear(MicPacket(late, bare=True))
                self._late.clear()

    def audio(self, opus: bytes, generation: int) -> None:
        super().audio(opus, generation)
        if not len(self._playing):
            self._playing = np.zeros(UPLINK_RATE_HZ * 120 // 1000, np.float32)
        self._playing = np.concatenate([self._playing, 2.0 * self._decoder.decode(opus)])


@pytest.mark.parametrize("stall_s", [0.0, 0.3, 1.0])
def test_a_device_never_answers_its_own_echo_whatever_the_network_does(stall_s: float) -> None:
    async def scene() -> None:
        fate = Fate(random.Random(1), calm=True, texts=[ASKED, *["那个小猪住在河边"] * 99])
        services = virtual_services(virtual_settings(), fate, VirtualRecogniser(fate))
        services.chat, services.voice = Chat(LlmSettings(), [Story()]), VoiceChain([Speaking()], 2.0, 2.0, 5.0, now)
        device = Echoing(fate, services, "always", 60)
        await asyncio.sleep(0)
        device.listen(REALTIME)
        await device.speak(1.0)
        await answered(device, now())
        while device.state == "speaking":
            device.stalled = stall_s > 0.0 and not device.stalled
            await asyncio.sleep(stall_s if device.stalled else 0.7)
        device.stalled = False
        await asyncio.sleep(5.0)
        assert told(device, "stt") == [f"stt {ASKED}"]
        assert told(device, "这是故事")[-1].endswith("第八句话。"), "nor does it break off"
        await device.close()

    run(scene())


# Recognition on another machine ---------------------------------------------------------------------------------------


class Slow(VirtualRecogniser):
    """A recogniser on another machine that takes its time."""

    def __init__(self, takes_s: float) -> None:
        super().__init__(Fate(random.Random(1)))
        self.takes_s = takes_s
        self.asked = 0

    async def recognise(self, pcm: PcmFloat) -> Transcript:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        return Transcript(ASKED, language="zh")


@pytest.mark.parametrize("mode", [AUTO, MANUAL])
@pytest.mark.parametrize("takes_s", [0.3, 0.7, 2.0, 3.5])
@pytest.mark.parametrize("speculate", [True, False])
def test_a_slow_recogniser_is_asked_once_and_its_answer_is_used(
    mode: ListeningMode, takes_s: float, speculate: bool
) -> None:
    async def scene() -> None:
        slow = Slow(takes_s)

        def engine(fate: Fate) -> Recognizer:
            return remote_engine(slow, fate, virtual_settings(), early_decode=True)

        async with conversation(mode, engine=engine, speculate=speculate, neutral_ms=1500) as (device, _):
            await device.speak(1.0, 0.3 if mode is MANUAL else 0.0)
            if mode is MANUAL:
                device.stop()
            await answered(device, now())
            assert slow.asked == 1 and told(device, "stt") == [f"stt {ASKED}"]

    run(scene())


@pytest.mark.parametrize("acts", [True, False])
def test_who_acts_by_itself_is_asked_only_when_the_turn_is_committed(acts: bool) -> None:
    async def scene() -> None:
        async with conversation(AUTO, ASKED) as (device, services):
            begun: list[list[str]] = []
            stream = services.chat.stream

            def asked(request: ChatRequest) -> AsyncGenerator[Delta, None]:
                begun.append(told(device, "start"))
                return stream(request)

            services.chat.acts = lambda request: acts  # type: ignore[method-assign]  # a platform, or none
            services.chat.stream = asked  # type: ignore[method-assign]  # the same, and notes when
            await said_and_answered(device)
            assert begun[0] == (["start"] if acts else [])

    run(scene())


@pytest.mark.parametrize(("is_firmware", "gap_s"), [(True, 0.08), (False, 0.02)])
def test_sound_that_is_there_waits_for_the_firmware_to_clear_its_queue_and_for_no_program(
    is_firmware: bool, gap_s: float
) -> None:
    async def scene() -> None:
        async with conversation() as (device, services):
            device.is_firmware, device.start_margin_ms = is_firmware, 0.0
            use_voices(services, Late())
            await device.talk.say("茶好了。")
            began = [at for at, what in device.told if what == "start"]
            assert device.first_at - began[0] == pytest.approx(gap_s, abs=0.002)

    run(scene())


# Before the soft end --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def patient(*texts: str) -> AsyncIterator[tuple[VirtualDevice, Services, list[float]]]:
    """A conversation whose soft end is late, with a recogniser that streams; and when its model is asked."""
    async with conversation(AUTO, *texts, engine=VirtualStreaming, soft_end_ms=500, complete_ms=900) as scene:
        device, services = scene
        asked_at: list[float] = []
        stream = services.chat.stream

        def asked(request: ChatRequest) -> AsyncGenerator[Delta, None]:
            asked_at.append(now())
            return stream(request)

        services.chat.stream = asked  # type: ignore[method-assign]  # the same, and notes when
        cast(ConversationLoop, asyncio.get_running_loop()).decode_s = lambda: 0.01
        yield device, services, asked_at


def test_words_that_are_plainly_whole_are_on_their_way_before_the_soft_end_and_answered_in_their_time() -> None:
    async def scene() -> None:
        async with patient(ASKED) as (device, services, asked_at):
            await device.speak(1.0)
            silent_at = now()
            await asyncio.sleep(0.4)
            assert [at - silent_at < 0.15 for at in asked_at] == [True] and not told(device, "")
            assert await answered(device, silent_at) + 0.4 >= 0.9
            assert (len(asked_at), services.speculation.wasted, services.speculation.early) == (1, 0, 1)
            assert services.recognition.early.used == 1, "nothing is recognised again"

    run(scene())


def test_who_goes_on_is_answered_once_and_for_all_of_it() -> None:
    async def scene() -> None:
        async with patient(ASKED, ASKED + "你知道吗") as (device, services, asked_at):
            await device.speak(1.0, 0.2)
            await device.speak(1.0)
            await answered(device, now())
            assert told(device, "stt") == [f"stt {ASKED}你知道吗"] and len(told(device, "start")) == 1
            assert (len(asked_at), services.speculation.wasted) == (2, 1)

    run(scene())


@pytest.mark.parametrize("text", [ASKED, "我想去北京因为"])
def test_where_too_much_was_begun_in_vain_or_words_may_go_on_the_model_waits_for_the_soft_end(text: str) -> None:
    async def scene() -> None:
        async with patient(text) as (device, services, asked_at):
            if text is ASKED:
                for _ in range(10):
                    services.speculation.start(early=True)
            await device.speak(1.0)
            silent_at = now()
            await answered(device, silent_at)
            assert asked_at[0] - silent_at > 0.4
            for _ in range(4):
                services.speculation.commit(early=False)
            assert services.speculation.may_start_early, "four turns make one good"

    run(scene())


# Silence that is not sent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sends", ["gated", "dtx", "empty"])
@pytest.mark.parametrize("hangover_ms", [60, 200])
@pytest.mark.parametrize("text", [ASKED, "我今天看了一本书", "我想去北京因为"])
def test_who_does_not_send_silence_is_answered_as_soon_as_who_does(sends: str, hangover_ms: int, text: str) -> None:
    async def scene() -> None:
        took_s = []
        for kind in ("always", sends):
            async with conversation(AUTO, text, sends=kind) as (device, _):
                device._hangover_ms = hangover_ms
                took_s.append(await said_and_answered(device))
        sent, unsent = took_s
        assert unsent <= sent + 0.15 + 0.02, "the gap that is waited for, and what both were looked at by"

    run(scene())


def test_who_stops_in_the_midst_of_a_voice_is_answered_within_a_second_and_a_half() -> None:
    async def scene() -> None:
        async with conversation(AUTO, ASKED, sends="gated") as (device, services):
            device._hangover_ms = 0
            assert 0.9 < await said_and_answered(device) < 1.5
            assert services.speculation.wasted == 0, "and the reply was prepared meanwhile"

    run(scene())


@pytest.mark.parametrize("stall_s", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("mode", [AUTO, REALTIME])
def test_a_stall_of_the_network_cuts_nobody_off(stall_s: float, mode: ListeningMode) -> None:
    async def scene() -> None:
        async with conversation(mode, *[ASKED] * 3) as (device, _):
            device.sound = "voice"
            await asyncio.sleep(0.6)
            device.stalled = True
            await asyncio.sleep(stall_s)
            assert not told(device, "stt")
            device.stalled = False
            await asyncio.sleep(0.5)
            assert device.talk._machine.state is TurnState.HEARING and not told(device, "stt")
            await device.speak(0.0)
            await answered(device, now())
            assert len(told(device, "stt")) == 1
            assert device.talk._machine.pace.habit_ms is None or device.talk._machine.pace.habit_ms < 60.0

    run(scene())


@pytest.mark.parametrize("pause_s", [0.15, 0.3])
def test_who_has_always_sent_silence_is_not_cut_off_by_a_stall_in_a_pause(pause_s: float) -> None:
    async def scene() -> None:
        async with conversation(AUTO, *[ASKED] * 4) as (device, _):
            await asyncio.sleep(3.5)
            await device.speak(0.8, pause_s)
            device.stalled, device.sound = True, "voice"
            await asyncio.sleep(0.6)
            device.stalled = False
            await asyncio.sleep(0.5)
            assert device.talk._machine.state is TurnState.HEARING and not told(device, "stt")
            await device.speak(0.3)
            await answered(device, now())
            assert len(told(device, "stt")) == 1

    run(scene())


def test_a_held_key_is_held_through_any_gap() -> None:
    async def scene() -> None:
        async with conversation(MANUAL, ASKED) as (device, _):
            await device.speak(0.5)
            device.unplugged = True
            await asyncio.sleep(5.0)
            device.unplugged = False
            assert device.talk._machine.state is TurnState.HEARING
            await device.speak(0.5)
            device.stop()
            await answered(device, now())
            assert len(told(device, "stt")) == 1

    run(scene())


# Everything at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 20, 5))
def test_no_conversation_dies_of_any_interleaving(first: int) -> None:
    for seed in range(first, first + 5):
        assert interleaving(seed) == []
