"""Log lines: one line each in both formats, whatever is in them."""

import asyncio
import io
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.house import house
from xiaozhi.logs import DeviceFilter, JsonFormatter, Repeats, TextFormatter, about_device, set_up_logging
from xiaozhi.settings import LogSettings


@pytest.fixture
def restored() -> Iterator[None]:
    """The process's logging as it was, after a test that sets it up."""
    root, ours = logging.getLogger(), logging.getLogger("xiaozhi")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("xiaozhi.turn").makeRecord(
        "xiaozhi.turn", logging.INFO, __file__, 1, message, (), None, extra=extra
    )


HOSTILE_TEXTS = st.text(st.characters(), max_size=60) | st.sampled_from(
    ["a\nb", "a\r\nb", "\x1b[2J", "\u2028", "\ud800"]
)


@given(HOSTILE_TEXTS, HOSTILE_TEXTS)
def test_nothing_that_came_from_outside_makes_a_second_line(message: str, value: str) -> None:
    """A device could otherwise write log lines of its own."""
    made = record(message.replace("%", ""), device=value, spans={"text": value}, error=value)
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(made)
        assert not set("\n\r\x1b") & set(line)
        line.encode()


def test_a_json_line_holds_the_device_and_the_times_as_values() -> None:
    line = orjson.loads(JsonFormatter().format(record("turn", device="02:00", spans={"text": 12.5, "end": None})))
    assert (line["device"], line["spans"], line["message"]) == ("02:00", {"text": 12.5, "end": None}, "turn")
    assert line["level"] == "info" and "logger" not in line, "short, because there is one for every turn"
    assert orjson.loads(JsonFormatter().format(warned(0.0, "odd")))["logger"] == "xiaozhi.a"


@pytest.mark.parametrize("value", [object(), 2**80, {1: 2}, {"a": {"b": object()}}, float("nan"), b"\xff", {3}])
def test_no_value_breaks_a_line(value: object) -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        assert "turn" in formatter.format(record("turn", value=value))


