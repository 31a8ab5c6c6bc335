"""Which tier a question goes to."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.cli import main
from xiaozhi.settings import RoutingSettings
from xiaozhi.text.complexity import RoutedQuestion, choose_tier, length_of

RULES = RoutingSettings()
BOTH = ("edge", "cloud")


@pytest.mark.parametrize(
    ("text", "tier", "reason"),
    [
        ("你好", "edge", "short and plain"),
        ("现在几点了", "edge", "short and plain"),
        ("what time is it", "edge", "short and plain"),
        ("is the plane late", "edge", "short and plain"),  # `plan` is a word of its own
        ("tell me about solvents", "edge", "short and plain"),
        ("为什么天是蓝的", "cloud", "a hard question (为什么)"),
        ("Explain gravity to me", "cloud", "a hard question (explain)"),
        ("帮我写一个python函数", "cloud", "programming (python)"),
        ("用代码画个圆", "cloud", "programming (代码)"),
        ("解一下这个方程 x + 3 = 7", "cloud", "mathematics (解一下)"),
        ("what is the derivative of sine", "cloud", "mathematics (derivative)"),
        ("今天" * 30, "cloud", "long (60 > 40)"),
        ("", "edge", "short and plain"),
    ],
)
def test_easy_questions_stay_at_the_edge(text: str, tier: str, reason: str) -> None:
    route = choose_tier(RoutedQuestion(text), RULES, BOTH)
    assert (route.tier, route.reason) == (tier, reason)
    assert str(route) == f"{tier}: {reason}"
    assert route.fallback == ("cloud" if tier == "edge" else "edge")


def test_pictures_devices_and_tools_have_rules_of_their_own() -> None:
    assert choose_tier(RoutedQuestion("hi", image=True, preference="edge"), RULES, BOTH).tier == "cloud"
    assert choose_tier(RoutedQuestion("explain it", preference="edge"), RULES, BOTH).reason == "the device prefers it"
    deaf = RoutingSettings(obey_device=False, tools="cloud", images="any")
    assert choose_tier(RoutedQuestion("hi", preference="cloud", image=True), deaf, BOTH).tier == "edge"
    assert (
        choose_tier(RoutedQuestion("turn on the lamp", tools=True), deaf, BOTH).reason
        == "a tool may be needed (turn on)"
    )
    assert choose_tier(RoutedQuestion("turn on the lamp"), deaf, BOTH).tier == "edge"


def test_a_busy_tier_passes_questions_on_unless_the_other_is_busy_too() -> None:
    busy = choose_tier(RoutedQuestion("hi", busy={"edge": 0.95, "cloud": 0.1}), RULES, BOTH)
    assert (busy.tier, busy.fallback, busy.reason) == ("cloud", "edge", "short and plain, but edge is busy (95%)")
    assert choose_tier(RoutedQuestion("hi", busy={"edge": 1.0, "cloud": 1.0}), RULES, BOTH).tier == "edge"


def test_with_one_tier_there_is_nothing_to_choose() -> None:
    assert choose_tier(RoutedQuestion("explain it"), RULES, {"edge"}).reason.endswith("but there is no cloud endpoint")
    assert choose_tier(RoutedQuestion("explain it"), RULES, {"cloud"}).fallback is None


@given(st.text(), st.booleans(), st.sampled_from(["", "edge", "cloud", "x"]))
def test_any_text_has_a_route(text: str, image: bool, preference: str) -> None:
    route = choose_tier(RoutedQuestion(text, image, True, preference), RULES, BOTH)
    assert route.tier in BOTH and route.reason
    assert length_of(text) <= 2 * len(text)


SETTINGS = """\
[[llm.endpoints]]
preset = "ollama"
[[llm.endpoints]]
preset = "qwen"
weight = 3.0
[[llm.endpoints]]
preset = "deepseek"
"""


def test_the_command_explains_a_route_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.toml").write_text(SETTINGS, encoding="utf-8")
    assert main(["route", "为什么天是蓝的", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tier"], told["fallback"], told["reason"], told["length"]) == (
        "cloud", "edge", "a hard question (为什么)", 7,
    )  # fmt: skip
    assert [(one["order"], one["name"], one["share"]) for one in told["endpoints"]] == [
        (1, "qwen", 0.75), (1, "deepseek", 0.25), (2, "ollama", 1.0),
    ]  # fmt: skip
    assert main(["route", "hello", "--edge-busy", "0.95"]) == 0
    assert capsys.readouterr().out.startswith(
        "cloud: short and plain, but edge is busy (95%)\n  1. qwen (cloud): qwen-"
    )
    assert main(["route", "hello", "--set", "llm.routing.enabled=false"]) == 0
    assert "routing is off" in capsys.readouterr().out
    assert main(["route", "hello", "--edge-busy", "7"]) == 2


def test_without_endpoints_the_command_says_who_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["route", "hello"]) == 0
    assert capsys.readouterr().out == ("edge: short and plain\n  no endpoint is set: the built-in responder answers\n")
