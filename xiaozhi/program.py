"""What this program is called where it runs, so that a command can be typed as a hint prints it."""

import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Final

_NAME: Final = "xiaozhi"
_COMMAND: Final = re.compile(r"(?<![\w./-])xiaozhi(?= [a-z])")


class PlainError(Exception):
    """What went wrong, in a line or more for the person at the command line: nobody needs a traceback with it.

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code = 1


def executable() -> Path | None:
    """The file that a shell would run to run this program; None where it is only to be had as `python -m xiaozhi`."""
    if getattr(sys, "frozen", False):
        return Path(sys.executable)
    called = Path(os.path.abspath(sys.argv[0]))  # noqa: PTH100 - a link is what people type, not what it points to
    beside = Path(sys.executable).parent
    for path in (called, beside / _NAME, beside / f"{_NAME}.exe"):
        if path.stem == _NAME and path.suffix in ("", ".exe") and path.is_file():
            return path
    return None


@cache
def program() -> str:
    """How a shell in the working directory calls this program, quoted: by its name where that is on `PATH`.

    Else `.venv/bin/xiaozhi` or `./xiaozhi` where it lies below the working directory, and otherwise its whole path.
    """
    path = executable()
    if path is None:
        return f"{shlex.quote(sys.executable or 'python3')} -m {_NAME}"
    found = shutil.which(path.name)
    if found is not None and Path(found).samefile(path):
        return shlex.quote(path.name)
    if path.is_relative_to(Path.cwd()):
        relative = str(path.relative_to(Path.cwd()))
        return shlex.quote(relative if os.sep in relative else os.path.join(os.curdir, relative))  # noqa: PTH118
    return shlex.quote(str(path))


def as_called(text: str) -> str:
    """A text of our own, with each `xiaozhi COMMAND` in it as it has to be typed here."""
    return _COMMAND.sub(lambda _: program(), text)
