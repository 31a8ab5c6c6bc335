"""A line on standard error that says how far a bench has come."""

import sys
import time
from typing import Final

# Without a terminal a line this often says that the bench is alive.
_LINE_EVERY_S: Final = 15.0


class Progress:
    """One line that is kept up to date; without a terminal a new one now and then."""

    def __init__(self) -> None:
        self._said_at_s = time.monotonic()

    def say(self, text: str) -> None:
        """Show where things stand."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._said_at_s >= _LINE_EVERY_S:
            self._said_at_s = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if sys.stderr.isatty():
            print(file=sys.stderr)
