"""Which voice to try: in order of preference, leaving out for a while those that failed. Pure: time is passed in."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class EngineState:
    """How an engine has done.

    Attributes:
        name: of the engine.
        skipped_until: time until which it is passed over, in seconds of the caller's clock; 0 when it is not.
        last_error: why it failed last; empty when it never did.
        spoken, failed: sentences so far.
    """

    name: str
    skipped_until: float = 0.0
    last_error: str = ""
    spoken: int = 0
    failed: int = 0


class Preference:
    """Remembers failures.

    Args:
        names: the engines, best first.
        retry_after_s: how long one that failed is skipped.
    """

    def __init__(self, names: Sequence[str], retry_after_s: float) -> None:
        if not names:
            raise ValueError("there must be an engine")
        self._retry_after_s = retry_after_s
        self.states = tuple(EngineState(name) for name in names)
        """Of every engine, best first."""

    def candidates(self, now: float) -> list[int]:
        """The engines to try for a sentence, best first; the last one is always among them, whatever it did."""
        last = len(self.states) - 1
        return [index for index, state in enumerate(self.states) if index == last or now >= state.skipped_until]

    def failed(self, index: int, now: float, why: str) -> bool:
        """An engine failed at `now`. Returns whether that is news: it was not being skipped yet."""
        state = self.states[index]
        news = now >= state.skipped_until
        state.failed += 1
        state.last_error = why
        state.skipped_until = now + self._retry_after_s
        return news

    def spoke(self, index: int) -> bool:
        """An engine spoke. Returns whether that is news: it had failed before."""
        state = self.states[index]
        news = state.skipped_until > 0.0
        state.spoken += 1
        state.skipped_until = 0.0
        return news
