"""Which texts are the same words: numbers, contractions, widths and punctuation; and which never are."""

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xiaozhi.text.same_words import normal_form, same_words


@pytest.mark.parametrize(
    "group",
    [
        ["现在几点了", "现在几点了？", "现在 几点了。", "「现在几点了」", "现在，几点了……"],
        ["What time is it", "what time is it?", "WHAT TIME IS IT", "ｗｈａｔ ｔｉｍｅ ｉｓ ｉｔ？", "what-time is it"],
        ["三点叫我", "3点叫我", "３点叫我", "3點叫我", "三點叫我。"],
        ["三点五十叫我", "3点50叫我", "3:50叫我", "3：50叫我", "三点五十分叫我", "3点50分叫我"],
        ["三点零五分", "3点05分", "3:05"],
        ["十点二十五", "10:25", "10点25"],
        ["二十", "20", "２０", "二十。"],
        ["十五", "一十五", "15"],
        ["一百二", "一百二十", "120"],
        ["一百十五块", "一百一十五块", "115块"],
        ["两百二十二", "二百二十二", "222"],
        ["一百零二", "一百〇二", "102"],
        ["三千五", "三千五百", "3500", "3,500"],
        ["三万五", "三万五千", "3.5万", "35000", "35,000", "三萬五"],
        ["一千零五十万", "1050万", "10500000"],
        ["一亿两千万", "120000000", "1.2亿", "一億兩千萬"],
        ["二零二四年", "2024年", "两千零二十四年"],
        ["零零七", "007", "〇〇七"],
        ["三点一四", "3.14", "three point one four", "3．14"],
        ["百分之十", "10%", "１０％", "ten percent", "ten per cent", "10 percent", "10﹪"],
        ["百分之百", "100%", "a hundred percent"],
        ["百分之三点五", "3.5%"],
        ["三分之二", "2/3", "3分之2"],
        ["零下负五度", "零下-5度", "零下−5度"],
        ["minus five", "-5", "negative five", "负五", "负5"],
        ["twenty", "20", "Twenty."],
        ["set a timer for twenty-five minutes", "set a timer for 25 minutes", "Set a timer for twenty five minutes."],
        ["one hundred and five", "a hundred and five", "105", "one hundred five"],
        ["two thousand and twenty six", "2026", "2,026"],
        ["fifteen hundred", "1500", "one thousand five hundred"],
        ["three million", "3 million", "3,000,000"],
        ["three point one four million", "3.14 million", "3140000"],
        ["ten minus four", "10 minus 4", "10 minus four"],
        ["what's the time", "what is the time", "What’s the time?", "whats the time"],
        ["I'm sure it's fine", "i am sure it is fine", "Im sure it is fine"],
        ["don't", "do not", "dont", "Don’t!"],
        ["I can't", "i cannot", "I can not", "i cant"],
        ["he won't", "he will not"],
        ["isn't it", "is not it"],
        ["we're here", "we are here"],
        ["they've gone", "they have gone"],
        ["you'll see", "you will see"],
        ["i'd like tea", "i would like tea"],
        ["let's go", "let us go"],
        ["okay", "OK"],
        ["my dog's name", "my dogs name"],
        ["cafe\u0301", "café"],
        ["", "…", " ?!", "~"],
    ],
)
def test_other_writings_of_the_same_words_are_the_same(group: list[str]) -> None:
    forms = {text: normal_form(text) for text in group}
    assert len(set(forms.values())) == 1, forms
    assert all(same_words(group[0], text) for text in group)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.5", "15"),
        ("1.5", "1 5"),
        ("3.10", "3.1"),
        ("10%", "10"),
        ("百分之十", "十"),
        ("-5", "5"),
        ("10 minus 4", "10 4"),
        ("3:50", "350"),
        ("三点五十", "三点五"),
        ("三点五", "三点零五"),
        ("三五个", "三十五个"),
        ("三五个", "35个"),
        ("三四十", "三百四十"),
        ("三四十", "四十"),
        ("两三个", "二十三个"),
        ("一百二", "一百零二"),
        ("三千五", "三千零五"),
        ("三万五", "3万零5"),
        ("twenty, five", "twenty five"),
        ("20 5", "25"),
        ("20 5", "twenty five"),
        ("twenty zero", "20"),
        ("five three", "fifty three"),
        ("one two three", "123"),
        ("007", "7"),
        ("1,200", "1 200"),
        ("1，200", "1200"),
        ("1,20", "120"),
        ("1/2", "12"),
        ("三分之二", "二分之三"),
        ("3+5", "3×5"),
        ("3+5", "35"),
        ("10²", "102"),
        ("1½", "11/2"),
        ("$5", "€5"),
        ("2^10", "2*10"),
        ("thirteen", "thirty"),
        ("十", "四"),
        ("turn it on", "turn it off"),
        ("打开灯", "关掉灯"),
        ("do", "do not"),
        ("can", "can't"),
        ("", "嗯"),
        ("1.2.3", "1.23"),
        ("3 million", "3"),
        ("一千万", "一千"),
        ("fifteen hundred twenty", "1500"),
    ],
)
def test_other_words_and_numbers_are_not(one: str, other: str) -> None:
    assert not same_words(one, other), (normal_form(one), normal_form(other))


_ZH = "零一二三四五六七八九"
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def chinese(value: int) -> str:
    """A number below 10**8 as it is written out in full, made another way than the code under test."""
    if value >= 10_000:
        high, low = divmod(value, 10_000)
        return chinese(high) + "万" + (("零" if low < 1000 else "") + inner(low) if low else "")
    return inner(value).removeprefix("一") if 10 <= value < 20 else inner(value)


