"""Who may see the console: passwords, tries, sessions, passes of the talk page, what is shown of log lines."""

import asyncio
import io
import logging
import sys
from pathlib import Path

import pytest

from xiaozhi.access.guests import PASS_S, Guests, is_guest, same_host
from xiaozhi.cli import main
from xiaozhi.console.access import ConsoleAccess, TryLater
from xiaozhi.console.assets import load_assets, make_asset
from xiaozhi.console.attempts import Attempts
from xiaozhi.console.hub import MAX_CLIENTS, Hub, TooManyClients
from xiaozhi.console.log_lines import LogLines
from xiaozhi.console.password import (
    PasswordError,
    first_password,
    hash_of,
    keep_first_password,
    kept_first_password,
    new_password,
    password_path,
    read_hash,
    write_hash,
)
from xiaozhi.console.records import TurnRing, joined
from xiaozhi.console.secret_values import secrets_of
from xiaozhi.console.series import Series, figures_of, percentile
from xiaozhi.console.sessions import Sessions, csrf_fits
from xiaozhi.settings import Settings
from xiaozhi.turn.trace import TurnTrace

PASSWORD = "open sesame, please"


def keep(path: Path, password: str = PASSWORD) -> None:
    write_hash(path, hash_of(password, cost=16))


# Passwords ------------------------------------------------------------------------------------------------------------


def test_the_first_password_is_made_once_and_lies_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "data" / "console-password"
    password = first_password(path)
    assert len(password) == 19 and first_password(path) == ""
    assert path.stat().st_mode & 0o777 == 0o600
    assert password not in path.read_text() and password.replace("-", "") not in path.read_text()
    kept = read_hash(path)
    assert kept is not None and kept.fits(password) and not kept.fits(password + "x")
    assert path.read_text().startswith("scrypt$32768$8$3$") and "digest" not in repr(kept)


async def test_a_first_password_that_was_kept_goes_with_the_first_sign_in(tmp_path: Path) -> None:
    path = tmp_path / "data" / "console-password"
    access = await ConsoleAccess.open(path, 3600.0, 600.0)
    file = await access.keep_first_password()
    assert file is not None and file.stat().st_mode & 0o777 == 0o600
    password = kept_first_password(path)
    assert password == access.first_password == file.read_text().strip()
    assert await access.sign_in("wrong-password", "10.0.0.1") is None
    assert file.exists()
    assert await access.sign_in(password, "10.0.0.1") is not None
    assert not file.exists() and kept_first_password(path) == ""
    again = await ConsoleAccess.open(path, 3600.0, 600.0)
    assert await again.keep_first_password() is None, "an older one is known to nobody here"


def test_another_password_forgets_the_first(tmp_path: Path) -> None:
    path = tmp_path / "console-password"
    keep_first_password(path, first_password(path))
    keep(path)
    assert kept_first_password(path) == ""


def test_two_passwords_are_never_alike_nor_are_two_hashes_of_one() -> None:
    assert len({new_password() for _ in range(50)}) == 50
    assert hash_of(PASSWORD, cost=16) != hash_of(PASSWORD, cost=16)


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
def test_a_password_has_8_to_256_characters(password: str) -> None:
    with pytest.raises(PasswordError, match="8 to 256"):
        hash_of(password)


@pytest.mark.parametrize("content", ["", "plain", "scrypt$16$8$1$!!$!!", "scrypt$1073741824$8$1$YQ==$YQ=="])
def test_a_damaged_file_is_named_and_never_admits(tmp_path: Path, content: str) -> None:
    path = tmp_path / "console-password"
    path.write_text(content)
    with pytest.raises(PasswordError, match=r"damaged; make another with: .*xiaozhi console password --reset"):
        read_hash(path)


def test_rights_that_are_too_wide_are_tightened(tmp_path: Path) -> None:
    path = tmp_path / "console-password"
    keep(path)
    path.chmod(0o644)
    assert read_hash(path) is not None and path.stat().st_mode & 0o777 == 0o600


