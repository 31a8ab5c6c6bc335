"""Log lines: one line each, with the device in every line that concerns one; text for people or JSON for machines."""

import logging
import sys
import time
from typing import Final

import orjson

from xiaozhi.settings import LogSettings

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """`12:00:00.123 INFO  turn  device=… key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        extras = " ".join(f"{key}={_plain(value)}" for key, value in _extras(record).items() if value not in ("", None))
        line = f"{at}.{int(record.msecs):03d} {record.levelname:<7} {record.getMessage()}"
        if extras:
            line += f"  {extras}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "{" + " ".join(f"{key}={item}" for key, item in value.items() if item is not None) + "}"
    text = str(value)
    return repr(text) if " " in text or "\n" in text else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's words and extras as JSON."""
        line: dict[str, object] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def set_up_logging(settings: LogSettings) -> None:
    """Send every log line to standard error in the format asked for; libraries speak from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("xiaozhi").setLevel(settings.level.upper())
