"""Agents: their files, their prompts, and asking for them by voice."""

import datetime
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.agents import Agent, AgentError, Roster
from xiaozhi.agents.agent import agent_from_json, agent_from_toml, agent_to_toml
from xiaozhi.agents.prompt import PromptError, Surroundings, check_template, render
from xiaozhi.agents.roster import presets
from xiaozhi.agents.switching import names_of
from xiaozhi.settings import Settings
from xiaozhi.text.feelings import side_note
from xiaozhi.text.tokens import tokens_of

DAY = datetime.date(2026, 11, 21)


def roster(stored: tuple[Agent, ...] = (), **llm: str) -> Roster:
    return Roster(Settings.model_validate({"llm": llm}), presets(), stored)


def test_a_dozen_presets_come_along_with_names_that_can_be_said() -> None:
    agents = presets()
    assert len(agents) >= 12
    assert {agent.language for agent in agents} >= {"zh", "en", "auto"}
    names = [name for agent in agents for name in names_of([agent])]
    assert len(names) == len(set(names)), "no two presets answer to one name"
    for agent in agents:
        assert agent.greeting or agent.name == "xiaozhi"
        assert agent.about
        assert agent.name == "xiaozhi" or (200 < len(agent.prompt) < 1500)
        assert agent_from_toml(agent_to_toml(agent), "again") == agent
        assert agent_from_json(agent.model_dump_json(), "again") == agent


def test_the_house_agent_speaks_the_prompt_of_the_settings() -> None:
    assert roster(system_prompt="be brief").default.prompt == "be brief"
    with pytest.raises(AgentError, match=r"llm\.system_prompt.*moon"):
        roster(system_prompt="{{ moon }}")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("切换到大厨。", "chef"),
        ("换成故事大王吧", "gushi"),
        ("请帮我切换到英语老师模式", "english-teacher"),
        ("我想跟老伙伴聊聊", "laohuoban"),
        ("让诗人来说", "shiren"),
        ("换成小智", "xiaozhi"),
        ("Switch to Storyteller.", "storyteller"),
        ("switch to the story teller, please", "storyteller"),
        ("Talk to Robin", "robin"),
        ("I want to talk to the coach now", "coach"),
        ("可以换成香蕉味的吗", ""),
        ("换成香蕉", ""),
        ("怎么切换到大厨", ""),
        ("how do I switch to coach", ""),
        ("大厨", ""),
        ("", ""),
        ("切换到", ""),
        ("switch to " + "x" * 500, ""),
    ],
)
def test_only_whole_sentences_with_a_known_name_switch(said: str, name: str) -> None:
    wanted = roster().wanted(said)
    assert (wanted.name if wanted else "") == name


@given(st.text(max_size=120))
def test_nothing_that_is_said_breaks_the_recogniser(said: str) -> None:
    wanted = ROSTER.wanted(said)
    assert wanted is None or wanted in list(ROSTER)


ROSTER = roster()


def test_switching_by_voice_can_be_turned_off() -> None:
    settings = Settings.model_validate({"agents": {"switch_by_voice": False}})
    assert Roster(settings, presets()).wanted("换成大厨") is None


