"""Markup that spans clauses: blocks of code, tags, entities, formulas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.markup import Markup


def plain(text: str, *cuts: int) -> str:
    markup = Markup()
    read, at = "", 0
    for cut in [*cuts, len(text)]:
        read += markup.push(text[at:cut])
        at = cut
    return read + markup.flush()


CASES = [
    # A fence stands at the beginning of a line; what is never closed hides nothing.
    ("看：\n```python\nprint(1)\n```\n好了", "看：\n\n好了"),
    ("好呀~~~我们走吧", "好呀~~~我们走吧"),
    ("a ~~~ b ~~~ c", "a ~~~ b ~~~ c"),
    ("~~~好呀！我们走吧\n好不好", "~~~好呀！我们走吧\n好不好"),
    ("~~~wow\nGreat", "wow\nGreat"),
    ("用```pip install x```安装。", "用```pip install x```安装。"),
    ("```pip install x``` 就行。", "```pip install x``` 就行。"),
    ("```python\nprint(1)\n\n就是这样。", "\nprint(1)\n\n就是这样。"),
    ("```\n床前明月光，\n疑是地上霜。\n```\n好诗", "\n床前明月光，\n疑是地上霜。\n好诗"),
    ("```\nprint(1)```\n好的。", "\n好的。"),
    ("````\n```\n````\n好", "\n好"),
    ("```python\nx=1\n``` 这样就好了。", "\n这样就好了。"),
    ("- a\n     ```bash\n     ls\n     ```\n好", "- a\n\n好"),
    ("    ~~~\n    好的，我们走吧\n", "    ~~~\n    好的，我们走吧\n"),
    ("``", "``"),
    # Tags.
    ("价格<b>便宜</b>了", "价格 便宜了"),
    ('<audio src="a, b. c>d">好', " 好"),
    ("<a title = 'x>y' href=z>好</a>", " 好"),
    ("<mstts:express-as style='sad'>好</mstts:express-as>", " 好"),
    ('<p class=x>好</p><img alt="它说：“你好。”">', "\n好\n "),
    ("E=mc<sup>2</sup>，H<sub>2</sub>O", "E=mc^2，H2O"),
    ("x<y 且 y>z，a<b and c> d，a<b>c，x <s y", "x<y 且 y>z，a<b and c> d，a<b>c，x <s y"),
    ("按 <Enter> 或 <Tab>", "按 <Enter> 或 <Tab>"),
    ("用 <b> 标签，和 <div> 比如 <br> 换行", "用 <b> 标签，和 <div> 比如 \n 换行"),
    ('<input type="text" disabled>好<book><title>三体</title></book>', " 好<book><title>三体</title></book>"),
    ('<person id="1"><name>Tom</name></person>', '<person id="1"><name>Tom</name></person>'),
    ('<a href="https://x>好的', "好的"),
    ("a<!-- b -->c<!-- d", "ac d"),
    ("好<|im_end|>", "好"),
    ("`<b>` 和 `a&lt;b`", "`<b>` 和 `a&lt;b`"),
    ("&lt;b&gt; &amp; AT&T &unknown; &#39;x&#x27;", "<b> & AT&T &unknown; 'x'"),
    # Formulas and money.
    ("$$E=mc^2$$", "E=mc^2"),
    (r"\(a^2\)和\[b^2\]，\[链接\]", "a^2和b^2，[链接]"),
    (r"3\times10^8，\boxed{42}，\frac{1}{2", "3×10^8，42，1⁄2"),
    ("$5$和$x$，$5.50到$10，$HOME/bin:$PATH", "5和x，$5.50到$10，$HOME/bin:$PATH"),
    (r"C:\temp\new 好", r"C:\temp\new 好"),
    (r"和是\sum_{n=0}^{\infty}x_n，\pi^2", "和是∑_(n=0)^∞x_n，π^2"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}好", "1 2 ; 3 4好"),
    (r"使用 \frac 命令", r"使用 \frac 命令"),
]


@pytest.mark.parametrize(("raw", "text"), CASES)
def test_markup_becomes_plain_wherever_the_reply_is_cut(raw: str, text: str) -> None:
    assert plain(raw) == text
    assert plain(raw, *range(len(raw))) == text
    assert all(plain(raw, cut) == text for cut in range(len(raw)))


def test_blocks_of_code_are_kept_for_a_reply_that_is_nothing_else() -> None:
    markup = Markup()
    assert markup.push("```python\nprint(1)\n```") + markup.flush() == "\n"
    assert markup.code == ["print(1)"]


def test_money_and_comparisons_are_not_held_back() -> None:
    markup = Markup()
    assert [markup.push(piece) for piece in ("It costs $5.50", ", x <", " y")] == ["It costs ", "$5.50, x ", "< y"]


MARKS = (
    "<|b|>|/| |a|=|\"|'|`|```|~~~|\n|$|\\|frac|sqrt|{|}|&|lt;|!--|-->|好|1|^|img src=|(|)|[|]|，|python|C:|标签|f(x)"
)
PIECES = st.lists(st.sampled_from([*MARKS.split("|"), "|"]), max_size=40).map("".join)


@given(PIECES, st.lists(st.integers(0, 120), max_size=6).map(sorted))
def test_the_pieces_of_a_reply_make_no_difference(raw: str, cuts: list[int]) -> None:
    assert plain(raw, *cuts) == plain(raw)
    assert plain(raw, *range(len(raw))) == plain(raw)


@given(st.text(st.sampled_from(list("~`\n 好的abc1，。")), max_size=80))
def test_no_word_is_lost_in_marks_that_open_no_block(text: str) -> None:
    """Only what stands in a closed block that reads as code is taken out."""
    markup = Markup()
    read = markup.push(text) + markup.flush() + "".join(markup.code)
    assert sorted(filter(str.isalnum, text)) >= sorted(filter(str.isalnum, read))
    if not markup.code:
        lost = len([*filter(str.isalnum, text)]) - len([*filter(str.isalnum, read)])
        assert lost <= max((len(line) for line in text.split("\n")), default=0), "at most the word behind a fence"
