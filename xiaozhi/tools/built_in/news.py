"""Headlines out of RSS (0.9 to 2.0, RDF) and Atom, as they are found in the wild and as they are made to hurt.

Feeds are read in one pass by expat, which is linear, until enough has been found. Lenient parsers cost seconds for 64
kB of `<` and hold the interpreter meanwhile. A feed that breaks off or is not well-formed gives what stands before.
"""

import asyncio
import codecs
import contextlib
import html
import re
from collections.abc import Iterator, Sequence
from html.entities import html5
from typing import Final
from xml.parsers import expat

from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.web import ServiceAnswers, WebError
from xiaozhi.tools.wording import pick, shortened

MAX_HEADLINES: Final = 60
_MAX_BYTES: Final = 524_288
"""What is looked at of a feed; 60 entries with whole articles in them are shorter, as a rule."""
_TITLE_CHARS: Final = 160
_SUMMARY_CHARS: Final = 240
_MAX_RAW_CHARS: Final = 4000
"""Of one title or summary, with its markup."""
_MAX_LEVELS: Final = 64

_ENTRIES: Final = frozenset({"item", "entry"})
_SUMMARIES: Final = ("description", "summary", "content", "encoded")
_ROOTS: Final = frozenset({"rss", "feed", "RDF"})

_TAGS: Final = re.compile(r"<[^<>]*>")
_DECLARATION: Final = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,32})[\"']")
_PROLOGUE: Final = re.compile(r"^\ufeff?\s*<\?xml[^>]{0,400}\?>")
_AMPERSAND: Final = re.compile(r"&(?:(?P<known>amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9A-Fa-f]{1,6});|(?P<name>\w{2,31};)?)")
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML 1.0
# Python has more, and some of them (punycode) take time that grows with the square of the length.
_ENCODINGS: Final = re.compile(r"utf-8|utf-16.*|gb18030|big5.*|hz|shift_jis.*|cp\d+|euc.*|iso8859.*|koi8.*|ascii")
_PIECE_CHARS: Final = 16_384

Headline = tuple[str, str]
"""Title and summary, without markup."""


def tools(host: ToolHost) -> list[Tool]:
    """`get_news`."""
    settings, web = host.settings.news, host.web
    cache: ServiceAnswers[str, list[Headline]] = ServiceAnswers(settings.cache_s)

    async def headlines(feed: str) -> list[Headline]:
        body = await web.fetch("GET", feed)
        try:
            return await asyncio.to_thread(headlines_in, body)
        except NoFeed as error:
            raise WebError(str(error)) from None

    @tool()
    async def get_news(context: ToolContext, about: str = "") -> str:
        """Today's headlines.

        Takes:
            about: only headlines with this word; empty for all.
        """
        language = context.language
        feeds = settings.feeds if is_chinese(language) else settings.feeds_en
        asked = [cache.get(feed, lambda feed=feed: headlines(feed)) for feed in feeds]  # type: ignore[misc]  # bound now
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, WebError):
                raise answer
        found = _mixed([answer for answer in answers if isinstance(answer, list)])
        if not found:
            raise ToolError(pick(language, "现在看不到新闻，网络好像不通。", "I can't get the news right now."))
        word = about.strip().casefold()
        chosen = [each for each in found if word in (each[0] + each[1]).casefold()][: settings.items]
        if not chosen:
            return pick(language, f"没有关于{about[:40]}的新闻。", f"There is no news about {about[:40]}.")
        return "\n".join(
            f"{number}. {title}" + (f" — {summary}" if summary else "")
            for number, (title, summary) in enumerate(chosen, start=1)
        )

    return [get_news]


def _mixed(feeds: Sequence[list[Headline]]) -> list[Headline]:
    """One of each feed in turn, none twice."""
    found: dict[str, str] = {}
    for place in range(max(map(len, feeds), default=0)):
        for feed in feeds:
            if place < len(feed):
                found.setdefault(*feed[place])
    return list(found.items())


