"""Which answers may be given again to whoever asks the same, and which questions may get such an answer. Pure.

A question stands alone when nothing in it points at the user, the conversation, the moment or the device, and when
nobody would want another answer the second time. What is doubtful is not kept: it costs one request to the model.
"""

import re
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Final

from xiaozhi.text.given_away import gives_away
from xiaozhi.text.same_words import normal_form

MAX_QUESTION_CHARS: Final = 120
"""A longer one is not looked up: it is never asked again, and looking at it costs time on the loop."""
_MAX_ANSWER_CHARS: Final = 2000
_HAN: Final = re.compile(r"[\u3400-\u9fff]")


class Why(Enum):
    """Why an answer may not be used again; `OK` when it may."""

    OK = "ok"
    EMPTY = "empty"
    LONG = "long"
    TOOL = "tool"
    IMAGE = "image"
    TIME = "time"
    PERSONAL = "personal"
    FOLLOW_UP = "follow-up"
    RANDOM = "random"
    COMMAND = "command"
    HISTORY = "history"
    NAME = "name"
    EXCUSE = "excuse"


def _zh(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _en(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b")


# Phrases with 我 or "me" that do not speak of the user.
_ASKING_ZH: Final = _zh(
    "(?:你|请|能不能|可以|可不可以|能|麻烦你?)*(?:告诉|教教|教|给|帮|跟|和|对|为|替|陪)(?:一下)?(?:我们|我)(?:们)?"
    "|我(?:们)?(?:很|就|有点|还)?(?:想|要)(?:再)?(?:知道|问|了解|请问|听听"
    "|请教)(?:一下|你|您)*|我问(?:一下|你)*|我们的?(?=地球|太阳系|国家|人类|宇宙)"
)
_ASKING_EN: Final = _en(
    "tell me|give me|show me|teach me|help me|let me know|excuse me"
    "|explain (?:it )?to me|explain me|remind me what|can i ask|may i ask|"
    "i (?:just )?(?:want|wanted|would like|'d like|need) to (?:know|ask|understand|learn)|i'd like to (?:know|ask)|"
    "i wonder|i am wondering|i'm wondering|i was wondering|can you tell us|tell us"
)

_TIME_ZH: Final = _zh(
    "现在|目前|当前|刚刚|刚才|今天|今晚|今早|今年|今儿|明天|明年|明早|明晚"
    "|后天|昨天|昨晚|前天|去年|这周|本周|下周|上周|这个?月|本月|下个?月|上个?月"
    "|周[一二三四五六日天末]|星期|礼拜|几点|几号|几月|日期|时间|时候了|最近"
    "|最新|近期|近来|这几天|马上|待会|等会|一会儿|天气|气温|下雨|下雪|温度|预报"
    "|新闻|头条|热搜|股价|股票|股市|大盘|汇率|价格|多少钱|油价|金价|房价|比分|赛程"
    "|比赛结果|路况|航班|排名|票房|现任|在任|还有几天|还有多久|距离.*还有|倒计时"
    "|早上好|上午好|中午好|下午好|晚上好|早安|晚安|几岁|多大了|生日|农历|节日|放假|日出|日落|月相"
)
_TIME_EN: Final = _en(
    "now|nowadays|currently|current|right now|at the moment|today|today's|todays|tonight|tomorrow|yesterday|this "
    "(?:morning|afternoon|evening|week|month|year|weekend|season)|next (?:week|month|year|time|day|weekend)|last "
    "(?:night|week|month|year|time)|monday|tuesday|wednesday"
    "|thursday|friday|saturday|sunday|weekend|what time|the time|"
    "the date|what date|what day|which day|what month|what year is"
    "|weather|forecast|temperature|raining|rain|snow|snowing|"
    "news|headlines|latest|recent|recently|lately|stock|stocks|share price|price|prices|exchange rate|score|scores|"
    "schedule|traffic|flight|how long until|how many days|days until|countdown|soon|later|ago|yet|still|anymore|"
    "good (?:morning|afternoon|evening|night)|how old|birthday|sunrise|sunset|president|prime minister|champion|"
    "how much (?:is|does|are|do)|cost|costs|o'clock|age"
)
_PERSONAL_ZH: Final = _zh("我|俺|咱|本人|自己|家里|老婆|老公|媳妇|女朋友|男朋友|记得|记住|忘")
_PERSONAL_EN: Final = _en(
    "i|i'm|im|i've|i'd|i'll|me|my|mine|myself|we|we're|we've|us|our|ours|ourselves|remember|forget|recognize|recognise"
)
_YOU_ZH: Final = _zh(
    "你(?:今天|昨天|最近|现在|还|刚|怎么了|怎么样|好吗|在吗|在不在|在干|在做"
    "|吃了|饿|困|累|听|想|爱|喜欢|觉得|认为|会不会|生气|开心|难过)|您|你俩"
)
_YOU_EN: Final = _en(
    "how are you|how's it going|how do you feel|are you (?:ok|okay"
    "|there|sure|busy|tired|happy|sad|angry)|do you (?:like|love|"
    "think|feel|want)|what are you doing|can you hear|you said"
    "|you told|did you|were you|have you|your (?:favorite|favourite|"
    "opinion|day)"
)
_FOLLOW_ZH: Final = _zh(
    "^(?:那|那么|那你|然后|接着|还有|所以|但是|可是|不过|而且|另外|为什么|为啥"
    "|怎么会|怎么办|真的|是吗|对吗|继续|然后呢|再|换|什么意思|谁|哪里|哪个|多少|几个"
    "|是的?|不是|不|对|好|行|可以|不行|不要|要|嗯|啊|哦|没有|有)(?:呢|吗|啊|吧|呀|了|的)*$"
    "|^(?:那么|那|然后|接着|所以|但是|可是|不过|而且|另外|还有|再|又|也|再来)|呢$"
    "|他|她|它|这|那(?!么|摩|格|霸|坡|斯|英|威|曲|伽)|此|其(?!实|他|中)|前者|后者|上面|刚才"
    "|之前|上一|下一|上次|下次|同样|一样|另一|别的|其他的|继续|接着|再说|再讲|换一|重复"
    "|第[一二三四五六七八九十]个|更|还有(?:别的|吗|什么|哪些)|举个例子|详细|具体|简单点|简短|短一点|长一点|什么意思$"
)
_NEIGHBOUR_ZH: Final = _zh("(?:什么|啥)是.+呢$|.{6,}呢$")
_FOLLOW_EN: Final = _en(
    "he|him|his|she|her|hers|it|it's|its|they|them|their|theirs"
    "|this|that|that's|these|those|there|here|one|ones|the former|"
    "the latter|the same|same|previous|above|below|again|another"
    "|more|else|other|others|instead|also|too|either|continue|go on|"
    "go ahead|keep going|repeat|elaborate|in detail|details|shorter|longer|simpler|such|so"
)
_LEADS_EN: Final = re.compile(
    r"^(?:and|but|or|so|then|what about|how about|why|why not"
    r"|how come|really|who|where|when|which|how|what|yes|no|ok|okay|"
    r"sure|right|please|for example|like what|says who|because)(?:\s*$"
    r"|(?<=and)\s|(?<=but)\s|(?<=or)\s|(?<=so)\s|(?<=then)\s"
    r"|(?<=about)\s|(?<=because)\s)"
)
_FIXED_IT_EN: Final = re.compile(
    r"\b(?:is|does|do|did|was|how) (?:it) (?=(?:take|possible|safe"
    r"|true that|rain|snow|mean to|called when|healthy to|bad to|good to)\b)"
    r"|\bhow (?:long|much|many|far) (?:does|would|is) it (?:take"
    r"|cost|from)\b|\bis there\b|\bare there\b|\bthis (?:is called)\b"
    r"|\bone (?=(?:hundred|thousand|million|plus|minus|times|meter"
    r"|mile|kilometer|kilogram|pound|hour|year|day|dollar|inch|foot)\b)"
    r"|\b(?:that) (?=(?:live|lives|fly|swim|eat|eats|can|cannot|have|has|start|starts|begin|begins|is|are)\b)"
    r"|\bso (?=(?:blue|red|big|hot|cold|salty|high|important|many|much|dangerous|bright|dark|small|expensive)\b)"
)
_RANDOM_ZH: Final = _zh(
    "笑话|段子|故事|唱|首歌|歌|诗|作文|谜语|脑筋急转弯|猜|随机|随便|抽|掷|骰子|扔硬币"
    "|抛硬币|再来|换一|推荐|建议|介绍几|名字|起名|取名|对联|顺口溜|绕口令|夸|祝福"
    "|聊天|聊聊|陪|玩|游戏|接龙|编一|写一|写个|写首|写段|造句|出题"
    "|考考|有趣|好玩|好笑|冷知识|无聊|点评|一个字|一句话|名言|想象"
)
_RANDOM_EN: Final = _en(
    "joke|jokes|story|stories|tale|poem|poems|rhyme|song|sing|riddle"
    "|riddles|puzzle|quiz|guess|random|randomly|dice|coin|flip|"
    "roll|pick|choose|surprise|recommend|recommendation|suggest"
    "|suggestion|suggestions|idea|ideas|advice|funny|fun fact|"
    "interesting|bored|play|game|games|chat|talk|compliment|write"
    "|compose|imagine|invent a|make up|make a|quote|something|"
    "anything|trivia"
)
_COMMAND_ZH: Final = _zh(
    "打开|关闭|关掉|关上|关灯|开灯|启动|停止|停下|暂停|播放|放(?:一?首|点|一下)|调(?:高|低|大|小"
    "|亮|暗|到|成|整)|音量|声音|亮度|设置|设定|设个|定个|定一个|闹钟|提醒|计时|倒数|记一下|记下"
    "|打电话|发(?:消息|短信|微信|邮件)|搜索|搜一下|查一下|查询|导航|拍照|拍一张|看看|截图"
    "|充电|电量|连接|断开|重启|升级|退出|闭嘴|安静|别说|切换|下载|安装|买|订|预订|点外卖"
)
_COMMAND_EN: Final = re.compile(
    r"^(?:please |can you |could you |would you |will you )*(?:turn"
    r"|switch|open|close|shut|start|stop|pause|resume|play|set|put|"
    r"dim|brighten|raise|lower|increase|decrease|mute|unmute|call"
    r"|text|send|email|message|remind|wake|schedule|add|remove|delete|"
    r"cancel|create|book|order|buy|search|google|look up|find|navigate"
    r"|take|snap|capture|show|connect|disconnect|restart|reboot|"
    r"update|upgrade|be quiet|shut up|lock|unlock|arm|disarm|note"
    r"|record|save|speak|say|read|translate it|act|pretend|change|"
    r"use|check|go to sleep|volume)\b"
    r"|\b(?:alarm|timer|reminder|volume|brightness|battery|camera|picture|photo|image|look at|see in front)\b"
)
_IMAGE_ZH: Final = _zh("照片|图片|画面|镜头|摄像头|看到(?:了)?什么|看见(?:了)?什么|眼前|面前")

# What a person says of themselves or wishes of the talk: it colours every answer after it.
_COLOURS_ZH: Final = _zh(
    "我|俺|咱|以后|从现在|从今|叫你|扮演|假装|假设|用.{1,6}(?:回答"
    "|说|讲)|说(?:英文|中文|英语|粤语|慢|快)|简短|详细|语气|记住|记得"
)
_COLOURS_EN: Final = _en(
    "i|i'm|im|i've|i'd|i'll|my|me|mine|we|our|us|from now on|pretend"
    "|act|speak|answer in|respond in|reply in|talk like|be brief|"
    "briefly|call yourself|your name is|you are a|remember|always"
    "|never|imagine|suppose|instead|shorter|longer|simple|simpler"
)

_ANSWER_TIME: Final = re.compile(
    r"现在是|现在时间|今天是|今天|今晚|明天|昨天|此刻|目前是|最新|\d[:：]\d\d|\d\s*点\s*(?:\d+\s*分|半|钟|整)|截至|"
    r"\b(?:today|tonight|tomorrow|yesterday|right now|at the moment"
    r"|as of|it is now|currently|o'clock|\d{1,2}:\d\d|this "
    r"(?:morning|afternoon|evening|week|month|year))\b"
)
_ANSWER_HISTORY: Final = re.compile(
    r"刚才|刚刚|之前(?:说|提|聊|问)|你说过|你提到|你告诉|我记得|我们聊"
    r"|正如我|如我所说|前面(?:说|提)|上次|又问|再说一遍|再次|还是那|"
    r"\b(?:as i (?:said|mentioned)|like i said|you (?:said|told"
    r"|mentioned|asked)|earlier|i remember|we (?:talked|discussed|spoke)|"
    r"as (?:before|mentioned|discussed)|last time|once more|again)\b"
)
_ANSWER_EXCUSE: Final = re.compile(
    r"抱歉|对不起|不好意思|我不知道|我不清楚|我不确定|我无法|我没办法|我不能"
    r"|我查不到|没听清|没听懂|不太明白|请再说|出错|出了点问题|网络|稍后|"
    r"\b(?:sorry|i (?:do not|don't|didn't) (?:know|understand|catch)"
    r"|i am not sure|i'm not sure|i (?:can't|cannot|am unable|"
    r"couldn't)|unable to|try again|error|went wrong|as an ai)\b"
)


def may_ask(question: str) -> Why:
    """Whether a question may be answered with what somebody else got for it, before anything else is known.

    Args:
        question: what the user said.
    """
    if len(question) > MAX_QUESTION_CHARS:
        return Why.LONG
    form = normal_form(question)
    if not form:
        return Why.EMPTY
    return _of_chinese(question.lower(), form) if _HAN.search(question) else _of_english(_english(question))


def _english(text: str) -> str:
    return " ".join(re.sub(r"[^\w'\s]+", " ", text.lower().replace("’", "'")).split())


def _of_chinese(lowered: str, form: str) -> Why:
    if len(form) < 2:
        return Why.FOLLOW_UP
    asked = _ASKING_ZH.sub("", form)
    if _IMAGE_ZH.search(asked):
        return Why.IMAGE
    if _TIME_ZH.search(asked) or _TIME_EN.search(lowered):
        return Why.TIME
    if _COMMAND_ZH.search(asked):
        return Why.COMMAND
    if _RANDOM_ZH.search(asked):
        return Why.RANDOM
    if _PERSONAL_ZH.search(asked) or _YOU_ZH.search(asked):
        return Why.PERSONAL
    follow = _FOLLOW_ZH.search(_SETTLED_ZH.sub("", asked))
    if follow is not None and not (follow.group() == "呢" and _NEIGHBOUR_ZH.search(asked)):
        return Why.FOLLOW_UP
    return Why.OK


# Words that hold 这, 那, 他, 其 and the like and point at nothing.
_SETTLED_ZH: Final = _zh(
    "其实|其他|其中|吉他|他乡|那么多|维他命|马耳他|基督|更年期|更新世"
    "|变更|再生|再见|再生资源|一样|也门|也许|其余|有人|这样|那样"
)


def _of_english(text: str) -> Why:
    if not text:
        return Why.EMPTY
    asked = " ".join(_ASKING_EN.sub(" ", text).split())
    if _TIME_EN.search(asked):
        return Why.TIME
    if _COMMAND_EN.search(asked):
        return Why.COMMAND
    if _RANDOM_EN.search(asked):
        return Why.RANDOM
    if _PERSONAL_EN.search(asked) or _YOU_EN.search(asked):
        return Why.PERSONAL
    pointing = " ".join(_FIXED_IT_EN.sub(" ", asked).split())
    if _LEADS_EN.search(asked) or _FOLLOW_EN.search(pointing):
        return Why.FOLLOW_UP
    return Why.OK


def history_counts(history: Sequence[str]) -> bool:
    """Whether what the user said before may colour every answer from then on: themselves, or how to talk.

    What is longer than a question was typed, and tells something.

    Args:
        history: the user's earlier texts.
    """
    return any(len(text) > MAX_QUESTION_CHARS for text in history) or any(
        _COLOURS_ZH.search(_ASKING_ZH.sub("", normal_form(text))) is not None
        if _HAN.search(text)
        else _COLOURS_EN.search(_ASKING_EN.sub(" ", _english(text))) is not None
        for text in history
    )


def may_use(question: str, history: Sequence[str], *, has_image: bool = False) -> Why:
    """Whether this turn may be answered from the cache.

    Args:
        question: what the user said.
        history: the user's earlier texts of this conversation.
        has_image: a picture belongs to the question.
    """
    if has_image:
        return Why.IMAGE
    why = may_ask(question)
    if why is not Why.OK:
        return why
    return Why.HISTORY if history_counts(history) else Why.OK


def may_cache(
    question: str,
    answer: str,
    history: Sequence[str] = (),
    *,
    used_tools: bool = False,
    has_image: bool = False,
    names: Collection[str] = (),
    answered: Sequence[str] = (),
) -> Why:
    """Whether an answer may be given again to whoever asks the same.

    Args:
        question: what the user said.
        answer: what the model said, whole.
        history: the user's earlier texts of this conversation.
        used_tools: a tool was called for it.
        has_image: a picture belongs to the question.
        names: words that belong to this user alone: names and what is remembered of them.
        answered: what was answered earlier in this conversation.
    """
    if used_tools:
        return Why.TOOL
    why = may_use(question, history, has_image=has_image)
    if why is not Why.OK:
        return why
    if not answer.strip():
        return Why.EMPTY
    if len(answer) > _MAX_ANSWER_CHARS:
        return Why.LONG
    lowered = answer.lower().replace("’", "'")
    if any(name and name.lower() in f"{question.lower()}\n{lowered}" for name in names):
        return Why.NAME
    if _ANSWER_TIME.search(lowered):
        return Why.TIME
    if _ANSWER_HISTORY.search(lowered) or gives_away(answer, question, history, answered):
        return Why.HISTORY
    return Why.EXCUSE if _ANSWER_EXCUSE.search(lowered) else Why.OK
