"""The keys that sign device tokens: the newest signs, older generations are honoured until their tokens expire."""

import itertools
import logging
import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from xiaozhi.store import private_file

_log = logging.getLogger(__name__)

KEY_BYTES: Final = 32
_FILE: Final = "token-keys.json"
# Generations in the file; rotating by hand more often than tokens expire drops the oldest.
_MAX: Final = 16
# A key whose tokens may tell a wrong time signs for this share of a token's life at most; so the generations in the
# file cover the life of every token even where the clock is found wrong again and again.
_WRONG_SHARE: Final = 0.125
# Before this program was written (2025-01-01): what a machine without a battery believes until the network tells it.
_FIRST_PLAUSIBLE_S: Final = 1_735_689_600.0
# Nodes of a cluster differ by less.
_AHEAD_S: Final = 86_400.0


def is_plausible(now_s: float) -> bool:
    """Whether a clock that says so can be right. Pure."""
    return now_s >= _FIRST_PLAUSIBLE_S


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One generation.

    Attributes:
        generation: counts from 1 and is part of every token.
        made_s: wall time at which it was made, in seconds.
        honoured_until_s: when the last token signed with it expires; 0 while it is the newest.
        secret: 32 random bytes; never in a repr.
        clock_was_wrong: tokens that were signed with it may tell a wrong time. They hold as long as the key does, which
            is not long.
    """

    generation: int
    made_s: float
    honoured_until_s: float
    secret: bytes
    clock_was_wrong: bool = False

    def is_over(self, expires_s: float, now_s: float) -> bool:
        """Whether a token that expires then is over. One that ended in 1970 was given by a clock that was wrong."""
        return expires_s < now_s and not self.clock_was_wrong and is_plausible(expires_s)

    def __repr__(self) -> str:
        return f"TokenKey(generation={self.generation})"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All generations that count; never empty, in rising order."""

    keys: tuple[TokenKey, ...]

    @property
    def newest(self) -> TokenKey:
        """The one that signs."""
        return self.keys[-1]

    def find(self, generation: int, now_s: float) -> TokenKey | None:
        """The key of this generation if its tokens may still hold at `now_s`."""
        for key in self.keys:
            if key.generation == generation and (not key.honoured_until_s or now_s <= key.honoured_until_s):
                return key
        return None

    def rotated(self, now_s: float, ttl_s: float, secret: bytes, *, forget: bool = False) -> "KeyRing":
        """With a new generation; the one before holds for `ttl_s` more seconds, or not at all with `forget`. Pure."""
        kept = () if forget else tuple(key for key in self.keys[:-1] if key.honoured_until_s > now_s)
        old = self.newest
        if not forget:
            kept += (replace(old, honoured_until_s=now_s + ttl_s),)
        return KeyRing((*kept, TokenKey(old.generation + 1, now_s, 0.0, secret))[-_MAX:])

    def tells_of_wrong_clock(self, now_s: float) -> bool:
        """Whether the newest key was made while the clock was wrong, as far as that can be seen now. Pure."""
        made_s = self.newest.made_s
        return is_plausible(now_s) and (made_s > now_s + _AHEAD_S or not is_plausible(made_s))

    def set_right(self, now_s: float, ttl_s: float, step_s: float = 0.0) -> "KeyRing":
        """As it is to be after the clock was found to have been wrong: nobody is locked out, nothing holds for ever.

        Pure. Tokens say when they expire by the clock that was wrong: those of the newest key hold as long as the key,
        which is replaced soon (see `signs_for_s`).

        Args:
            now_s: wall time in seconds, right by now.
            ttl_s: how long a token holds that was given a moment ago.
            step_s: how far the clock was put forward, where that was seen.
        """
        latest_s = now_s + ttl_s
        older = (
            replace(key, honoured_until_s=min(key.honoured_until_s + max(0.0, step_s), latest_s))
            for key in self.keys[:-1]
        )
        return KeyRing((*older, replace(self.newest, made_s=min(self.newest.made_s, now_s), clock_was_wrong=True)))

    def signs_for_s(self, rotate_s: float, ttl_s: float) -> float:
        """How long the newest key signs, in seconds from when it was made; 0 for ever. Pure."""
        return ttl_s * _WRONG_SHARE if self.newest.clock_was_wrong else rotate_s


def keys_file(data_dir: Path) -> Path:
    """Where the keys of a server lie."""
    return data_dir / _FILE


def load_keys(data_dir: Path, now_s: float) -> KeyRing:
    """The keys of this server: made on the first start, kept where only this user can read them.

    A damaged file is set aside and new keys are made: devices get new tokens when they boot the next time.

    Raises:
        OSError: the folder cannot be written or the file cannot be read.
    """
    path = keys_file(data_dir)
    content = private_file.read(path)
    if content is None:
        return _first(path, now_s)
    private_file.tighten(path)  # what is damaged may hold a key all the same
    ring = parse_ring(content)
    if ring is None:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        _log.warning("%s is damaged; it is now %s, and devices get new tokens when they boot", path, aside.name)
        return _first(path, now_s)
    return ring


def rotate_keys(data_dir: Path, now_s: float, ttl_s: float, *, forget: bool = False) -> KeyRing:
    """Make a new generation and write it; a running server takes it up by itself.

    Args:
        data_dir: `server.data_dir`.
        now_s: wall time in seconds.
        ttl_s: how long a token holds that was given a moment ago.
        forget: refuse every older token from now on, for when a key may have been stolen.

    Raises:
        OSError: the folder cannot be written or the file cannot be read.
    """
    ring = load_keys(data_dir, now_s).rotated(now_s, ttl_s, secrets.token_bytes(KEY_BYTES), forget=forget)
    write_ring(keys_file(data_dir), ring)
    return ring


def _first(path: Path, now_s: float) -> KeyRing:
    ring = KeyRing((TokenKey(1 + secrets.randbelow(1000), now_s, 0.0, secrets.token_bytes(KEY_BYTES)),))
    write_ring(path, ring)
    return ring


def dump_ring(ring: KeyRing) -> bytes:
    """A ring as JSON, secrets and all."""
    rows = [
        {
            "generation": key.generation,
            "made_s": key.made_s,
            "honoured_until_s": key.honoured_until_s,
            "secret": key.secret.hex(),
            "clock_was_wrong": key.clock_was_wrong,
        }
        for key in ring.keys
    ]
    return orjson.dumps({"keys": rows}, option=orjson.OPT_INDENT_2)


def write_ring(path: Path, ring: KeyRing) -> None:
    """Replace the file, so that only this user can read it.

    Raises:
        OSError: it cannot be written.
    """
    private_file.write(path, dump_ring(ring))


def parse_ring(content: bytes) -> KeyRing | None:
    """A ring as `dump_ring` writes it; None for a damaged one."""
    try:
        rows: Any = orjson.loads(content)["keys"]
        keys = tuple(
            TokenKey(
                int(row["generation"]),
                float(row["made_s"]),
                float(row["honoured_until_s"]),
                bytes.fromhex(row["secret"]),
                bool(row.get("clock_was_wrong", False)),
            )
            for row in rows
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    if not all(math.isfinite(key.made_s) and math.isfinite(key.honoured_until_s) for key in keys):
        return None
    rising = all(one.generation < other.generation for one, other in itertools.pairwise(keys))
    if not keys or not rising or any(len(key.secret) != KEY_BYTES for key in keys):
        return None
    return KeyRing(keys)
