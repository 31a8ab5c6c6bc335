"""Log lines: one line each, with the device in every line that concerns one; text for people or JSON for machines."""

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Final

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
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extras_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, an integer above 64 bits, a key that is no text: json knows them all
            return json.dumps(line, default=str, skipkeys=True)


def set_up_logging(settings: LogSettings) -> None:
    """Send every log line to standard error in the format asked for; libraries speak from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    handler.addFilter(DeviceFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("xiaozhi").setLevel(settings.level.upper())
