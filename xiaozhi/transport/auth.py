"""Tokens: handed out by OTA, checked at the upgrade, signed with keys that rotate."""

import asyncio
import hashlib
import hmac
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xiaozhi.settings import AuthSettings
from xiaozhi.transport.identity import Identity
from xiaozhi.transport.limits import OncePer
from xiaozhi.transport.token_keys import KeyRing, TokenKey, keys_file, load_keys, rotate_keys

_log = logging.getLogger(__name__)

_DAY_S: Final = 86_400.0
_REFUSED_EVERY_S: Final = 60.0


class Gatekeeper:
    """Makes and checks tokens.

    A token is `generation.expiry.signature`; the signature covers device, client and expiry, so a token of one device
    does not open the door for another.

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
        self.issued = 0
        """Tokens handed out."""
        self.refused = 0
        """Connections without a valid token."""

    def token_for(self, identity: Identity) -> str:
        """A fresh token for a device; without blanks, which the firmware would send as they are."""
        expires_s = int(self._now_s() + self._settings.token_ttl_days * _DAY_S)
        self.issued += 1
        key = self.ring.newest
        return f"{key.generation}.{expires_s}.{_signature(key, identity, expires_s)}"

    def admits(self, identity: Identity) -> bool:
        """Whether this client may connect. Comparisons take the same time for every wrong token."""
        return self._settings.mode == "open" or self.is_configured(identity) or self._is_signed(identity)

    def is_configured(self, identity: Identity) -> bool:
        """Whether the client shows one of `auth.tokens`, which its owner has typed into it."""
        token = identity.token.encode()
        matches = [hmac.compare_digest(token, fixed) for fixed in self._fixed]  # all of them, whichever fits
        return any(matches)

    def note_refusal(self, identity: Identity, why: str, address: str) -> None:
        """Count a refusal and log it, once a minute for one device."""
        self.refused += 1
        if self._said.allows(identity.device_id, self._now_s()):
            _log.warning("refused, from %s: %s", address, why, extra={"device": identity.device_id})

    def _is_signed(self, identity: Identity) -> bool:
        parts = identity.token.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) <= 12 for part in parts[:2]):
            return False
        generation, expires_s = int(parts[0]), int(parts[1])
        now_s = self._now_s()
        key = self.ring.find(generation, now_s)
        expected = _signature(key or self.ring.newest, identity, expires_s)
        right = hmac.compare_digest(parts[2].encode(), expected.encode())
        return right and key is not None and expires_s >= now_s


def _signature(key: TokenKey, identity: Identity, expires_s: int) -> str:
    # The parts hold no "|": an identity's words are letters, digits and `_:.@-`.
    words = f"{key.generation}|{identity.device_id}|{identity.client_id}|{expires_s}"
    digest = hmac.new(key.secret, words.encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


class KeyKeeper:
    """Keeps a gatekeeper's keys fresh: makes a new generation when it is due, takes up one made by the command line.

    Args:
        gatekeeper: whose keys.
        settings: the `[auth]` table.
        data_dir: where the keys lie.
        now_s: wall time in seconds.
    """

    def __init__(
        self, gatekeeper: Gatekeeper, settings: AuthSettings, data_dir: Path, now_s: Callable[[], float] = time.time
    ) -> None:
        self._gatekeeper = gatekeeper
        self._settings = settings
        self._data_dir = data_dir
        self._now_s = now_s
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
        due_s = self._gatekeeper.ring.newest.made_s + self._settings.rotate_days * _DAY_S
        if self._settings.rotate_days and now_s >= due_s:
            ttl_s = self._settings.token_ttl_days * _DAY_S
            self._gatekeeper.ring = rotate_keys(self._data_dir, now_s, ttl_s)
            self._stamp = self._read_stamp()
            self.rotations += 1
            _log.info("device tokens are signed with a new key; older tokens hold until they expire")

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            status = keys_file(self._data_dir).stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino
