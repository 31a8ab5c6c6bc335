"""Common replies from a TOML or JSON file: blocks of questions that share one answer. Blocking."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

BUILT_IN: Final = Path(__file__).with_name("common.toml")
"""The replies that come with the server."""
_MAX_BYTES: Final = 4 * 1024 * 1024


class PreloadError(Exception):
    """A file of replies cannot be used; one line says which and why."""


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    questions: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=1000)
    ]
    answer: Annotated[str, Field(min_length=1, max_length=2000)]


class _Replies(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reply: Annotated[list[_Reply], Field(max_length=10_000)]


def read_replies(path: Path) -> list[tuple[str, str]]:
    """Every question of a file with its answer.

    The file holds blocks `[[reply]]` with `questions` (a list) and `answer`; as JSON `{"reply": [{…}]}`, in a file
    whose name ends in `.json`.

    Raises:
        PreloadError: it cannot be read, or holds something else.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PreloadError(f"{path}: larger than {_MAX_BYTES // 1024 // 1024} MB")
        text = path.read_text("utf-8-sig")
        values: Any = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        replies = _Replies.model_validate(values)
    except OSError as error:
        raise PreloadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PreloadError(f"{path}: neither TOML nor JSON: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        raise PreloadError(f"{path}: {where}: {first['msg']}") from error
    return [(question, reply.answer) for reply in replies.reply for question in reply.questions]
