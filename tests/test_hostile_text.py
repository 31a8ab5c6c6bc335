"""Feeds, sums, templates and names that strangers made to cost time: none costs more than its length."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tool_host import tool_host
from xiaozhi.agents.prompt import PromptError, check_template
from xiaozhi.events import ToolCall
from xiaozhi.settings import ToolsSettings
from xiaozhi.text.arithmetic import calculate
from xiaozhi.text.cacheable import MAX_QUESTION_CHARS, Why, history_counts, may_use
from xiaozhi.text.script import script_of
from xiaozhi.tools.built_in import calculator, calendar, clock, reminders
from xiaozhi.tools.built_in.calculator import local_answer
from xiaozhi.tools.built_in.home_assistant import Entity, meant
from xiaozhi.tools.built_in.news import MAX_HEADLINES, NoFeed, headlines_in
from xiaozhi.tools.tool import Tool, ToolContext
from xiaozhi.tools.toolbox import Registry, Toolbox

HALF_A_MEGABYTE = 500_000


def within(seconds: float, do: Callable[[], Any]) -> Any:
    """What it returns; a test that took minutes before takes them no more."""
    found: list[Any] = []
    worker = threading.Thread(target=lambda: found.append(do()), daemon=True)
    worker.start()
    worker.join(seconds)
    assert found, f"not within {seconds} s"
    return found[0]


def rss(items: bytes, head: bytes = b"") -> bytes:
    return b'<?xml version="1.0"?>' + head + b'<rss version="2.0"><channel><title>News</title>' + items + b"</channel>"


def outcome(body: bytes) -> list[tuple[str, str]] | None:
    try:
        return headlines_in(body)
    except NoFeed:
        return None


@pytest.mark.parametrize("piece", [b"<", b"&", b"<a ", b"encoding='", b"&lt;", b"<![CDATA[", b"\0", b"<x><y>", b"<!--"])
@pytest.mark.parametrize("wrap", ["%s", "<![CDATA[%s]]>"])
def test_a_feed_of_half_a_megabyte_of_anything_is_read_at_once(piece: bytes, wrap: str) -> None:
    body = piece * (HALF_A_MEGABYTE // len(piece))
    feed = rss(b"<item><title>" + wrap.encode().replace(b"%s", body) + b"</title></item>")
    within(20, lambda: [outcome(feed), outcome(body)])


def test_entities_of_entities_are_not_followed() -> None:
    names = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    laughs = f'<!DOCTYPE rss [<!ENTITY a0 "ha">{names}]>'.encode()
    assert within(5, lambda: outcome(rss(b"<item><title>&a11;</title></item>", laughs))) is None
    outside = b'<!DOCTYPE rss [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
    assert outcome(rss(b"<item><title>&file;</title></item>", outside)) is None


def test_feeds_as_they_are_found_in_the_wild_are_read() -> None:
    item = "<item><title>猫 &nbsp;&amp; dog & bird</title>"
    item += "<description><![CDATA[<p>A&nbsp;<b>b</b></p>]]></description></item>"
    expected = [("猫 & dog & bird", "A b")]
    assert headlines_in(rss(item.encode())) == expected
    for encoding in ("gbk", "gb2312", "GB18030", "utf-16"):
        declared = f'<?xml version="1.0" encoding="{encoding}"?>\n<rss><channel>{item}</channel></rss>'
        assert headlines_in(declared.encode(encoding)) == expected
    unknown = f'<?xml version="1.0" encoding="punycode"?><rss><channel>{item}</channel></rss>'
    assert headlines_in(b"\xef\xbb\xbf\n " + unknown.encode()) == expected
    atom = (
        b'<feed xmlns="http://www.w3.org/2005/Atom"><title>t</title><author><name>n</name></author><entry><title '
        b'type="html">A &lt;i&gt;b&lt;/i&gt;</title><content type="xhtml"><div>In <p>short</p></div></content>'
        b"<title>second</title></entry></feed>"
    )
    assert headlines_in(atom) == [("A b", "In short")]
    rdf = b'<rdf:RDF xmlns:rdf="x"><channel><title>t</title></channel><item><dc:title>T</dc:title></item></rdf:RDF>'
    assert headlines_in(rdf) == [("T", "")]


def test_a_feed_that_breaks_off_or_goes_on_gives_what_stands_before() -> None:
    one = b"<item><title>One</title></item>"
    assert headlines_in(rss(one + b"<item><title>Tw")) == [("One", "")]
    assert headlines_in(rss(one + b"</wrong><item><title>Two</title></item>")) == [("One", "")]
    assert len(headlines_in(rss(one * 10_000))) == MAX_HEADLINES
    (title, _), *_ = headlines_in(rss(b"<item><title>" + b"long " * 10_000 + b"</title></item>"))
    assert len(title) == 160


@given(st.binary(max_size=200), st.sampled_from([b"", rss(b"<item><title>"), b"<feed><entry>", b"\xff\xfe"]))
def test_no_bytes_break_the_reading_of_a_feed(rest: bytes, begin: bytes) -> None:
    outcome(begin + rest)


@pytest.mark.parametrize(
    "text",
    [
        "(((((0.3^64)^64)^64)^64)^64)^64",
        "((((1/7)^60)^60)^60)^60",
        "((((0.3^-64)^64)^64)^64)",
        "9^9^9^9^9",
        "(((1.0000001^64)^64)^64)^64",
        "九" + "亿" * 190 + "加一",
    ],
)
def test_powers_of_powers_are_told_to_be_too_much(text: str) -> None:
    assert within(5, lambda: local_answer(text, "en")) == "That number is too big for me."


def test_small_powers_are_still_exact() -> None:
    assert calculate("0.5^64") == calculate("1/(2^32)/(2^32)")
    assert calculate("((2^2)^3)^4") == 2**24


TOOLS: list[Tool] = [
    each for built_in in (calculator, calendar, clock, reminders) for each in built_in.tools(tool_host())
]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_time", '{"time_zone": "' + "a/" * 5000 + '"}'),
        ("convert_units", '{"value": 1e308, "from_unit": "kg", "to_unit": "g"}'),
        ("convert_units", '{"value": "inf", "from_unit": "kg", "to_unit": "g"}'),
        ("set_reminder", '{"in_seconds": 1e30}'),
        ("set_reminder", '{"in_seconds": 99999999999999}'),
        ("set_reminder", '{"at": "9999-12-31T23:59"}'),
        ("set_reminder", '{"at": "0001-01-01T00:00+14:00"}'),
        ("get_calendar", '{"lunar_date": "2026-99999999999999999999-1"}'),
        ("calculate", '{"expression": "' + "(" * 5000 + '"}'),
        ("calculate", '{"expression": ' + "[" * 900 + "]" * 900 + "}"),
        ("cancel_reminder", '{"number": 1e300}'),
    ],
)
async def test_arguments_out_of_all_range_are_told_in_a_sentence_that_says_what_is_wrong(
    name: str, arguments: str
) -> None:
    box = Toolbox(
        Registry(TOOLS), ToolContext(language="en", now=lambda: datetime(2026, 2, 1, tzinfo=UTC)), ToolsSettings()
    )
    box.begin_turn("")
    (answer,) = await box.run([ToolCall("1", name, arguments)])
    assert answer.result.failed and len(answer.result.text) < 300
    assert "Something went wrong" not in answer.result.text


def test_a_name_for_a_thing_in_the_house_is_compared_by_its_beginning() -> None:
    house = [Entity(f"light.{number}", f"Lamp {number} in the room", "on") for number in range(500)]
    assert within(20, lambda: meant(house, "xy" * 8000)) == []
    assert meant(house, "lamp 7 in the room") == [house[7]]


async def test_the_calendar_leaves_the_loop_alone() -> None:
    box = Toolbox(Registry(TOOLS), ToolContext(now=lambda: datetime(2026, 2, 1, tzinfo=UTC)), ToolsSettings())
    box.begin_turn("")
    asking = asyncio.create_task(box.run([ToolCall("1", "get_calendar", '{"upcoming": true}')]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asking.done(), "it is at work in a thread"
    (answer,) = await asking
    assert "春节" in answer.result.text and str(date(2026, 2, 17).day) in answer.result.text


@pytest.mark.parametrize(
    "template",
    ["{{" * 3000, "{{ " + "(" * 3000 + "agent" + ")" * 3000 + " }}", "{% if agent %}" * 500 + "{% endif %}" * 500],
)
def test_a_template_of_brackets_in_brackets_is_a_mistake_like_any_other(template: str) -> None:
    with pytest.raises(PromptError, match="brackets"):
        check_template(template)


def test_a_long_text_is_no_question_that_anybody_asks_again() -> None:
    essay = "今天天气怎么样" * 300
    assert may_use(essay, []) is Why.LONG
    assert history_counts([essay]) and not history_counts(["月亮" * (MAX_QUESTION_CHARS // 2)])


@pytest.mark.parametrize("piece", ["![](", "!", "?!", "，", ". ", "(!", '"!', "a.", "./!", "\n", "…", "。”"])
def test_a_reply_of_marks_is_cut_in_time_that_grows_with_its_length(piece: str) -> None:
    within(30, lambda: [script_of(piece * (20_000 // len(piece)))])
