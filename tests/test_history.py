"""What a conversation remembers."""

from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.events import Clause, Message
from xiaozhi.text.tokens import tokens_of
from xiaozhi.turn.history import History, heard_text


def clause(text: str, emotion: str = "") -> Clause:
    return Clause(text, text, "zh", emotion)


def history(turns: int = 12, tokens: int = 3000) -> History:
    return History(max_turns=turns, max_tokens=tokens)


def test_a_new_conversation_is_the_prompt_and_the_question() -> None:
    assert history().messages("be kind", "你好") == [Message("system", "be kind"), Message("user", "你好")]
    assert history().messages("", "你好") == [Message("user", "你好")]


def test_a_reply_that_was_heard_is_kept_whole_and_shows_its_emotion() -> None:
    past = history()
    past.add("你好", [(clause("你好呀！", "happy"), 900.0), (clause("我是小智。"), 1000.0)], 1900.0, interrupted=False)
    assert past.messages("p", "再见") == [
        Message("system", "p"),
        Message("user", "你好"),
        Message("assistant", "🙂 你好呀！我是小智。"),
        Message("user", "再见"),
    ]


def test_english_clauses_are_joined_with_blanks() -> None:
    past = history()
    past.add("hi", [(clause("Hello!", "happy"), 500.0), (clause("How are you?"), 900.0)], 1400.0, interrupted=False)
    assert past.messages("", "x")[1].content == "🙂 Hello! How are you?"


def test_an_interrupted_reply_ends_where_it_was_broken_off() -> None:
    past = history()
    spoken = [(clause("你好呀！", "happy"), 660.0), (clause("我是你的小伙伴小智。"), 1200.0)]
    past.add("你好", spoken, 660.0 + 660.0, interrupted=True)
    assert past.messages("", "x")[1].content == "🙂 你好呀！我是你…[打断]"


def test_an_interrupted_english_reply_ends_at_a_word() -> None:
    spoken = [(clause("Hello!"), 360.0), (clause("The weather is wonderful today."), 2000.0)]
    assert heard_text(spoken, 1360.0) == "Hello! The weather is"
    past = history()
    past.add("hi", [(clause("The weather is wonderful today.", "cool"), 2000.0)], 1000.0, interrupted=True)
    assert past.messages("", "x")[1].content == "😎 The weather is… [interrupted]"


def test_the_last_clause_is_measured_by_the_pace_of_those_before() -> None:
    # 200 ms a character; of the last clause 400 ms were sent when it was broken off, 300 played: one whole character.
    spoken = [(clause("一二三四五。"), 1000.0), (clause("六七八九十。"), 400.0)]
    assert heard_text(spoken, 1300.0) == "一二三四五。六"
    assert heard_text(spoken, 2000.0) == "一二三四五。六七八九十。"
    assert heard_text(spoken, 500.0) == "一二"
    assert heard_text(spoken, 0.0) == ""


def test_breaking_in_before_a_word_was_heard_is_remembered_as_that() -> None:
    past = history()
    past.add("讲个故事", [], 0.0, interrupted=True)
    past.add("tell me", [(clause("Once", "happy"), 100.0)], 0.0, interrupted=True)
    assert [message.content for message in past.messages("", "x")] == [
        "讲个故事",
        "…[打断]",
        "tell me",
        "… [interrupted]",
        "x",
    ]


def test_a_turn_without_a_reply_is_not_remembered() -> None:
    past = history()
    past.add("你好", [], 0.0, interrupted=False)
    assert len(past) == 0


def fill(past: History, turns: int) -> None:
    for number in range(turns):
        past.add(f"q{number}", [(clause(f"a{number}"), 100.0)], 100.0, interrupted=False)


def test_whole_turns_are_forgotten_oldest_first_a_quarter_at_once() -> None:
    past = history(turns=8)
    fill(past, 8)
    assert len(past) == 8
    fill(past, 1)
    assert len(past) == 6
    assert past.messages("", "x")[0].content == "q3"


def test_the_messages_begin_alike_from_turn_to_turn() -> None:
    past = history(turns=8)
    fill(past, 9)
    before = past.messages("p", "x")[:-1]
    fill(past, 1)
    assert past.messages("p", "x")[: len(before)] == before


def test_long_turns_are_forgotten_by_their_tokens() -> None:
    past = history(tokens=110)
    for text in ("甲" * 40, "乙" * 40, "丙" * 40):
        past.add("?", [(clause(text), 100.0)], 100.0, interrupted=False)
    assert [message.content[0] for message in past.messages("", "x")] == ["?", "丙", "x"]
    past.add("?", [(clause("丁" * 400), 100.0)], 100.0, interrupted=False)
    assert len(past) == 0


def test_no_history_at_all_can_be_asked_for() -> None:
    past = history(turns=0)
    fill(past, 2)
    assert len(past) == 0
    past = history(turns=1)
    fill(past, 2)
    assert len(past) == 1


def test_everything_can_be_forgotten() -> None:
    past = history()
    fill(past, 2)
    past.clear()
    assert past.messages("", "x") == [Message("user", "x")]


@given(
    st.integers(0, 9),
    st.integers(0, 200),
    st.lists(
        st.tuples(st.text(max_size=30), st.lists(st.tuples(st.text(max_size=30), st.floats(0, 5000)), max_size=4)),
        max_size=20,
    ),
    st.floats(0, 20_000),
    st.booleans(),
)
def test_it_never_grows_beyond_its_bounds_and_always_alternates(
    turns: int, tokens: int, said: list[tuple[str, list[tuple[str, float]]]], played_ms: float, interrupted: bool
) -> None:
    past = history(turns, tokens)
    for user, spoken in said:
        past.add(user, [(clause(text), sent_ms) for text, sent_ms in spoken], played_ms, interrupted=interrupted)
        messages = past.messages("p", "x")
        assert len(past) <= turns
        assert sum(tokens_of(message.content) for message in messages[1:-1]) <= tokens
        pairs = len(messages) // 2 - 1
        assert [message.role for message in messages[1:]] == ["user", "assistant"] * pairs + ["user"]
        assert pairs <= len(past) + 1 and all(message.content for message in messages[:-1])


def test_what_is_said_unasked_belongs_to_the_turn_before_and_is_said_once() -> None:
    past = history(turns=2)
    alarm = [(clause("时间到了。"), 1000.0)]
    past.add("", alarm, 1000.0, interrupted=False)
    assert [message.role for message in past.messages("p", "x")] == ["system", "user", "assistant", "user"]
    past.add("几点了", [(clause("九点。"), 600.0)], 600.0, interrupted=False)
    for _ in range(3):
        past.add("", alarm, 1000.0, interrupted=False)
    assert [message.content for message in past.messages("", "x")[2:]] == ["几点了", "九点。\n时间到了。", "x"]
    assert len(past) == 2, "one that was asked, and room for as many unasked"
    past.add("", [(clause("吃饭了。"), 800.0)], 0.0, interrupted=True)
    assert past.messages("", "x")[-2].content == "九点。\n时间到了。", "nothing of it was heard"


@given(st.lists(st.tuples(st.text(max_size=40), st.floats(0, 5000)), max_size=4), st.floats(0, 9000))
def test_more_playing_means_no_less_heard(spoken: list[tuple[str, float]], played_ms: float) -> None:
    clauses = [(clause(text), sent_ms) for text, sent_ms in spoken]
    assert len(heard_text(clauses, played_ms)) <= len(heard_text(clauses, played_ms + 500.0))
