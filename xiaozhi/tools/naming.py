"""Tool names as chat APIs accept them (`[a-zA-Z0-9_-]{1,64}`, letter first), and back. Pure and stable."""

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from xiaozhi.text.call_names import offered_name

MAX_CHARS: Final = 64
"""OpenAI's limit for the name of a function; others allow as much or more."""
_OTHER: Final = re.compile(r"[^a-zA-Z0-9_-]+")
# Words with dots in them, found in one pass: a pattern of the names themselves would be a stranger's.
_DOTTED: Final = re.compile(r"\w+(?:\.\w+)*")
_DIGEST_CHARS: Final = 8


def api_name(name: str) -> str:
    """`self.audio_speaker.set_volume` as `self_audio_speaker_set_volume`.

    What loses too much on the way (a Chinese name, a very long one) gets a few characters of its digest, so that the
    same name always maps to the same one.
    """
    plain = _OTHER.sub("_", name).strip("_")
    if sum(map(str.isalnum, plain)) < sum(map(str.isalnum, name)) or not plain:
        plain = f"{plain or 'tool'}_{_digest(name)}"
    if not plain[0].isalpha():
        plain = f"t_{plain}"
    return plain if len(plain) <= MAX_CHARS else _with_digest(plain, name)


class Names:
    """Both directions for a set of tools; two tools that would get the same name get different ones.

    Args:
        names: the tools' own names, distinct; the first that wants a name keeps it plain.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._api: dict[str, str] = {}
        self._own: dict[str, str] = {}
        for name in names:
            wanted = api_name(name)
            salt = name
            while wanted in self._own:
                wanted = _with_digest(wanted, salt)
                salt += "'"
            self._api[name] = wanted
            self._own[wanted] = name

    def to_api(self, name: str) -> str:
        """The name a model sees."""
        return self._api[name]

    def to_own(self, name: str) -> str | None:
        """The tool's own name, None when no tool is called so; a model that uses the own name is understood, too.

        So is one that writes something around the name, see `offered_name`.
        """
        if name in self._own or name not in self._api:
            meant = offered_name(name, self._own)
            return self._own[meant] if meant is not None else None
        return name

    def in_text(self, text: str) -> str:
        """A description in which other tools are named as the model sees them."""
        return _DOTTED.sub(lambda match: self._api.get(match[0], match[0]), text)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]


def _with_digest(plain: str, name: str) -> str:
    return f"{plain[: MAX_CHARS - _DIGEST_CHARS - 1]}_{_digest(name)}"