class NoFeed(ValueError):
    """This is neither RSS nor Atom."""


class _Enough(Exception):
    """All headlines that are wanted have been found."""


def headlines_in(body: bytes) -> list[Headline]:
    """The headlines of a feed in its own order, `MAX_HEADLINES` at most.

    Raises:
        NoFeed: it is none.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.EntityDeclHandler = reader.entity
    parser.buffer_text = True
    with contextlib.suppress(expat.ExpatError, _Enough):  # what stands before a fault counts
        for piece in _pieces(_decoded(body[:_MAX_BYTES])):
            parser.Parse(piece, False)
        parser.Parse("", True)
    if not reader.is_feed:
        raise NoFeed("neither RSS nor Atom")
    return [headline for title, summary in reader.found if (headline := _headline(title, summary))[0]]


class _Reader:
    """Handlers of the parser, and what they have found."""

    def __init__(self) -> None:
        self.is_feed = False
        self.found: list[tuple[str, str]] = []
        self._level = 0
        self._entry: dict[str, str] | None = None
        self._entry_level = 0
        self._pieces: list[str] = []
        self._room = 0

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        self._level += 1
        if self._level > _MAX_LEVELS:
            raise _Enough
        if self._level == 1:
            self.is_feed = name in _ROOTS
            if not self.is_feed:
                raise _Enough
        if self._entry is None and name in _ENTRIES:
            self._entry, self._entry_level = {}, self._level
        elif self._entry is not None and self._level == self._entry_level + 1:
            self._pieces, self._room = [], _MAX_RAW_CHARS

    def end(self, name: str) -> None:
        self._level -= 1
        if self._entry is None or self._level > self._entry_level:
            return
        if self._level == self._entry_level:
            self._entry.setdefault(name.rpartition(":")[2], "".join(self._pieces))
            return
        entry, self._entry = self._entry, None
        self.found.append((entry.get("title", ""), next((entry[one] for one in _SUMMARIES if one in entry), "")))
        if len(self.found) == MAX_HEADLINES:
            raise _Enough

    def text(self, text: str) -> None:
        if self._entry is not None and self._level > self._entry_level and self._room > 0:
            self._pieces.append(text[: self._room])
            self._room -= len(text)

    def entity(self, *_declared: object) -> None:
        raise _Enough  # a feed needs none of its own; what they stand for may grow with every level


def _headline(title: str, summary: str) -> Headline:
    title, summary = _plain(title), _plain(summary)
    return shortened(title, _TITLE_CHARS), "" if summary == title else shortened(summary, _SUMMARY_CHARS)


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAGS.sub(" ", text)).split())


def _decoded(body: bytes) -> str:
    """The text by its byte order mark, else by what it says itself, else as UTF-8; without the XML declaration."""
    encoding = "utf-8"
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif declared := _DECLARATION.match(body):
        try:
            name = codecs.lookup(declared[1].decode()).name
        except LookupError:
            name = ""
        encoding = {"gb2312": "gb18030", "gbk": "gb18030"}.get(name, name if _ENCODINGS.fullmatch(name) else "utf-8")
    return _PROLOGUE.sub("", body.decode(encoding, "replace")).lstrip("\ufeff \t\r\n")


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces, fit for XML: one call of a regular expression lets nothing else run."""
    at = 0
    while at < len(text):
        end = text.find("<", at + _PIECE_CHARS, at + 2 * _PIECE_CHARS)  # no entity is cut there
        end = end if end >= 0 else at + 2 * _PIECE_CHARS
        yield _FORBIDDEN.sub(" ", _AMPERSAND.sub(_character, text[at:end]))
        at = end


def _character(match: re.Match[str]) -> str:
    """`&nbsp;` and its like, which XML does not know; an ampersand that begins nothing."""
    if match["known"]:
        return match[0]
    character = html5.get(match["name"] or "")
    return html.escape(character) if character is not None else "&amp;" + (match["name"] or "")
