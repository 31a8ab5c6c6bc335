"""Which questions have one answer: precision before everything, on a labelled table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.question_pairs import HELD_OUT, PAIRS
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.text.similarity import (
    DIMENSIONS,
    alike,
    contradiction,
    gist,
    same_content,
    same_question,
    shared_content,
    vector,
)

THRESHOLD = CacheSettings().threshold


def recall(table: list[tuple[str, str, bool]], threshold: float) -> float:
    matched = [same_question(one, other, threshold) for one, other, same in table if same]
    return sum(matched) / len(matched)


@pytest.mark.parametrize("table", [PAIRS, HELD_OUT], ids=["tuned", "held-out"])
def test_no_pair_with_different_answers_matches(table: list[tuple[str, str, bool]]) -> None:
    wrong = [
        pair
        for one, other, same in table
        if not same
        for pair in ((one, other), (other, one))
        if same_question(*pair, THRESHOLD)
    ]
    assert wrong == []


def test_the_table_is_large_and_most_of_it_is_hard() -> None:
    assert len(PAIRS) >= 120
    different = [(one, other) for one, other, same in PAIRS if not same]
    assert len(different) > len(PAIRS) / 2
    # Likeness alone would not do: many different pairs are above the threshold by their letters.
    assert sum(alike(one, other) >= THRESHOLD for one, other in different) >= 40


def test_most_pairs_with_the_same_answer_match() -> None:
    assert recall(PAIRS, THRESHOLD) >= 0.85
    assert recall(HELD_OUT, THRESHOLD) >= 0.85


def test_the_threshold_is_the_highest_that_costs_little() -> None:
    """Precision is the work of the rules at any threshold; a higher one only finds less."""
    assert recall(PAIRS, THRESHOLD) >= recall(PAIRS, 0.0) - 0.06
    assert recall(PAIRS, THRESHOLD + 0.2) < recall(PAIRS, THRESHOLD)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("三加五等于几", "三加六等于几", "number"),
        ("what is ten plus two", "what is ten plus four", "number"),
        ("猫能吃巧克力吗", "猫不能吃巧克力吗", "negation"),
        ("can dogs eat grapes", "why can't dogs eat grapes", "negation"),
        ("法国有多大", "德国有多大", "place"),
        ("how big is paris", "how big is london", "place"),
        ("一磅是多少克", "一磅是多少吨", "unit"),
        ("how many grams is it", "how many ounces is it", "unit"),
        ("春节吃什么", "中秋吃什么", "date"),
        ("what do people eat at christmas", "what do people eat at easter", "date"),
        ("怎么开门", "怎么关门", "opposite"),
        ("which is the biggest whale", "which is the smallest whale", "opposite"),
        ("电灯是谁发明的", "电灯是什么时候发明的", "kind"),
        ("who built it", "when was it built", "kind"),
        ("什么是黑洞", "what is a black hole", "language"),
    ],
)
def test_each_rule_says_what_differs(one: str, other: str, reason: str) -> None:
    assert contradiction(one, other) == reason
    assert contradiction(other, one) == reason


def test_a_question_asked_in_two_ways_does_not_contradict_itself() -> None:
    for one, other in (("鲸鱼是鱼吗", "鲸鱼是不是鱼"), ("why is the sky blue", "tell me why the sky is blue")):
        assert contradiction(one, other) == ""
        assert same_content(one, other)
        assert shared_content(one, other) == 1.0


@given(st.text(max_size=80))
def test_every_text_has_a_vector_and_is_like_itself(text: str) -> None:
    found = vector(text)
    assert found.shape == (DIMENSIONS,)
    assert found.dtype == np.float32
    length = float(np.linalg.norm(found))
    assert length == pytest.approx(1.0, abs=1e-4) or length == 0.0
    assert contradiction(text, text) == ""


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_rules_are_symmetric_and_never_fail(one: str, other: str) -> None:
    assert contradiction(one, other) == contradiction(other, one)
    assert same_question(one, other, 0.5) == same_question(other, one, 0.5)


def test_a_text_without_words_matches_nothing() -> None:
    assert gist("……").content == ()
    assert not same_question("……", "！！", 0.0)
