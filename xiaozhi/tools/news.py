"""Headlines by RSS or Atom."""

import asyncio
from collections.abc import Sequence

from xiaozhi.settings.tools import NewsSettings
from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.feed import Headline, NoFeed, headlines_in
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.web import ServiceAnswers, WebClient, WebError
from xiaozhi.tools.wording import pick


def news_tools(settings: NewsSettings, web: WebClient) -> list[Tool]:
    """`get_news`."""
    cache: ServiceAnswers[str, list[Headline]] = ServiceAnswers(settings.cache_s)

    async def headlines(feed: str) -> list[Headline]:
        body = await web.fetch("GET", feed)
        try:
            return await asyncio.to_thread(headlines_in, body)
        except NoFeed as error:
            raise WebError(str(error)) from None

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


def _mixed(feeds: Sequence[list[Headline]]) -> list[Headline]:
    """One of each feed in turn, none twice."""
    found: dict[str, str] = {}
    for place in range(max(map(len, feeds), default=0)):
        for feed in feeds:
            if place < len(feed):
                found.setdefault(*feed[place])
    return list(found.items())
