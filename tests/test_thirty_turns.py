"""Thirty turns in a row in each language, as somebody would have them in an evening, over every wire there is.

The person types or speaks into a simulated device; recogniser, model and voice are stand-ins that speak the real
protocols. Each line of a script says what the person says, what the model answers, and what must hold. Between the
lines the device loses its network, and the server is restarted.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from edge_tts import communicate
from edge_tts.constants import WSS_URL

from bench.standins.edge import EdgeStandIn
from bench.standins.sound import tone
from bench.standins.transcription import TranscriptionStandIn
from tests.house import House, house, question
from tests.test_tool_turns import call, in_pieces, known
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.client.device import Device
from xiaozhi.client.manners import DeviceState
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.report import TurnReport
from xiaozhi.store.turns import TurnRecord
from xiaozhi.turn.machine import ListeningMode

DEVICE = "02:00:00:00:00:01"
# The protocol's 21 names with the emoji that stands for each.
FACES: Final = {
    "😶": "neutral", "🙂": "happy", "😆": "laughing", "😂": "funny", "😔": "sad", "😠": "angry", "😭": "crying",
    "😍": "loving", "😳": "embarrassed", "😯": "surprised", "😱": "shocked", "🤔": "thinking", "😉": "winking",
    "😎": "cool", "😌": "relaxed", "🤤": "delicious", "😘": "kissy", "😏": "confident", "😴": "sleepy", "😜": "silly",
    "🙄": "confused",
}  # fmt: skip
VOICES: Final = {"zh": "zh-CN-XiaoxiaoNeural", "en": "en-US-EmmaMultilingualNeural"}
BRIAN: Final = "en-US-BrianMultilingualNeural"
YUNYANG: Final = "zh-CN-YunyangNeural"


class How(Enum):
    """How a turn goes."""

    TYPED = auto()
    SPOKEN = auto()
    ABORTED = auto()  # a key is pressed in the middle of the reply
    BARGED_INTO = auto()  # the person speaks over the reply, and what they say is the next line
    BARGES_IN = auto()  # that line
    FAILING = auto()  # the model's server is down
    LEAVING = auto()  # the conversation is over after it


class Between(Enum):
    """What happens between turns."""

    WAKE_WORD = auto()
    RECONNECT = auto()
    RESTART = auto()


@dataclass(frozen=True, slots=True)
class Line:
    """One turn.

    Attributes:
        says: what the person says.
        model: what the model answers, with its emoji; empty where no model may be asked.
        hears: what the person hears, where it is not what the model says.
        leans: what must stand in the prompt; `forgets` what must not.
        call: the tool that the model calls first; `{}` in `model` is then what the tool has said.
        rings: what the device says by itself some time after.
        volume: where the device's volume stands then.
        voice: who speaks, where it is not the voice of the script's language.
    """

    says: str
    model: str = ""
    hears: str = ""
    how: How = How.TYPED
    leans: tuple[str, ...] = ()
    forgets: tuple[str, ...] = ()
    call: tuple[str, str] | None = None
    rings: str = ""
    volume: int | None = None
    voice: str = ""


@dataclass(frozen=True, slots=True)
class Evening:
    """A script.

    Attributes:
        language: of the house.
        prompt: the model's instructions.
        greeting, wake_reply: what the device says by itself.
        mark: what the history shows behind a reply that was broken off.
        lines: what happens.
    """

    language: str
    prompt: str
    greeting: str
    wake_reply: str
    mark: str
    lines: Sequence[Line | Between]


LONG_EN = "😴 " + " ".join(f"This is part {n} of a very long bedtime story about a ship." for n in range(1, 12))
LONG_ZH = "😴 " + "".join(f"这是睡前故事的第{n}段，讲的是一条大船。" for n in "一二三四五六七八九十")

ENGLISH = Evening(
    "en",
    "You are Xiaozhi, a friend in a small box. Begin with an emoji.",
    "Hello, I'm Xiaozhi. What would you like to talk about?",
    "I'm here.",
    "… [interrupted]",
    [
        Line("good evening", "🙂 Good evening! How was your day?"),
        Between.WAKE_WORD,
        Line("my cat Momo was ill", "😔 Oh no. Is she better now?", how=How.SPOKEN, leans=("How was your day?",)),
        Line("yes, she has eaten a whole fish", "😯 A whole fish!", leans=("my cat Momo was ill",)),
        Line("it was a big one", "🤤 That sounds delicious.", how=How.SPOKEN, leans=("a whole", "😯 A whole")),
        Line("what is 12 times 12", hears="That makes 144."),
        Line("set the volume to 35", hears="Okay, volume is at 35 now.", volume=35),
        Line("make it comfortable for night", "😌 Done: {}.", call=call("self_audio_speaker_set_volume", volume=20),
             hears="Done: true.", volume=20),
        Line("set a timer for the tea", "😉 I will call you.", call=call("set_reminder", text="tea", in_seconds=1),
             rings="Here is your reminder: tea."),
        Line("was that the timer?", "😏 It was.", leans=("set_reminder",)),
        Line("remember that I take my tea black", "😎 {}", hears="Remembered.",
             call=call("remember", fact="Takes tea black")),
        Line("what do you remember of me", "🤔 {}", hears="Takes tea black", call=call("what_is_remembered"),
             leans=("- Takes tea black",)),
        Line("forget how I take my tea", "😶 It is gone.", call=call("forget", about="tea black")),
        Line("how do I take my tea?", "🙄 You never told me.", forgets=("- Takes tea black",)),
        Line("说一句中文吧", "😍 好的，我很喜欢中文。", voice=VOICES["zh"]),
        Line("and now in English again", "😆 Back in English.", leans=("我很喜欢中文",)),
        Line("tell me a very long story", LONG_EN, how=How.ABORTED),
        Line("that was enough", "😭 And it was so exciting.", leans=("This is part", "… [interrupted]"),
             forgets=("This is part 11",)),
        Line("switch to the storyteller", voice=BRIAN,
             hears="I'm the storyteller. Shall it be brave, funny, or sleepy tonight?"),
        Line("brave please", "😱 A storm is coming!", voice=BRIAN, leans=("You are a storyteller",), forgets=("Momo",)),
        Between.RECONNECT,
        Line("and then?", "😠 The waves are furious.", voice=BRIAN, leans=("A storm is coming!",)),
        Line("switch to xiaozhi", hears="All right, this is xiaozhi now."),
        Line("how is my cat?", "😘 Momo is fine, a kiss for her.", leans=("my cat Momo was ill",), forgets=("storm",)),
        Between.RESTART,
        Line("do you still know her name?", "🙂 Momo, of course.", leans=("my cat Momo was ill", "a kiss for her")),
        Line("tell me the long story again", LONG_EN, how=How.BARGED_INTO),
        Line("stop, please", "😳 Sorry, I got carried away.", how=How.BARGES_IN, leans=("… [interrupted]",)),
        Line("are you there?", "🙂 Nobody hears this.", how=How.FAILING,
             hears="Sorry, I can't reach my brain right now. Please try again in a moment."),
        Line("and now?", "😂 I am back."),
        Line("play the fool", "😜 La la la!", how=How.SPOKEN, leans=("I am back.",)),
        Line("what is my cat called?", "🙂 Your cat is called Momo.", leans=("my cat Momo was ill",)),
        Line("goodbye", hears="Goodbye! Call me whenever you need me.", how=How.LEAVING),
    ],
)  # fmt: skip

CHINESE = Evening(
    "zh",
    "你是小智，住在一个小盒子里的朋友。每次以一个表情符号开头。",
    "你好，我是小智，想聊点什么？",
    "我在。",
    "…[打断]",
    [
        Line("晚上好呀", "🙂 晚上好！今天过得怎么样？"),
        Between.WAKE_WORD,
        Line("我的猫毛毛生病了", "😔 哎呀，它现在好些了吗？", how=How.SPOKEN, leans=("今天过得怎么样",)),
        Line("好了，它吃了一整条鱼", "😯 一整条鱼！", leans=("我的猫毛毛生病了",)),
        Line("那条鱼特别大", "🤤 听起来真香。", how=How.SPOKEN, leans=("一整条鱼", "😯 一整条鱼！")),
        Line("十二乘以十二等于多少", hears="等于144。"),
        Line("音量调到35", hears="好的，音量调到35了。", volume=35),
        Line("晚上用的话小声些比较好吧", "😌 弄好了，{}。", call=call("self_audio_speaker_set_volume", volume=20),
             hears="弄好了，true。", volume=20),
        Line("帮我给茶定个时间", "😉 到时候我叫你。", call=call("set_reminder", text="喝茶", in_seconds=1),
             rings="提醒你：喝茶。"),
        Line("刚才是你在叫我吗", "😏 是我。", leans=("set_reminder",)),
        Line("记住我喝茶不放糖", "😎 {}", hears="记住了。", call=call("remember", fact="喝茶不放糖")),
        Line("你记得我什么", "🤔 {}", hears="喝茶不放糖", call=call("what_is_remembered"), leans=("- 喝茶不放糖",)),
        Line("忘掉我怎么喝茶", "😶 已经忘掉了。", call=call("forget", about="喝茶不放糖")),
        Line("我喝茶放不放糖", "🙄 你没有告诉过我。", forgets=("- 喝茶不放糖",)),
        Line("say something in English", "😍 Sure, I love English.", voice=VOICES["en"]),
        Line("还是说中文吧", "😆 又回到中文了。", leans=("I love English",)),
        Line("讲一个很长的故事", LONG_ZH, how=How.ABORTED),
        Line("好了够了", "😭 可是正精彩呢。", leans=("这是睡前故事的第", "…[打断]"), forgets=("第十段",)),
        Line("换成大厨", voice=YUNYANG, hears="大厨来了！冰箱里有什么？咱们看看能做点啥。"),
        Line("只有辣椒", "😱 哇，那可辣了！", voice=YUNYANG, leans=("你是一位做了三十年",), forgets=("毛毛",)),
        Between.RECONNECT,
        Line("然后呢", "😠 火要大，别犹豫！", voice=YUNYANG, leans=("那可辣了",)),
        Line("换成小智", hears="好的，我是小智。"),
        Line("我的猫怎么样了", "😘 毛毛很好，替我亲它一下。", leans=("我的猫毛毛生病了",), forgets=("辣椒",)),
        Between.RESTART,
        Line("你还记得它叫什么吗", "🙂 当然，它叫毛毛。", leans=("我的猫毛毛生病了", "替我亲它一下")),
        Line("再讲一遍那个长故事", LONG_ZH, how=How.BARGED_INTO),
        Line("停一下吧", "😳 不好意思，我讲得入迷了。", how=How.BARGES_IN, leans=("…[打断]",)),
        Line("你在吗", "🙂 没有人听见这句。", how=How.FAILING, hears="抱歉，我现在连不上大脑，请稍后再试一次。"),
        Line("现在呢", "😂 我回来了。"),
        Line("扮个鬼脸", "😜 啦啦啦！", how=How.SPOKEN, leans=("我回来了",)),
        Line("我的猫叫什么", "🙂 你的猫叫毛毛。", leans=("我的猫毛毛生病了",)),
        Line("再见", hears="好的，再见，有事随时叫我。", how=How.LEAVING),
    ],
)  # fmt: skip


def short(text: str) -> PcmInt:
    """A fifth of a second: replies are played in real time. Stories, which are broken off, are longer."""
    per_byte_s = 0.02 if "story" in text or "故事" in text else 0.0
    return np.resize(tone("."), int(DOWNLINK_RATE_HZ * (0.2 + per_byte_s * len(text.encode()))))


def plain(text: str) -> str:
    """Without an emoji in front, and without blanks, which stand differently between clauses."""
    return "".join(text.lstrip("".join(FACES)).split())


def short_name(voice: str) -> str:
    """`en-US-EmmaNeural` for the name in full that the read-aloud service is sent."""
    return re.sub(r"^.*\((\w+-\w+), (\w+)\)$", r"\1-\2", voice)


class Stage:
    """One house, one device, and where the script stands."""

    def __init__(self, folder: Path, evening: Evening, edge: EdgeStandIn, ears: TranscriptionStandIn) -> None:
        self.evening = evening
        self._folder = folder
        self._edge = edge
        self._ears = ears
        self._house = AsyncExitStack()
        self._line: AsyncExitStack = AsyncExitStack()
        self.line = Line("")
        self.home: House
        self.device: Device
        self.asked: list[list[dict[str, Any]]] = []
        """What the model was asked, over all lives of the server."""

    async def open(self) -> None:
        """Start the server."""
        asr = {"engine": "openai", "fallback": "sense-voice", "language": self.evening.language}
        tables: dict[str, Any] = {
            "asr": {**asr, "openai": {"base_url": self._ears.base_url, "api_key": self._ears.key}},
            "tts": {"engines": ["edge", "espeak"], "edge": {"url": self._edge.ws_url}},
            "llm": {"system_prompt": self.evening.prompt, "history_turns": 60, "history_max_tokens": 20_000},
            "memory": {"engine": "local", "min_turns": 50},
            "turn": {"wake_reply": "auto", "greeting": "auto"},
        }
        self.home = await self._house.enter_async_context(house(self._folder, **tables))
        self.home.chat.answer = self._answer
        self.home.chat.tool_pieces = self._calls

    async def close(self) -> None:
        """The device hangs up, the server ends."""
        await self._line.aclose()
        self.asked += self.home.asked
        await self._house.aclose()

    async def connect(self, *, realtime: bool = False) -> None:
        """The device comes, or comes back."""
        await self._line.aclose()
        mode, speed = (ListeningMode.REALTIME, 1.0) if realtime else (ListeningMode.AUTO, 3.0)
        self.device = await self._line.enter_async_context(self.home.device(mode=mode, speed=speed))
        await known(self.home, self.device)

    def _answer(self, messages: list[dict[str, Any]]) -> str:
        if self.line.call is None:
            return self.line.model
        return self.line.model.format(messages[-1]["content"]) if messages[-1]["role"] == "tool" else ""

    def _calls(self, messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return in_pieces((self.line.call,)) if self.line.call and messages[-1]["role"] != "tool" else []

    # What happens -------------------------------------------------------------------------------------------------

    async def by_itself(self, text: str) -> None:
        """Wait until the device has said this of the server's own accord, and listens again."""
        await self.device.until(lambda: plain(text) in plain("".join(self.shown())), 15)
        await self.device.until(self.listens, 15)

    def shown(self) -> list[str]:
        """The sentences since the device has connected."""
        return [message["text"] for _, message in self.device.received if message.get("state") == "sentence_start"]

    def listens(self) -> bool:
        """Whether the device has played everything and listens."""
        manners = self.device.manners
        return manners.settled and not manners.replying and manners.state is DeviceState.LISTENING

    async def say(self, line: Line) -> None:
        """One turn, checked."""
        self.line = line
        self._ears.text = line.says
        before, spoken = len(self.home.asked), len(self._edge.requests)
        self.home.chat.fault = "500" if line.how is How.FAILING else ""
        report = await self._carry_out(line)
        self.home.chat.fault = ""
        self._check_report(line, report)
        self._check_model(line, self.home.asked[before:])
        voices = {
            short_name(request.voice)
            for request in self._edge.requests[spoken:]
            if plain(request.text) in plain(line.model)
        }
        assert voices <= {line.voice or VOICES[self.evening.language]}, line
        assert voices or not line.model or line.call or line.how is How.FAILING, line
        if line.how is not How.LEAVING:
            await self.device.until(self.listens, 10)
        if line.volume is not None:
            assert self.device.tools.volume == line.volume
        if line.rings:
            await self.by_itself(line.rings)

    async def _carry_out(self, line: Line) -> TurnReport:
        device = self.device
        if line.how is How.SPOKEN:
            return await device.turn(question())
        turn = asyncio.create_task(device.turn_text(line.says))
        if line.how is How.ABORTED:
            await device.until(lambda: device.manners.speaker.playback.heard_ms > 900, 15)
            device.abort()
        return await turn

    async def barge_in(self, first: Line, second: Line) -> None:
        """Two turns, checked: the second is said over the reply of the first, with an open microphone."""
        await self.connect(realtime=True)
        device, before = self.device, len(self.home.asked)
        device.listen()
        await self.by_itself(self.evening.greeting)
        greeted = len(device.received)
        self.line, self._ears.text = first, first.says
        log = device.turn_log
        turn = asyncio.create_task(device.turn(question()))

        def deep_in_the_reply() -> bool:
            """Of this turn, not of the greeting before it."""
            current = device.turn_log
            return current is not log and current.heard == first.says and device.manners.speaker.playback.heard_ms > 900

        await device.until(deep_in_the_reply, 15)
        self.line, self._ears.text = second, second.says
        device.say(SpokenUtterance.encode(question(), 60))
        await device.until(lambda: plain(second.model) in plain("".join(self.shown())) and self.listens(), 15)
        await turn
        got = [message for _, message in device.received][greeted:]
        assert [message["text"] for message in got if message["type"] == "stt"] == [first.says, second.says]
        assert [message["emotion"] for message in got if message["type"] == "llm"] == [
            FACES[first.model[0]],
            FACES[second.model[0]],
        ]
        sentences = [message["text"] for message in got if message.get("state") == "sentence_start"]
        story = plain("".join(sentences)).removesuffix(plain(second.model))
        assert plain(first.model).startswith(story)
        assert plain(first.model) != story
        for line in (first, second):
            asked = [each for each in self.home.asked[before:] if each[-1]["content"].startswith(line.says)]
            self._check_model(line, asked)

    # What must hold -----------------------------------------------------------------------------------------------

    def _check_report(self, line: Line, report: TurnReport) -> None:
        assert report.answered, (line, report)
        assert report.heard == line.says
        wanted = plain(line.hears or line.model)
        if line.how is How.ABORTED:
            assert wanted.startswith(plain(report.text)) and plain(report.text) != wanted
        else:
            assert plain(report.text) == wanted, line
        if line.how is How.FAILING:
            assert report.emotion == "sad"
        elif line.model:
            assert report.emotion == FACES[line.model[0]], line
        assert report.emotion in FACES.values()
        assert report.undecodable == 0
        assert report.reply_pcm is not None
        assert 100 < report.reply_ms < 9000
        assert len(report.reply_pcm) >= report.reply_ms * DOWNLINK_RATE_HZ / 1000 * 0.9
        assert 0.05 < float(np.abs(report.reply_pcm).max()) <= 1.0

    def _check_model(self, line: Line, asked: Sequence[list[dict[str, Any]]]) -> None:
        assert bool(asked) == bool(line.model), line
        if not asked:
            return
        prompt = "\n".join(str(message["content"]) for message in asked[0])
        assert asked[0][-1]["content"].startswith(line.says)
        for words in line.leans:
            assert words in prompt, (line, words)
        for words in line.forgets:
            assert words not in prompt, (line, words)


