"""What a voice sounded like, as a side note for the model. Pure."""

from collections.abc import Sequence
from typing import Final

# Recognisers' own words; what is not here (`neutral`, speech itself, music in the room) is not worth a note.
_FEELINGS: Final[dict[str, tuple[str, str]]] = {
    "happy": ("开心", "cheerful"),
    "sad": ("难过", "sad"),
    "angry": ("生气", "angry"),
    "fearful": ("害怕", "frightened"),
    "disgusted": ("反感", "disgusted"),
    "surprised": ("惊讶", "surprised"),
}
_SOUNDS: Final[dict[str, tuple[str, str]]] = {
    "laughter": ("在笑", "laughing"),
    "crying": ("在哭", "crying"),
    "cough": ("在咳嗽", "coughing"),
    "sneeze": ("打了喷嚏", "sneezing"),
    "applause": ("在鼓掌", "applauding"),
}


def side_note(emotion: str, events: Sequence[str], *, chinese: bool) -> str:
    """A note to put behind the user's words; empty when there is nothing to say.

    Args:
        emotion: as `Transcript.emotion`.
        events: as `Transcript.events`.
        chinese: the language of the note.
    """
    index = 0 if chinese else 1
    feeling = _FEELINGS[emotion][index] if emotion in _FEELINGS else ""
    sounds = [_SOUNDS[event][index] for event in dict.fromkeys(events) if event in _SOUNDS]
    if not feeling and not sounds:
        return ""
    if chinese:
        heard = "，".join([*([f"听起来{feeling}"] if feeling else []), *sounds])
        return f"（旁注：说话人{heard}。只用来把握语气，不要提起这条旁注。）"
    heard = " and is ".join([*([f"sounds {feeling}"] if feeling else []), *sounds])
    heard = heard if feeling else f"is {heard}"
    return f"(Side note: the user {heard}. Let it guide your tone; do not mention this note.)"
