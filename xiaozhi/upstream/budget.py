"""How many extra requests may be made. Pure."""


class HedgeBudget:
    """Every request earns a share of an extra one; unspent ones are kept up to a few.

    Args:
        share: extra requests for each ordinary one, 0 to 1.
        kept: how many extra requests can be saved up for a bad moment.
    """

    def __init__(self, share: float = 0.05, kept: float = 5.0) -> None:
        if not 0 <= share <= 1 or kept < 0:
            raise ValueError("share must be 0 to 1 and kept not negative")
        self._share = share
        self._kept = kept
        self._left = 0.0
        self.refused = 0
        """Extra requests that were wanted and not made."""

    def earn(self) -> None:
        """An ordinary request is made."""
        self._left = min(self._kept, self._left + self._share)

    def spend(self, *, keep: float = 0.0) -> bool:
        """Whether an extra request may be made now, with `keep` left for others; if so, it is counted."""
        if self._left < 1.0 + keep - 1e-9:  # twenty twentieths add up to a little less than one
            self.refused += not keep
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """An extra request that was allowed is not made after all."""
        self._left = min(self._kept, self._left + 1.0)
