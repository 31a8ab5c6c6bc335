"""SenseVoice's texts, with tags for language, emotion and events; servers that run it send them as well. Pure.

Apart from the recogniser, whose library takes a quarter of a second to load: with a service nobody may wait for that.
"""

import re
from typing import Final

from xiaozhi.stages.asr.engine import Transcript

_TAG: Final = re.compile(r"<\|([^|]*)\|>")
LANGUAGES: Final = frozenset({"zh", "en", "ja", "ko", "yue"})
"""What SenseVoice knows."""
_NO_EMOTION: Final = frozenset({"", "emo_unknown", "unk"})
_EVENTS: Final = {
    "bgm": "music",
    "applause": "applause",
    "laughter": "laughter",
    "cry": "crying",
    "cough": "cough",
    "sneeze": "sneeze",
    "breath": "breath",
}


def to_transcript(text: str, language: str = "", emotion: str = "", event: str = "") -> Transcript:
    """Turn what SenseVoice says into a transcript; tags such as `<|HAPPY|>` become fields and leave the text.

    Args:
        text: the words; tags may stand anywhere in it.
        language: the language tag, such as `<|zh|>` (`<|nospeech|>` when nothing was said).
        emotion: the emotion tag.
        event: the event tag; others may stand in the text.
    """
    code = _name(language)
    feeling = _name(emotion)
    heard = [_name(event), *(tag.lower() for tag in _TAG.findall(text))]
    plain = " ".join(_TAG.sub("", text).split())
    if not any(character.isalnum() for character in plain):  # a lone full stop is how it says that nothing was said
        plain = ""
    return Transcript(
        plain,
        language=code if code in LANGUAGES else "",
        emotion="" if feeling in _NO_EMOTION else feeling,
        events=tuple(dict.fromkeys(_EVENTS[name] for name in heard if name in _EVENTS)),
    )


def _name(tag: str) -> str:
    return tag.removeprefix("<|").removesuffix("|>").lower()
