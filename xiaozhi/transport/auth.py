"""Who may connect: tokens handed out by OTA, checked at the upgrade."""

import base64
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xiaozhi.settings import AuthSettings
from xiaozhi.transport.identity import Identity

_log = logging.getLogger(__name__)

_SECRET_BYTES: Final = 32
_SECRET_FILE: Final = "token-secret"


def load_secret(data_dir: Path) -> bytes:
    """The key that signs tokens: made on the first start, kept where only this user can read it.

    Raises:
        OSError: the folder cannot be written or the file cannot be read.
    """
    path = data_dir / _SECRET_FILE
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = path.read_bytes()
        if len(secret) == _SECRET_BYTES:
            return secret
        _log.warning("%s is damaged; a new one is made and devices will ask for new tokens", path)
        path.unlink()
        return load_secret(data_dir)
    with os.fdopen(descriptor, "wb") as file:
        secret = secrets.token_bytes(_SECRET_BYTES)
        file.write(secret)
    return secret


class Gatekeeper:
    """Makes and checks tokens.

    A token is `expiry.signature`; the signature covers device, client and expiry, so a token of one device does not
    open the door for another.

    Args:
        settings: the `[auth]` table.
        secret: from `load_secret`.
        now_s: wall time in seconds.
    """

    def __init__(self, settings: AuthSettings, secret: bytes, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._secret = secret
        self._now_s = now_s

    def token_for(self, identity: Identity) -> str:
        """A fresh token for a device; without blanks, which the firmware would send as they are."""
        expires_s = int(self._now_s() + self._settings.token_ttl_days * 86_400)
        return f"{expires_s}.{self._sign(identity, expires_s)}"

    def admits(self, identity: Identity) -> bool:
        """Whether this client may connect. Comparisons take the same time for every wrong token."""
        if self._settings.mode == "open":
            return True
        token = identity.token.encode()
        if any(hmac.compare_digest(token, fixed.get_secret_value().encode()) for fixed in self._settings.tokens):
            return True
        expiry, _, signature = identity.token.partition(".")
        if not expiry.isdecimal() or not expiry.isascii() or len(expiry) > 12:
            return False
        expected = self._sign(identity, int(expiry))
        return hmac.compare_digest(signature.encode(), expected.encode()) and int(expiry) >= self._now_s()

    def _sign(self, identity: Identity, expires_s: int) -> str:
        words = f"{identity.device_id}|{identity.client_id}|{expires_s}"
        digest = hmac.new(self._secret, words.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
