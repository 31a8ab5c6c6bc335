"""Which answers tell something of the conversation before them."""

import pytest

from xiaozhi.text.cacheable import Why, may_cache
from xiaozhi.text.given_away import gives_away


@pytest.mark.parametrize(
    ("asked", "question", "answer"),
    [
        ("Zarubo lives next to Kelimo", "why do cats purr", "They purr when they are content, as zarubo does."),
        ("the cat is called Momo", "why do cats purr", "Momo's purring means that she is content."),
        ("dial 5550 123", "what is a phone number", "For example 5550."),
        ("毛毛睡着了", "猫为什么会打呼噜", "因为它放松，就像毛毛那样。"),
        ("小明住在湖边", "月亮离地球有多远", "很远，小明，大约三十八万公里。"),
    ],
)
def test_a_telling_word_from_before_is_given_away(asked: str, question: str, answer: str) -> None:
    assert gives_away(answer, question, [asked])
    assert may_cache(question, answer, [asked]) is Why.HISTORY
    assert may_cache(question, answer) is Why.OK, "without that conversation it is only an answer"


@pytest.mark.parametrize(
    ("asked", "question", "answer"),
    [
        ("how do bees make honey", "why do cats purr", "Cats purr when they are content."),
        ("what do cats eat", "why do cats purr", "Cats purr when they are content."),
        ("月亮有多大", "月亮离地球有多远", "月亮离地球大约三十八万公里。"),
        ("为什么天是蓝的", "猫为什么会打呼噜", "因为它放松的时候喉咙会震动。"),
    ],
)
def test_words_that_were_asked_for_or_tell_nothing_are_not(asked: str, question: str, answer: str) -> None:
    assert not gives_away(answer, question, [asked])


def test_of_earlier_answers_only_names_count() -> None:
    question, answer = "why do cats purr", "They purr when content, as Momo does."
    assert gives_away(answer, question, [], ["I know that Momo is asleep."])
    assert not gives_away(answer, question, [], ["Bees are content in the sun."])
    assert gives_away("因为放松，像岚霁珩家的猫。", "猫为什么会打呼噜", [], ["岚霁珩住在湖边。"])
