"""Tokens: handed out by OTA, checked at the upgrade, signed with keys that rotate."""

import asyncio
import hashlib
import hmac
import logging
import sys
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xiaozhi.access.identity import Identity
from xiaozhi.access.rate_limits import OncePer
from xiaozhi.access.token_keys import KeyRing, TokenKey, is_plausible, keys_file, load_keys, rotate_keys, write_ring
from xiaozhi.settings import AuthSettings

_log = logging.getLogger(__name__)

_DAY_S: Final = 86_400.0
_REFUSED_EVERY_S: Final = 60.0
_DIGEST_BYTES: Final = 32
_TAG_BYTES: Final = 8
# What is less is no matter to tokens that hold for days, and more than the network's time ever corrects a clock by that
# was right. Tokens that hold for less than ten times as long mind less.
_STEP_S: Final = 3600.0


class TokenAuth:
    """Makes and checks tokens.

    A token is `generation.expiry.proof`. The proof ends with a signature over device, client and expiry, so a token of
    one device does not open the door for another; before it stand two tags, which only tell afterwards whose it is.
    Tokens made before there were tags hold as well.

    Args:
        settings: the `[auth]` table.
        ring: from `load_keys`.
        now_s: wall time in seconds.
    """

    def __init__(self, settings: AuthSettings, ring: KeyRing, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self.ring = ring
        """The keys; may be replaced while serving."""
        self._now_s = now_s
        self._fixed = tuple(token.get_secret_value().encode() for token in settings.tokens)
        self._said = OncePer(_REFUSED_EVERY_S)
        self.seen_wrong_time = False
        """A token was shown that holds longer than any that is given now, or ended in 1970."""
        self.issued = 0
        """Tokens handed out."""
        self.refused = 0
        """Connections without a valid token."""

    def token_for(self, identity: Identity) -> str:
        """A fresh token for a device; without blanks, which the firmware would send as they are."""
        expires_s = int(self._now_s() + self._settings.token_ttl_days * _DAY_S)
        self.issued += 1
        key = self.ring.newest
        proof = b"".join((*_tags(key, identity), _signature(key, identity, expires_s)))
        return f"{key.generation}.{expires_s}.{_base64(proof)}"

    def admits(self, identity: Identity) -> bool:
        """Whether this client may connect. Comparisons take the same time for every wrong token."""
        return not self.refusal(identity)

    def refusal(self, identity: Identity) -> str:
        """Why this client may not connect, for the log; empty when it may."""
        if self._settings.mode == "open" or self.is_configured(identity):
            return ""
        return self._refusal_of_signed(identity)

    def is_configured(self, identity: Identity) -> bool:
        """Whether the client shows one of `auth.tokens`, which its owner has typed into it."""
        token = identity.token.encode()
        matches = [hmac.compare_digest(token, fixed) for fixed in self._fixed]  # all of them, whichever fits
        return any(matches)

    def note_refusal(self, identity: Identity, why: str, address: str) -> None:
        """Count a refusal and log it, once a minute for one device and reason."""
        self.refused += 1
        if self._said.allows(f"{identity.device_id} {why}", self._now_s()):
            _log.warning("refused, from %s: %s", address, why, extra={"device": identity.device_id})

    def _refusal_of_signed(self, identity: Identity) -> str:
        if not identity.token:
            return "no token"
        parts = identity.token.split(".")
        numbers = len(parts) == 3 and all(part.isascii() and part.isdecimal() and len(part) <= 12 for part in parts[:2])
        proof = _proof(parts[2]) if numbers else b""
        if not proof:
            return "not a token of this server"
        expires_s, now_s = int(parts[1]), self._now_s()
        key = self.ring.find(int(parts[0]), now_s)
        right = hmac.compare_digest(proof[-_DIGEST_BYTES:], _signature(key or self.ring.newest, identity, expires_s))
        if key is None:
            return "the token is signed with a key that is not, or no longer, this server's"
        if right:
            latest_s = now_s + (self._settings.token_ttl_days + 1.0) * _DAY_S
            if key is self.ring.newest and not key.clock_was_wrong:
                self.seen_wrong_time |= not is_plausible(expires_s) or expires_s > latest_s
            return "the token has expired" if key.is_over(expires_s, now_s) else ""
        device_tag, client_tag = _tags(key, identity)
        tags = proof[:-_DIGEST_BYTES]
        if not tags:
            return "the token belongs to another device or was altered"
        if tags[:_TAG_BYTES] != device_tag:
            return "the token belongs to another Device-Id"
        return "the token belongs to another Client-Id" if tags[_TAG_BYTES:] != client_tag else "the token was altered"


def _signature(key: TokenKey, identity: Identity, expires_s: int) -> bytes:
    # The parts hold no "|": an identity's words are letters, digits and `_:.@-`.
    words = f"{key.generation}|{identity.device_id}|{identity.client_id}|{expires_s}"
    return hmac.new(key.secret, words.encode(), hashlib.sha256).digest()


def _tags(key: TokenKey, identity: Identity) -> tuple[bytes, bytes]:
    """What a device and a client are told apart by; nobody without the key learns anything from it."""
    names = (f"device|{identity.device_id}", f"client|{identity.client_id}")
    device, client = (hmac.new(key.secret, name.encode(), hashlib.sha256).digest()[:_TAG_BYTES] for name in names)
    return device, client


def _proof(text: str) -> bytes:
    """The third part of a token; empty where it cannot be one."""
    try:
        proof = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    whole = len(proof) in (_DIGEST_BYTES, 2 * _TAG_BYTES + _DIGEST_BYTES)
    return proof if whole and _base64(proof) == text else b""


def _base64(proof: bytes) -> str:
    return urlsafe_b64encode(proof).rstrip(b"=").decode()


def steady_s() -> float:
    """Seconds since the machine was started; where the system can tell, also those that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class KeyKeeper:
    """Keeps a token_auth's keys fresh: makes a new generation when it is due, takes up one made by the command line.

    Args:
        token_auth: whose keys.
        settings: the `[auth]` table.
        data_dir: where the keys lie.
        now_s: wall time in seconds.
        steady_s: seconds that go on evenly, whatever is done to the clock.
    """

    def __init__(
        self,
        token_auth: TokenAuth,
        settings: AuthSettings,
        data_dir: Path,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = steady_s,
    ) -> None:
        self._gatekeeper = token_auth
        self._rotate_s = settings.rotate_days * _DAY_S
        self._ttl_s = settings.token_ttl_days * _DAY_S
        self._data_dir = data_dir
        self._now_s = now_s
        self._steady_s = steady_s
        self._apart_s = now_s() - steady_s()
        self._stamp: tuple[int, int] | None = None
        self.rotations = 0
        """Generations made because they were due."""

    async def refresh(self) -> None:
        """Look whether there is something to do; for about every 10 s. A file that cannot be read is only logged."""
        try:
            await asyncio.to_thread(self._refresh)
        except OSError as error:
            _log.warning("token keys in %s cannot be refreshed: %s", self._data_dir, error.strerror)

    def _refresh(self) -> None:
        now_s = self._now_s()
        stamp = self._read_stamp()
        if stamp is None or stamp != self._stamp:
            self._gatekeeper.ring = load_keys(self._data_dir, now_s)
            self._stamp = self._read_stamp()
        self._mind_the_clock(now_s)
        ring = self._gatekeeper.ring
        signs_s = ring.signs_for_s(self._rotate_s, self._ttl_s)
        if signs_s and is_plausible(now_s) and now_s >= ring.newest.made_s + signs_s:
            self._gatekeeper.ring = rotate_keys(self._data_dir, now_s, self._ttl_s)
            self._stamp = self._read_stamp()
            self.rotations += 1
            _log.info("device tokens are signed with a new key; older tokens hold until they expire")

    def _mind_the_clock(self, now_s: float) -> None:
        """Machines without a battery start in 1970, or years ahead, until the network tells them the time."""
        step_s = now_s - self._steady_s() - self._apart_s
        self._apart_s += step_s
        token_auth = self._gatekeeper
        stepped = abs(step_s) > min(_STEP_S, self._ttl_s / 10.0)
        if not is_plausible(now_s) or (token_auth.ring.newest.clock_was_wrong and not stepped):
            return
        if stepped or token_auth.seen_wrong_time or token_auth.ring.tells_of_wrong_clock(now_s):
            token_auth.seen_wrong_time = False
            token_auth.ring = token_auth.ring.set_right(now_s, self._ttl_s, step_s)
            write_ring(keys_file(self._data_dir), token_auth.ring)
            self._stamp = self._read_stamp()
            _log.warning("the clock was wrong; device tokens given meanwhile hold for %.0f days", self._ttl_s / _DAY_S)

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            status = keys_file(self._data_dir).stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino
