"""The built-in responder: answers simple questions when no language model is configured.

Patterns of questions in Chinese and English with their answers; it says itself that it is no language model.
"""

import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final, TypeAlias

from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.text.arithmetic import calculate, spoken_number
from xiaozhi.text.language import is_chinese, language_of
from xiaozhi.upstream.failure import FailureKind

# A Chinese character, a word with the blanks behind it, or blanks: about what a language model sends at a time.
_WORD: Final = re.compile(r"[\u3400-\u9fff]|[^\u3400-\u9fff\s]+\s*|\s+")
_ZH_WEEKDAYS: Final = "一二三四五六日"
_ZH_PARTS_OF_DAY: Final = ((6, "凌晨"), (12, "上午"), (13, "中午"), (18, "下午"), (24, "晚上"))
_EN_WEEKDAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_EN_MONTHS: Final = "January February March April May June July August September October November December".split()

JOKES_ZH: Final = (
    "😆 小明问：“为什么数学书总是不开心？”因为它的问题太多了。",
    "😂 一只蜗牛爬了三年才到家门口，看了看说：“哎呀，忘带钥匙了。”",
    "🤪 我问闹钟为什么总是那么准时，它说：“没办法，我一响就有人打我，哪敢迟到。”",
    "😆 冰箱对灯泡说：“我一开门你就亮，你是不是一直在偷看我？”",
    "😂 医生说我要多运动，于是我把遥控器放远了两米。",
)
JOKES_EN: Final = (
    "😆 Why did the clock get sent out of class? Because it kept tocking too much.",
    "😂 I asked my pillow for advice. It told me to sleep on it.",
    "🤪 What do you call a robot that always takes the long way round? R two detour.",
    "😆 My calculator and I are very close. I can always count on it.",
    "😂 Why was the broom late? It over swept.",
)
_STORY_ZH: Final = (
    "🙂 从前有一颗小星星，总嫌自己太暗。一天夜里，有只小船在海上迷了路，只有它那点微弱的光照着水面。"
    "小船回到了港湾，小星星从此知道：再小的光，也有人看得见。"
)
_STORY_EN: Final = (
    "🙂 Once there was a little star who thought it was too dim. One night a small boat lost its way at sea, and only "
    "that faint light shone on the water. The boat came home, and the star knew: somebody sees even the smallest light."
)
_CONFIGURE_ZH: Final = "想和我真正聊天，请在 settings.toml 里加上 [[llm.endpoints]]，填好地址、模型和密钥。"
_CONFIGURE_EN: Final = (
    "To really talk with me, add an [[llm.endpoints]] section to settings.toml, with an address, a model and a key."
)


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """What is asked: the text, the language to answer in, the time on the user's clock, and what was said before."""

    text: str
    chinese: bool
    now: datetime
    said_before: str = ""


_Answer: TypeAlias = str | Callable[[AskedQuestion], str]


@dataclass(frozen=True, slots=True)
class _Topic:
    """A pattern to search in the lower-cased question, and its answers."""

    pattern: re.Pattern[str]
    chinese: _Answer
    english: _Answer


def _topic(zh: str, en: str, chinese: _Answer, english: _Answer) -> _Topic:
    return _Topic(re.compile(rf"{zh}|\b(?:{en})\b"), chinese, english)


def answer(question: AskedQuestion) -> str:
    """Answer in one or a few sentences that begin with an emoji."""
    lowered = question.text.lower().replace("’", "'")
    result = _calculation(question)
    if result:
        return result
    for topic in _TOPICS:
        if topic.pattern.search(lowered):
            chosen = topic.chinese if question.chinese else topic.english
            return chosen if isinstance(chosen, str) else chosen(question)
    return _fallback(question)


def _calculation(question: AskedQuestion) -> str:
    try:
        value = calculate(question.text)
    except ZeroDivisionError:
        return "🤔 零不能做除数哦。" if question.chinese else "🤔 Nothing can be divided by zero."
    except OverflowError:
        return "😯 这个数太大了，我算不过来。" if question.chinese else "😯 That number is too big for me."
    if value is None:
        return ""
    return _result(value, question.chinese)


def _result(value: Fraction, chinese: bool) -> str:
    number = spoken_number(value)
    exact = Fraction(number) == value
    if chinese:
        return f"🤓 {'等于' if exact else '大约等于'}{number}。"
    return f"🤓 That makes {number}." if exact else f"🤓 That makes about {number}."


def _time_zh(question: AskedQuestion) -> str:
    now = question.now
    part = next(name for until, name in _ZH_PARTS_OF_DAY if now.hour < until)
    hour = (now.hour - 1) % 12 + 1 if now.hour else 0
    minutes = "整" if now.minute == 0 else f"{now.minute}分"
    return f"🙂 现在是{part}{hour}点{minutes}。"


