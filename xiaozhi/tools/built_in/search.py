"""Search on the web: an own SearXNG, or Tavily."""

from collections.abc import Mapping
from typing import Any, Final

from xiaozhi.settings.tools import SearchSettings
from xiaozhi.text.language import is_chinese
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.web import WebClient, WebError
from xiaozhi.tools.wording import pick, shortened

_TAVILY_URL: Final = "https://api.tavily.com"
_MAX_QUERY_CHARS: Final = 300
_SNIPPET_CHARS: Final = 400


def tools(host: ToolHost) -> list[Tool]:
    """`search_web`; none when no provider is set up."""
    settings, web = host.settings.search, host.web
    if settings.provider == "none":
        return []

    @tool()
    async def search_web(context: ToolContext, query: str) -> str:
        """Search the web for what is recent or not known; returns titles, addresses and excerpts.

        Takes:
            query: a few words, in the language in which the answer is likely written.
        """
        language = context.language
        words = query.strip()[:_MAX_QUERY_CHARS]
        if not words:
            raise ToolError(pick(language, "要搜索什么呢？", "What should I search for?"))
        try:
            if settings.provider == "searxng":
                answer = await _searxng(settings, web, words, language)
            else:
                answer = await _tavily(settings, web, words)
            return _hits(answer, settings.results, language)
        except WebError as error:
            reason = "401" if error.status in (401, 403) else ""
            raise ToolError(
                pick(language, "搜索服务拒绝了我的密钥。", "The search service refuses its key.")
                if reason
                else pick(
                    language, "现在搜索不了，网络好像不通。", "I can't search right now, the service does not answer."
                )
            ) from error

    return [search_web]


async def _searxng(settings: SearchSettings, web: WebClient, words: str, language: str) -> Any:
    query = {"q": words, "format": "json", "language": "zh-CN" if is_chinese(language) else "en"}
    return await web.get_json(settings.url.rstrip("/") + "/search", query)


async def _tavily(settings: SearchSettings, web: WebClient, words: str) -> Any:
    body = {"query": words, "max_results": settings.results, "include_answer": True}
    url = (settings.url or _TAVILY_URL).rstrip("/") + "/search"
    return await web.post_json(url, body, {"Authorization": f"Bearer {settings.key()}"})


def _hits(answer: Any, most: int, language: str) -> str:
    """Both services answer with `results` of title, url and content; Tavily may add an answer of its own."""
    results = answer.get("results") if isinstance(answer, Mapping) else None
    if not isinstance(results, list):
        raise WebError("the search service answered in a form that is not understood")
    lines = []
    summary = answer.get("answer")
    if isinstance(summary, str) and summary:
        lines.append(shortened(summary, _SNIPPET_CHARS))
    for number, hit in enumerate((hit for hit in results[:most] if isinstance(hit, Mapping)), start=1):
        excerpt = " ".join(str(hit.get("content") or "").split())
        lines.append(
            f"{number}. {shortened(str(hit.get('title', '')), 160)} ({shortened(str(hit.get('url', '')), 200)}) "
            f"{shortened(excerpt, _SNIPPET_CHARS)}"
        )
    return "\n".join(lines) or pick(language, "没有搜到。", "Nothing found.")
