"""Sentences the server says of its own accord, and the mark of an interrupted reply."""

from collections.abc import Collection
from typing import Final, Literal, TypeAlias

from xiaozhi.text.language import is_chinese

Key: TypeAlias = Literal[
    "apology", "busy", "one_moment", "not_understood", "wake_reply", "greeting", "goodbye", "no_sound", "offline",
    "declined", "done", "done_untold", "on_screen",
]  # fmt: skip

_MESSAGES: Final[dict[Key, tuple[str, str]]] = {
    "apology": (
        "抱歉，我现在连不上大脑，请稍后再试一次。",
        "Sorry, I can't reach my brain right now. Please try again in a moment.",
    ),
    "busy": (
        "现在找我的人有点多，请过一会儿再跟我说话。",
        "I'm talking to a lot of people right now. Please try again in a little while.",
    ),
    "one_moment": ("稍等一下，我马上回答你。", "One moment, please."),
    "wake_reply": ("我在。", "I'm here."),
    "greeting": ("你好，我是小智，想聊点什么？", "Hello, I'm Xiaozhi. What would you like to talk about?"),
    "goodbye": ("好的，再见，有事随时叫我。", "Goodbye! Call me whenever you need me."),
    "offline": (
        "我现在连不上云端，刚才是本地回答的。",
        "I can't reach the cloud right now, so I answered that on my own.",
    ),
    "no_sound": ("抱歉，这个放不出来。", "Sorry, I can't play that."),
    "declined": (
        "这个话题我不太方便聊，我们换一个吧。",
        "I would rather not talk about that. Let's talk about something else.",
    ),
    "done": ("好了。", "Done."),
    "done_untold": (
        "抱歉，事情已经做了，可是我现在没法告诉你结果。",
        "Sorry, I have done that, but I can't tell you what came of it right now.",
    ),
    "on_screen": ("我把它放在屏幕上了。", "I have put it on the screen."),
    "not_understood": ("我没有听清，可以再说一遍吗？", "I didn't catch that. Could you say it again?"),
}


def message(key: Key, language: str) -> str:
    """A built-in sentence: Chinese for users of Chinese (`zh`, `yue`), English for everybody else."""
    chinese, english = _MESSAGES[key]
    return chinese if is_chinese(language) else english


_LANGUAGES: Final = {
    "zh": ("中文", "Chinese"),
    "en": ("英语", "English"),
    "yue": ("粤语", "Cantonese"),
    "ja": ("日语", "Japanese"),
    "ko": ("韩语", "Korean"),
}


def only_understands(languages: Collection[str], *, soon: bool) -> tuple[str, str]:
    """What somebody hears who speaks another language, in Chinese and in English: both, since neither may be theirs.

    Args:
        languages: those that are understood, of `zh`, `en` ….
        soon: a recogniser that knows more is being fetched.
    """
    known = [names for language, names in _LANGUAGES.items() if language in languages]
    chinese, english = "和".join(zh for zh, _ in known), " and ".join(en for _, en in known)
    if soon:
        return (
            f"我现在只听得懂{chinese}，更好的识别模型正在下载，请稍等。",
            f"I only understand {english} for now; a better model is on its way.",
        )
    return (
        f"我现在只听得懂{chinese}，请在控制台下载识别模型。",
        f"I only understand {english}; a better model can be downloaded in the console.",
    )


INTERRUPTED_ZH: Final = "…[打断]"
INTERRUPTED_EN: Final = "… [interrupted]"


def unasked_mark(language: str) -> str:
    """What stands in the history for the user's words before the first thing that was said unasked.

    Many models' templates want the user to begin, and both to take turns.
    """
    return "（还没有人说话，你先开了口。）" if is_chinese(language) else "(Nobody has spoken yet: you began.)"


def interrupted_mark(language: str) -> str:
    """What the history puts behind a reply that the user broke off."""
    return INTERRUPTED_ZH if is_chinese(language) else INTERRUPTED_EN
