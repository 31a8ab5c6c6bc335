"""What is a number in Chinese and English words, and what must not be read as one."""

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.arithmetic import calculate
from xiaozhi.text.numbers import chinese_digits, chinese_number, english_number, english_value

READ = {
    "零": 0,
    "两": 2,
    "十": 10,
    "十五": 15,
    "一十五": 15,
    "二十": 20,
    "九十九": 99,
    "一百": 100,
    "一百零二": 102,
    "一百〇二": 102,
    "一百十五": 115,
    "一百一十五": 115,
    "一百二": 120,
    "一百一": 110,
    "两百二十二": 222,
    "二百二十二": 222,
    "一千零五": 1005,
    "一千零十": 1010,
    "一千零一十": 1010,
    "一千零五十": 1050,
    "三千五": 3500,
    "三千五百": 3500,
    "一万零五十": 10_050,
    "一万零五百": 10_500,
    "一万二": 12_000,
    "三万五千": 35_000,
    "十万零五千": 105_000,
    "十万三": 103_000,
    "一千零五十万": 10_500_000,
    "一亿五": 150_000_000,
    "一亿两千万": 120_000_000,
    "十亿零一": 1_000_000_001,
    "两万亿": 2 * 10**12,
    "一亿亿": 10**16,
    "九千九百九十九万九千九百九十九": 99_999_999,
}
"""Whole numbers with units, and single ones: read everywhere."""

LOOSE = {"二零二四": 2024, "零零七": 7, "三五": 35, "百": 100, "百万": 10**6, "千万": 10**7, "一二三": 123}
"""Read where a number is expected, a sum for example. In free text they may be other words, or other numbers."""

NEVER = (
    "三百百", "三百百五", "百百", "千百", "百一", "万一", "万三", "亿三", "十十", "十百", "一十十", "二十三十",
    "三四十", "三四十五", "三四百五", "三五十", "两十", "一百零", "零一百", "零十五", "三百零百", "一百二十零",
    "五百三百", "三百五百", "一千三万", "零亿", "零亿亿", "万万", "十零", "一零千", "", "点五", "十" * 30, "一百" * 20,
)  # fmt: skip
"""Never a number: ranges ("thirty or forty"), words that hold numerals, units in no order, and what nobody says."""


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_what_is_written_properly_is_read_everywhere(text: str, value: int) -> None:
    assert chinese_number(text) == value
    assert chinese_digits(text.replace("〇", "零")) == str(value)
    assert calculate(f"{text}加一") == value + 1


@pytest.mark.parametrize(("text", "value"), LOOSE.items())
def test_loose_numbers_are_read_where_one_is_expected(text: str, value: int) -> None:
    assert chinese_number(text) == value
    assert calculate(f"{text}减一") == value - 1
    assert chinese_digits(text) in (None, text.translate(str.maketrans("零一二三四五六七八九", "0123456789")))


@pytest.mark.parametrize("text", NEVER)
def test_what_is_no_number_is_read_as_none(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        chinese_number(text)
    assert not text or chinese_digits(text) is None
    assert calculate(f"{text}加一") is None


@pytest.mark.parametrize(("run", "digits"), [("三五", None), ("百", None), ("千万", None), ("二零", "20"), ("两", "2")])
def test_in_free_text_two_digits_side_by_side_and_a_bare_unit_are_none(run: str, digits: str | None) -> None:
    assert chinese_digits(run) == digits


@pytest.mark.parametrize(
    ("text", "value"),
    [("三点一四", "3.14"), ("十点零五", "10.05"), ("零点五", "0.5"), ("三百点二五", "300.25")],
)
def test_decimals_are_exact(text: str, value: str) -> None:
    assert chinese_number(text) == Fraction(value)


def chinese(value: int) -> str:
    """A number below 10000 as it is written out in full."""
    digits = "零一二三四五六七八九"
    written, zero = "", False
    for place, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = value // place % 10
        if digit:
            written += ("零" if zero and written else "") + digits[digit] + unit
        zero = not digit
    return written or "零"


@given(st.integers(0, 9999))
def test_every_number_below_ten_thousand_is_read(value: int) -> None:
    assert chinese_number(chinese(value)) == value
    assert chinese_digits(chinese(value)) == str(value)


@given(st.text("零〇一二两三四五六七八九十百千万亿点", max_size=40))
def test_any_numerals_are_a_number_or_none_and_one_number_only(text: str) -> None:
    try:
        value = chinese_number(text)
    except ValueError:
        return
    assert value >= 0
    if "点" not in text and (strict := chinese_digits(text.replace("〇", "零"))) is not None:
        assert int(strict) == value


def test_numbers_in_english() -> None:
    assert english_number("two thousand and twenty six".split()) == 2026
    assert english_number("three point one four".split()) == Fraction(157, 50)
    for words in ("one two", "twenty thirty", "hundred", "a", "one and", "and", "point", "two point ten"):
        with pytest.raises(ValueError):
            english_number(words.split())
    assert english_value("a hundred and five".split()) == 105
    assert english_value("five hundred thousand".split()) == 500_000
    assert english_value("twenty zero".split()) is None


def test_what_reads_chinese_numbers_is_not_loaded_before_one_is_read() -> None:
    """It takes 150 ms: not at the start of every command."""
    code = "import sys, xiaozhi.text.same_words; assert 'cn2an' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
