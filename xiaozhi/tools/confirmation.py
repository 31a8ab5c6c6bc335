"""Dangerous calls wait for a spoken yes. The model cannot give it: only the user's next words count. Pure."""

import re
from typing import Final

_YES: Final = re.compile(
    r"^(?:嗯+|好(?:的|啊|吧|呀)?|是(?:的|啊)?|对(?:的|啊)?|行(?:啊|吧)?|可以|确认|确定|没错|同意|没问题|当然|要|执行吧?|继续|开吧|关吧|"
    r"yes|yeah|yep|yup|sure|ok|okay|confirm(?:ed)?|go ahead|do it|please do|of course|right|correct|affirmative)"
    r"(?:$|[\s,，。.!！、的吧啊呀])",
)
_NO: Final = re.compile(
    r"不(?!错|客气)|别|取消|算了|等等|等一下|停|\b(?:no|nope|not|don't|do not|cancel|stop|never|wait)\b",
)


def affirms(heard: str) -> bool:
    """Whether somebody who was asked said yes; doubt is no."""
    text = heard.strip().lower().replace("’", "'")
    return bool(_YES.match(text)) and not _NO.search(text)


class Confirmations:
    """Which dangerous calls have been asked about, and which may be done in this turn."""

    def __init__(self) -> None:
        self._asked: set[tuple[str, str]] = set()
        self._granted: set[tuple[str, str]] = set()

    def begin_turn(self, heard: str) -> None:
        """The user has spoken: what was asked in the turn before is granted or forgotten."""
        self._granted = self._asked if affirms(heard) else set()
        self._asked = set()

    def granted(self, name: str, arguments: str) -> bool:
        """Whether this very call was asked about and granted; once, and asked about now otherwise."""
        key = (name, arguments)
        if key in self._granted:
            self._granted = self._granted - {key}
            return True
        self._asked.add(key)
        return False
