"""The bench of wrong hits: its pairs are what they say, and not one of two answers matches."""

import random

import pytest

from bench.cache_precision import Pair, judge, main, match, pairs
from xiaozhi.settings.cache import CacheSettings

THRESHOLD = CacheSettings().threshold


@pytest.fixture(scope="module")
def every() -> list[Pair]:
    """A part of what the bench tries, which tries all."""
    return random.Random(1).sample(pairs(200, 1, most=12), 1500)


def test_no_pair_out_of_the_templates_with_two_answers_matches(every: list[Pair]) -> None:
    verdict = judge(every, THRESHOLD)
    assert sum(not pair.same for pair in every) > 300
    assert verdict.wrong == []
    assert verdict.precision == 1.0
    assert verdict.recall > 0.8


def test_a_match_is_what_the_cache_would_do() -> None:
    assert match("什么是黑洞", "什么是黑洞？", THRESHOLD) == "exact"
    assert match("什么是黑洞", "请问黑洞是什么", THRESHOLD) == "similar"
    assert match("现在几点", "现在几点", THRESHOLD) == "", "it is not let in"


def test_the_bench_prints_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--others", "10", "--most", "2", "--show", "1", "--pairs", "300"]) == 0
    out = capsys.readouterr().out
    assert "precision 100.00%" in out and "missed (" in out


def test_a_threshold_changes_what_is_found_and_never_whether_it_is_right(every: list[Pair]) -> None:
    low, high = judge(every[:400], 0.1), judge(every[:400], 0.9)
    assert low.wrong == high.wrong == []
    assert low.recall > high.recall