@pytest.fixture
async def wires(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[EdgeStandIn, TranscriptionStandIn]]:
    """The voice and the recogniser, which outlive the server."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(communicate, "WSS_URL", WSS_URL)  # put back afterwards: the voice changes it
    async with EdgeStandIn(sound=short) as edge, TranscriptionStandIn() as ears:
        yield edge, ears


def check_stored(evening: Evening, turns: Sequence[TurnRecord]) -> None:
    """What the store has of the evening: every turn, as much of every reply as was heard."""
    lines = [line for line in evening.lines if isinstance(line, Line)]
    asked = [turn for turn in turns if turn.heard]
    assert [turn.heard for turn in asked] == [line.says for line in lines]
    unasked = plain("".join(turn.played for turn in turns if not turn.heard))
    assert all(plain(text) in unasked for text in (evening.greeting, evening.wake_reply))
    for line, turn in zip(lines, asked, strict=True):
        broken_off = line.how in (How.ABORTED, How.BARGED_INTO)
        assert turn.interrupted == broken_off
        if broken_off:
            heard = plain(turn.played.removesuffix(evening.mark))
            assert heard
            assert plain(line.model).startswith(heard)
            assert len(heard) < len(plain(line.model)) / 2
        else:
            assert plain(turn.played) == plain(line.hears or line.model)
            assert line.hears or turn.played[0] == line.model[0], "with the emoji: models copy their own style"


def check_prefix(asked: Sequence[list[dict[str, Any]]]) -> None:
    """Every prompt goes on where the last one of the same agent ended, so that models find what they have computed.

    What is remembered may change the end of the instructions; everything before it stays. So do the turns, to the
    letter: through a broken line, a restart and an agent that comes back, which read them from the store. Nothing may
    break off here: the history is too short to be summed up or forgotten, and each agent has its own prompt.
    """
    last: dict[str, list[dict[str, Any]]] = {}
    whole = noted = 0
    for messages in asked:
        instructions = str(messages[0]["content"])
        agent = instructions[:20]
        if (before := last.get(agent)) is not None:
            # The newest text of then has its answer behind it now, and perhaps a note of the tools that were used.
            count = max(number for number, one in enumerate(before) if one["role"] == "user")
            assert messages[1:count] == before[1:count]
            whole += 1
            noted += any("\n" in str(one["content"]) for one in messages[1:count])
            earlier = str(before[0]["content"])
            least = min(len(instructions), len(earlier))
            common = next((n for n in range(least) if instructions[n] != earlier[n]), least)
            assert common >= 0.5 * least
        last[agent] = messages
    assert whole >= 21
    assert noted >= 15, "notes on tools among them"


@pytest.mark.parametrize("evening", [ENGLISH, CHINESE], ids=["english", "chinese"])
async def test_an_evening_of_thirty_turns(
    tmp_path: Path, evening: Evening, wires: tuple[EdgeStandIn, TranscriptionStandIn]
) -> None:
    lines = [line for line in evening.lines if isinstance(line, Line)]
    assert len(lines) == 30
    assert {line.model[0] for line in lines if line.model} == set(FACES)
    stage = Stage(tmp_path, evening, *wires)
    await stage.open()
    try:
        await stage.connect()
        stage.device.listen()
        await stage.by_itself(evening.greeting)
        for number, line in enumerate(evening.lines):
            following = evening.lines[number + 1] if number + 1 < len(evening.lines) else None
            match line:
                case Between.WAKE_WORD:
                    stage.device.detect("hello xiaozhi")
                    await stage.by_itself(evening.wake_reply)
                case Between.RECONNECT:
                    await stage.connect()
                case Between.RESTART:
                    await stage.close()
                    await stage.open()
                    await stage.connect()
                case Line(how=How.BARGED_INTO):
                    assert isinstance(following, Line)
                    await stage.barge_in(line, following)
                case Line(how=How.BARGES_IN):
                    pass  # said already
                case Line():
                    await stage.say(line)
        await stage.device.until(lambda: not stage.device.connected or stage.device.close_code is not None)
        turns = await stage.home.server.services.store.turns.list(DEVICE, limit=100)
        check_stored(evening, turns[::-1])
        assert await stage.home.server.services.store.reminders.list() == []
    finally:
        await stage.close()
    check_prefix(stage.asked)
