"""What is shown and what is said; what is hidden from both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.emotions import is_emoji
from xiaozhi.text.hidden import CODE, THINKING, HiddenSpans
from xiaozhi.text.speakable import speakable

SAME = [
    ("😊 你好，", "你好，"),
    ("Hi 😀 there", "Hi there"),
    ("**注意：**这很重要。", "注意：这很重要。"),
    ("*really* _good_ `code` ~~old~~ __bold__", "really good code old bold"),
    ("snake_case and 2 * 3 = 6", "snake_case and 2 * 3 = 6"),
    ("### 标题", "标题"),
    ("- 苹果", "苹果"),
    ("* pears", "pears"),
    ("> 引用", "引用"),
    ("[点这里](https://a.b/c_(d))看看", "点这里看看"),
    ('![a cat](https://a.b/c.png "title") sits', "a cat sits"),
    ("价格<b>便宜</b>", "价格 便宜"),
    ("-5°C，$5.50，3/4，50%", "-5°C，$5.50，3/4，50%"),
    ("大约3~5天", "大约3~5天"),
    ("！！真的吗？", "真的吗？"),
    ("”他说。", "他说。"),
    ("…让我想想", "让我想想"),
    (".5 is half", ".5 is half"),
    ("“你好。”", "“你好。”"),
    ("你好 (^_^) 呀", "你好 呀"),
    ("好的(｡･ω･｡)ﾉ", "好的"),
    ("（笑）好的", "（笑）好的"),
    ("(see below) ok", "(see below) ok"),
    ("👨‍👩‍👧‍👦 1️⃣ one 🇨🇳 👍🏽", "1 one"),
    ("列奥纳多·达·芬奇", "列奥纳多·达·芬奇"),
    ("我说到这里…[打断]", "我说到这里"),
    ("I was… [interrupted]", "I was"),
    ("C# and C++", "C# and C++"),
    ("\ufffd好", "好"),
]

DIFFERENT = [
    ("看 https://a.b/c?d=1_2*3，然后。", "看 https://a.b/c?d=1_2*3，然后。", "看，然后。"),
    ("Go to www.a.org/b now.", "Go to www.a.org/b now.", "Go to now."),
    ("<https://a.b> 这里", "https://a.b 这里", "这里"),
    ("| 名字 | 年龄 |\n|---|---|\n| 小明 | 5 |", "名字，年龄 小明，5", "名字，年龄，小明，5"),
    ("- apples\n- pears", "apples pears", "apples, pears"),
    ("第一。\n第二", "第一。第二", "第一。第二"),
    ("A → B", "A → B", "A, B"),
    ("好的~", "好的~", "好的"),
    ("[[llm.endpoints]]", "[[llm.endpoints]]", "llm.endpoints"),
    ("key " + "x9" * 30, "key " + "x9" * 30, "key"),
]

SILENT = ["", "😀", "？！", "***", "---", "https://only.url/x", "|---|---|", "(^_^)", "  \n ", "🙂。"]


@pytest.mark.parametrize(("raw", "text", "speech"), [(raw, text, text) for raw, text in SAME] + DIFFERENT)
def test_markup_and_emoji_go_and_addresses_are_not_spoken(raw: str, text: str, speech: str) -> None:
    assert tuple(speakable(raw)) == (text, speech)


@pytest.mark.parametrize("raw", SILENT)
def test_what_holds_no_word_is_not_spoken(raw: str) -> None:
    assert speakable(raw).speech == ""


@given(st.text(max_size=200))
def test_any_text_is_cleaned(raw: str) -> None:
    text, speech = speakable(raw)
    assert not any(map(is_emoji, text + speech))
    assert speech == "" or any(map(str.isalnum, speech))
    assert "\n" not in text + speech


@given(st.text(st.sampled_from(list("*_`#[](){}|<>~\\/-=+!^ab1。，好😀\n :")), max_size=80))
def test_markup_in_any_disorder_is_cleaned(raw: str) -> None:
    text, speech = speakable(raw)
    assert "**" not in text
    assert "`" not in speech


def hide(text: str, size: int = 10_000) -> str:
    spans = HiddenSpans((*THINKING, *CODE))
    return "".join(spans.push(text[at : at + size]) for at in range(0, len(text), size)) + spans.flush()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("<think>Hm, 1 < 2.</think>好的", "好的"),
        ("a<think>b</think>c<think>d</think>e", "ace"),
        ("<think>never closed", ""),
        ("opened by the template</think>好的", "opened by the template好的"),
        ("<thinking>x</thinking><reasoning>y</reasoning>z", "z"),
        ("看：\n```python\nprint(1)\n```\n好了", "看：\n\n好了"),
        ("a ~~~ b ~~~ c", "a  c"),
        ("a < b and `code` <thin", "a < b and `code` <thin"),
        ("``", "``"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_hidden_spans_are_removed_however_they_arrive(raw: str, shown: str, size: int) -> None:
    assert hide(raw, size) == shown


@given(st.text(st.sampled_from(list("<think>/`~ab")), max_size=60), st.integers(1, 7))
def test_pieces_make_no_difference_to_what_is_hidden(raw: str, size: int) -> None:
    assert hide(raw, size) == hide(raw)


def test_text_that_opens_nothing_is_not_held_back() -> None:
    spans = HiddenSpans(THINKING)
    assert spans.push("1 <") == "1 "
    assert spans.push("2") == "<2"
    assert spans.push("好的") == "好的"
