"""Texts of other machines, made fit for one line of a log; and texts for other machines, made fit for XML."""

import re
from typing import Final

from xiaozhi.audio.errors import DecodeError, NoSound
from xiaozhi.stages.tts.engine import TextRefused, VoiceError
from xiaozhi.text import bounded_json

_MAX_SHOWN_CHARS: Final = 120
NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids, escaped or not."""


def short(text: str) -> str:
    """One line of at most 120 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN_CHARS else line[: _MAX_SHOWN_CHARS - 1] + "…"


def error_in(body: str) -> str:
    """What the body of a refusal says in JSON (`{"error": {"message": …}}`), or the text as it is."""
    try:
        return str(bounded_json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body


def undecodable(name: str, error: DecodeError) -> VoiceError:
    """What a voice says of a stream that is no sound; one that is empty may come from its text."""
    kind = TextRefused if isinstance(error, NoSound) else VoiceError
    return kind(f"{name}: {error}")


def reason(error: Exception) -> str:
    """What went wrong, in one line; never empty."""
    return short(str(error)) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
