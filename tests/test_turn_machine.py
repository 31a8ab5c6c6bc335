"""The turn machine by tables, and by properties over every order of events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xiaozhi.settings import TurnSettings
from xiaozhi.turn.decisions import (
    Commit,
    CommitSaying,
    Decision,
    DropReply,
    Interrupt,
    Mic,
    NextUtterance,
    PauseReply,
    Recognise,
    ResumeReply,
    ShortenLead,
    StartReply,
    StartSaying,
)
from xiaozhi.turn.machine import ListeningMode, TurnMachine, TurnState

RULES = TurnSettings(
    soft_end_ms=128,
    complete_ms=400,
    neutral_ms=550,
    trailing_ms=1200,
    commit_max_ms=2000,
    max_utterance_s=30,
    max_speculations=3,
)


def listening(mode: ListeningMode = ListeningMode.AUTO, rules: TurnSettings = RULES) -> TurnMachine:
    machine = TurnMachine(rules)
    machine.listen(mode)
    return machine


def speak(machine: TurnMachine, start_ms: float = 0.0, until_ms: float = 1000.0) -> None:
    machine.speech_began(machine.utterance, start_ms, start_ms + 100)
    machine.heard(machine.utterance, until_ms, 0.0)


def soft_end(machine: TurnMachine, last_voiced_ms: float = 1000.0) -> int:
    """Let silence reach the soft end; returns the ticket of the question asked."""
    decisions = machine.heard(machine.utterance, last_voiced_ms + 128, 128)
    asked = [each for each in decisions if isinstance(each, Recognise)]
    assert len(asked) == 1
    return asked[0].ticket


def state_of(machine: TurnMachine) -> TurnState:
    """Its state now: what a type checker has concluded from an earlier look does not hold."""
    return machine.state


def kinds(decisions: list[Decision]) -> list[type]:
    return [type(each) for each in decisions]


def test_a_neutral_text_is_committed_when_its_silence_has_passed_and_the_reply_is_ready() -> None:
    machine = listening()
    speak(machine)
    ticket = soft_end(machine)
    assert kinds(machine.recognised(ticket, "привет")) == [StartReply]  # a language of which nothing is known
    assert machine.reply_ready(machine.generation) == []  # 128 ms of silence are too few for a neutral text
    assert machine.heard(machine.utterance, 1500, 500) == []
    assert kinds(machine.heard(machine.utterance, 1560, 560)) == [Commit, NextUtterance]
    assert machine.state is TurnState.REPLYING


def heard_faintly(machine: TurnMachine) -> int:
    """An utterance without a voice in full, at its soft end; returns the ticket of the question asked."""
    machine.speech_began(machine.utterance, 0, 100)
    machine.heard(machine.utterance, 1000, 0.0, certain=False)
    (asked,) = machine.heard(machine.utterance, 1128, 128, certain=False)
    assert isinstance(asked, Recognise)
    return asked.ticket


@pytest.mark.parametrize("text", ["you", "you know", "请", "Да, да"])
def test_a_word_or_two_are_not_believed_of_a_voice_that_was_never_in_full(text: str) -> None:
    machine = listening()
    assert machine.recognised(heard_faintly(machine), text) == []
    assert kinds(machine.heard(machine.utterance, 1700, 700, certain=False)) == [NextUtterance]
    assert machine.state is TurnState.WAITING


@pytest.mark.parametrize("text", ["what time is it", "几点了", "สวัสดี", "こんにちは", "который теперь час"])
def test_more_words_of_a_faint_voice_are_believed(text: str) -> None:
    machine = listening()
    assert kinds(machine.recognised(heard_faintly(machine), text)) == [StartReply]


def test_a_word_of_a_voice_that_was_in_full_for_a_moment_is_believed() -> None:
    machine = listening()
    machine.speech_began(machine.utterance, 0, 100)
    machine.heard(machine.utterance, 900, 0.0)
    machine.heard(machine.utterance, 1000, 0.0, certain=False)
    assert kinds(machine.recognised(soft_end(machine), "привет")) == [StartReply]


def test_noise_that_sounds_like_a_word_does_not_stop_a_reply() -> None:
    machine = listening(ListeningMode.REALTIME)
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    machine.reply_ready(machine.generation)
    machine.heard(machine.utterance, 1600, 600)
    assert machine.state is TurnState.REPLYING
    machine.speech_began(machine.utterance, 4000, 4100)
    decisions = machine.heard(machine.utterance, 4000 + 360, 0.0, certain=False)
    assert state_of(machine) is TurnState.PROBING
    asked = decisions[-1]
    assert isinstance(asked, Recognise)
    assert machine.recognised(asked.ticket, "no") == []
    silence_ms = RULES.soft_end_ms + 1.0
    ended = machine.heard(machine.utterance, 4600 + silence_ms, silence_ms, certain=False)
    (asked,) = ended
    assert isinstance(asked, Recognise), "the rest of it"
    assert kinds(machine.recognised(asked.ticket, "no")) == [ResumeReply, NextUtterance]


def test_a_complete_text_is_committed_sooner_and_a_trailing_one_later() -> None:
    for text, silence_ms in (("现在几点了", 400), ("我想去北京因为", 1200)):
        machine = listening()
        speak(machine)
        machine.recognised(soft_end(machine), text)
        machine.reply_ready(machine.generation)
        assert machine.heard(machine.utterance, 1000 + silence_ms - 20, silence_ms - 20) == []
        assert kinds(machine.heard(machine.utterance, 1000 + silence_ms, silence_ms)) == [Commit, NextUtterance]


def test_the_turn_stays_open_while_the_reply_is_not_ready() -> None:
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    assert machine.heard(machine.utterance, 2500, 1500) == []
    assert machine.state is TurnState.PAUSED
    assert kinds(machine.reply_ready(machine.generation)) == [Commit, NextUtterance]


def test_a_reply_that_never_gets_ready_is_committed_in_the_end() -> None:
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    assert kinds(machine.heard(machine.utterance, 3000, 2000)) == [Commit, NextUtterance]


def test_nothing_is_committed_on_a_silence_that_may_be_speech_but_noise_does_not_hold_it_up_for_ever() -> None:
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    machine.reply_ready(machine.generation)
    assert machine.heard(machine.utterance, 1440, 440, doubtful=True) == []
    assert kinds(machine.heard(machine.utterance, 1500, 500)) == [Commit, NextUtterance]
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    machine.reply_ready(machine.generation)
    assert machine.heard(machine.utterance, 1830, 830, doubtful=True) == []
    assert kinds(machine.heard(machine.utterance, 1870, 870, doubtful=True)) == [Commit, NextUtterance]


def test_speech_that_goes_on_raises_the_revision_and_drops_the_reply() -> None:
    machine = listening()
    speak(machine)
    first = soft_end(machine)
    machine.recognised(first, "我想问一下")
    generation = machine.generation
    assert machine.heard(machine.utterance, 1300, 0) == []
    assert (machine.state, machine.revision) == (TurnState.HEARING, 1)
    assert machine.heard(machine.utterance, 1500, 0) == []  # kept a little: the words may turn out to be the same
    assert kinds(machine.heard(machine.utterance, 1800, 0)) == [DropReply]
    assert machine.generation == generation + 1
    second = soft_end(machine, 1800)
    assert second != first
    assert machine.recognised(first, "stale") == []
    assert kinds(machine.recognised(second, "我想问一下明天的天气")) == [StartReply]


def test_the_same_words_again_keep_the_running_reply() -> None:
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    machine.heard(machine.utterance, 1200, 0)  # a breath
    assert machine.recognised(soft_end(machine, 1232), "现在几点了。") == []
    machine.reply_ready(machine.generation)
    assert kinds(machine.heard(machine.utterance, 1640, 408)) == [Commit, NextUtterance]


def provisional(text: str = "现在几点了") -> tuple[TurnMachine, int]:
    """A paused turn whose reply is prepared on a text that is not confirmed yet."""
    machine = listening()
    speak(machine)
    ticket = soft_end(machine)
    assert kinds(machine.recognised(ticket, text, provisional=True)) == [StartReply]
    return machine, ticket


def test_a_provisional_text_starts_the_reply_and_its_confirmation_commits_it() -> None:
    machine, ticket = provisional()
    assert machine.reply_ready(machine.generation) == []
    assert machine.heard(machine.utterance, 1500, 500) == []
    assert machine.state is TurnState.PAUSED
    decisions = machine.recognised(ticket, "现在几点了？")
    assert kinds(decisions) == [Commit, NextUtterance]
    assert isinstance(decisions[0], Commit)
    assert decisions[0].text == "现在几点了？"


def test_a_confirmation_before_the_reply_is_ready_changes_nothing_else() -> None:
    machine, ticket = provisional()
    assert machine.recognised(ticket, "现在几点了。") == []
    assert machine.heard(machine.utterance, 1500, 500) == []
    assert kinds(machine.reply_ready(machine.generation)) == [Commit, NextUtterance]


def test_a_correction_drops_the_reply_and_prepares_another() -> None:
    machine, ticket = provisional("现在几点")
    machine.reply_ready(machine.generation)
    machine.heard(machine.utterance, 1560, 560)
    generation = machine.generation
    decisions = machine.recognised(ticket, "现在几点了")
    assert decisions == [DropReply(generation), StartReply(1, 0, generation + 1, "现在几点了")]
    assert machine.reply_ready(generation) == []
    assert machine.reply_ready(generation + 1)[0] == Commit(1, 0, generation + 1, "现在几点了")


def test_words_that_turn_out_to_be_none_are_no_turn() -> None:
    machine, ticket = provisional("嗯啊")
    machine.reply_ready(machine.generation)
    machine.heard(machine.utterance, 1540, 540)
    assert kinds(machine.recognised(ticket, "。")) == [DropReply]
    assert kinds(machine.heard(machine.utterance, 1560, 560)) == [NextUtterance]
    assert machine.state is TurnState.WAITING


def test_a_confirmation_that_is_overdue_is_not_waited_for() -> None:
    machine, ticket = provisional()
    assert machine.heard(machine.utterance, 1500, 500) == []
    machine.reply_ready(machine.generation)  # from here on only the confirmation is missing
    assert machine.heard(machine.utterance, 1860, 860) == []
    assert kinds(machine.heard(machine.utterance, 1920, 920)) == [Commit, NextUtterance]
    assert machine.recognised(ticket, "现在几点到") == []
    assert machine.state is TurnState.REPLYING


def test_a_released_key_waits_for_the_confirmation() -> None:
    machine = listening(ListeningMode.MANUAL)
    speak(machine)
    asked = machine.stop(machine.utterance)[-1]
    assert isinstance(asked, Recognise)
    assert kinds(machine.recognised(asked.ticket, "我今天", provisional=True)) == [StartReply]
    assert machine.reply_ready(machine.generation) == []
    assert kinds(machine.recognised(asked.ticket, "我今天。")) == [Commit, NextUtterance]


def test_speech_that_goes_on_makes_a_missing_confirmation_stale() -> None:
    machine, ticket = provisional("现在几点了")
    machine.heard(machine.utterance, 1300, 0)
    assert machine.recognised(ticket, "现在几点了") == []
    second = soft_end(machine, 1300)
    assert machine.recognised(second, "现在几点了", provisional=True) == []  # the same words: the reply is kept
    machine.reply_ready(machine.generation)
    assert machine.heard(machine.utterance, 1900, 600) == []
    assert kinds(machine.recognised(second, "现在几点了")) == [Commit, NextUtterance]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("三点叫我", "3点叫我。", True),
        ("打折百分之十吗", "打折10%吗？", True),
        ("what's twenty plus three", "What is 20 plus 3?", True),
        ("一点五公里", "15公里", False),
        ("set a timer for thirteen minutes", "Set a timer for 30 minutes.", False),
        ("打开灯", "关掉灯", False),
    ],
)
def test_a_reply_is_kept_when_the_same_words_are_written_another_way(first: str, second: str, kept: bool) -> None:
    machine = listening()
    speak(machine)
    ticket = soft_end(machine)
    assert kinds(machine.recognised(ticket, first, provisional=True)) == [StartReply]
    decided = machine.recognised(ticket, second)
    assert kinds(decided) == ([] if kept else [DropReply, StartReply])


def test_a_provisional_text_without_words_is_not_news() -> None:
    machine = listening()
    speak(machine)
    ticket = soft_end(machine)
    assert machine.recognised(ticket, "。", provisional=True) == []
    assert kinds(machine.recognised(ticket, "现在几点了")) == [StartReply]


def test_after_three_attempts_the_machine_waits_for_a_neutral_silence() -> None:
    machine = listening()
    machine.speech_began(machine.utterance, 0, 100)
    at = 1000.0
    for _ in range(3):
        machine.heard(machine.utterance, at, 0)
        soft_end(machine, at)
        at += 500
    machine.heard(machine.utterance, at, 0)
    assert machine.heard(machine.utterance, at + 200, 200) == []
    assert kinds(machine.heard(machine.utterance, at + 560, 560)) == [Recognise]


def test_no_reply_is_prepared_ahead_of_time_under_load() -> None:
    machine = listening()
    machine.may_speculate = False
    speak(machine)
    assert machine.heard(machine.utterance, 1200, 200) == []
    asked = machine.heard(machine.utterance, 1560, 560)
    assert kinds(asked) == [Recognise]
    assert isinstance(asked[0], Recognise)
    assert kinds(machine.recognised(asked[0].ticket, "привет")) == [StartReply]  # a language of which nothing is known


def falls_silent(machine: TurnMachine, last_voiced_ms: float = 1000.0) -> None:
    """A first silent window has come, and the soft end has not."""
    assert machine.heard(machine.utterance, last_voiced_ms + 40, 40) == []


def test_a_sentence_that_is_plainly_whole_is_answered_before_the_soft_end_and_confirmed_by_it() -> None:
    machine = listening()
    speak(machine)
    falls_silent(machine)
    assert machine.settled(machine.utterance, "现在几点了") == [StartReply(1, 0, 0, "现在几点了", early=True)]
    assert machine.settled(machine.utterance, "现在几点了。") == []
    machine.reply_ready(machine.generation)
    assert state_of(machine) is TurnState.HEARING, "nothing is heard of it before the turn's own time"
    assert machine.recognised(soft_end(machine), "现在几点了？") == []
    assert kinds(machine.heard(machine.utterance, 1400, 400)) == [Commit, NextUtterance]


@pytest.mark.parametrize("mode", [ListeningMode.AUTO, ListeningMode.MANUAL])
def test_what_is_begun_early_is_dropped_where_speech_goes_on_or_has_other_words(mode: ListeningMode) -> None:
    machine = listening(mode)
    speak(machine)
    falls_silent(machine)
    machine.settled(machine.utterance, "现在几点了")
    assert machine.heard(machine.utterance, 1400, 0) == [], "a cough may have the same words behind it"
    assert machine.heard(machine.utterance, 1460, 0) == [DropReply(0)]
    falls_silent(machine, 1460)
    assert kinds(machine.settled(machine.utterance, "现在几点了你知道吗")) == [StartReply]
    falls_silent(machine, 1700)
    assert kinds(machine.settled(machine.utterance, "现在几点了你知道吗我想")) == [DropReply]
    assert machine.settled(machine.utterance, "今天天气怎么样") == [], "two in an utterance are enough"


def test_nothing_is_begun_early_on_words_that_may_go_on_or_that_come_too_late() -> None:
    machine = listening()
    speak(machine)
    assert machine.settled(machine.utterance, "现在几点了") == [], "the voice sounds on"
    falls_silent(machine)
    for text in ("我想去北京因为", "привет", "", "。"):
        assert machine.settled(machine.utterance, text) == []
    assert machine.settled(machine.utterance - 1, "现在几点了") == [], "of an utterance that is over"
    machine.may_speculate = False
    assert machine.settled(machine.utterance, "现在几点了") == []
    machine.may_speculate = True
    ticket = soft_end(machine)
    assert kinds(machine.settled(machine.utterance, "现在几点了")) == [StartReply], "the question is not answered yet"
    assert machine.recognised(ticket, "现在几点了") == []
    assert machine.settled(machine.utterance, "今天天气怎么样") == [], "the answer counts"


@pytest.mark.parametrize("text", ["", "  ", "。", "..."])
def test_noise_without_words_ends_the_utterance_without_a_turn(text: str) -> None:
    machine = listening()
    speak(machine)
    assert machine.recognised(soft_end(machine), text) == []
    assert kinds(machine.heard(machine.utterance, 1560, 560)) == [NextUtterance]
    assert machine.state is TurnState.WAITING


def test_a_released_key_commits_at_once() -> None:
    machine = listening(ListeningMode.MANUAL)
    speak(machine)
    assert machine.heard(machine.utterance, 2000, 900) == []  # a pause means nothing while the key is held
    decisions = machine.stop(machine.utterance)
    assert kinds(decisions) == [Recognise]
    asked = decisions[-1]
    assert isinstance(asked, Recognise)
    assert kinds(machine.recognised(asked.ticket, "我今天")) == [StartReply, Commit, NextUtterance]
    machine.reply_done(machine.generation)
    assert machine.state is TurnState.IDLE


def test_a_key_pressed_for_a_moment_is_no_turn() -> None:
    machine = listening(ListeningMode.MANUAL)
    machine.speech_began(machine.utterance, 0, 60)
    assert kinds(machine.stop(machine.utterance)) == [NextUtterance]
    assert machine.state is TurnState.IDLE


def test_three_minutes_of_speech_are_capped_and_answered() -> None:
    machine = listening()
    machine.speech_began(machine.utterance, 0, 100)
    asked: list[Decision] = []
    at = 100.0
    while not asked:
        at += 60
        asked = machine.heard(machine.utterance, at, 0)
    assert at == pytest.approx(30_000, abs=60)
    assert isinstance(asked[0], Recognise)
    assert machine.heard(machine.utterance, at + 60, 0) == []
    assert kinds(machine.recognised(asked[0].ticket, "很长的话")) == [StartReply, Commit, NextUtterance]


def test_a_stalled_stream_ends_the_utterance() -> None:
    machine = listening()
    speak(machine)
    (asked,) = machine.heard(machine.utterance, 1000, 1500, unsent_ms=1500, doubtful=True)
    assert isinstance(asked, Recognise)
    assert kinds(machine.recognised(asked.ticket, "我想因为")) == [StartReply]
    assert kinds(machine.reply_ready(machine.generation)) == [Commit, NextUtterance]


def test_what_comes_late_after_a_gap_goes_on_with_the_turn_and_is_no_habit_of_the_user() -> None:
    machine = listening()
    speak(machine)
    (asked,) = machine.heard(machine.utterance, 1000, 300, unsent_ms=300, doubtful=True)
    assert isinstance(asked, Recognise)
    machine.recognised(asked.ticket, "现在几点了")
    machine.reply_ready(machine.generation)
    assert machine.heard(machine.utterance, 1000, 700, unsent_ms=700, doubtful=True) == []
    assert machine.heard(machine.utterance, 1060, 400, unsent_ms=340, doubtful=True) == [], "half of it is made up for"
    assert machine.state is TurnState.PAUSED
    assert machine.heard(machine.utterance, 1300, 0) == []
    assert (machine.state, machine.revision) == (TurnState.HEARING, 1)
    assert machine.pace.habit_ms == 60, "and not 400"


def test_silence_that_is_not_sent_commits_as_if_it_were_where_nothing_speaks_against_it() -> None:
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    machine.reply_ready(machine.generation)
    assert machine.heard(machine.utterance, 1128, 380, unsent_ms=252) == []
    assert kinds(machine.heard(machine.utterance, 1128, 410, unsent_ms=282)) == [Commit, NextUtterance]


def test_abort_interrupts_a_reply_and_forgets_an_utterance() -> None:
    machine = listening()
    assert machine.abort() == []
    machine.typed("你好")
    generation = machine.generation
    assert machine.abort() == [Interrupt(generation), NextUtterance(machine.utterance, Mic.OPEN)]
    assert (machine.generation, machine.state) == (generation + 1, TurnState.WAITING)
    speak(machine)
    assert kinds(machine.abort()) == [NextUtterance]


def test_listen_start_is_idempotent_and_does_not_disturb_a_reply() -> None:
    machine = listening()
    again = machine.listen(ListeningMode.AUTO)
    assert again == [NextUtterance(machine.utterance, Mic.OPEN, afresh=True)]
    machine.typed("你好")
    assert machine.listen(ListeningMode.AUTO) == []
    assert machine.state is TurnState.REPLYING
    assert kinds(machine.listen(ListeningMode.MANUAL)) == [Interrupt, NextUtterance]


def realtime_reply() -> TurnMachine:
    machine = listening(ListeningMode.REALTIME)
    machine.typed("讲个故事")
    machine.speech_began(machine.utterance, 10_000, 10_100)
    assert machine.state is TurnState.OVERLAP
    return machine


def test_words_over_a_reply_interrupt_it_and_begin_a_turn() -> None:
    machine = realtime_reply()
    assert kinds(machine.heard(machine.utterance, 10_160, 0)) == [PauseReply]
    (asked,) = machine.heard(machine.utterance, 10_320, 0)
    assert isinstance(asked, Recognise)
    assert asked.probe
    turn = machine.turn
    assert kinds(machine.recognised(asked.ticket, "换一个")) == [Interrupt]
    assert (machine.state, machine.turn) == (TurnState.HEARING, turn + 1)


def test_a_backchannel_over_a_reply_lets_it_go_on() -> None:
    machine = realtime_reply()
    asked = machine.heard(machine.utterance, 10_320, 0)[1]
    assert isinstance(asked, Recognise)
    assert machine.recognised(asked.ticket, "嗯嗯") == []
    assert machine.heard(machine.utterance, 10_380, 0) == []
    (asked,) = machine.heard(machine.utterance, 10_640, 140)
    assert isinstance(asked, Recognise), "all of it has not been recognised yet"
    assert kinds(machine.recognised(asked.ticket, "嗯嗯嗯")) == [ResumeReply, NextUtterance]


def test_a_short_sound_over_a_reply_does_not_even_pause_it_and_is_still_recognised() -> None:
    for text, then in (("", NextUtterance), ("停", Interrupt)):
        machine = realtime_reply()
        (asked,) = machine.heard(machine.utterance, 10_300, 140)
        assert isinstance(asked, Recognise)
        assert kinds(machine.recognised(asked.ticket, text)) == [then]


def test_one_word_over_a_reply_holds_it_through_the_pause_before_the_next() -> None:
    machine = realtime_reply()
    asked = machine.heard(machine.utterance, 10_320, 0)[-1]
    assert isinstance(asked, Recognise)
    assert machine.recognised(asked.ticket, "seven") == []
    assert machine.heard(machine.utterance, 10_620, 300) == []
    (asked,) = machine.heard(machine.utterance, 10_660, 0)
    assert isinstance(asked, Recognise)
    assert kinds(machine.recognised(asked.ticket, "seven of")) == [Interrupt]
    machine = realtime_reply()
    asked = machine.heard(machine.utterance, 10_320, 0)[-1]
    assert isinstance(asked, Recognise)
    machine.recognised(asked.ticket, "seven")
    assert kinds(machine.heard(machine.utterance, 10_740, 420)) == [ResumeReply, NextUtterance]


def test_a_reply_does_not_wait_for_sound_that_goes_on_without_words_but_words_still_stop_it() -> None:
    machine = realtime_reply()
    now_ms, held = 10_100, []
    while now_ms < 14_000:
        now_ms += 60
        decisions = machine.heard(machine.utterance, now_ms, 0)
        for decision in decisions:
            if isinstance(decision, Recognise):
                decisions += machine.recognised(decision.ticket, "")
        held += [(now_ms, kind) for kind in kinds(decisions) if kind in (PauseReply, ResumeReply)]
        if NextUtterance in kinds(decisions):
            machine.speech_began(machine.utterance, now_ms, now_ms + 130)
    assert [kind for _, kind in held] == [PauseReply, ResumeReply], "and is not held again by the same sound"
    assert held[1][0] - held[0][0] <= 1200
    asked = machine.heard(machine.utterance, now_ms + 360, 0)[-1]
    assert isinstance(asked, Recognise) and state_of(machine) is TurnState.OVERLAP
    assert kinds(machine.recognised(asked.ticket, "换一个")) == [Interrupt]


def test_who_may_begin_to_speak_over_a_reply_shortens_the_lead_and_nothing_else() -> None:
    machine = listening(ListeningMode.REALTIME)
    assert machine.speech_likely(machine.utterance) == [], "nothing is said that could be heard"
    machine.typed("讲个故事")
    assert machine.speech_likely(machine.utterance) == [ShortenLead()]
    assert machine.speech_likely(machine.utterance - 1) == [], "out of date"
    assert machine.state is TurnState.REPLYING
    machine = listening(ListeningMode.AUTO)
    machine.typed("讲个故事")
    assert machine.speech_likely(machine.utterance) == [], "the microphone is shut"


def test_talk_over_the_end_of_a_reply_becomes_the_next_turn() -> None:
    machine = realtime_reply()
    machine.heard(machine.utterance, 10_320, 0)
    assert machine.reply_done(machine.generation) == []
    assert machine.state is TurnState.HEARING


@pytest.mark.parametrize("mode", [ListeningMode.AUTO, ListeningMode.MANUAL])
def test_the_microphone_is_shut_while_the_reply_plays_and_open_in_realtime_mode(mode: ListeningMode) -> None:
    machine = listening(mode)
    assert machine.typed("你好")[-1] == NextUtterance(machine.utterance, Mic.SHUT)
    machine = listening(ListeningMode.REALTIME)
    assert machine.typed("你好")[-1] == NextUtterance(machine.utterance, Mic.OPEN)


def test_a_wake_word_in_mid_sentence_begins_afresh_and_what_was_under_way_is_out_of_date() -> None:
    machine = listening()
    speak(machine)
    before = machine.utterance
    assert machine.woken() == [NextUtterance(before + 1, Mic.OPEN, afresh=True)]
    assert state_of(machine) is TurnState.WAITING
    assert machine.heard(before, 1300, 0) == [] and machine.speech_began(before, 1300, 1400) == []
    assert state_of(machine) is TurnState.WAITING
    speak(machine)
    assert state_of(machine) is TurnState.HEARING


def test_a_wake_word_over_a_reply_that_is_held_lets_it_go_on() -> None:
    machine = realtime_reply()
    machine.heard(machine.utterance, 10_320, 0)
    assert state_of(machine) is TurnState.PROBING
    assert kinds(machine.woken()) == [ResumeReply, NextUtterance]
    assert state_of(machine) is TurnState.REPLYING


def test_an_onset_that_waits_while_the_server_begins_to_speak_is_out_of_date_and_the_next_is_heard() -> None:
    machine = listening(ListeningMode.REALTIME)
    on_its_way = machine.utterance
    assert kinds(machine.say()) == [StartSaying]
    assert kinds(machine.reply_ready(machine.generation)) == [CommitSaying, NextUtterance]
    assert machine.speech_began(on_its_way, 0, 100) == [] and state_of(machine) is TurnState.REPLYING
    machine.speech_began(machine.utterance, 200, 300)
    assert state_of(machine) is TurnState.OVERLAP


def test_a_held_reply_goes_on_when_the_microphone_falls_silent_or_recognition_never_answers() -> None:
    machine = realtime_reply()
    asked = machine.heard(machine.utterance, 10_320, 0)[1]
    assert isinstance(asked, Recognise)
    machine.recognised(asked.ticket, "嗯")
    assert kinds(machine.heard(machine.utterance, 10_320, 150, unsent_ms=150)) == [ResumeReply, NextUtterance]
    machine = realtime_reply()
    machine.heard(machine.utterance, 10_320, 0)
    assert machine.heard(machine.utterance, 10_320, 1000, unsent_ms=1000) == []
    assert kinds(machine.heard(machine.utterance, 10_320, 1700, unsent_ms=1700)) == [ResumeReply, NextUtterance]


def test_a_held_reply_goes_on_when_nothing_was_understood_of_speech_that_is_over_already() -> None:
    machine = realtime_reply()
    asked = machine.heard(machine.utterance, 10_320, 0)[1]
    assert isinstance(asked, Recognise)
    assert machine.heard(machine.utterance, 11_700, 1380) == []  # the answer is awaited
    assert kinds(machine.recognised(asked.ticket, "")) == [ResumeReply, NextUtterance]
    assert state_of(machine) is TurnState.REPLYING


def spoken_over(after_ms: float, text: str = "北京") -> tuple[TurnMachine, list[Decision]]:
    """Who said 我想去 says more so long after the reply to it was committed."""
    machine = listening(ListeningMode.REALTIME)
    speak(machine)
    machine.recognised(soft_end(machine), "我想去")
    machine.reply_ready(machine.generation)
    assert Commit in kinds(machine.heard(machine.utterance, 2500, 1500))
    at_ms = 2500 + after_ms
    machine.speech_began(machine.utterance, at_ms, at_ms + 100)
    asked = machine.heard(machine.utterance, at_ms + 400, 0)[-1]
    assert isinstance(asked, Recognise) and asked.probe
    return machine, machine.recognised(asked.ticket, text)


def goes_on(machine: TurnMachine, text: str) -> str:
    """What is answered when the speech ends."""
    heard = machine._heard
    asked = machine.heard(machine.utterance, heard.voiced_until_ms + 128, 128)[-1]
    assert isinstance(asked, Recognise)
    started = [each for each in machine.recognised(asked.ticket, text) if isinstance(each, StartReply)]
    return started[0].text


def test_who_goes_on_in_the_first_second_of_a_reply_says_one_utterance() -> None:
    machine, decisions = spoken_over(600)
    assert decisions == [Interrupt(machine.generation - 1, taken_back=True)]
    assert goes_on(machine, "北京看天安门") == "我想去北京看天安门"


def test_of_what_was_taken_back_something_is_answered_though_no_more_can_be_understood() -> None:
    machine, _ = spoken_over(600)
    assert goes_on(machine, "") == "我想去"


def test_one_word_goes_on_but_a_backchannel_does_not() -> None:
    assert kinds(spoken_over(600, "tomorrow")[1]) == [Interrupt]
    assert spoken_over(600, "嗯")[1] == []


def test_who_speaks_later_interrupts_and_begins_a_turn_of_his_own() -> None:
    machine, decisions = spoken_over(1500)
    assert decisions == [Interrupt(machine.generation - 1)]
    assert goes_on(machine, "北京看天安门") == "北京看天安门"


@pytest.mark.parametrize(
    "text", ["停一下吧", "别说了", "不对，我是说南京", "stop, please", "Please stop", "no I meant Paris"]
)
def test_who_tells_a_reply_to_stop_in_its_first_second_has_not_gone_on(text: str) -> None:
    machine, decisions = spoken_over(600, text)
    assert decisions == [Interrupt(machine.generation - 1)]
    assert goes_on(machine, text) == text
    machine, _ = spoken_over(600, "嗯停")  # only the whole of it can be understood
    assert goes_on(machine, text) == text


def test_a_reply_that_has_acted_is_not_taken_back() -> None:
    machine, _ = spoken_over(600)
    machine.keep_apart()
    assert goes_on(machine, "北京看天安门") == "北京看天安门"


def test_who_speaks_over_a_reply_to_a_written_question_begins_a_turn_of_his_own() -> None:
    machine = listening(ListeningMode.REALTIME)
    machine.typed("讲个故事")
    machine.speech_began(machine.utterance, 300, 400)
    asked = machine.heard(machine.utterance, 700, 0)[-1]
    assert isinstance(asked, Recognise)
    assert machine.recognised(asked.ticket, "换一个") == [Interrupt(machine.generation - 1)]


@pytest.mark.parametrize("probing", [False, True])
def test_speech_over_a_reply_that_turns_out_to_be_its_echo_is_over_and_the_reply_goes_on(probing: bool) -> None:
    machine = realtime_reply()
    if probing:
        machine.heard(machine.utterance, 10_000 + RULES.barge_in_ms + 60, 0)
    assert state_of(machine) is (TurnState.PROBING if probing else TurnState.OVERLAP)
    assert kinds(machine.not_speech(machine.utterance)) == [*([ResumeReply] if probing else []), NextUtterance]
    assert state_of(machine) is TurnState.REPLYING


def test_speech_over_a_reply_that_may_come_late_is_waited_for_a_little() -> None:
    machine = realtime_reply()
    assert machine.heard(machine.utterance, 10_160, 500, unsent_ms=500, doubtful=True) == []
    assert machine.state is TurnState.OVERLAP
    assert kinds(machine.heard(machine.utterance, 10_160, 590, unsent_ms=590, doubtful=True)) == [Recognise]


def test_a_reply_that_fails_before_its_turn_is_over_is_followed_by_an_excuse_and_then_by_nothing() -> None:
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    assert machine.reply_done(machine.generation) == []
    (excuse,) = machine.heard(machine.utterance, 1420, 420)
    assert isinstance(excuse, StartReply) and excuse.excuse
    assert kinds(machine.reply_ready(machine.generation)) == [Commit, NextUtterance]
    machine = listening()
    speak(machine)
    machine.recognised(soft_end(machine), "现在几点了")
    machine.reply_done(machine.generation)
    machine.heard(machine.utterance, 1420, 420)
    assert kinds(machine.reply_done(machine.generation)) == [NextUtterance]
    assert machine.state is TurnState.WAITING


@pytest.mark.parametrize("state", ["hearing", "paused", "understood", "overlap", "probing"])
def test_whatever_never_comes_no_state_is_for_ever(state: str) -> None:
    machine = realtime_reply() if state in ("overlap", "probing") else listening(ListeningMode.MANUAL)
    if state == "probing":
        machine.heard(machine.utterance, 10_320, 0)
    elif state != "overlap":
        speak(machine)
        if state != "hearing":
            (asked,) = machine.stop(machine.utterance)
            assert isinstance(asked, Recognise)
            if state == "understood":
                machine.recognised(asked.ticket, "现在几点了", provisional=True)
    before = machine.state
    machine.overdue()
    assert machine.state is not before
    machine.overdue()
    assert machine.state in (TurnState.IDLE, TurnState.REPLYING)


# Properties -------------------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", "你好", "现在几点了", "我想因为", "嗯", "turn the volume up", "and then"])
ACTIONS = st.one_of(
    st.tuples(st.just("listen"), st.sampled_from(list(ListeningMode))),
    st.tuples(st.just("stop"), st.none()),
    st.tuples(st.just("woken"), st.none()),
    st.tuples(st.just("abort"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("typed"), TEXTS),
    st.tuples(st.just("say"), st.booleans()),
    st.tuples(st.just("began"), st.none()),
    st.tuples(st.just("nobody"), st.none()),
    st.tuples(st.just("late"), st.none()),
    st.tuples(st.just("voice"), st.integers(1, 20)),
    st.tuples(st.just("silence"), st.integers(1, 20)),
    st.tuples(st.just("gap"), st.integers(1, 40)),
    st.tuples(st.just("text"), TEXTS),
    st.tuples(st.just("settled"), TEXTS),
    st.tuples(st.just("provisional"), TEXTS),
    st.tuples(st.just("ready"), st.none()),
    st.tuples(st.just("done"), st.none()),
    st.tuples(st.just("overdue"), st.none()),
    st.tuples(st.just("load"), st.booleans()),
)


class Watcher:
    """Plays actions into a machine and checks what must always hold. Its microphone does only what it is told."""

    def __init__(self) -> None:
        self.machine = TurnMachine(RULES)
        self.now_ms = 0.0
        self.silence_ms = 0.0
        self.unsent_ms = 0.0
        self.ticket = 0
        self.committed: set[int] = set()
        self.live: int | None = None  # the generation of the reply that exists
        self.open = False  # whether its gate is open
        self.held = False
        self.mic = Mic.SHUT
        self.utterance = 0
        self.speaking = False  # the microphone has found speech in this utterance

    def play(self, action: str, value: object) -> None:
        machine = self.machine
        match action, value:
            case "listen", ListeningMode():
                self.take(machine.listen(value))
            case "stop", _:
                self.take(machine.stop(machine.utterance))
            case "woken", _:
                self.take(machine.woken())
            case "abort", _:
                self.take(machine.abort())
            case "finish", _:
                self.take(machine.finish())
            case "typed", str():
                self.take(machine.typed(value or "你好"))
            case "say", bool():
                self.take(machine.say(interruptible=value))
            case "began", _ if self.mic is not Mic.SHUT and not self.speaking:
                self.silence_ms = self.unsent_ms = 0.0
                self.speaking = True
                self.take(machine.speech_began(self.utterance, self.now_ms - 100, self.now_ms))
                assert machine.state in (TurnState.HEARING, TurnState.OVERLAP), "an onset is somebody's utterance"
            case "nobody", _ if self.mic is not Mic.SHUT and not self.speaking:
                self.take(machine.not_speech(self.utterance))
            case "late", _:
                before = machine.state
                assert machine.speech_began(self.utterance - 1, 0.0, 100.0) == []
                assert machine.heard(self.utterance - 1, self.now_ms + 1000, 0.0) == []
                assert machine.not_speech(self.utterance - 1) == [] and machine.state is before
            case (("voice" | "silence" | "gap"), int()):
                for _ in range(value):
                    self.pass_time(action)
            case "text", str():
                self.take(machine.recognised(self.ticket, value))
            case "settled", str():
                self.take(machine.settled(self.utterance, value))
            case "provisional", str():
                self.take(machine.recognised(self.ticket, value, provisional=True))
            case "ready", _:
                self.take(machine.reply_ready(machine.generation))
            case "done", _ if self.live is not None:
                self.live, self.open, self.held = None, False, False
                self.take(machine.reply_done(machine.generation))
            case "overdue", _:
                self.take(machine.overdue())
            case "load", bool():
                machine.may_speculate = value

    def pass_time(self, action: str) -> None:
        if action == "gap":
            self.unsent_ms += 60
        else:
            self.now_ms += 60
        self.silence_ms = 0.0 if action == "voice" else self.silence_ms + 60
        if action == "voice":
            self.unsent_ms = 0.0
        if self.speaking:
            heard = self.machine.heard
            self.take(heard(self.utterance, self.now_ms, self.silence_ms, unsent_ms=self.unsent_ms))

    def take(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Recognise(ticket):
                    assert ticket > self.ticket, "tickets rise"
                    self.ticket = ticket
                case StartReply() | StartSaying():
                    assert self.live is None, "one reply at a time"
                    self.live, self.open = decision.generation, False
                case DropReply(generation):
                    assert self.live == generation, "what is dropped exists"
                    assert not self.open, "what was heard is interrupted, not dropped"
                    self.live = None
                case Commit() | CommitSaying():
                    assert decision.generation == self.live, "never audio without a commit of its own reply"
                    assert decision.generation not in self.committed, "never two commits of one reply"
                    self.committed.add(decision.generation)
                    self.open = True
                case Interrupt(generation):
                    assert self.live == generation
                    assert self.open, "only what was committed is interrupted"
                    self.live, self.open, self.held = None, False, False
                case PauseReply():
                    assert self.open and not self.held
                    self.held = True
                case ResumeReply():
                    assert self.held
                    self.held = False
                case NextUtterance(number, mic):
                    assert decision is decisions[-1] and number > self.utterance
                    self.utterance, self.mic, self.speaking = number, mic, False
        machine = self.machine
        assert machine.utterance == self.utterance
        replying = machine.state in (TurnState.REPLYING, TurnState.OVERLAP, TurnState.PROBING)
        assert replying == self.open, "the gate is open exactly while replying"
        assert self.held == (machine.state is TurnState.PROBING)
        hearing = machine.state in (TurnState.HEARING, TurnState.PAUSED, TurnState.OVERLAP, TurnState.PROBING)
        assert hearing == self.speaking, "whose utterance it is, the microphone and the machine know alike"


@settings(max_examples=400, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_whatever_happens_in_whatever_order_the_rules_hold(actions: list[tuple[str, object]]) -> None:
    watcher = Watcher()
    for action, value in actions:
        watcher.play(action, value)


@settings(max_examples=200, deadline=None)
@given(st.lists(ACTIONS, max_size=40), TEXTS)
def test_every_utterance_comes_to_an_end(actions: list[tuple[str, object]], text: str) -> None:
    """Whatever came before: silence, an answer to the last question and a finished reply lead back to rest."""
    watcher = Watcher()
    for action, value in actions:
        watcher.play(action, value)
    for _ in range(6):
        if watcher.machine.mode is ListeningMode.MANUAL:
            watcher.play("stop", None)
        watcher.play("gap", 40)
        watcher.play("text", text)
        watcher.play("gap", 40)
        watcher.play("ready", None)
        watcher.play("done", None)
    assert watcher.machine.state in (TurnState.IDLE, TurnState.WAITING)


def test_a_question_that_was_asked_before_is_answered_sooner() -> None:
    machine = listening(rules=RULES.model_copy(update={"known_ms": 240}))
    speak(machine)
    machine.recognised(soft_end(machine), "tell me about whales")
    machine.reply_ready(machine.generation)
    assert machine.question_known(machine.generation) == []
    assert machine.heard(machine.utterance, 1208, 208) == []
    assert kinds(machine.heard(machine.utterance, 1240, 240)) == [Commit, NextUtterance]


def test_that_a_question_was_asked_before_counts_for_its_own_reply_only() -> None:
    machine = listening(rules=RULES.model_copy(update={"known_ms": 240}))
    speak(machine)
    machine.recognised(soft_end(machine), "tell me about whales")
    machine.question_known(machine.generation)
    assert machine.question_known(machine.generation - 1) == []
    machine.heard(machine.utterance, 1300, 0.0)  # the user goes on and says something else
    machine.heard(machine.utterance, 2000, 0.0)
    machine.recognised(soft_end(machine, 2000.0), "tell me about whales and sharks")
    machine.reply_ready(machine.generation)
    assert machine.heard(machine.utterance, 2300, 300) == []