def test_a_traceback_is_in_the_line_of_its_error() -> None:
    try:
        raise ValueError("odd")
    except ValueError as error:
        made = record("reply failed", device="02:00")
        made.exc_info = (ValueError, error, error.__traceback__)
    line = JsonFormatter().format(made)
    assert len(line.splitlines()) == 1
    assert "ValueError: odd" in orjson.loads(line)["traceback"]
    assert TextFormatter().format(made).splitlines()[-1] == "ValueError: odd"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_libraries_speak_from_warnings_on_at_every_level(
    restored: None, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """HTTP clients log every request with its address, and some of them headers, at info and debug."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    set_up_logging(LogSettings.model_validate({"level": level, "format": "json"}))
    for name in ("httpx", "httpx2", "httpcore", "openai", "openai._base_client", "aiohttp.access", "asyncio"):
        logging.getLogger(name).info("GET http://upstream")
        logging.getLogger(name).debug("Authorization: Bearer secret")
        logging.getLogger(name).error("broken")
    logging.getLogger("xiaozhi.anything").info("ours")
    lines = [orjson.loads(line)["message"] for line in out.getvalue().splitlines()]
    assert lines == ["broken"] * 7 + (["ours"] if level in ("debug", "info") else [])


# How much is written -------------------------------------------------------------------------------------------------


def warned(at_s: float, message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("xiaozhi.a").makeRecord(
        "xiaozhi.a", logging.WARNING, __file__, 1, message, args, None, extra=extra
    )
    made.created = at_s
    return made


def written(records: Iterable[logging.LogRecord]) -> list[str]:
    """What a handler would write, with the seconds before it."""
    repeats, lines = Repeats(), []
    for each in records:
        lines += [f"{each.created:.0f} {one.getMessage()}" for one in repeats.collapsed(each.created)]
        lines += [f"{each.created:.0f} {each.getMessage()}"] if repeats.admits(each) else []
    return lines


def test_a_warning_that_repeats_is_told_once_a_minute_with_how_often() -> None:
    assert written(warned(number, "redis is %s", "away") for number in range(150)) == [
        "0 redis is away",
        "60 redis is away (the last of 59 more lines like this within a minute)",
        "60 redis is away",
        "120 redis is away (the last of 59 more lines like this within a minute)",
        "120 redis is away",
    ]


def test_the_same_warning_about_another_device_is_another_warning() -> None:
    assert len(written(warned(0.0, "odd", device=f"02:0{number}") for number in range(5) for _ in range(3))) == 5


def test_what_strangers_cause_is_bounded_whatever_they_put_into_it() -> None:
    """A hundred refusals a second for ten minutes, each of another device."""
    lines = written(
        warned(number / 100, "refused, from %s: no token", f"10.0.{number % 250}.1", device=str(number))
        for number in range(60_000)
    )
    assert len(lines) <= 10 * 21
    assert any("more lines like this" in line for line in lines)


def test_turns_are_never_collapsed_and_nothing_grows() -> None:
    repeats = Repeats()
    assert all(repeats.admits(record("turn")) for _ in range(10_000))
    for number in range(10_000):
        repeats.admits(warned(0.0, f"a library that formats by itself: {number}"))
    assert len(repeats._kinds) <= 501 and all(len(kind.told) <= 20 for kind in repeats._kinds.values())


def test_what_was_held_back_is_told_at_the_end(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    set_up_logging(LogSettings(format="json"))
    for _ in range(7):
        logging.getLogger("xiaozhi.anything").warning("the same")
    (handler,) = logging.getLogger().handlers
    handler.close()
    lines = [orjson.loads(line)["message"] for line in out.getvalue().splitlines()]
    assert lines == ["the same", "the same (the last of 6 more lines like this within a minute)"]


@pytest.mark.parametrize("format_", ["text", "json"])
async def test_a_hundred_devices_write_less_than_50_mb_a_day(
    tmp_path: Path, restored: None, monkeypatch: pytest.MonkeyPatch, format_: Literal["text", "json"]
) -> None:
    """Each is spoken to three times a minute, all day."""
    out = io.StringIO()
    async with house(tmp_path, log={"format": format_}) as home:
        monkeypatch.setattr("sys.stderr", out)
        set_up_logging(home.server.services.settings.log)
        async with home.device() as device:
            before = len(out.getvalue())
            for _ in range(2):
                assert (await device.turn_text("hello there")).answered
        await home.server.devices.empty()
        *turns, end = out.getvalue()[before:].splitlines(keepends=True)
    assert len(turns) == 2 and all("first_audio_ms" in line for line in turns) and "disconnected" in end
    a_day = 100 * 3 * 60 * 24
    assert max(map(len, turns)) * a_day < 50e6, "in a conversation that goes on"
    assert (max(map(len, turns)) + len(end) / 4) * a_day < 60e6, "in conversations of four turns"


async def test_every_line_on_behalf_of_a_device_names_it_and_no_other_line_does() -> None:
    async def speak(device: str) -> str:
        about_device(device)
        made = record("deep below")
        await asyncio.create_task(asyncio.to_thread(DeviceFilter().filter, made))
        return str(getattr(made, "device", ""))

    assert await asyncio.gather(*(asyncio.create_task(speak(f"02:0{n}")) for n in range(3))) == [
        "02:00",
        "02:01",
        "02:02",
    ]
    made = record("of nobody")
    assert DeviceFilter().filter(made)
    assert not hasattr(made, "device")
    made = record("named", device="02:99")
    assert DeviceFilter().filter(made)
    assert TextFormatter().format(made).endswith("device=02:99")


@pytest.mark.parametrize("own", [{}, {"device": "02:00:00:00:00:01"}, {"device": "02:00:00:00:00:02"}])
async def test_a_line_names_its_device_once_whether_the_line_or_the_task_says_which(own: dict[str, str]) -> None:
    async def line() -> logging.LogRecord:
        about_device("02:00:00:00:00:01")
        written = record("turn", **own)
        for _ in range(2):  # the console has a handler with the same filter
            DeviceFilter().filter(written)
        return written

    written = await asyncio.create_task(line())
    expected = own.get("device", "02:00:00:00:00:01")
    assert TextFormatter().format(written).count("02:00:00") == 1
    assert TextFormatter().format(written).endswith(f"device={expected}")
    assert JsonFormatter().format(written).count('"device"') == 1
