"""Signing in: the password, how often it may be tried, and who has."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from xiaozhi.console.attempts import Attempts
from xiaozhi.console.password import (
    PasswordError,
    PasswordHash,
    first_password,
    forget_first_password,
    hash_of,
    keep_first_password,
    read_hash,
    write_hash,
)
from xiaozhi.console.sessions import Session, Sessions
from xiaozhi.program import program

_log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 5.0


class TryLater(Exception):
    """Too many tries.

    Attributes:
        wait_s: when the next one is looked at.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many tries; wait {wait_s:.0f} s")
        self.wait_s = wait_s


class ConsoleAccess:
    """Decides who is signed in. Made by `open`.

    Args:
        path: the file of the password's hash.
        session_s: how long a sign-in holds.
        idle_s: how long without use.
    """

    def __init__(self, path: Path, session_s: float, idle_s: float) -> None:
        self._path = path
        self._known: PasswordHash | None = None
        self._looked_s = 0.0
        self._checking = asyncio.Lock()  # a check takes 32 MB and 0.2 s of a core: one at a time
        self.sessions = Sessions(session_s, idle_s)
        self.attempts = Attempts()
        self.first_password = ""
        """The password that was made just now, to be shown once."""
        self.failures = 0
        """Wrong passwords since the start."""

    @classmethod
    async def open(cls, path: Path, session_s: float, idle_s: float) -> "ConsoleAccess":
        """Read the password's hash, or make a password where there is none.

        Raises:
            PasswordError: the file cannot be used.
        """
        access = cls(path, session_s, idle_s)
        access.first_password = await asyncio.to_thread(first_password, path)
        access._known = await asyncio.to_thread(read_hash, path)
        return access

    async def sign_in(self, password: str, address: str) -> tuple[str, Session] | None:
        """A session and its token for the right password; None for a wrong one.

        Raises:
            TryLater: too many tries; nothing was looked at.
            PasswordError: the file cannot be used.
        """
        if not await self._is_right(password, address):
            return None
        await asyncio.to_thread(forget_first_password, self._path)
        _log.info("signed in to the console, from %s", address)
        return self.sessions.open(time.monotonic())

    async def change(self, old: str, new: str, address: str, session: Session) -> bool:
        """Set another password and sign out all other sessions; False where `old` is wrong.

        Raises:
            TryLater: too many tries.
            PasswordError: the new one cannot be taken, or the file cannot be written.
        """
        if not await self._is_right(old, address):
            return False
        self._known = await asyncio.to_thread(self._write, new)
        self.sessions.close_all(but=session)
        _log.info("the console has another password, set from %s", address)
        return True

    async def keep_first_password(self) -> Path | None:
        """Write the password that was made just now to a file, for an owner without a terminal; None for an older one.

        Raises:
            PasswordError: it cannot be written.
        """
        if not self.first_password:
            return None
        return await asyncio.to_thread(keep_first_password, self._path, self.first_password)

    async def refresh(self) -> None:
        """Now and then: sign everybody out where the command line has set another password, and forget what is over."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self.sessions.sweep(now_s)
        try:
            self._take(await asyncio.to_thread(read_hash, self._path))
        except PasswordError as error:
            _log.debug("%s", error)  # said to whoever tries to sign in

    async def _is_right(self, password: str, address: str) -> bool:
        wait_s = self.attempts.wait_s(address, time.monotonic())
        if wait_s > 0.0:
            raise TryLater(wait_s)
        async with self._checking:
            kept = await asyncio.to_thread(read_hash, self._path)
            if kept is None:
                raise PasswordError(f"there is no password; make one with: {program()} console password --reset")
            self._take(kept)
            right = await asyncio.to_thread(kept.fits, password)
        if right:
            self.attempts.succeeded(address)
        else:
            self.failures += 1
            _log.warning("wrong password for the console, from %s", address)
        return right

    def _take(self, kept: PasswordHash | None) -> None:
        if kept is not None and kept != self._known:
            if self._known is not None:
                self.sessions.close_all()
            self._known = kept

    def _write(self, password: str) -> PasswordHash:
        kept = hash_of(password)
        write_hash(self._path, kept)
        return kept