def _time_en(question: AskedQuestion) -> str:
    now = question.now
    hour = (now.hour - 1) % 12 + 1
    time = f"{hour} o'clock" if now.minute == 0 else f"{hour}:{now.minute:02d}"
    part = "morning" if now.hour < 12 else "afternoon" if now.hour < 18 else "evening"
    return f"🙂 It is {time} in the {part}."


def _date_zh(question: AskedQuestion) -> str:
    now = question.now
    return f"🙂 今天是{now.year}年{now.month}月{now.day}日，星期{_ZH_WEEKDAYS[now.weekday()]}。"


def _date_en(question: AskedQuestion) -> str:
    now = question.now
    return f"🙂 Today is {_EN_WEEKDAYS[now.weekday()]}, {_EN_MONTHS[now.month - 1]} {now.day}, {now.year}."


def _joke(question: AskedQuestion) -> str:
    """A joke this user has not heard, beginning anywhere; when all have been told, the one told longest ago."""
    jokes: tuple[str, ...] = JOKES_ZH if question.chinese else JOKES_EN
    start = question.now.minute % len(jokes)
    jokes = jokes[start:] + jokes[:start]
    # Behind the emoji; an interrupted joke is in the history with its beginning alone.
    told = [question.said_before.rfind(joke[2:12]) for joke in jokes]
    return jokes[told.index(min(told))]


def _hello_zh(question: AskedQuestion) -> str:
    hour = question.now.hour
    greeting = "早上好" if 5 <= hour < 11 else "晚上好" if hour >= 18 or hour < 5 else "你好"
    return f"😊 {greeting}！我是小智，很高兴和你说话。"


def _hello_en(question: AskedQuestion) -> str:
    hour = question.now.hour
    greeting = "Good morning" if 5 <= hour < 12 else "Good evening" if hour >= 18 or hour < 5 else "Hello"
    return f"😊 {greeting}! I am Xiaozhi. Nice to hear you."


def _fallback(question: AskedQuestion) -> str:
    heard = question.text.strip().rstrip("。.!！")
    if len(heard) > 60:
        heard = heard[:60] + "…"
    if question.chinese:
        return f"🤔 我是内置的应答程序，还没有接上大模型。我听到你说：“{heard}”。{_CONFIGURE_ZH}"
    return f'🤔 I am the built-in responder, no language model is set up. I heard you say: "{heard}". {_CONFIGURE_EN}'


# Where the device has a tool for it, plain wishes are carried out before anybody is asked.
_VOLUME_ZH: Final = "😳 我没听懂音量要调到多少，或者这个设备不让我调。可以说“音量调到五十”，或者用设备上的按键。"
_VOLUME_EN: Final = (
    "😳 I did not get what volume you want, or this device does not let me change it. "
    'Say "set the volume to fifty", or use its buttons.'
)

