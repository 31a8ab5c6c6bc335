"""JSON of strangers: parsed only as deeply nested as messages are.

`orjson` reads 1024 levels but writes 254, and `repr` and every walk of ours ends with a RecursionError somewhere in
between; so a few hundred brackets would fail far from where they came in. Pure.
"""

from typing import Any, Final

import orjson

MAX_LEVELS: Final = 32
"""A device's list of tools has 9 levels down to the bounds of an argument, a completion with its tool calls 7."""


def loads(data: bytes | str) -> Any:
    """The value of a JSON document.

    Raises:
        orjson.JSONDecodeError: no JSON, or nested deeper than `MAX_LEVELS`.
    """
    value = orjson.loads(data)
    opened = data.count("[") + data.count("{") if isinstance(data, str) else data.count(b"[") + data.count(b"{")
    if opened > MAX_LEVELS and is_deeper(value, MAX_LEVELS):
        raise orjson.JSONDecodeError(f"nested deeper than {MAX_LEVELS} levels", "", 0)
    return value


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in each other more than `levels` times. Never recurses."""
    here: list[Any] = [value] if isinstance(value, list | dict) else []
    for _ in range(levels):
        here = [
            inner
            for outer in here
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not here:
            return False
    return True
