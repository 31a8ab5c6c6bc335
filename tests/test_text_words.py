"""Emotions, languages, lengths, built-in sentences, spoken sums and commands."""

from fractions import Fraction
from pathlib import Path

import pocketsphinx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.arithmetic import calculate, spoken_number
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.text.emotions import EMOTIONS, emoji_of, emotion_in, is_emoji
from xiaozhi.text.language import language_of
from xiaozhi.text.messages import interrupted_mark, message
from xiaozhi.text.units import join_pieces, units


def test_the_21_faces_of_the_device_protocol_go_both_ways() -> None:
    assert len(EMOTIONS) == 21
    for name in EMOTIONS:
        assert emotion_in(emoji_of(name)) == name
    assert emoji_of("neutral") == "😶"
    assert emoji_of("happy") == "🙂"
    assert emoji_of("confused") == "🙄"
    assert emoji_of("no such face") == "😶"


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("😊 你好", "happy"),
        ("😂😂哈哈", "funny"),
        (" \n❤️ hi", "loving"),
        ("👍🏽 ok", "happy"),
        ("🤷‍♀️ 不知道", "confused"),
        ("🦖🤔 嗯", "thinking"),  # the dinosaur means nothing
        ("🦖 嗯", ""),
        ("你好 😊 😠", "happy"),
        ("", ""),
    ],
)
def test_the_first_emoji_that_means_one_is_the_emotion(text: str, emotion: str) -> None:
    assert emotion_in(text) == emotion


def test_letters_digits_and_marks_are_no_emoji() -> None:
    assert not any(map(is_emoji, "abcXYZ019，。！？“”…~+-×÷=→°€¥©你あ한é·—"))


@pytest.mark.parametrize(
    ("text", "default", "language"),
    [
        ("今天天气怎么样", "en", "zh"),
        ("what time is it", "zh", "en"),
        ("我的 iPhone 15 坏了", "en", "zh"),
        ('The word "你好" means hello in Chinese.', "zh", "en"),
        ("OK啊", "en", "zh"),
        ("こんにちは、元気ですか", "zh", "ja"),
        ("안녕하세요", "zh", "ko"),
        ("3.14", "zh", "zh"),
        ("3.14", "en", "en"),
        ("", "zh", "zh"),
        ("你食咗飯未", "yue", "yue"),
        ("东京", "ja", "ja"),
        ("guten Tag", "de", "de"),
        ("hello", "", "en"),
        ("hello", "ja", "en"),
        ("邮箱是 test.user@example.com，", "zh", "zh"),
        ("推荐电影The Shawshank Redemption。", "zh", "zh"),
        ("推荐The Lord of the Rings: The Return of the King", "zh", "zh"),
        ("听twinkle twinkle little star。", "zh", "zh"),
        ("The New York Times报道，", "zh", "zh"),
        ("iPhone 15 Pro Max很贵", "en", "zh"),
        ("执行git commit -m 命令，", "zh", "zh"),
        ("他说：“I have a dream.”", "zh", "zh"),
        ("《Yesterday Once More》", "zh", "zh"),
        ("Photoshop。", "zh", "zh"),
        ("Harry Potter", "zh", "zh"),
        ("Python,", "zh", "zh"),
        ("Sure,", "zh", "en"),
        ("Goodbye! Call", "zh", "en"),
        ("Really? Yes.", "zh", "en"),
        ("5 km", "zh", "zh"),
        ("x^2+y^2=1", "zh", "zh"),
        ("OK, bye now.", "zh", "en"),
        ("The temperature is 20°C today.", "zh", "en"),
        ("It is called 北京烤鸭.", "en", "en"),
        ("Say 你好.", "en", "en"),
        ("I'm 小智.", "en", "en"),
        ("The Chinese word for hello is 你好.", "zh", "en"),
        ("Hello，我是小智。", "en", "zh"),
        ("日语里猫叫ねこ。", "zh", "zh"),
        ("谢谢用日语说是ありがとう。", "zh", "zh"),
        ("今日は天気がいいですね", "zh", "ja"),
        ("東京は日本の首都です。", "en", "ja"),
        ("iPhoneを買いました", "ja", "ja"),
        ("谢谢用韩语说是감사합니다。", "zh", "zh"),
        ("Samsung Galaxy를 샀어요", "zh", "ko"),
        ("Привет, как дела?", "zh", "ru"),
        ("Привіт", "uk", "uk"),
        ("俄语的你好是Привет。", "zh", "zh"),
        ("The Russian word привет means hi.", "en", "en"),
        ("สวัสดี", "zh", "th"),
        ("α+β", "zh", "zh"),
    ],
)
def test_the_language_is_seen_in_the_script(text: str, default: str, language: str) -> None:
    assert language_of(text, default=default) == language


def test_three_letters_sound_as_long_as_one_character() -> None:
    assert units("你好！") == 2
    assert units("hello, a") == pytest.approx(2)


def test_pieces_are_joined_with_blanks_only_in_latin_script() -> None:
    assert join_pieces(["Hello!", "How are you?"]) == "Hello! How are you?"
    assert join_pieces(["你好，", "我是小智。", "OK"]) == "你好，我是小智。OK"
    assert join_pieces([]) == ""


def test_built_in_sentences_speak_the_users_language() -> None:
    assert "抱歉" in message("apology", "zh")
    assert message("apology", "yue") == message("apology", "zh")
    assert message("apology", "en").startswith("Sorry")
    assert message("busy", "de") == message("busy", "en")
    assert message("not_understood", "zh") != message("not_understood", "en")
    assert interrupted_mark("zh") == "…[打断]"
    assert interrupted_mark("en") == "… [interrupted]"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("三加五等于几", "8"),
        ("请问二十三乘以两百是多少？", "4600"),
        ("三千五加一", "3501"),
        ("一百零二减二十", "82"),
        ("一万二千加五", "12005"),
        ("一亿两千万加三", "120000003"),
        ("十除以四", "2.5"),
        ("三除六", "2"),
        ("三点一四乘二", "6.28"),
        ("two to the power of three", "8"),
        ("what is twelve times three", "36"),
        ("what's twenty-three plus one hundred and five", "128"),
        ("two point five plus a hundred", "102.5"),
        ("how much is two million divided by four?", "500000"),
        ("what is minus three plus five", "2"),
        ("ten minus four", "6"),
        ("12*3=?", "36"),
        ("1,000 + 5", "1005"),
        ("(2+2)*2", "8"),
        ("2 ^ 10", "1024"),
        ("7 x 8", "56"),
        ("1/3", "0.3333"),
        ("-5", None),
        ("十二", None),
        ("how old are you", None),
        ("twenty times we said so", None),
        ("five three plus one", None),
        ("2 +", None),
        ("(2+3", None),
        ("加一", None),
        ("what is", None),
        ("3 + " * 100, None),
    ],
)
def test_spoken_sums(text: str, result: str | None) -> None:
    value = calculate(text)
    assert (None if value is None else spoken_number(value)) == result


def test_impossible_sums_say_why() -> None:
    with pytest.raises(ZeroDivisionError):
        calculate("五除以零")
    with pytest.raises(ZeroDivisionError):
        calculate("0 ^ -1")
    for text in ("9999999999999999999 + 1", "10 ^ 65", "10^9 * 10^9 * 10^9", "2^64^9"):
        with pytest.raises(OverflowError):
            calculate(text)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6), st.sampled_from("+-*/"))
def test_sums_agree_with_python(a: int, b: int, sign: str) -> None:
    expected = {"+": Fraction(a + b), "-": Fraction(a - b), "*": Fraction(a * b), "/": Fraction(a, b)}[sign]
    assert calculate(f"{a} {sign} {b}") == expected


@given(st.text(max_size=60))
def test_any_text_is_a_sum_or_none(text: str) -> None:
    try:
        value = calculate(text)
    except (ZeroDivisionError, OverflowError):
        return
    assert value is None or abs(value) <= 10**18


@pytest.fixture(scope="module")
def dictionary() -> set[str]:
    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    return {line.split()[0].partition("(")[0] for line in path.read_text(encoding="utf-8").splitlines()}


def test_every_command_is_made_of_words_the_recogniser_can_pronounce(dictionary: set[str]) -> None:
    assert len(set(SPOKEN_COMMANDS_EN)) == len(SPOKEN_COMMANDS_EN)
    assert {word for phrase in SPOKEN_COMMANDS_EN for word in phrase.split()} <= dictionary