def test_the_command_line_makes_and_takes_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["console", "password", "--reset"]) == 0
    password = capsys.readouterr().out.split()[-1]
    path = password_path(tmp_path / "data", "console-password")
    kept = read_hash(path)
    assert kept is not None and kept.fits(password)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a longer one\n"))
    assert main(["console", "password"]) == 0
    kept = read_hash(path)
    assert kept is not None and kept.fits("a longer one")
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    assert main(["console", "password"]) == 1
    assert "8 to 256 characters" in capsys.readouterr().err


# Tries ----------------------------------------------------------------------------------------------------------------


def test_after_four_wrong_tries_an_address_waits_longer_and_longer() -> None:
    attempts = Attempts()
    assert [attempts.wait_s("10.0.0.1", 0.0) for _ in range(4)] == [0.0] * 4
    assert attempts.wait_s("10.0.0.1", 0.0) == 2.0
    assert attempts.wait_s("10.0.0.1", 2.0) == 0.0
    assert attempts.wait_s("10.0.0.1", 2.0) == 4.0
    assert attempts.wait_s("10.0.0.2", 2.0) == 0.0, "another address is not concerned"
    assert attempts.refused == 2
    assert attempts.wait_s("10.0.0.1", 1000.0) == 0.0, "it is forgotten after a quarter of an hour"


def test_this_machine_is_counted_as_well_and_a_whole_network_of_ipv6_is_one_visitor() -> None:
    attempts = Attempts()
    for _ in range(4):
        attempts.wait_s("127.0.0.1", 0.0)
    assert attempts.wait_s("127.0.0.1", 0.0) > 0.0
    for number in range(4):
        attempts.wait_s(f"2001:db8::{number}", 0.0)
    assert attempts.wait_s("2001:db8::ffff", 0.0) > 0.0


def test_a_thousand_addresses_together_have_thirty_tries_a_minute() -> None:
    attempts = Attempts()
    waits = [attempts.wait_s(f"10.1.{number // 250}.{number % 250}", 0.0) for number in range(1000)]
    assert waits.count(0.0) == 30 and max(waits) == 60.0
    assert len(attempts) <= 4096


def test_a_right_password_ends_the_waiting() -> None:
    attempts = Attempts()
    for _ in range(3):
        attempts.wait_s("10.0.0.1", 0.0)
    attempts.succeeded("10.0.0.1")
    assert [attempts.wait_s("10.0.0.1", 0.0) for _ in range(4)] == [0.0] * 4


async def test_whoever_tries_too_often_is_not_even_looked_at(tmp_path: Path) -> None:
    keep(tmp_path / "p")
    access = await ConsoleAccess.open(tmp_path / "p", 3600.0, 600.0)
    for _ in range(4):
        assert await access.sign_in("wrong password", "10.0.0.1") is None
    with pytest.raises(TryLater):
        await access.sign_in(PASSWORD, "10.0.0.1")
    assert await access.sign_in(PASSWORD, "10.0.0.2") is not None
    assert access.failures == 4


async def test_another_password_signs_everybody_else_out(tmp_path: Path) -> None:
    path = tmp_path / "p"
    keep(path)
    access = await ConsoleAccess.open(path, 3600.0, 600.0)
    opened = [await access.sign_in(PASSWORD, "10.0.0.1") for _ in range(2)]
    assert opened[0] is not None and opened[1] is not None
    assert not await access.change("wrong password", "another one", "10.0.0.1", opened[0][1])
    assert await access.change(PASSWORD, "another one", "10.0.0.1", opened[0][1])
    assert len(access.sessions) == 1
    assert await access.sign_in(PASSWORD, "10.0.0.1") is None
    assert await access.sign_in("another one", "10.0.0.1") is not None
    keep(path, "set by the command line")
    await access.refresh()
    assert len(access.sessions) == 0


async def test_without_its_file_nobody_comes_in(tmp_path: Path) -> None:
    keep(tmp_path / "p")
    access = await ConsoleAccess.open(tmp_path / "p", 3600.0, 600.0)
    (tmp_path / "p").unlink()
    with pytest.raises(PasswordError, match=r"make one with: .*xiaozhi console password --reset"):
        await access.sign_in(PASSWORD, "10.0.0.1")


# Sessions -------------------------------------------------------------------------------------------------------------