def inner(value: int) -> str:
    written, gap = "", False
    for place, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = value // place % 10
        if digit:
            written += ("零" if gap and written else "") + _ZH[digit] + unit
        gap = not digit
    return written or "零"


def english(value: int) -> str:
    """A number below 10**9 in words, with `and` and hyphens as they are written."""
    for scale, word in ((1_000_000, "million"), (1000, "thousand")):
        if value >= scale:
            rest = value % scale
            return f"{english(value // scale)} {word}" + (
                f"{' and' if rest < 100 else ''} {english(rest)}" if rest else ""
            )
    if value >= 100:
        return f"{_SMALL[value // 100]} hundred" + (f" and {english(value % 100)}" if value % 100 else "")
    if value < 20:
        return _SMALL[value]
    return _TENS[value // 10] + (f"-{_SMALL[value % 10]}" if value % 10 else "")


def writings(value: int) -> list[str]:
    """Ways to write a number."""
    found = [str(value), f"{value:,}", chinese(value), english(value)]
    if value % 10_000 == 0 and value:
        found += [f"{value // 10_000}万", f"{value // 10_000} 万"]
    if value % 1_000_000 == 0 and value:
        found.append(f"{value // 1_000_000} million")
    return found


numbers = st.one_of(
    st.integers(0, 130),
    st.integers(0, 10_000_000),
    st.sampled_from([10**n * d for n in range(7) for d in (1, 2, 5, 10, 11, 12, 15, 35)]),
)
frames = st.sampled_from(["{}", "给我{}个", "set it to {} degrees", "{}%", "百分之{}", "明天 {}，好吗"])


@given(numbers, numbers, frames)
def test_numbers_are_the_same_exactly_where_their_values_are(a: int, b: int, frame: str) -> None:
    for one in writings(a):
        for other in writings(b):
            assert same_words(frame.format(one), frame.format(other)) == (a == b), (one, other)


@given(numbers, numbers, numbers, numbers, st.sampled_from([" ", "，", ", ", "和", " and ", "到", "-", "+"]))
def test_two_numbers_never_run_into_one(a: int, b: int, c: int, d: int, glue: str) -> None:
    assume((a, b) != (c, d))
    for one, other in ((str(a), str(b)), (chinese(a), chinese(b))):
        assert not same_words(f"{one}{glue}{other}", f"{c}{glue}{d}")
        assert not same_words(f"{one}{glue}{other}", str(c))
        assert not same_words(f"{one}{glue}{other}", f"{c}%")


@given(numbers, st.integers(0, 9), numbers, st.integers(0, 9))
def test_decimals_signs_and_percents_are_compared_as_well(a: int, tenth: int, b: int, other: int) -> None:
    assert same_words(f"{a}.{tenth}", f"{chinese(a)}点{_ZH[tenth]}")
    assert same_words(f"{a}.{tenth}", f"{english(a)} point {_SMALL[tenth]}")
    assert same_words(f"-{a}", f"负{chinese(a)}")
    assert same_words(f"{a}%", f"{english(a)} percent")
    assert same_words(f"{a}.{tenth}", f"{b}.{other}") == ((a, tenth) == (b, other))
    assert not same_words(f"{a}.{tenth}", str(b))
    assert not same_words(f"-{a}", str(b))
    assert not same_words(f"{a}%", str(b))


@given(
    st.lists(
        st.sampled_from(
            [*"零一二两三四五六七八九十百千万亿点分之%负-.,: 0123456789", " two", " twenty", " hundred", " and "]
        ),
        max_size=30,
    ),
    st.lists(st.sampled_from("0123456789"), min_size=1, max_size=6),
)
def test_anything_has_a_normal_form_and_only_a_number_is_a_number(pieces: list[str], digits: list[str]) -> None:
    text = "".join(pieces)
    assert same_words(text, f" {text}！")
    number = "".join(digits)
    if same_words(text, number):
        # What equals a bare number holds no more digits than it has, read out or written.
        assert sum(char in "零一二两三四五六七八九0123456789" for char in text) <= len(number)


@given(st.text(max_size=80), st.text(max_size=80))
def test_wild_texts_are_compared_without_an_error(one: str, other: str) -> None:
    assert same_words(one, one)
    assert same_words(one, other) == same_words(other, one)


@pytest.mark.parametrize("behind", ["", "万", "点50", " million", "%", ":30", "分之3"])
@pytest.mark.parametrize("digit", ["9", "九", "nine ", "百", "十"])
def test_endless_numbers_are_compared_without_an_error(digit: str, behind: str) -> None:
    count = 5000 if len(digit) == 1 else 300
    endless = digit * count + behind
    assert same_words(endless, endless + "。")
    assert not same_words(endless, digit * (count + 1) + behind)
    assert not same_words(f"三点{endless}分", "3:50")


def test_a_text_that_begins_with_a_minute_sign_keeps_it() -> None:
    assert not same_words("分子是什么", "子是什么")
    assert same_words("三点五十分", "3:50")


@pytest.mark.parametrize("part", ["111,", "\u0301\u0323", "一点十", "one hundred ", "one and ", "-1", "1:11:"])
def test_the_time_for_a_text_grows_with_its_length_alone(part: str) -> None:
    def took_s(chars: int) -> float:
        text = (part * chars)[:chars]
        return min(_timed_s(text) for _ in range(5))

    assert took_s(16_000) < 16.0 * took_s(2000)  # 64 times where every piece is looked at with every other


def _timed_s(text: str) -> float:
    began = time.thread_time()
    normal_form(text)
    return time.thread_time() - began
