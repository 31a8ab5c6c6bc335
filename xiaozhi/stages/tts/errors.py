"""Texts of other machines, made fit for one line of a log; and texts for other machines, made fit for XML."""

import re
from typing import Final

from xiaozhi.audio.errors import DecodeError, NoSound
from xiaozhi.stages.tts.engine import TextRefused, VoiceError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS

NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids, escaped or not."""


def short(text: str) -> str:
    """One line of at most 120 characters."""
    return one_line(text, MAX_SHOWN_CHARS)


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
