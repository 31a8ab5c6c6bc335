"""Who is signed in: sessions in memory, gone with the process. Pure: time is passed in."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

_TOKEN_BYTES: Final = 32
# A household has a few browsers; whoever has not been used for longest goes first.
_MAX: Final = 64
_LONGEST_TOKEN: Final = 128


@dataclass(slots=True)
class Session:
    """One browser that is signed in.

    Attributes:
        name: for logs and ids of this session; tells nothing about its token.
        csrf: what every request that changes something has to repeat.
        began_s, used_s: monotonic times.
    """

    name: str
    csrf: str = field(repr=False)
    began_s: float
    used_s: float


class Sessions:
    """All sessions of a server.

    Args:
        max_s: how long one holds at most, in seconds.
        idle_s: it ends earlier when it is not used for so long.
    """

    def __init__(self, max_s: float, idle_s: float) -> None:
        self._max_s = max_s
        self._idle_s = idle_s
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self.opened = 0
        """Sign-ins since the start."""

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, now_s: float) -> tuple[str, Session]:
        """A new session and the token its browser keeps; of the token only a digest is kept here."""
        self.sweep(now_s)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        session = Session(secrets.token_hex(4), secrets.token_urlsafe(_TOKEN_BYTES), now_s, now_s)
        self._sessions[_digest(token)] = session
        while len(self._sessions) > _MAX:
            self._sessions.popitem(last=False)
        self.opened += 1
        return token, session

    def find(self, token: str, now_s: float) -> Session | None:
        """The session of a token, which counts as used; None where there is none, or none any more."""
        if not token or len(token) > _LONGEST_TOKEN:
            return None
        key = _digest(token)
        session = self._sessions.get(key)
        if session is None:
            return None
        if self._is_over(session, now_s):
            del self._sessions[key]
            return None
        session.used_s = now_s
        self._sessions.move_to_end(key)
        return session

    def holds(self, session: Session, now_s: float) -> bool:
        """Whether a session found earlier still holds; asking does not count as use."""
        return any(one is session for one in self._sessions.values()) and not self._is_over(session, now_s)

    def close(self, token: str) -> None:
        """Sign out."""
        self._sessions.pop(_digest(token[:_LONGEST_TOKEN]), None)

    def close_all(self, but: Session | None = None) -> None:
        """Sign everybody out, for when the password has changed."""
        for key in [key for key, session in self._sessions.items() if session is not but]:
            del self._sessions[key]

    def sweep(self, now_s: float) -> None:
        """Forget those that are over."""
        for key in [key for key, session in self._sessions.items() if self._is_over(session, now_s)]:
            del self._sessions[key]

    def _is_over(self, session: Session, now_s: float) -> bool:
        return now_s - session.began_s > self._max_s or now_s - session.used_s > self._idle_s


def csrf_fits(session: Session, shown: str) -> bool:
    """Whether a request repeats what only pages of this session know."""
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), session.csrf.encode())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