def test_a_session_ends_when_it_is_idle_when_it_is_old_and_when_it_is_closed() -> None:
    sessions = Sessions(max_s=100.0, idle_s=10.0)
    token, session = sessions.open(0.0)
    for now_s in range(0, 101, 10):
        assert sessions.find(token, float(now_s)) is session
    assert sessions.find(token, 101.0) is None, "however much it is used"
    token, session = sessions.open(200.0)
    assert sessions.holds(session, 210.0) and not sessions.holds(session, 211.0)
    assert sessions.find(token, 211.0) is None and len(sessions) == 0
    token, _ = sessions.open(300.0)
    sessions.close(token)
    assert sessions.find(token, 300.0) is None


def test_sessions_are_bounded_and_tell_nothing_about_their_tokens() -> None:
    sessions = Sessions(1000.0, 1000.0)
    tokens = [sessions.open(float(number))[0] for number in range(100)]
    assert len(sessions) == 64
    assert sessions.find(tokens[0], 100.0) is None and sessions.find(tokens[-1], 100.0) is not None
    assert (
        sessions.find("", 0.0) is None
        and sessions.find("x" * 5000, 0.0) is None
        and sessions.find("é\ud800", 0.0) is None
    )
    token, session = sessions.open(100.0)
    assert token not in repr(session) and session.csrf not in repr(session) and session.name not in token
    assert csrf_fits(session, session.csrf) and not csrf_fits(session, "") and not csrf_fits(session, "\ud800")


# Passes of the talk page ----------------------------------------------------------------------------------------------


def test_a_pass_is_for_one_device_for_ten_minutes_and_for_pages_of_this_server() -> None:
    guests = Guests()
    first = guests.issue("abc", 0.0)
    page, host = "http://box:8000", "box:8000"
    assert is_guest(first.device_id) and first.token not in repr(first)
    assert guests.admits(first.device_id, first.token, page, host, 1.0)
    assert not guests.admits(first.device_id, "wrong", page, host, 1.0)
    assert not guests.admits("anonymous-console-other", first.token, page, host, 1.0)
    assert not guests.admits(first.device_id, first.token, "http://evil.example", host, 1.0)
    assert not guests.admits(first.device_id, first.token, "", host, 1.0)
    assert not guests.admits(first.device_id, first.token, page, host, PASS_S + 1.0)
    second = guests.issue("abc", 2.0)
    assert second.device_id == first.device_id
    assert not guests.admits(first.device_id, first.token, page, host, 3.0), "a newer one takes its place"
    assert guests.withdraw("abc") == second.device_id
    assert not guests.admits(second.device_id, second.token, page, host, 3.0)
    for number in range(500):
        guests.issue(str(number), 4.0)
    assert len(guests._passes) <= 128


@pytest.mark.parametrize(
    ("origin", "same"),
    [("https://h:1", True), ("HTTP://H:1", True), ("http://h", False), ("null", False), ("file://h:1", False),
     ("http://h:1.evil.example", False), ("http://[", False)],
)  # fmt: skip
def test_an_origin_is_compared_whole(origin: str, same: bool) -> None:
    assert same_host(origin, "h:1") is same
    assert not same_host(origin, "")


# What is shown --------------------------------------------------------------------------------------------------------


async def test_log_lines_hold_no_secrets_and_no_transcripts_unless_they_may(tmp_path: Path) -> None:
    settings = Settings.model_validate({"metrics": {"token": "a-metrics-token"}})
    lines = LogLines(3, secrets_of(settings), transcripts=False)
    told: list[str] = []
    lines.on_line = lambda line: told.append(line["text"])
    log = logging.getLogger("xiaozhi.test.console")
    log.setLevel("DEBUG")
    log.addHandler(lines)
    try:
        log.debug("not interesting")
        log.info("turn", extra={"device": "aa:bb", "heard": "my wishes", "said": "none", "reply_ms": 5})
        log.warning("got a-metrics-token, sk-abcdefghijkl and http://me:pw123@host/v1, Bearer abcdef0123456789")
        try:
            raise ValueError("a-metrics-token in a traceback")
        except ValueError:
            log.exception("failed")
        await asyncio.to_thread(log.error, "from a thread " + "x" * 9000)
        await asyncio.sleep(0)
    finally:
        log.removeHandler(lines)
    found = lines.lines("debug")
    assert [line["level"] for line in found] == ["warning", "error", "error"], "only the newest are kept"
    assert len(told) == 5 and told[1] == "turn  reply_ms=5"
    text = str(found) + str(told)
    for secret in ("a-metrics-token", "abcdefghijkl", "pw123", "abcdef0123456789", "my wishes"):
        assert secret not in text
    assert len(found[-1]["text"]) == 4000 and found[-1]["text"].endswith("…")
    assert lines.lines("error", 1) == found[-1:] and lines.lines("error", 0) == []


async def test_a_page_that_does_not_read_is_let_go_and_others_are_not() -> None:
    hub = Hub()
    lazy, eager = hub.join(), hub.join()
    for number in range(300):
        hub.publish("log", {"n": number})
        assert b'"n":%d}' % number in (await eager.next() or b"")
    assert hub.dropped == 1 and lazy.gone and not eager.gone
    assert await lazy.next() is None
    for _ in range(MAX_CLIENTS - 1):
        hub.join()
    with pytest.raises(TooManyClients):
        hub.join()
    hub.close()
    assert await eager.next() is None and len(hub) == 0


def test_figures_are_of_the_last_quarter_of_an_hour() -> None:
    series = Series()
    for number in range(100):
        trace = TurnTrace(number, anchor=0.0, text=0.1, first_token=0.3, first_clause=0.35, first_speech=0.45)
        trace.first_packet, trace.starved_ms, trace.voice = 0.5 + number / 100, 100.0 * (number < 10), "edge+espeak"
        trace.error = "broke" if number < 5 else ""
        series.add(figures_of(trace, float(number)))
        series.spoke(trace, float(number))
    found = series.summary(99.0)
    assert found["latency_ms"] == {"p50": 990.0, "p95": 1440.0, "p99": 1480.0, "n": 100}
    assert found["own_ms"]["p50"] == 690.0, "without 200 ms for the token and 100 ms for the sound"
    assert (found["turns_total"], found["failed_total"], found["turns_minute"]) == (100, 5, 61)
    assert found["starved_share"] == 0.1
    assert series.first_sound_ms("edge", 99.0) == 100.0 and series.first_sound_ms("azure", 99.0) is None
    point = series.sample(99.0, 1e9, {"devices": 3})
    assert point["devices"] == 3 and point["turns"] == 61 and point["p50_ms"] == 1190.0
    later = series.summary(2000.0)
    assert later["latency_ms"] == {"p50": None, "p95": None, "p99": None, "n": 0} and later["turns_total"] == 100
    assert percentile([], 0.5) is None


def test_turns_of_memory_and_store_are_one_list() -> None:
    ring = TurnRing(3)
    for number in range(1, 6):
        ring.add({"id": str(number), "device": "ab"[number % 2], "from": "ring"})
    assert [turn["id"] for turn in ring.find()] == ["5", "4", "3"]
    assert [turn["id"] for turn in ring.find("b", before=5)] == ["3"]
    stored = [{"id": "4", "device": "a", "agent": "x", "from": "store"}, {"id": "2", "device": "a", "from": "store"}]
    whole = joined(ring.find(), stored, 4)
    assert [(turn["id"], turn["from"], turn.get("agent")) for turn in whole] == [
        ("5", "ring", None), ("4", "ring", "x"), ("3", "ring", None), ("2", "store", None),
    ]  # fmt: skip
    ring.forget("b")
    assert [turn["id"] for turn in ring.find()] == ["4"]


def test_files_of_the_pages_are_read_once_and_packed() -> None:
    assets = load_assets()
    assert "index.html" in assets and assets[""] is assets["index.html"]
    assert all(asset.content_type != "application/octet-stream" for asset in assets.values())
    script = make_asset(b"let x = 1;\n" * 200, ".js")
    assert script.packed is not None and len(script.packed) < 200 and script.content_type.startswith("text/javascript")
    assert make_asset(b"x", ".js").packed is None and make_asset(b"\x89PNG" * 1000, ".png").packed is None
    assert make_asset(b"a", ".css").etag != make_asset(b"b", ".css").etag
