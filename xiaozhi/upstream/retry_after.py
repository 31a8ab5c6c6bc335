"""When an upstream that refuses says to come back. Pure: the time is passed in."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# An upstream that wants to be left alone for longer is asked again all the same: a wrong clock must not end it.
MAX_S: Final = 600.0


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait from `Retry-After` (RFC 9110, 10.2.3: seconds or an HTTP date) or OpenAI's `retry-after-ms`.

    Args:
        headers: of the answer; names in lower case, or a mapping that does not mind.
        now: the wall clock, with its zone.

    Returns:
        0 to 600; None when nothing is said or it cannot be understood.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000.0)
    said = headers.get("retry-after", "").strip()
    seconds = _number(said)
    if seconds is not None:
        return _bounded(seconds)
    try:
        date = parsedate_to_datetime(said)
    except ValueError:
        return None
    return _bounded(((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), MAX_S)
