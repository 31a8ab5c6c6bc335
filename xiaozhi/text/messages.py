"""Sentences the server says of its own accord, and the mark of an interrupted reply."""

from typing import Final, Literal, TypeAlias

from xiaozhi.text.language import is_chinese

Key: TypeAlias = Literal[
    "apology",
    "busy",
    "one_moment",
    "not_understood",
    "wake_reply",
    "greeting",
    "goodbye",
    "no_sound",
    "offline",
    "on_screen",
]

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
    "on_screen": ("我把它放在屏幕上了。", "I have put it on the screen."),
    "not_understood": ("我没有听清，可以再说一遍吗？", "I didn't catch that. Could you say it again?"),
}


def message(key: Key, language: str) -> str:
    """A built-in sentence: Chinese for talkers of Chinese (`zh`, `yue`), English for everybody else."""
    chinese, english = _MESSAGES[key]
    return chinese if is_chinese(language) else english


INTERRUPTED_ZH: Final = "…[打断]"
INTERRUPTED_EN: Final = "… [interrupted]"


def interrupted_mark(language: str) -> str:
    """What the history puts behind a reply that the talker broke off."""
    return INTERRUPTED_ZH if is_chinese(language) else INTERRUPTED_EN
