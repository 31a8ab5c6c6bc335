"""`[turn]`: when a turn ends and a reply may begin."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from xiaozhi.settings.section import NextConnection, Section

# What a profile stands for. Any single value in the file overrides its profile's.
TURN_PROFILES: Mapping[str, Mapping[str, int]] = {
    "conservative": {
        "soft_end_ms": 192, "known_ms": 400, "complete_ms": 500, "neutral_ms": 1100, "trailing_ms": 1700,
        "max_speculations": 2,
    },
    "balanced": {
        "soft_end_ms": 96, "known_ms": 240, "complete_ms": 350, "neutral_ms": 900, "trailing_ms": 1400,
        "max_speculations": 5,
    },
    "aggressive": {
        "soft_end_ms": 64, "known_ms": 160, "complete_ms": 300, "neutral_ms": 600, "trailing_ms": 1000,
        "max_speculations": 5,
    },
}  # fmt: skip


def _of_profile(name: str) -> Callable[[dict[str, Any]], int]:
    """The profile's value of a setting, for where the setting itself is not given."""
    # A profile that is not valid is not among the validated values; its own error is reported, not this one.
    return lambda valid: TURN_PROFILES[valid.get("profile", "balanced")][name]


class TurnSettings(Section, applies="next turn"):
    """Turn taking: when a turn ends and a reply may begin; silences are audio time since the last voiced sample.

    zh: 对话节奏：什么时候算说完、什么时候开始回答。静音都按声音本身的时间，从最后一个有声的采样算起。
    """

    profile: Literal["conservative", "balanced", "aggressive"] = "balanced"
    """After soft_end_ms the words are recognised and, with speculate, a reply is prepared without a sound. The reply
    begins after known_ms when exactly this has been asked and answered before ([cache] answers), complete_ms when the
    words are plainly a whole sentence (a question, a command, an answer), neutral_ms when nobody can tell, trailing_ms
    when they plainly go on ("and", "because", 然后, 帮我放一首), and in between in proportion. Whoever goes on before
    is not cut off.

    A profile sets them all:             soft_end_ms  known_ms  complete_ms  neutral_ms  trailing_ms  max_speculations
      "conservative"  children, slow users       192       400          500        1100         1700                 2
      "balanced"                                  96       240          350         900         1400                 5
      "aggressive"    a quick assistant           64       160          300         600         1000                 5
    Each value can be set by itself as well and then overrides the profile.
    zh: 一组预设的停顿时间。conservative：适合孩子和说话慢的人；balanced：均衡；aggressive：反应快的助手。依次是
    soft_end / known / complete / neutral / trailing（毫秒）和 max_speculations：
      conservative：192 / 400 / 500 / 1100 / 1700，2 次
      balanced：96 / 240 / 350 / 900 / 1400，5 次
      aggressive：64 / 160 / 300 / 600 / 1000，5 次
    下面各项单独设置时，以单独设置的为准。接着说下去的人不会被打断。"""
    soft_end_ms: int = Field(default_factory=_of_profile("soft_end_ms"), ge=32, le=2000)
    """zh: 静音这么久（毫秒）就识别已经说的话，并在打开 speculate 时悄悄准备回答。"""
    known_ms: int = Field(default_factory=_of_profile("known_ms"), ge=32, le=5000)
    """zh: 同样的问题以前回答过（[cache] answers）时，静音这么久（毫秒）就开始回答。"""
    complete_ms: int = Field(default_factory=_of_profile("complete_ms"), ge=32, le=5000)
    """zh: 说的显然是一句完整的话（问句、命令、回答）时，静音这么久（毫秒）就开始回答。"""
    neutral_ms: int = Field(default_factory=_of_profile("neutral_ms"), ge=32, le=5000)
    """zh: 看不出有没有说完时，静音这么久（毫秒）才开始回答；介于两者之间的，按比例等待。"""
    trailing_ms: int = Field(default_factory=_of_profile("trailing_ms"), ge=32, le=10_000)
    """zh: 显然还没说完（“然后”“因为”“帮我放一首”“and”）时，静音这么久（毫秒）才开始回答。"""
    commit_max_ms: int = Field(2000, ge=100, le=20_000)
    """Never wait longer than this. zh: 无论如何，静音这么久（毫秒）之后不再等。"""
    speculate: bool = True
    """Prepare the reply at the soft end; at most max_speculations times in one turn. Where what was said is plainly a
    whole sentence and known before, as it is with a recogniser that streams, it is prepared at the first silence: at
    most twice in one turn, and not while more than one in four of those is in vain. Off saves tokens of the language
    model and makes every reply later by the time the model needs.
    zh: 刚一停顿就先准备回答。流式识别一安静下来就知道文字，如果显然是一句完整的话，连 soft_end_ms 也不等：一轮最多两
    次，并且白准备的总体上不超过每四轮一次。关闭可以省语言模型的 token，但每次回答都会晚一个模型的响应时间。"""
    max_speculations: int = Field(default_factory=_of_profile("max_speculations"), ge=1, le=20)
    """zh: 一轮里最多准备这么多次。"""
    max_utterance_s: float = Field(30.0, ge=2, le=120)
    """Speech is answered after this length even without a pause. zh: 说满这么久（秒），没有停顿也会回答。"""
    min_utterance_ms: int = Field(200, ge=0, le=2000)
    """Shorter speech is taken for a noise. zh: 比这更短（毫秒）的声音当作噪声。"""
    gap_ms: int = Field(150, ge=80, le=5000)
    """Some devices send nothing while nobody speaks. Where nothing has come for gap_ms in the middle of a turn, silence
    goes on by the clock. When the device stopped in the middle of a word, or has always sent its silence before, this
    may be the network, and what was said comes later, all at once: then the reply is prepared but held back, until
    nothing has come for stall_s, or, after words that sound finished, for about a second. While a key is held nothing
    of this applies.
    zh: 有些设备在没人说话时什么都不发送。说话过程中这么久（毫秒）没有收到声音，就按时钟继续计静音。按住按键说话时不
    适用。"""
    stall_s: float = Field(1.5, ge=0.2, le=30)
    """zh: 设备话说到一半突然不再发送声音，或一向连静音也发送的设备突然中断，可能只是网络卡住：回答先准备好，最多等这
    么久（秒）才说。"""
    barge_in: bool = True
    """In the realtime mode of a device speech over a reply pauses it, once it has lasted barge_in_ms, and words stop
    it; after a cough or an "mhm" it goes on. Devices without echo cancellation hear themselves: raise barge_in_ms or
    switch it off.
    zh: 设备处于实时模式时，在回答期间说话会让回答先停住，听出话来就打断；咳嗽、“嗯”之后接着说。没有回声消除的设备会
    听到自己的声音：请调大 barge_in_ms，或者关闭。"""
    barge_in_ms: int = Field(128, ge=64, le=3000)
    """zh: 说话持续这么久（毫秒），回答就先停住。"""
    wake_words: tuple[str, ...] = (
        "你好小智", "小智小智", "小智", "嗨小智", "嘿小智", "hi esp", "hey xiaozhi", "hello xiaozhi",
    )  # fmt: skip
    """What devices are woken with. A message that is only a wake word is no question and gets no answer. Spaces, case
    and punctuation do not matter.
    zh: 唤醒词。只含唤醒词的消息不算提问，也不回答。空格、大小写和标点不影响。"""
    wake_reply: NextConnection[str] = Field("", max_length=40)
    """Said when a device has been woken, such as "我在". While it speaks most devices do not hear, so keep it short, or
    leave it empty (nothing is said). Whoever speaks on at once is not talked over. "auto": the agent's own, or a
    built-in word in the language of the user.
    zh: 被唤醒时说的话，例如“我在”。说的时候大多数设备听不见，所以要短，最多 40 字；留空则不说。马上接着说话的人不会
    被盖过。auto：角色自己的应答，没有就用内置的、按说话人的语言。"""
    greeting: NextConnection[str] = Field("", max_length=200)
    """Said at the beginning of every conversation. Empty: nothing. "auto": the agent's own.
    zh: 每次对话开始时说的话，最多 200 字。留空则不说；auto：角色自己的问候。"""
    goodbye: NextConnection[str] = Field("auto", max_length=200)
    """Said before a conversation ends: after [server] idle_close_s of silence, or when the user says one of
    exit_phrases, which closes the connection. "auto": the agent's own, or a built-in one. Empty: a silent end.
    zh: 对话结束前说的话，最多 200 字：安静超过 [server] idle_close_s，或者有人说了 exit_phrases 中的话（随后断开）。
    auto：角色自己的或内置的；留空则安静地结束。"""
    exit_phrases: NextConnection[tuple[str, ...]] = (
        "再见", "拜拜", "退下", "退下吧", "小智再见", "再见小智",
        "goodbye", "good bye", "bye", "bye bye", "goodbye xiaozhi",
    )  # fmt: skip
    """zh: 说了这些话就结束对话。"""
