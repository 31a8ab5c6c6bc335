"""The search for the largest number that still holds: doubling, then halving the gap. Pure."""


class Search:
    """Ask `next()`, try it, `tell` how it went; `next()` is None when the answer is known.

    Args:
        first: the number to begin with.
        most: never try more.
        step: a gap that is no larger is not halved again; a twentieth of the last good number is taken where larger.
    """

    def __init__(self, first: int, most: int = 2000, step: int = 2) -> None:
        if not 1 <= first <= most or step < 1:
            raise ValueError("first must lie between 1 and most, step be at least 1")
        self.last_good = 0
        self.first_bad: int | None = None
        self._first = first
        self._most = most
        self._step = step

    def next(self) -> int | None:
        """What to try next."""
        if self.first_bad is None:
            if self.last_good >= self._most:
                return None
            return min(self._most, self.last_good * 2) if self.last_good else self._first
        gap = self.first_bad - self.last_good
        if gap <= 1 or (self.last_good and gap <= max(self._step, self.last_good // 20)):
            return None
        return self.last_good + gap // 2

    def tell(self, number: int, good: bool) -> None:
        """How it went with `number`. A good number above a bad one is chance: the bad one stands."""
        if good:
            if self.first_bad is None or number < self.first_bad:
                self.last_good = max(self.last_good, number)
        elif self.first_bad is None or number < self.first_bad:
            self.first_bad = number
            self.last_good = min(self.last_good, number - 1)
