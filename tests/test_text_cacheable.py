"""Which questions and answers may be shared between users."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.cacheable import Why, history_counts, may_ask, may_cache, may_use

STANDS_ALONE = """
法国的首都是哪里
天空为什么是蓝色的
光速是多少
李白是谁
请问水的化学式是什么
告诉我长城有多长
你能告诉我太阳有多大吗
我想知道恐龙为什么灭绝
给我讲讲量子力学是什么
吉他有几根弦
三加五等于几
怎么煮鸡蛋
珠穆朗玛峰有多高
鲸鱼是鱼吗
什么是黑洞
谢谢
你好
what is the capital of france
why is the sky blue
how tall is mount everest
who wrote hamlet
can you tell me what photosynthesis is
tell me about black holes
how many legs does a spider have
how long does it take to boil an egg
is there water on mars
what is the boiling point of water
what is twelve times three
how do airplanes fly
thank you
hello
""".strip().splitlines()
DEPENDS = """
那明天呢
现在几点了
今天天气怎么样
我叫什么名字
讲个笑话
再来一个
为什么
他是谁
她多大了
它有多高
打开客厅的灯
把音量调大
这是什么
我的生日是哪天
给我讲个故事
你喜欢我吗
美国现任总统是谁
苹果股价多少
那法国呢
然后呢
还有吗
继续
详细说说
推荐一部电影
明早七点叫我起床
你今天吃了吗
上海呢
what about him
what time is it
what's my name
tell me a joke
tell me another one
and in german
why
how old is he
turn on the light
set a timer for five minutes
what is this
is it raining
who is the president of france
what did you say
what's the weather like
how far is it
can you explain that again
do you like me
what should i eat
recommend a movie
how are you
where is it
play some music
and the second one
yes
what about tomorrow
go on
say that again
how about london
""".strip().splitlines()


@pytest.mark.parametrize("question", STANDS_ALONE)
def test_a_question_that_stands_alone_may_be_answered_from_the_cache(question: str) -> None:
    assert may_ask(question) is Why.OK


@pytest.mark.parametrize("question", DEPENDS)
def test_a_question_that_leans_on_something_may_not(question: str) -> None:
    assert may_ask(question) is not Why.OK


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("现在几点了", Why.TIME),
        ("今天天气怎么样", Why.TIME),
        ("what day is it today", Why.TIME),
        ("who is the president of france", Why.TIME),
        ("我的爱好是什么", Why.PERSONAL),
        ("what is my name", Why.PERSONAL),
        ("how are you", Why.PERSONAL),
        ("那明天呢", Why.TIME),
        ("那法国呢", Why.FOLLOW_UP),
        ("他是谁", Why.FOLLOW_UP),
        ("what about him", Why.FOLLOW_UP),
        ("and in german", Why.FOLLOW_UP),
        ("讲个笑话", Why.RANDOM),
        ("tell me a story", Why.RANDOM),
        ("打开客厅的灯", Why.COMMAND),
        ("turn on the light", Why.COMMAND),
        ("镜头里有什么", Why.IMAGE),
        ("", Why.EMPTY),
        ("？！", Why.EMPTY),
        ("x" * 121, Why.LONG),
    ],
)
def test_the_reason_is_named(question: str, why: Why) -> None:
    assert may_ask(question) is why


@pytest.mark.parametrize(
    "said",
    [
        "我喜欢科幻片", "我叫小明", "以后用英文回答", "扮演一个海盗", "说慢一点", "my name is bob", "i love science",
        "from now on speak german", "pretend you are a pirate", "be brief",
    ],
)  # fmt: skip
def test_what_the_user_said_of_himself_or_of_the_talk_counts_for_everything_after(said: str) -> None:
    assert history_counts([said, "法国的首都是哪里"])
    assert may_use("什么是黑洞", [said]) is Why.HISTORY


@pytest.mark.parametrize(
    "said", ["法国的首都是哪里", "告诉我水的化学式", "tell me about mars", "what time is it", "现在几点"]
)
def test_other_questions_before_do_not_count(said: str) -> None:
    assert not history_counts([said])
    assert may_use("什么是黑洞", [said]) is Why.OK


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("🙂 法国的首都是巴黎。", Why.OK),
        ("Paris, of course!", Why.OK),
        ("现在是下午三点二十分。", Why.TIME),
        ("It is 9:41 in the evening.", Why.TIME),
        ("今天巴黎有雨。", Why.TIME),
        ("刚才说过了，是巴黎。", Why.HISTORY),
        ("As I said, it is Paris.", Why.HISTORY),
        ("抱歉，我不知道。", Why.EXCUSE),
        ("Sorry, I can't look that up.", Why.EXCUSE),
        ("小明，法国的首都是巴黎。", Why.NAME),
        ("  ", Why.EMPTY),
        ("很长。" * 700, Why.LONG),
    ],
)
def test_the_answer_counts_as_well(answer: str, why: Why) -> None:
    assert may_cache("法国的首都是哪里", answer, names=["小明", ""]) is why


def test_answers_that_used_tools_or_pictures_are_not_kept() -> None:
    assert may_cache("法国的首都是哪里", "巴黎。", used_tools=True) is Why.TOOL
    assert may_cache("法国的首都是哪里", "巴黎。", has_image=True) is Why.IMAGE


@given(st.text(max_size=300), st.text(max_size=300), st.lists(st.text(max_size=60), max_size=3))
def test_any_text_gets_a_decision(question: str, answer: str, history: list[str]) -> None:
    kept = may_cache(question, answer, history)
    assert kept is not Why.OK or may_use(question, history) is Why.OK, "what may be kept may also be used"