# The first that fits wins.
_TOPICS: Final = (
    _topic(
        "笑话|逗我|笑一笑|再(?:来|讲|说)一个",
        r"joke|make me laugh|another one|something funny",
        _joke,
        _joke,
    ),
    _topic("故事", r"story", _STORY_ZH, _STORY_EN),
    _topic(
        "唱(?:首|个|一首|支)?歌|唱歌|放(?:首|点|一首)?(?:歌|音乐)",
        r"sing|play (?:some |a )?(?:music|song)|song",
        "😳 我还不会唱歌，不过可以给你讲个笑话。",
        "😳 I can't sing, but I can tell you a joke.",
    ),
    _topic(
        "音量|(?:声音|声)(?:再)?(?:大|小|响|轻|调)|(?:大|小)(?:点|一点)?声|静音|太吵|听不见",
        r"volume|louder|quieter|softer|mute|unmute|turn it (?:up|down)|too loud",
        _VOLUME_ZH,
        _VOLUME_EN,
    ),
    _topic(
        "天气|下雨|气温|多少度|冷不冷|热不热",
        r"weather|rain(?:ing)?|temperature|forecast",
        "😔 我是内置的应答程序，不能上网查天气。往窗外看一眼最准。",
        "😔 I am the built-in responder and can't look up the weather. Try a glance out of the window.",
    ),
    _topic(
        "几点|什么时间|什么时候了|报时|现在.{0,3}时间",
        r"what time|what's the time|what is the time|the time|what hour",
        _time_zh,
        _time_en,
    ),
    _topic(
        "几号|几月|日期|星期几|礼拜几|周几|哪天|哪一年|哪年|几几年|什么日子",
        r"what date|the date|what day|what weekday|which day|what year|which year|what month|today's date|date today",
        _date_zh,
        _date_en,
    ),
    _topic(
        "你是谁|你叫什么|你的名字|叫啥|你是什么|你是不是|介绍.{0,3}自己|是真人吗|大模型",
        r"who are you|what are you|your name|are you (?:a |an )?(?:robot|human|real|person|ai|machine)|about yourself",
        "🙂 我是小智，现在是内置的应答程序在和你说话，还没有接上大模型。",
        "🙂 I am Xiaozhi. Right now you are talking to the built-in responder, without a language model.",
    ),
    _topic(
        "会(?:做|干)?什么|能(?:做|干|帮我)?(?:做)?什么|有什么(?:功能|用|本事)|怎么用|帮助|会些什么",
        r"what can you do|what do you do|help|what else can you",
        f"🙂 我会报时间和日期，会算算术，会讲笑话和故事，也能随便聊两句。{_CONFIGURE_ZH}",
        f"🙂 I can tell the time and the date, do sums, tell jokes and a story, and make small talk. {_CONFIGURE_EN}",
    ),
    _topic(
        "几岁|多大了|年纪|多大年",
        r"how old|your age|your birthday",
        "😜 我刚装好不久，还是个小朋友呢。",
        "😜 I was installed not long ago, so I am still very young.",
    ),
    _topic(
        "谢谢|多谢|感谢|谢啦|辛苦了",
        r"thanks|thank you|thank",
        "😊 不客气，能帮到你我很开心。",
        "😊 You're welcome, happy to help.",
    ),
    _topic(
        "再见|拜拜|晚安|回头见|下次(?:再)?聊|我走了|退下|没事了",
        r"good ?bye|bye|good night|see you|talk to you later|that's all",
        "🙂 再见，随时来找我聊天。",
        "🙂 Goodbye, come and talk to me any time.",
    ),
    _topic(
        "你(?:今天|最近)?(?:好吗|怎么样|还好吗|过得)|最近怎么样|心情",
        r"how are you|how do you do|how is it going|how's it going|what's up",
        "😊 我很好，谢谢你关心！你今天过得怎么样？",
        "😊 I am very well, thank you! How is your day?",
    ),
    _topic(
        "我(?:好|很|有点)?(?:难过|伤心|不开心|累|烦|郁闷|无聊)|心情不好",
        r"i(?:'m| am| feel)(?: so| very| a bit)? (?:sad|tired|bored|lonely|unhappy)",
        "😔 听起来有点不容易。深呼吸一下，要不要我讲个笑话给你听？",
        "😔 That sounds hard. Take a deep breath. Shall I tell you a joke?",
    ),
    _topic(
        "我(?:好)?(?:爱|喜欢)你|想你",
        r"i (?:love|like|miss) you",
        "😍 听到你这么说真开心，我也喜欢你！",
        "😍 That makes me happy. I like you too!",
    ),
    _topic(
        "真棒|好棒|厉害|聪明|真好|有意思|好笑|哈哈|可爱",
        r"well done|good job|you are (?:funny|great|clever|smart|nice|cute)|that(?:'s| is) (?:funny|great)",
        "😊 谢谢夸奖，我会继续努力的！",
        "😊 Thank you, I'll keep trying!",
    ),
    _topic(
        "笨|傻|讨厌你|烦人|闭嘴",
        r"stupid|you are bad|shut up|i hate you",
        "😔 对不起，我还有很多要学。",
        "😔 I'm sorry, I still have a lot to learn.",
    ),
    _topic(
        "你好|您好|嗨|哈喽|哈啰|早上好|早安|下午好|晚上好|中午好|喂|在吗|小智",
        r"hello|hi|hey|good (?:morning|afternoon|evening|day)|nice to meet you|xiaozhi",
        _hello_zh,
        _hello_en,
    ),
)


def _local_time() -> datetime:
    return datetime.now().astimezone()


class BuiltInResponder:
    """A `ChatModel` of patterns: time, date, sums, jokes, small talk; it says itself that it is no language model.

    Args:
        now: the user's clock; the local time of the server when left out.
    """

    name = "built-in"

    def __init__(self, now: Callable[[], datetime] = _local_time) -> None:
        self._now = now

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer the last message word by word, without delay; it calls no tools.

        Raises:
            ChatError: the last message is not the user's.
        """
        messages = request.messages
        if not messages or messages[-1].role != "user":
            raise ChatError("built-in responder: there is no question", kind=FailureKind.REQUEST)
        text = messages[-1].content
        said_before = "\n".join(message.content for message in messages if message.role == "assistant")
        chinese = is_chinese(language_of(text, default=request.language))
        for word in _WORD.findall(answer(AskedQuestion(text, chinese, self._now(), said_before))):
            yield Delta(word)

    async def warm(self) -> str:
        """There is nothing to open."""
        return ""

    async def close(self) -> None:
        """There is nothing to close."""
