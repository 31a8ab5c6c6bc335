"""What is said about each setting in Chinese: the counterpart of the comments of the default file."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources


@cache
def chinese() -> Mapping[str, str]:
    """The Chinese texts by the name of a setting, such as `asr.workers`, or of a table. Blocking at the first call.

    In a name the part `*` stands for any one: `load.*.memory_percent`.
    """
    text = resources.files("xiaozhi.settings").joinpath("zh.toml").read_text(encoding="utf-8")
    return {name: str(words) for name, words in tomllib.loads(text).items()}


def name_in_chinese(name: str, texts: Mapping[str, str]) -> str | None:
    """The key under which the text of a setting or table stands; None where there is none."""
    if name in texts:
        return name
    parts = name.split(".")
    shared = (".".join([*parts[:at], "*", *parts[at + 1 :]]) for at in range(len(parts) - 1))
    return next((key for key in shared if key in texts), None)


def in_chinese(name: str) -> str:
    """What is said about a setting or table in Chinese; empty where nothing is. Blocking at the first call."""
    key = name_in_chinese(name, chinese())
    return chinese()[key] if key is not None else ""
