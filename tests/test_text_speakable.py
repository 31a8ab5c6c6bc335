"""What is shown of a text and what is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import growth
from xiaozhi.text.emotions import is_emoji
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
    ("id 550e8400-e29b-41d4-a716-446655440000 ok", "id 550e8400-e29b-41d4-a716-446655440000 ok", "id ok"),
    ("好呀~~~我们走", "好呀~~~我们走", "好呀 我们走"),
    # Comparisons, keys, tags, entities.
    ("如果 x<y 且 y>z，那么", "如果 x<y 且 y>z，那么", "如果 x小于y 且 y大于z，那么"),
    ("When a<b and c>d.", "When a<b and c>d.", "When a is less than b and c is greater than d."),
    ("1<x<=10", "1<x<=10", "1 is less than x is less than or equal to 10"),
    ("当a<b>c时", "当a<b>c时", "当a小于b大于c时"),
    ("按 <Enter> 键，再按 <Ctrl> 键。", "按 <Enter> 键，再按 <Ctrl> 键。", "按 Enter 键，再按 Ctrl 键。"),
    ("用 <b> 标签加粗", "用 <b> 标签加粗", "用 b 标签加粗"),
    ("<p><name>Tom</name></p>", "<name>Tom</name>", "name Tom"),
    ("a &lt; b &amp; c&nbsp;&#39;d&#39; AT&T", "a < b & c 'd' AT&T", "a is less than b & c 'd' AT&T"),
    ("List<String> 和 Map<K, V>", "List<String> 和 Map<K, V>", "List String 和 Map小于K, V"),
    ("打开设置 > 通用 > 关于本机", "打开设置 > 通用 > 关于本机", "打开设置，通用，关于本机"),
    ("A -> B => C", "A -> B => C", "A, B, C"),
    ('<audio src="https://a.b/c?x=1, 2."/>好的', "好的", "好的"),
    ("<!-- note -->好<br/>的", "好 的", "好，的"),
    # Formulas.
    (
        r"解是 $x = \frac{-b \pm \sqrt{b^2-4ac}}{2a}$。",
        "解是 x = (-b ± √(b^2-4ac))/(2a)。",
        "解是 x等于2a分之负b加减根号下b的平方减4ac。",
    ),
    (
        r"It is \(x=\frac{-b}{2a}\).",
        "It is x=-b/(2a).",
        "It is x equals minus b over 2a.",
    ),
    ("光速约为3×10^8米每秒，", "光速约为3×10^8米每秒，", "光速约为3×10的8次方米每秒，"),
    ("2^10等于1024。", "2^10等于1024。", "2的10次方等于1024。"),
    (r"结果是 $42$，即\boxed{42}。", "结果是 42，即42。", "结果是 42，即42。"),
    ("面积是25m²，x² - 1 = 0", "面积是25m²，x² - 1 = 0", "面积是25平方米，x的平方减1等于0"),
    ("9.8 m/s² or 60 km/h", "9.8 m/s² or 60 km/h", "9.8 meters per second squared or 60 kilometers per hour"),
    ("10⁻³ and 6.02e23", "10⁻³ and 6.02e23", "10 to the power of minus 3 and 6.02 times 10 to the power of 23"),
    ("2**10等于1024，x**2", "2^10等于1024，x^2", "2的10次方等于1024，x的平方"),
    ("a*b = c", "a*b = c", "a times b equals c"),
    ("x^2y, 3√2", "x^2y, 3√2", "x squared y, 3 the square root of 2"),
    ("> 60分及格，<60分不及格", "> 60分及格，<60分不及格", "大于60分及格，小于60分不及格"),
    ("$面积=长×宽$", "面积=长×宽", "面积=长×宽"),
    ("温度 >= 30°C，9.1×10^{-31} kg", "温度 >= 30°C，9.1×10^{-31} kg", "温度大于等于30°C，9.1×10的负31次方 kg"),
    ("a<>b and a<<2", "a<>b and a<<2", "a is not equal to b and a 2"),
    ("𝒙²", "𝒙²", "x squared"),
    ("E=mc²", "E=mc²", "E equals mc squared"),
    ("水是H₂O，½杯", "水是H₂O，½杯", "水是H2O，2分之1杯"),
    (r"$\alpha$ 和 π，$\sqrt[3]{8}=2$", "α 和 π，³√8=2", "阿尔法 和 派，3次根号8等于2"),
    (r"$\sum_{i=1}^{n} i$", "∑_(i=1)^n i", "the sum from i equals 1 to n of i"),
    ("价格$5.50，或$10-$20", "价格$5.50，或$10-$20", "价格$5.50，或$10-$20"),
    (r"C:\temp\new", r"C:\temp\new", "C: temp new"),
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


# No digit in a word, no sign that is written out, nothing that looks like a key.
PROSE = st.lists(
    st.sampled_from(
        "你好 今天天气很好 小智，我们走吧！ hello world's e-mail 42 3.14 1,000 (well) “quoted” Mr. iPhone -5 50% 10:30 "
        "user@example.com A&B C++ C# 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20 antidisestablishmentarianism "
        "Kraftfahrzeughaftpflichtversicherung 3.14159265358979323846264338327950288419716939937510 snake_case_name "
        "and/or https 北京。 ~ ~~~ 好~ ``` ` 😀 … ？".split(" ")
    ),
    min_size=1,
    max_size=20,
)


@given(PROSE, st.sampled_from([" ", ""]))
def test_every_letter_and_digit_of_prose_is_said_and_shown(words: list[str], gap: str) -> None:
    prose = "x" + gap.join(words)
    text, speech = speakable(prose)
    letters = [char for char in prose if char.isalnum()]
    assert [char for char in text if char.isalnum()] == letters
    assert [char for char in speech if char.isalnum()] == letters


FORMULAS = st.text(st.sampled_from(list("$\\{}^_()[]<>=+-−⁄√²³xab12 ，。/&;|"))).map(lambda text: text[:120])


@given(
    FORMULAS | st.lists(st.sampled_from([r"\frac", r"\sqrt", "{", "}", "^", "_", "$", "(", "2", "x", "<"])).map("".join)
)
def test_any_formula_is_read(text: str) -> None:
    shown, speech = speakable(text)
    assert "⁄" not in shown + speech and "−" not in shown + speech
    assert not set("^{}√²") & set(speech)


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "<",
        "<a ",
        "[",
        "(",
        "`",
        "$x ",
        "$5",
        "\\frac{",
        "&a",
        "|",
        "| ",
        " ",
        "√",
        "[](",
        "{",
        "αx",
        "->",
        "<a b=c ",
    ],
)
def test_a_flood_of_signs_costs_no_more_than_its_length(piece: str) -> None:
    """A rule that looks back again and again takes sixteen times as long for four times the text."""
    assert growth(lambda length: speakable((piece * length)[:length]), 1000) < 10
