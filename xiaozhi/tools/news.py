"""Headlines by RSS or Atom."""

import asyncio
import html
import io
import re
from collections.abc import Sequence
from typing import Final

from xiaozhi.settings.tools import NewsSettings
from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.ttl_cache import TtlCache
from xiaozhi.tools.web import WebClient, WebError
from xiaozhi.tools.wording import pick, shortened

_TAGS: Final = re.compile(r"<[^>]*>")
_MOST_KEPT: Final = 60
_TITLE_CHARS: Final = 160
_SUMMARY_CHARS: Final = 240

Headline = tuple[str, str]
"""Title and summary, without markup."""


def news_tools(settings: NewsSettings, web: WebClient) -> list[Tool]:
    """`get_news`."""
    cache: TtlCache[str, list[Headline]] = TtlCache(settings.cache_s)

    async def headlines(feed: str) -> list[Headline]:
        body = await web.fetch("GET", feed)
        return await asyncio.to_thread(parse_feed, body)

    @tool(slow=True)
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


def parse_feed(body: bytes) -> list[Headline]:
    """The headlines of a feed, newest first as it lists them.

    Raises:
        WebError: this is no feed.
    """
    import feedparser  # type: ignore[import-untyped]  # publishes no types; imported when news are asked for

    # A file object: bytes or text that look like an address would be fetched by the library itself.
    parsed = feedparser.parse(io.BytesIO(body), sanitize_html=False, resolve_relative_uris=False)
    found = []
    for entry in parsed.entries[:_MOST_KEPT]:
        title = _plain(entry.get("title", ""))
        if title:
            summary = _plain(entry.get("summary", ""))
            found.append(
                (shortened(title, _TITLE_CHARS), "" if summary == title else shortened(summary, _SUMMARY_CHARS))
            )
    if not found and not parsed.get("version"):
        raise WebError("the feed is neither RSS nor Atom")
    return found


def _plain(text: object) -> str:
    return " ".join(html.unescape(_TAGS.sub(" ", str(text))).split())


def _mixed(feeds: Sequence[list[Headline]]) -> list[Headline]:
    """One of each feed in turn, none twice."""
    found: dict[str, str] = {}
    for place in range(max(map(len, feeds), default=0)):
        for feed in feeds:
            if place < len(feed):
                found.setdefault(*feed[place])
    return list(found.items())
