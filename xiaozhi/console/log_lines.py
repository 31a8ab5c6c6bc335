"""The newest log lines for the pages: a handler with a bounded memory that knows no secrets."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from xiaozhi.logs import DeviceFilter, extras_of

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_LONGEST_TEXT: Final = 4000
# A short "secret" is more often a word such as "none" than a key.
_SHORTEST_SECRET: Final = 6
_KEY_LIKE: Final = re.compile(r"\b(?:sk|pk|ak)-[A-Za-z0-9_-]{8,}|(?<=[Bb]earer )\S{6,}|(?<=//)[^/@\s]{1,200}(?=@)")
_TRANSCRIPTS: Final = frozenset({"heard", "said"})
_HIDDEN: Final = "(hidden)"


class LogLines(logging.Handler):
    """Keeps the newest lines and tells a listener on the loop.

    Args:
        most: lines that are kept.
        secrets: texts that must not be shown.
        transcripts: what was heard and said may be shown.
    """

    def __init__(self, most: int, secrets: Iterable[str], *, transcripts: bool) -> None:
        super().__init__()
        self._lines: deque[dict[str, Any]] = deque(maxlen=most)
        self._transcripts = transcripts
        self._secrets: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self.on_line: Callable[[dict[str, Any]], None] | None = None
        """Called on the loop with each line."""
        self.forget(secrets)
        self.addFilter(DeviceFilter())

    def forget(self, secrets: Iterable[str]) -> None:
        """Never show these texts; they replace those given before."""
        wanted = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        self._secrets = tuple(sorted(wanted, key=len, reverse=True))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line. Any thread."""
        try:
            line = self._line(record)
            self._loop.call_soon_threadsafe(self._keep, line)
        except RuntimeError:  # the loop has ended
            return
        except Exception:  # noqa: BLE001 - as the logging library asks its handlers to
            self.handleError(record)

    def _keep(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if self.on_line is not None:
            self.on_line(line)

    def lines(self, level: str = "debug", limit: int = 500) -> list[dict[str, Any]]:
        """The newest lines of at least this level, the oldest first."""
        least = LEVELS.get(level, 0)
        found = [line for line in self._lines if LEVELS.get(line["level"], 0) >= least]
        return found[-limit:] if limit > 0 else []

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        extras = extras_of(record)
        device = str(extras.pop("device", ""))
        if not self._transcripts:
            extras = {key: value for key, value in extras.items() if key not in _TRANSCRIPTS}
        text = record.getMessage()
        said = [f"{key}={value}" for key, value in extras.items() if value not in ("", None)]
        text = "  ".join([text, " ".join(said)]) if said else text
        if record.exc_info:
            text += "\n" + (self.formatter or logging.Formatter()).formatException(record.exc_info)
        return {
            "at": record.created,
            "level": _level(record.levelno),
            "logger": record.name,
            "device": device,
            "text": self.clean(text),
        }

    def clean(self, text: str) -> str:
        """A text without secrets, of bounded length."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        text = _KEY_LIKE.sub(_HIDDEN, text)
        return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _level(number: int) -> str:
    return next((name for name, least in reversed(list(LEVELS.items())) if number >= least), "debug")
