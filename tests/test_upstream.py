"""Breaker, choice, budget, latency, Retry-After and the pool, all on a clock of their own."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.upstream.breaker import Admission, Breaker, BreakerRules, BreakerState, Signal, transition
from xiaozhi.upstream.budget import HedgeBudget
from xiaozhi.upstream.choice import Candidate, UpstreamStanding, choose, standings
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.latency import RollingLatency
from xiaozhi.upstream.member import Upstream
from xiaozhi.upstream.pool import Lease, UpstreamPool
from xiaozhi.upstream.retry_after import MAX_S, retry_after_s

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def failing(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed(breaker.admit(now), now)


def test_five_failures_in_a_row_open_and_a_success_between_begins_the_count_again() -> None:
    breaker = Breaker()
    failing(breaker, 4)
    breaker.succeeded(breaker.admit(0.0), 0.0)
    failing(breaker, 4)
    assert breaker.state(0.0) is CLOSED
    failing(breaker, 1)
    assert breaker.state(0.0) is OPEN
    assert breaker.admit(29.9) is Admission.REFUSED
    assert breaker.rests_s(10.0) == 20.0


def test_after_the_rest_one_probe_passes_and_its_outcome_decides() -> None:
    changes: list[tuple[BreakerState, BreakerState, float]] = []
    breaker = Breaker(on_change=lambda old, new, now: changes.append((old, new, now)))
    failing(breaker, 5)
    assert breaker.state(30.0) is HALF_OPEN
    probe = breaker.admit(30.0)
    assert probe is Admission.PROBE
    assert breaker.admit(30.0) is Admission.REFUSED
    breaker.failed(probe, 31.0)
    assert breaker.state(60.9) is OPEN
    breaker.dropped(breaker.admit(61.0), 61.0)  # nobody waited: another may try
    breaker.succeeded(breaker.admit(62.0), 62.5)
    assert breaker.state(62.5) is CLOSED
    assert breaker.opened == 2
    assert [(old.value, new.value, now) for old, new, now in changes] == [
        ("closed", "open", 0.0), ("open", "half-open", 30.0), ("half-open", "open", 31.0),
        ("open", "half-open", 61.0), ("half-open", "closed", 62.5),
    ]  # fmt: skip


def test_every_other_failure_opens_by_its_rate() -> None:
    breaker = Breaker(BreakerRules(window_min=10, error_rate=0.5))
    for number in range(9):
        admission = breaker.admit(number)
        (breaker.failed if number % 2 else breaker.succeeded)(admission, number)
    assert breaker.state(9.0) is CLOSED
    failing(breaker, 1, 9.0)
    assert breaker.state(9.0) is OPEN


def test_failures_of_long_ago_are_forgotten() -> None:
    breaker = Breaker(BreakerRules(failures=100, window_min=4, error_rate=0.5, window_s=30.0))
    failing(breaker, 3, 0.0)
    for now in (31.0, 32.0, 33.0):
        breaker.succeeded(breaker.admit(now), now)
    failing(breaker, 1, 34.0)
    assert breaker.state(34.0) is CLOSED


def test_a_rest_that_was_asked_for_is_kept_whatever_happens() -> None:
    breaker = Breaker()
    breaker.failed(breaker.admit(0.0), 0.0, rest_s=120.0)
    assert breaker.state(119.0) is OPEN
    breaker.recover(5.0)
    assert breaker.admit(5.0, urgent=True) is Admission.REFUSED
    assert breaker.admit(120.0) is Admission.PROBE


def test_urgent_requests_may_look_earlier_and_the_first_of_them_decides() -> None:
    breaker = Breaker()
    breaker.failed(breaker.admit(0.0), 0.0, for_good=True)
    probe = breaker.admit(5.0, urgent=True)
    assert probe is Admission.PROBE
    assert breaker.admit(5.0) is Admission.REFUSED
    other = breaker.admit(5.0, urgent=True)
    assert other is Admission.ADMITTED
    breaker.succeeded(other, 5.5)
    assert breaker.state(5.5) is OPEN
    breaker.succeeded(probe, 6.0)
    assert breaker.state(6.0) is CLOSED


def test_another_sign_of_life_lets_the_probe_pass_at_once() -> None:
    breaker = Breaker()
    failing(breaker, 5)
    breaker.recover(3.0)
    assert breaker.state(3.0) is HALF_OPEN
    assert breaker.admit(3.0) is Admission.PROBE


def test_a_success_from_before_it_opened_closes_nothing_and_a_refused_request_has_no_outcome() -> None:
    breaker = Breaker()
    early = breaker.admit(0.0)
    failing(breaker, 5)
    breaker.succeeded(early, 1.0)
    assert breaker.state(1.0) is OPEN
    with pytest.raises(ValueError, match="no outcome"):
        breaker.failed(breaker.admit(1.0), 1.0)


def test_no_signal_leads_from_closed_to_half_open() -> None:
    assert [transition(CLOSED, signal) for signal in Signal] == [OPEN, CLOSED, CLOSED, CLOSED]
    assert transition(OPEN, Signal.TRIPPED) is OPEN


@given(st.lists(st.tuples(st.sampled_from(["ok", "bad", "drop", "rest"]), st.floats(0.0, 20.0)), max_size=60))
def test_a_breaker_never_refuses_for_ever(steps: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for what, later in steps:
        now += later
        admission = breaker.admit(now)
        if admission is Admission.REFUSED:
            continue
        match what:
            case "ok":
                breaker.succeeded(admission, now)
            case "bad":
                breaker.failed(admission, now)
            case "rest":
                breaker.failed(admission, now, rest_s=later)
            case _:
                breaker.dropped(admission, now)
    assert breaker.would_admit(now + 31.0)


def shares(candidates: list[Candidate], rounds: int = 20_000) -> list[float]:
    rng = random.Random(5)
    counts = Counter(choose(candidates, rng) for _ in range(rounds))
    return [counts[index] / rounds for index in range(len(candidates))]


def test_weights_quickness_and_free_slots_multiply() -> None:
    assert shares([Candidate(30), Candidate(25), Candidate(20)]) == pytest.approx([0.4, 0.333, 0.267], abs=0.02)
    assert shares([Candidate(1, 0.2), Candidate(1, 0.3)]) == pytest.approx([0.6, 0.4], abs=0.02)
    assert shares([Candidate(1, 0.2), Candidate(1, 0.2, 0.25)]) == pytest.approx([0.8, 0.2], abs=0.02)
    assert shares([Candidate(1, 0.2), Candidate(1)]) == pytest.approx([0.5, 0.5], abs=0.02)  # unknown: as the quickest


def test_slow_ones_and_those_that_break_off_are_only_looked_at_now_and_then() -> None:
    slow, breaking = Candidate(1, 3.0), Candidate(1, 0.3, breaking=True)
    assert shares([Candidate(1, 0.3), slow])[1] == pytest.approx(0.03, abs=0.01)
    assert shares([breaking, slow])[1] == pytest.approx(0.03, abs=0.01)
    assert shares([Candidate(1, 0.3), breaking, slow])[0] == pytest.approx(0.97, abs=0.01)
    assert shares([slow]) == [1.0]
    with pytest.raises(ValueError, match="must be a candidate"):
        choose([], random.Random(1))


def test_of_a_hundred_requests_five_may_be_doubled() -> None:
    budget, made = HedgeBudget(0.05), 0
    for _ in range(100):
        budget.earn()
        made += budget.spend()
    assert (made, budget.refused) == (5, 95)
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(6)] == [True] * 5 + [False]
    budget.give_back()
    assert budget.spend()


def test_a_percentile_of_the_last_measurements() -> None:
    latency = RollingLatency(size=10, max_age_s=60.0)
    assert latency.quantile_s(0.9, 0.0) is None and latency.mean_s(0.0) is None
    for number in range(1, 21):
        latency.add(float(number), number / 10)
    assert latency.quantile_s(0.9, 20.0) == pytest.approx(1.9)
    assert latency.quantile_s(0.5, 20.0, least=11) is None
    assert latency.quantile_s(0.0, 75.0) == pytest.approx(1.5)
    assert latency.mean_s(90.0) is None
    latency.add(100.0, 0.1)
    assert latency.mean_s(100.0) == pytest.approx(0.1)  # after a long pause the past says nothing


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "20"}, 0.25),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
        ({"retry-after": "99999999"}, MAX_S),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_as_seconds_and_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.text(max_size=60))
def test_any_retry_after_is_understood_or_passed_over(text: str) -> None:
    seconds = retry_after_s({"retry-after": text}, NOW)
    assert seconds is None or 0.0 <= seconds <= MAX_S


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pool_of(*upstreams: Upstream[str]) -> tuple[UpstreamPool[str], Clock]:
    clock = Clock()
    return UpstreamPool(upstreams, rng=random.Random(2), clock=clock), clock


def taken(lease: Lease[str] | None) -> Lease[str]:
    assert lease is not None
    return lease


async def test_the_preferred_tier_comes_first_and_the_other_stands_in() -> None:
    pool, _ = pool_of(Upstream("a", "A", tier="edge", max_concurrent=1), Upstream("b", "B", tier="cloud"))
    first = taken(pool.take(["edge", "cloud"]))
    assert (first.name, first.target) == ("a", "A")
    assert pool.busy_share("edge") == 1.0
    assert taken(pool.take(["edge", "cloud"])).name == "b"
    first.succeeded()
    assert taken(pool.take(["edge"])).name == "a"
    assert taken(pool.take(["edge"], without={"a"})).name == "b"
    assert pool.take(without={"a", "b"}) is None


async def test_an_upstream_that_keeps_somebody_waiting_is_slow_before_it_has_answered() -> None:
    pool, clock = pool_of(Upstream("a", "A", weight=1000.0), Upstream("b", "B", weight=1.0))
    for name in ("a", "b"):
        lease = taken(pool.take(without={"a", "b"} - {name}))
        clock.now += 0.2
        lease.first_byte()
        lease.succeeded()
    waiting = taken(pool.take(without={"b"}))
    clock.now += 5.0
    names: Counter[str] = Counter()
    for _ in range(200):
        lease = taken(pool.take())
        names[lease.name] += 1
        lease.dropped()
    assert names["b"] > 180
    waiting.dropped()
    assert pool.states()[0].in_flight == 0


async def test_outcomes_are_counted_once_by_kind() -> None:
    pool, clock = pool_of(Upstream("a", "A"))
    first, second, third = (taken(pool.take()) for _ in range(3))
    clock.now += 0.3
    first.first_byte()
    first.succeeded()
    first.failed(FailureKind.SERVER, "late")
    first.dropped()
    second.failed(FailureKind.SERVER, "a: HTTP 500")
    second.dropped()
    third.dropped()
    (state,) = pool.states()
    assert (state.requests, state.succeeded, state.dropped, state.failures) == (3, 1, 1, {"server": 1})
    assert state.first_byte_s == pytest.approx(0.3)
    assert (state.in_flight, state.last_error) == (0, "a: HTTP 500")


async def test_streams_that_break_off_make_others_preferred_and_open_no_breaker() -> None:
    pool, _ = pool_of(Upstream("a", "A", weight=1000.0), Upstream("b", "B", weight=0.001))
    for _ in range(8):
        lease = taken(pool.take(without={"b"}))
        lease.first_byte()
        lease.failed(FailureKind.BROKEN, "reset")
    names = Counter(taken(pool.take()).name for _ in range(30))
    assert names["b"] >= 25
    assert pool.states()[0].breaker is CLOSED


async def test_the_time_of_a_hedge_follows_the_percentile_within_its_bounds() -> None:
    pool, clock = pool_of(Upstream("a", "A"))
    assert pool.hedge_after_s() == 1.5  # nothing measured yet
    for took, expected in ((0.1, 0.6), (0.9, 0.9), (4.0, 1.5)):
        for _ in range(100):
            lease = taken(pool.take())
            clock.now += took
            lease.first_byte()
            lease.dropped()
        assert pool.hedge_after_s() == pytest.approx(expected)


async def test_a_hedge_goes_only_where_it_may_and_never_to_one_that_failed_lately() -> None:
    pool, clock = pool_of(Upstream("a", "A"), Upstream("b", "B", free=False), Upstream("c", "C"))
    for _ in range(5):
        taken(pool.take(without={"a", "b"})).failed(FailureKind.SERVER, "c: HTTP 500")
    clock.now += 31.0  # half open: a question may try it, an extra one must not
    assert pool.take(without={"a"}, hedge=True, free_only=True) is None
    assert taken(pool.take(without={"a"}, hedge=True)).name == "b"
    assert taken(pool.take(without={"a", "b"})).probe
    assert (pool.hedges, pool.requests) == (1, 6)


async def test_where_nobody_is_well_a_hedge_may_be_the_probe_of_one_that_failed_but_not_a_moment_ago() -> None:
    pool, clock = pool_of(Upstream("a", "A"), Upstream("b", "B"), Upstream("c", "C"))
    for _ in range(5):
        taken(pool.take(without={"a", "b"})).failed(FailureKind.CONNECTION, "c: refused")
    assert taken(pool.take(without={"a"}, hedge=True, probe=True)).name == "b"
    assert not pool.failed_ones({"a", "b"}), "it was refused just now"
    assert pool.take(without={"a", "b"}, hedge=True, probe=True) is None
    clock.now += 1.0
    assert pool.failed_ones({"a", "b"})
    assert pool.take(without={"a", "b"}, hedge=True) is None
    probe = taken(pool.take(without={"a", "b"}, hedge=True, probe=True))
    assert probe.probe and pool.hedges == 2
    assert pool.take(without={"a", "b"}, hedge=True, probe=True) is None, "one probe at a time"
    probe.first_byte()
    assert taken(pool.take(without={"a", "b"}, hedge=True)).name == "c"


async def test_one_that_asked_for_rest_is_no_company() -> None:
    pool, clock = pool_of(Upstream("a", "A"), Upstream("b", "B"))
    taken(pool.take(without={"a"})).failed(FailureKind.BUSY, "b: HTTP 429", rest_s=60.0)
    clock.now += 10.0
    assert not pool.failed_ones({"a"})
    assert pool.take(without={"a"}, hedge=True, probe=True) is None


async def test_who_still_waits_from_slow_times_says_nothing_once_a_later_one_was_answered() -> None:
    pool, clock = pool_of(Upstream("a", "A", weight=1000.0), Upstream("b", "B", weight=0.001))
    for name in ("a", "b"):
        lease = taken(pool.take(without={"a", "b"} - {name}))
        clock.now += 0.2
        lease.first_byte()
        lease.succeeded()
    old = taken(pool.take(without={"b"}))
    clock.now += 2.0
    assert taken(pool.take(without={"b"})).doubtful
    later = taken(pool.take(without={"b"}))
    clock.now += 0.2
    later.first_byte()
    assert not taken(pool.take(without={"b"})).doubtful
    old.dropped()


async def test_two_bad_checks_close_the_way_and_a_good_one_is_told() -> None:
    pool, clock = pool_of(Upstream("a", "A"), Upstream("b", "B"))
    wrong = {"A": "no answer in time", "B": ""}

    async def check(target: str) -> str:
        return wrong[target]

    await pool.checks.check_all(check)
    assert pool.others({"b"})
    await pool.checks.check_all(check)
    assert not pool.others({"b"})
    assert [state.healthy for state in pool.states()] == [False, True]
    wrong["A"] = ""
    await pool.checks.check_all(check)
    clock.now += 20.0
    assert pool.others({"b"})


async def test_the_first_byte_of_a_probe_opens_the_way_for_others() -> None:
    pool, clock = pool_of(Upstream("a", "A"))
    for _ in range(5):
        taken(pool.take()).failed(FailureKind.CONNECTION, "a: refused")
    clock.now += 31.0
    probe = taken(pool.take())
    assert probe.probe and not pool.others(())
    probe.first_byte()
    assert pool.states()[0].breaker is CLOSED
    probe.failed(FailureKind.BROKEN, "a: reset")
    assert pool.states()[0].in_flight == 0


async def test_a_good_check_brings_back_one_that_could_not_be_connected_to() -> None:
    pool, _ = pool_of(Upstream("a", "A"), Upstream("b", "B"))
    for _ in range(5):
        taken(pool.take(without={"b"})).failed(FailureKind.CONNECTION, "a: refused")
        taken(pool.take(without={"a"})).failed(FailureKind.SERVER, "b: HTTP 500")

    async def well(_target: str) -> str:
        return ""

    await pool.checks.check_all(well)
    assert [state.breaker for state in pool.states()] == [HALF_OPEN, OPEN]


def test_quick_answers_restore_an_average_at_once_and_slow_ones_raise_it_step_by_step() -> None:
    latency = RollingLatency()
    for took in (0.3, 0.3, 1.5):
        latency.add(0.0, took)
    assert latency.mean_s(0.0) == pytest.approx(0.66)
    latency.add(0.0, 0.3)
    assert latency.mean_s(0.0) == pytest.approx(0.408)


def test_what_was_slow_is_expected_to_be_well_again_while_nobody_asks() -> None:
    latency = RollingLatency()
    for took in (0.3, 0.3, 2.0, 2.0, 2.0):
        latency.add(0.0, took)
    times = [latency.expected_s(now) for now in (0.0, 10.0, 100.0)]
    assert times == [
        pytest.approx(latency.mean_s(0.0)),
        pytest.approx(0.3 + 0.368 * 1.117, abs=0.01),
        pytest.approx(0.3, abs=0.01),
    ]
    assert latency.expected_s(301.0) is None


def test_a_wait_that_is_late_counts_twice_and_one_that_is_not_counts_nothing() -> None:
    latency = RollingLatency()
    assert latency.expected_s(0.0) is None
    assert latency.expected_s(0.0, 0.5) == 0.5
    latency.add(0.0, 0.3)
    assert latency.expected_s(0.0, 0.4) == pytest.approx(0.4)
    assert latency.expected_s(0.0, 0.6) == pytest.approx(1.2)
    latency.given_up(0.0, 0.4)
    assert latency.mean_s(0.0) == pytest.approx(0.3)
    latency.given_up(0.0, 0.6)
    assert latency.mean_s(0.0) == pytest.approx(1.2)


def test_one_slower_than_itself_is_slow_even_where_all_are_and_an_unproven_one_comes_before_it() -> None:
    slow = Candidate(1.0, 1.5, usual_s=0.3)
    assert standings([slow, Candidate(1.0, 1.4, usual_s=0.3)]) == [UpstreamStanding.SLOW, UpstreamStanding.SLOW]
    assert standings([slow, Candidate(1.0, 0.3, unproven=True)]) == [UpstreamStanding.SLOW, UpstreamStanding.UNPROVEN]
    assert (
        standings([Candidate(1.0, 0.3, breaking=True), Candidate(1.0, 0.31, usual_s=0.3)])[0]
        is UpstreamStanding.BREAKING
    )
    never = random.Random(1)
    assert {choose([slow, Candidate(1.0, 0.3)], never, explore=False) for _ in range(500)} == {1}


async def test_a_slow_one_is_looked_at_beside_a_request_and_only_while_hedges_are_left() -> None:
    pool, clock = pool_of(Upstream("a", "A"), Upstream("b", "B"))
    for name, took in (("a", 0.2), ("b", 0.2), ("b", 3.0)):
        lease = taken(pool.take(without={"a", "b"} - {name}))
        clock.now += took
        lease.first_byte()
        lease.succeeded()
    assert not any(pool.look("a") for _ in range(200))  # nothing earned yet
    for _ in range(100):
        taken(pool.take(without={"b"})).dropped()
    assert not any(pool.look("b") for _ in range(200))  # it is asked already
    looks = [look for _ in range(200) if (look := pool.look("a")) is not None]
    assert [look.name for look in looks] == ["b"]  # one at a time
    looks[0].first_byte()
    looks[0].dropped()
    assert sum(pool.budget.spend() for _ in range(10)) >= 1
    assert pool.hedges == 1


async def test_who_gets_a_doubtful_upstream_is_told() -> None:
    pool, clock = pool_of(Upstream("a", "A"))
    for took in (0.2, 0.2, 3.0):
        lease = taken(pool.take())
        clock.now += took
        lease.first_byte()
        lease.succeeded()
    assert taken(pool.take()).doubtful
    clock.now += 60.0  # long ago: it may be well again
    fresh, clock = pool_of(Upstream("a", "A"))
    assert not taken(fresh.take()).doubtful


async def test_slow_answers_beside_quick_ones_do_not_move_the_time_of_a_hedge() -> None:
    pool, clock = pool_of(Upstream("a", "A"), Upstream("b", "B"))
    assert pool.late_after_s() == float("inf")
    for number in range(100):
        name, took = ("a", 0.2) if number % 2 or number < 10 else ("b", 3.0)
        lease = taken(pool.take(without={"a", "b"} - {name}))
        clock.now += took
        lease.first_byte()
        lease.succeeded()
    assert pool.hedge_after_s() == 0.6
    assert pool.late_after_s() == 1.5


async def test_waiting_for_a_slot_ends_when_one_is_free() -> None:
    pool, _ = pool_of(Upstream("a", "A", max_concurrent=1))
    lease = taken(pool.take())
    assert pool.take() is None and pool.full()
    waiting = pool.wait_for_slot()
    waiting.send(None)
    lease.succeeded()
    assert not pool.full()
    waiting.close()


@pytest.mark.parametrize("bad", [{"weight": 0.0}, {"max_concurrent": 0}])
def test_nonsense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight must be above 0"):
        pool_of(Upstream("a", "A", **bad))  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ValueError, match="must be an upstream"):
        pool_of()
