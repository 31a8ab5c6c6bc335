"""Text as editors save it: with a byte order mark, as UTF-16, with line ends of other systems. Pure."""

import codecs
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8", "begins with a byte order mark, which is passed over"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "is UTF-16 text and read as that; save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "is UTF-16 text and read as that; save it as UTF-8"),
)


def read_text(content: bytes) -> tuple[str, str]:
    """The text of a file, its lines ended by line feeds, and what is to be said of its form; empty for nothing.

    Raises:
        UnicodeDecodeError: it is neither UTF-8 nor UTF-16.
    """
    mark, codec, remark = next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8", ""))
    if not mark and b"\0" in content[:2]:  # the first character of a settings file is ASCII
        _, codec, remark = _MARKS[1 if content[1:2] == b"\0" else 2]
    text = content[len(mark) :].decode(codec)
    return text.replace("\r\n", "\n").replace("\r", "\n"), remark
