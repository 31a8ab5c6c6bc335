"""The console's password: made on the first start, kept as what scrypt makes of it, never as itself. Blocking."""

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xiaozhi.program import PlainError, program
from xiaozhi.store import private_file

_log = logging.getLogger(__name__)

# 32 MB and about 0.2 s of one core for each guess: OWASP's advice for scrypt with 2**15.
_COST: Final = 1 << 15
_BLOCK: Final = 8
_LANES: Final = 3
_MAX_MEMORY_BYTES: Final = 128 * 1024 * 1024
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 4096

SHORTEST: Final = 8
LONGEST: Final = 256
"""Characters of a password."""

# Letters and digits that are not taken for one another; 16 of them are 78 bits.
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS: Final = 4
_GROUP_CHARS: Final = 4


class PasswordError(PlainError):
    """A password cannot be used, or its file cannot; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What a password is recognised by.

    Attributes:
        cost, block, lanes: parameters of scrypt.
        salt, digest: never in a repr.
    """

    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    def __repr__(self) -> str:
        return f"PasswordHash(cost={self.cost})"

    def fits(self, password: str) -> bool:
        """Whether it is the password; takes the same time for every wrong one. Blocking, 0.2 s."""
        found = _scrypt(password[:LONGEST], self.salt, self.cost, self.block, self.lanes)
        return hmac.compare_digest(found, self.digest) and len(password) <= LONGEST

    def line(self) -> str:
        """As it stands in the file."""
        salt, digest = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt${self.cost}${self.block}${self.lanes}${salt}${digest}\n"


def hash_of(password: str, *, cost: int = _COST) -> PasswordHash:
    """What is kept of a password. Blocking, 0.2 s.

    Raises:
        PasswordError: it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordError(f"a password has {SHORTEST} to {LONGEST} characters")
    salt = secrets.token_bytes(_SALT_BYTES)
    return PasswordHash(cost, _BLOCK, _LANES, salt, _scrypt(password, salt, cost, _BLOCK, _LANES))


def new_password() -> str:
    """A random one, easy to type: `k3mf-9qwe-…`."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS))
    return "-".join(groups)


def password_path(data_dir: Path, name: str) -> Path:
    """Where the file lies: in `data_dir`, or elsewhere where `name` is an absolute path."""
    return data_dir / Path(name).expanduser()


def read_hash(path: Path) -> PasswordHash | None:
    """What the file holds; None where there is no file.

    Raises:
        PasswordError: it is damaged or cannot be read.
    """
    try:
        content = private_file.read(path, max_bytes=_MAX_FILE_BYTES)
        if content is None:
            return None
        private_file.tighten(path)
    except OSError as error:
        raise PasswordError(f"console.password_file: {path} cannot be read: {error.strerror}") from error
    try:
        kind, cost, block, lanes, salt, digest = content.decode("ascii").strip().split("$")
        if kind != "scrypt":
            raise ValueError(kind)
        parts = (base64.b64decode(part, validate=True) for part in (salt, digest))
        found = PasswordHash(int(cost), int(block), int(lanes), *parts)
        if 128 * found.cost * found.block >= _MAX_MEMORY_BYTES or len(found.digest) != _HASH_BYTES:
            raise ValueError("parameters")
    except (ValueError, binascii.Error) as error:
        raise PasswordError(f"{path} is damaged; make another with: {program()} console password --reset") from error
    return found


def write_hash(path: Path, kept: PasswordHash) -> None:
    """Replace the file in one step; only this user may read it. A first password that was kept is no longer.

    Raises:
        PasswordError: it cannot be written.
    """
    _write(path, kept.line())
    forget_first_password(path)


def _write(path: Path, text: str) -> None:
    try:
        private_file.write(path, text.encode("ascii"))
    except OSError as error:
        raise PasswordError(f"console.password_file: {path} cannot be written: {error.strerror}") from error


def first_password(path: Path) -> str:
    """The password that is made where there is none yet, to be shown once; empty where there is one already.

    Raises:
        PasswordError: the file cannot be read or written.
    """
    if read_hash(path) is not None:
        return ""
    password = new_password()
    write_hash(path, hash_of(password))
    return password


def first_password_path(path: Path) -> Path:
    """Where the first password is kept for an owner who had no terminal to read it from."""
    return path.with_name(f"{path.name}-first")


def keep_first_password(path: Path, password: str) -> Path:
    """Keep a password that was made at the first start, in a file that only this user may read, and say where.

    Raises:
        PasswordError: it cannot be written.
    """
    kept = first_password_path(path)
    _write(kept, f"{password}\n")
    return kept.absolute()


def kept_first_password(path: Path) -> str:
    """The first password, as long as nobody has signed in or set another; empty where there is none.

    Raises:
        PasswordError: the file cannot be read.
    """
    kept = first_password_path(path)
    try:
        return (private_file.read(kept, max_bytes=_MAX_FILE_BYTES) or b"").decode("ascii", "replace").strip()
    except OSError as error:
        raise PasswordError(f"{kept} cannot be read: {error.strerror}") from error


def forget_first_password(path: Path) -> None:
    """It is known now, or holds no longer. What cannot be deleted is only logged: the password works all the same."""
    try:
        first_password_path(path).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be deleted: %s", first_password_path(path), error.strerror)


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    words = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(words, salt=salt, n=cost, r=block, p=lanes, maxmem=2 * _MAX_MEMORY_BYTES, dklen=_HASH_BYTES)
