"""Log lines: one line each in both formats, whatever is in them."""

import asyncio
import io
import logging
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.logs import DeviceFilter, JsonFormatter, TextFormatter, about_device, set_up_logging
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
    assert (line["level"], line["logger"]) == ("info", "xiaozhi.turn")


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
