"""Log lines: one line each, with the device in every line that concerns one; text for people or JSON for machines.

At the default level a turn is one line of about 75 bytes, and what repeats is collapsed, so that a log grows by tens of
MB a day under full load and not by what clients and upstreams make of it.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, TextIO

import orjson

from xiaozhi.settings import LogSettings

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


_device: ContextVar[str] = ContextVar("device", default="")


def about_device(device_id: str) -> None:
    """Put this device into every further line of the current task and of the tasks that it starts."""
    _device.set(device_id)


class DeviceFilter(logging.Filter):
    """Adds the device to lines that do not name one themselves; lets every line pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the device, if the line was written on behalf of one."""
        if (device := _device.get()) and not hasattr(record, "device"):
            record.device = device
        return True


def extras_of(record: logging.LogRecord) -> dict[str, object]:
    """What a line says beside its text: the device, the figures of a turn."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """`12:00:00.123 INFO  turn  device=… key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        shown = {key: value for key, value in extras_of(record).items() if value not in ("", None)}
        extras = " ".join(f"{key}={_plain(value)}" for key, value in shown.items())
        line = f"{at}.{int(record.msecs):03d} {record.levelname:<7} {_one_line(record.getMessage())}"
        if extras:
            line += f"  {extras}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return _one_line("{" + " ".join(f"{key}={item}" for key, item in value.items() if item is not None) + "}")
    text = str(value)
    return _one_line(repr(text) if " " in text else text)


def _one_line(text: str) -> str:
    """The text with everything escaped that could begin another line or steer a terminal.

    What upstreams and devices say gets into messages; it must not be able to forge lines.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's words and extras as JSON."""
        line: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            # What is told of every turn is short, and says what it is by its message.
            **({} if record.levelno == logging.INFO else {"logger": record.name}),
            "message": record.getMessage(),
            **extras_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, an integer above 64 bits, a key that is no text: json knows them all
            return json.dumps(line, default=str, skipkeys=True)


@dataclass(slots=True)
class _Kind:
    """Lines of one place in the code.

    Attributes:
        since_s: when the first one was told.
        told: the texts that were.
        held: how many were not.
        last: the newest of those.
    """

    since_s: float
    told: set[str] = field(default_factory=set)
    held: int = 0
    last: logging.LogRecord | None = None


class Repeats:
    """Which warnings and errors are told, and which are only counted. Pure: time is that of the lines.

    The same line is told once a minute, and of lines that one place in the code says about different things, which a
    stranger may be able to cause, so many a minute. What was held back is told as one line when the minute is over.
    """

    _PERIOD_S: Final = 60.0
    _MAX_TEXTS: Final = 20
    _MAX_TRACEBACKS: Final = 3
    _MAX_KINDS: Final = 500  # libraries may write their values into the text itself

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether a line is to be told now."""
        if record.levelno < logging.WARNING:
            return True
        key = (record.name, record.levelno, str(record.msg))
        if key not in self._kinds and len(self._kinds) >= self._MAX_KINDS:
            key = (record.name, record.levelno, "")
        kind = self._kinds.setdefault(key, _Kind(record.created))
        text = f"{record.getMessage()} {getattr(record, 'device', '')} {record.exc_info and record.exc_info[1]!r}"
        most = self._MAX_TRACEBACKS if record.exc_info else self._MAX_TEXTS
        if text not in kind.told and len(kind.told) < most:
            kind.told.add(text)
            return True
        kind.held, kind.last = kind.held + 1, record
        return False

    def collapsed(self, now_s: float) -> Iterator[logging.LogRecord]:
        """A line for every kind whose minute is over and of which lines were held back."""
        for key, kind in list(self._kinds.items()):
            if now_s - kind.since_s < self._PERIOD_S:
                continue
            del self._kinds[key]
            if kind.last is not None:
                text = f"{kind.last.getMessage()} (the last of {kind.held} more lines like this within a minute)"
                yield logging.makeLogRecord({**vars(kind.last), "msg": text, "args": None, "exc_info": None})


class _Collapsing(logging.StreamHandler[TextIO]):
    """Writes what `Repeats` admits."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and before it what is to be told of earlier ones. Called with the handler's lock."""
        for told in self._repeats.collapsed(record.created):
            super().emit(told)
        if self._repeats.admits(record):
            super().emit(record)

    def close(self) -> None:
        """Write what is left to be told."""
        for told in self._repeats.collapsed(math.inf):
            super().emit(told)
        super().close()


def set_up_logging(settings: LogSettings) -> None:
    """Send every log line to standard error in the format asked for; libraries speak from warnings on."""
    handler = _Collapsing(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    handler.addFilter(DeviceFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("xiaozhi").setLevel(settings.level.upper())
