"""Small files that hold secrets: only this user may read them, a power cut leaves the old or the new one. Blocking."""

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

# Rights of everybody but the owner.
_OTHERS: Final = 0o077
_OWNER_ONLY: Final = 0o600
# Far above what any of them holds: whatever is longer is no file of ours.
MAX_BYTES: Final = 65_536


def read(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes | None:
    """What the file holds, up to `max_bytes`; None where there is no file. Its rights stay as they are.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except FileNotFoundError:
        return None


def write(path: Path, content: bytes) -> None:
    """Replace the file in one step, with rights for its owner only; its folder is made where there is none.

    What root writes belongs to the folder's owner.

    Raises:
        OSError: it cannot be written; then it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with rights 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.name == "posix" and os.geteuid() == 0:  # somebody mends the files of a service that is not root
                folder = path.parent.stat()
                with contextlib.suppress(OSError):  # a folder of nobody that is known here
                    os.fchown(descriptor, folder.st_uid, folder.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def make(path: Path) -> None:
    """Make an empty file for its owner only, or tighten the rights of one that is there, where that may be done.

    Raises:
        OSError: it cannot be made.
    """
    if not path.exists():
        path.touch(mode=_OWNER_ONLY)
        return
    try:
        tighten(path)
    except OSError as error:  # somebody else's: whoever may use it may go on
        _log.warning("%s can be read by others: %s", path, error.strerror)


def tighten(path: Path) -> None:
    """Take the file's rights away from everybody but its owner, and say so where they had any.

    One that has gone meanwhile needs nothing.

    Raises:
        OSError: it belongs to somebody else.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mode & _OTHERS:
            _log.warning("%s could be read by others; its rights are tightened", path)
            path.chmod(_OWNER_ONLY)
