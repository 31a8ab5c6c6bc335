"""The built-in responder and the choice between it and an endpoint."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.events import Message
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.stages.llm.engine import ChatError, ChatRequest
from xiaozhi.stages.llm.registry import build_chat
from xiaozhi.stages.llm.responder import JOKES_EN, JOKES_ZH, AskedQuestion, BuiltInResponder, answer
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.text.emotions import emotion_in, is_emoji
from xiaozhi.text.speakable import speakable

NOW = datetime(2026, 3, 7, 15, 20)


def zh(text: str, now: datetime = NOW, said: str = "") -> str:
    return answer(AskedQuestion(text, True, now, said))


def en(text: str, now: datetime = NOW, said: str = "") -> str:
    return answer(AskedQuestion(text, False, now, said))


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("现在几点了？", "现在是下午3点20分"),
        ("今天几号", "2026年3月7日，星期六"),
        ("今天星期几", "星期六"),
        ("三加五等于几", "等于8"),
        ("十除以三", "大约等于3.3333"),
        ("五除以零", "零不能做除数"),
        ("一亿乘一亿乘一亿", "太大"),
        ("把声音调大一点", "这个设备不让我调"),
        ("音量调到百分之五十", "这个设备不让我调"),
        ("今天天气怎么样", "不能上网"),
        ("讲个故事", "小星星"),
        ("唱首歌吧", "不会唱歌"),
        ("你是谁", "内置的应答程序"),
        ("你会做什么", "settings.toml"),
        ("你几岁了", "小朋友"),
        ("谢谢你", "不客气"),
        ("再见", "再见"),
        ("晚安", "再见"),
        ("你好吗", "我很好"),
        ("我有点累", "深呼吸"),
        ("我喜欢你", "我也喜欢你"),
        ("你真棒", "谢谢夸奖"),
        ("你好笨", "对不起"),
        ("你好", "你好！我是小智"),
        ("小智小智", "我是小智"),
    ],
)
def test_chinese_questions(question: str, part: str) -> None:
    assert part in zh(question)


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("what time is it", "3:20 in the afternoon"),
        ("What's the date today?", "Saturday, March 7, 2026"),
        ("what is twelve times three", "That makes 36."),
        ("what is one divided by three", "about 0.3333"),
        ("what is five divided by zero", "divided by zero"),
        ("turn the volume up", "does not let me change it"),
        ("what is the weather like today", "can't look up the weather"),
        ("sing me a song", "can't sing"),
        ("tell me a story", "little star"),
        ("Who are you?", "built-in responder"),
        ("are you a robot", "built-in responder"),
        ("what can you do", "[[llm.endpoints]]"),
        ("thank you very much", "welcome"),
        ("good bye", "Goodbye"),
        ("how are you", "very well"),
        ("I'm so tired", "Take a deep breath"),
        ("i like you", "I like you too"),
        ("you are funny", "Thank you"),
        ("hello", "Hello! I am Xiaozhi."),
    ],
)
def test_english_questions(question: str, part: str) -> None:
    assert part in en(question)


def test_what_it_does_not_understand_it_repeats_and_says_what_to_configure() -> None:
    said = zh("什么是量子力学？")
    assert "“什么是量子力学？”" in said
    assert "内置的应答程序" in said
    assert "[[llm.endpoints]]" in said
    said = en("Explain quantum physics.")
    assert '"Explain quantum physics"' in said
    assert "built-in responder" in said
    assert "[[llm.endpoints]]" in said
    assert "x" * 61 not in en("x" * 500)


@pytest.mark.parametrize(
    ("hour", "minute", "chinese", "english"),
    [
        (0, 5, "凌晨0点5分", "12:05 in the morning"),
        (6, 0, "上午6点整", "6 o'clock in the morning"),
        (12, 30, "中午12点30分", "12:30 in the afternoon"),
        (13, 1, "下午1点1分", "1:01 in the afternoon"),
        (23, 59, "晚上11点59分", "11:59 in the evening"),
    ],
)
def test_the_time_is_told_as_people_say_it(hour: int, minute: int, chinese: str, english: str) -> None:
    now = datetime(2026, 3, 7, hour, minute)
    assert chinese in zh("现在几点", now)
    assert english in en("what time is it", now)


def test_greetings_follow_the_day() -> None:
    assert "早上好" in zh("你好", datetime(2026, 3, 7, 8))
    assert "Good evening" in en("hello", datetime(2026, 3, 7, 22))


@pytest.mark.parametrize(("ask", "question", "jokes"), [(zh, "讲个笑话", JOKES_ZH), (en, "tell me a joke", JOKES_EN)])
def test_no_joke_is_told_twice_before_all_have_been_told(ask: object, question: str, jokes: tuple[str, ...]) -> None:
    assert callable(ask)
    told: list[str] = []
    for _ in jokes:
        told.append(ask(question, NOW, "\n".join(told)))
    assert sorted(told) == sorted(jokes)
    assert ask(question, NOW, "\n".join(told)) == told[0]


@pytest.mark.parametrize("phrase", SPOKEN_COMMANDS_EN)
def test_every_command_of_the_grammar_is_answered(phrase: str) -> None:
    assert "I heard you say" not in en(phrase)


@given(st.text(max_size=100), st.booleans(), st.datetimes())
def test_anything_gets_an_answer_that_begins_with_an_emotion_and_can_be_spoken(
    text: str, chinese: bool, now: datetime
) -> None:
    said = answer(AskedQuestion(text, chinese, now))
    assert is_emoji(said[0]) and emotion_in(said)
    assert speakable(said).speech


async def said_to(*texts: str, language: str = "zh") -> str:
    messages = [Message("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]
    return "".join(
        [delta.text async for delta in BuiltInResponder(lambda: NOW).stream(ChatRequest(messages, language))]
    )


async def test_it_answers_in_the_language_of_the_question() -> None:
    assert "现在是" in await said_to("现在几点", language="en")
    assert "It is" in await said_to("what time is it", language="zh")
    assert await said_to("3+4", language="zh") == "🤓 等于7。"
    assert await said_to("3+4", language="en") == "🤓 That makes 7."


async def test_it_streams_word_by_word() -> None:
    stream = BuiltInResponder(lambda: NOW).stream(ChatRequest([Message("user", "3+4")], "en"))
    assert [delta.text async for delta in stream] == ["🤓 ", "That ", "makes ", "7."]


async def test_it_remembers_which_jokes_it_told() -> None:
    first = await said_to("讲个笑话")
    assert await said_to("讲个笑话", first, "再来一个") not in first


async def test_without_a_question_there_is_no_answer() -> None:
    with pytest.raises(ChatError, match="no question"):
        await said_to("hi", "hello")
    with pytest.raises(ChatError, match="no question"):
        await said_to()


async def test_its_own_clock_is_used_when_none_is_given() -> None:
    stream = BuiltInResponder().stream(ChatRequest([Message("user", "what year is it")], "en"))
    said = "".join([delta.text async for delta in stream])
    assert str(datetime.now().year) in said


async def test_the_responder_stands_in_when_no_endpoint_is_set() -> None:
    built = build_chat(LlmSettings())
    assert built.chat.name == "built-in" and built.chat.states() == []
    assert "no endpoint" in built.why
    assert "[[llm.endpoints]]" in built.hint
    await built.chat.warm()
    await built.chat.close()


async def test_all_endpoints_are_taken_and_told_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    first = LlmEndpoint(name="a", base_url="http://me:word@127.0.0.1:1/v1?k=1", model="m", api_key_env="NO_SUCH_KEY")
    built = build_chat(LlmSettings(endpoints=(first, LlmEndpoint(name="b", base_url="https://b.example", model="m"))))
    assert [state.name for state in built.chat.states()] == ["a", "b"]
    assert built.why == 'endpoint "a" (edge): m at http://127.0.0.1:1/v1; endpoint "b" (cloud): m at https://b.example'
    assert built.hint == 'the variable NO_SUCH_KEY holds no key for endpoint "a"'
    await built.chat.close()
