r"""Characters that JSON has cut in two. Pure.

JSON may write a character beyond the first 65,536 as two escapes, `\ud83d\ude00` (RFC 8259, 7), and servers that
stream cut between them. Python keeps a half as a character of its own, which no encoding takes.
"""

import re
from typing import Final

_HALF: Final = re.compile("[\ud800-\udfff]")


def without_halves(text: str) -> str:
    """`text` with both halves of a character made one, and without halves that are alone."""
    if text.isascii() or not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def ends_in_half(text: str) -> bool:
    """Whether the other half of the last character may still come."""
    return "\ud800" <= text[-1:] <= "\udbff"
