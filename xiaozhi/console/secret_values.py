"""Every secret of the settings, so that nothing shows one."""

import os
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from xiaozhi.settings import Settings


def secrets_of(settings: Settings) -> set[str]:
    """The secrets that are written in the settings, and those in the variables that they name."""
    return {text for text in _walk(settings) if text}


def _walk(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            inner = getattr(value, name)
            if name.endswith("_env") and isinstance(inner, str) and inner:
                yield os.environ.get(inner, "")
            elif name == "env" and isinstance(inner, dict):  # of a program that is started
                yield from inner.values()
            else:
                yield from _walk(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _walk(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _walk(inner)
