"""What is wrong with the settings, one line each: where, what stands there, what is allowed, what was perhaps meant."""

import datetime
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from xiaozhi.settings.schema import Key, KeyPath, dotted, find, nearest, number_text, siblings

MAX_SHOWN_CHARS = 60

_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|credential", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"^(sk|pk|ak|Bearer)[-_ ]\S{6,}", re.IGNORECASE)
_ADDRESSES = frozenset({"base_url", "url", "endpoint"})
_URL_LOGIN = re.compile(r"//[^/@\s]*@")


class SettingsError(Exception):
    """The settings cannot be used.

    Attributes:
        errors: one line for each mistake, fit for the user, without secrets.
    """

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


def one_line(text: str) -> str:
    """Control characters and line breaks made visible, so that a message stays one line."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )


def show(path: KeyPath, value: Any) -> str:
    """` = value` as the file would have it, shortened; nothing for tables, `(hidden)` for what may be a secret."""
    key = find(path)
    if isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
    ):
        return ""
    if is_secret(path):
        return " = (hidden)"
    if key is not None and key.kind in ("section", "sections", "table") and isinstance(value, str):
        return " = (hidden)"  # a table given as text may hold a secret
    if isinstance(value, (datetime.date, datetime.time)):
        text = value.isoformat()
    elif isinstance(value, str) and (_SECRET_TEXT.match(value) or _may_be_a_key(path, value)):
        return " = (hidden)"
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    text = one_line(_URL_LOGIN.sub("//(hidden)@", text))
    return " = " + (text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…")


def _may_be_a_key(path: KeyPath, value: str) -> bool:
    """Whether a word stands where an address should: somebody may have taken one field for the other."""
    return path[-1] in _ADDRESSES and not set(value) & set(":/.：／．。")


def is_secret(path: KeyPath) -> bool:
    """Whether the value is a secret, or may be one under a mistyped name."""
    key = find(path)
    if key is not None:
        return key.kind == "secret" or key.item == "secret"
    return bool(_SECRET_NAME.search(dotted(path))) or any(key.kind == "secret" for key in siblings(path))


def unknown_key(path: KeyPath) -> str:
    """`unknown key; did you mean …`, or which names are allowed there."""
    if guess := nearest(path):
        return f"unknown key; did you mean {guess}?"
    names = ", ".join(key.path[-1] for key in siblings(path))
    return f"unknown key; allowed here: {names}" if names else "unknown key"


def explain(error: Mapping[str, Any], path: KeyPath) -> tuple[KeyPath, str]:
    """Where one error of the validator belongs and what it says.

    Args:
        error: one entry of pydantic's `ValidationError.errors()`.
        path: where it was found.
    """
    kind, context = error["type"], error.get("ctx", {})
    key = find(path)
    match kind:
        case "extra_forbidden":
            return path, unknown_key(path)
        case "missing":
            return path, "is missing"
        case "greater_than":
            return path, f"must be above {number_text(context['gt'])}"
        case "greater_than_equal":
            return path, f"must be at least {number_text(context['ge'])}"
        case "less_than":
            return path, f"must be below {number_text(context['lt'])}"
        case "less_than_equal":
            return path, f"must be at most {number_text(context['le'])}"
        case "string_too_short" | "too_short":
            return path, "must not be empty"
        case "value_error":
            return _combination(str(context["error"]), path)
    if key is None and isinstance(path[-1], int):  # an item of a list
        key = find(path[:-1])
        if key is not None and key.choices:
            return path, f"must be one of {_quoted(key)}" + _guess(error.get("input"), key.choices)
        return path, "must be a table" if key is not None and key.kind == "sections" else "must be a text in quotes"
    if key is None:
        return path, one_line(str(error["msg"]))
    return path, f"must be {key.allowed()}" + _guess(error.get("input"), key.choices)


def _combination(message: str, path: KeyPath) -> tuple[KeyPath, str]:
    """A rule between settings of one table: `name must …` belongs to that name."""
    name, _, rest = message.partition(" ")
    if find((*path, name)) is not None and rest:
        return (*path, name), rest
    return path, message


def _quoted(key: Key) -> str:
    return ", ".join(f'"{choice}"' for choice in key.choices)


def _guess(value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or not (close := difflib.get_close_matches(value.lower(), choices, 1)):
        return ""
    return f'; did you mean "{close[0]}"?'
