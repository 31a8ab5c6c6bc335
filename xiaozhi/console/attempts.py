"""How often a password may be tried: by one address, and by all together. Pure: time is passed in."""

from collections import OrderedDict, deque
from typing import Final

from xiaozhi.access.visitors import group_of

# Somebody who mistypes has these at once; then the wait doubles, from 2 s to 5 minutes.
_FREE_TRIES: Final = 4
_FIRST_WAIT_S: Final = 2.0
_LONGEST_WAIT_S: Final = 300.0
_FORGET_AFTER_S: Final = 900.0
_MAX_ADDRESSES: Final = 4096
# Over all addresses: a thousand machines get no further than this, and a guess costs 0.2 s of a core.
_MAX_A_MINUTE: Final = 30
_WINDOW_S: Final = 60.0


class Attempts:
    """Tries at the password. Every try counts when it begins; a right one is taken back."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the last one was
        self._all: deque[float] = deque()
        self.refused = 0
        """Tries that were not even looked at."""

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._wrong)

    def wait_s(self, address: str, now_s: float) -> float:
        """Begin a try: 0 if it may be made, else in how many seconds to come again."""
        while self._all and now_s - self._all[0] >= _WINDOW_S:
            self._all.popleft()
        wait_s = max(self._address_wait_s(address, now_s), self._global_wait_s(now_s))
        if wait_s > 0.0:
            self.refused += 1
            return wait_s
        name = group_of(address)
        wrong, _ = self._wrong.pop(name, (0, now_s))
        self._wrong[name] = (wrong + 1, now_s)
        while len(self._wrong) > _MAX_ADDRESSES:
            self._wrong.popitem(last=False)
        self._all.append(now_s)
        return 0.0

    def succeeded(self, address: str) -> None:
        """The try was right: this address begins anew."""
        self._wrong.pop(group_of(address), None)
        if self._all:
            self._all.pop()

    def _address_wait_s(self, address: str, now_s: float) -> float:
        wrong, at_s = self._wrong.get(group_of(address), (0, 0.0))
        if wrong < _FREE_TRIES or now_s - at_s > _FORGET_AFTER_S:
            if wrong and now_s - at_s > _FORGET_AFTER_S:
                del self._wrong[group_of(address)]
            return 0.0
        pause_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(20, wrong - _FREE_TRIES))
        return max(0.0, at_s + pause_s - now_s)

    def _global_wait_s(self, now_s: float) -> float:
        return self._all[0] + _WINDOW_S - now_s if len(self._all) >= _MAX_A_MINUTE else 0.0