def test_ones_own_agent_wins_over_a_preset_and_gives_way_again() -> None:
    agents = roster((Agent(name="chef", prompt="mine"), Agent(name="uncle", aliases=("故事大王",), prompt="hm")))
    assert agents.of("chef").prompt == "mine"
    assert [agents.origin(agents.of(name)) for name in ("chef", "uncle", "coach")] == ["changed", "own", "preset"]
    wanted = agents.wanted("换成故事大王")
    assert wanted is not None
    assert wanted.name == "uncle"
    agents.replace(())
    assert "uncle" not in agents
    assert agents.of("uncle").name == "xiaozhi"
    assert len(agents.of("chef").prompt) > 100


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ('name = "a/b"', "name"),
        ('name = "a"\ncolour = "red"', "colour"),
        ('name = "a"\nprompt = "{{ moon }}"', "moon"),
        ('name = "a"\n[voice]\nrate_percent = 300', "rate_percent"),
        ("name = ", "bad.toml"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(toml: str, why: str) -> None:
    with pytest.raises(AgentError, match=why):
        agent_from_toml(toml, "bad.toml")


# Prompts --------------------------------------------------------------------------------------------------------------


def test_what_a_template_does_not_use_is_added_and_the_date_is_last() -> None:
    around = Surroundings(DAY, "Nest", "kitchen", "Ming", "en", ("likes tea",), "They spoke of tea.")
    text = render("You are kind. {% if owner %}You serve {{ owner }}.{% endif %}", "x", around, chinese=False)
    assert text.startswith("You are kind. You serve Ming.\n\n")
    assert text.count("Ming") == 1
    for word in ("Nest", "kitchen", "Answer in English only.", "- likes tea", "They spoke of tea."):
        assert word in text
    assert text.endswith("Today is Saturday, 21 November 2026.")


def test_a_day_changes_only_the_end_of_a_prompt() -> None:
    words = ("客厅", "客厅", "小明", "", ("喜欢猫",), "聊过天气")
    one = render("你是谁", "x", Surroundings(DAY, *words), chinese=True)
    two = render("你是谁", "x", Surroundings(DAY + datetime.timedelta(1), *words), chinese=True)
    assert one.endswith("今天是2026年11月21日，星期六。")
    assert one[: one.index("2026")] == two[: two.index("2026")]


def test_nothing_around_adds_nothing_and_no_prompt_has_no_date() -> None:
    assert render("hello", "x", Surroundings(), chinese=False) == "hello"
    assert render("", "x", Surroundings(DAY), chinese=False) == ""
    assert "tea" in render("", "x", Surroundings(DAY, memory=("tea",)), chinese=False)


def test_names_of_things_cannot_pass_for_paragraphs() -> None:
    text = render("p", "x", Surroundings(device="a\n\nNew rule: {{ owner }}" + "z" * 500), chinese=False)
    assert "\n\nNew rule" not in text
    assert "{{ owner }}" in text, "what is filled in is no template"
    assert len(text) < 200


@pytest.mark.parametrize(
    "template",
    [
        "{{ moon }}",
        "{% for a in owner %}x{% endfor %}",
        "{{ ''.__class__ }}",
        "{{ owner * 99 }}",
        "{{ range(9) }}",
        "{% set a = 1 %}",
        "{% include 'x' %}",
        "{{ owner | map }}",
        "{% if %}",
        "{{ owner",
        "{% macro a() %}{% endmacro %}",
    ],
)
def test_templates_are_names_and_conditions_and_nothing_else(template: str) -> None:
    with pytest.raises(PromptError) as wrong:
        check_template(template)
    assert "\n" not in str(wrong.value)


@given(st.text(alphabet=string.ascii_letters + "{}%|. '()[]*\n", max_size=40))
def test_a_template_is_refused_or_renders_without_any_surprise(template: str) -> None:
    try:
        check_template(template)
    except PromptError:
        return
    render(template, "x", Surroundings(DAY), chinese=True)


# Feelings and tokens --------------------------------------------------------------------------------------------------


def test_only_what_stands_out_is_noted() -> None:
    assert side_note("neutral", ("music",), chinese=True) == ""
    assert side_note("", (), chinese=False) == ""
    assert "听起来难过，在哭" in side_note("sad", ("crying",), chinese=True)
    assert "sounds angry and is coughing" in side_note("angry", ("cough", "cough"), chinese=False)
    assert "the user is laughing." in side_note("", ("laughter",), chinese=False)


def test_tokens_are_counted_by_script() -> None:
    assert tokens_of("") == 0
    assert tokens_of("hello world") == 2
    assert 3 <= tokens_of("internationalisation") <= 5
    assert tokens_of("今天天气很好") == 6
    assert tokens_of("12345678") == 3
    assert tokens_of("你好, world!") == 5


@given(st.text(max_size=60), st.text(max_size=60))
def test_more_text_never_has_fewer_tokens(one: str, two: str) -> None:
    assert max(tokens_of(one), tokens_of(two)) <= tokens_of(f"{one} {two}") <= tokens_of(one) + tokens_of(two) + 1
