"""The faces a device can show, and which face an emoji means."""

from typing import Final

# The 21 names of the device protocol with the emoji that stands for each.
_FACES: Final[dict[str, str]] = {
    "neutral": "😶",
    "happy": "🙂",
    "laughing": "😆",
    "funny": "😂",
    "sad": "😔",
    "angry": "😠",
    "crying": "😭",
    "loving": "😍",
    "embarrassed": "😳",
    "surprised": "😯",
    "shocked": "😱",
    "thinking": "🤔",
    "winking": "😉",
    "cool": "😎",
    "relaxed": "😌",
    "delicious": "🤤",
    "kissy": "😘",
    "confident": "😏",
    "sleepy": "😴",
    "silly": "😜",
    "confused": "🙄",
}

EMOTIONS: Final = tuple(_FACES)
"""The 21 names."""

# Other emoji that models like to begin with, each with the nearest face.
_NEAREST: Final[dict[str, str]] = {
    "neutral": "😐😑🫥🤐🤖📅🕐🕒⏰",
    "happy": "😀😃😄😊☺😁🤗👋🎉🥳✨🌞☀👍👌🙌💪🌈🎂😺😸🐱🐶🌟⭐🎊🤝👏🙏🥹",
    "laughing": "😝🤭",
    "funny": "🤣😹🤡",
    "sad": "😞😟😥😢☹🙁😕😿💔😓😪😰🥺",
    "angry": "😡🤬👿😤💢😾",
    "crying": "😫😩😣😖",
    "loving": "🥰❤💖💕💗💓💞💘💙💚💛💜🧡🤍🖤😻♥🩷🌹",
    "embarrassed": "😅🫣🙈🫠",
    "surprised": "😮😲🤩❗‼🙀",
    "shocked": "😨😧😦🤯😵⚠",
    "thinking": "🧐💭💡🔍📚❓🤓📝",
    "winking": "😙🫡",
    "cool": "🆒🕶🤙🚀🔥🤠",
    "relaxed": "😇🧘☕🍃🌿🌙🍵🎵🎶",
    "delicious": "😋🍜🍎🍔🍕🍰🍦🍓🤑🍽",
    "kissy": "😗😚💋💏",
    "confident": "😼💯🏆🥇",
    "sleepy": "🥱💤😮‍💨🛌",
    "silly": "🤪😛👅👻🥴🐒",
    "confused": "😒🤨🤷😬🫤❔🤦",
}

_BY_EMOJI: Final[dict[str, str]] = {face: name for name, face in _FACES.items()}
for _name, _emoji in _NEAREST.items():
    for _char in _emoji:
        if _char not in "\ufe0f\u200d":
            _BY_EMOJI.setdefault(_char, _name)


def emoji_of(emotion: str) -> str:
    """The emoji of one of the 21 names; that of `neutral` for any other."""
    return _FACES.get(emotion, _FACES["neutral"])


def emotion_in(text: str) -> str:
    """The emotion of the first emoji in `text` that means one; empty when there is none."""
    for char in text:
        emotion = _BY_EMOJI.get(char)
        if emotion is not None:
            return emotion
    return ""


def is_emoji(char: str) -> bool:
    """Whether a character is an emoji or one of the invisible characters that glue and colour emoji.

    Digits, letters, currency signs, arrows, mathematical signs and East Asian punctuation are none.
    """
    code = ord(char)
    return (
        0x1F000 <= code <= 0x1FAFF  # faces, hands, animals, food, flags, cards, skin tones
        or 0x2600 <= code <= 0x27BF  # weather, stars, hearts, dingbats
        or code in (0x200D, 0x20E3, 0xFE0E, 0xFE0F)  # joiner, keycap, text and picture style
        or 0xE0020 <= code <= 0xE007F  # tags of regional flags
        or 0x2300 <= code <= 0x23FF  # clocks, hourglass, play signs
        or code in (0x203C, 0x2049, 0x2122, 0x2139, 0x2934, 0x2935, 0x3030, 0x303D, 0x3297, 0x3299)
        or 0x2B00 <= code <= 0x2BFF  # stars, big arrows
    )
