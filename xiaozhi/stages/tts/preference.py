"""Which voice to try: in order of preference, leaving out for a while those that failed. Pure: time is passed in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from xiaozhi.upstream.breaker import Admission, Breaker, BreakerRules, BreakerState

# So many texts that an engine refuses one after the other have in common that it is this engine.
_REFUSED_TEXTS: Final = 3


@dataclass(slots=True)
class EngineState:
    """How an engine has done.

    Attributes:
        name: of the engine.
        last_error: why it failed last; empty when it never did.
        spoken, failed: sentences so far.
    """

    name: str
    last_error: str = ""
    spoken: int = 0
    failed: int = 0


class Preference:
    """A circuit breaker for each engine: one that fails rests, and then one sentence tries it for all.

    Args:
        names: the engines, best first.
        retry_after_s: how long one that failed is skipped.
        failures: so many in a row; another voice is at hand, so one is enough.
    """

    def __init__(self, names: Sequence[str], retry_after_s: float, failures: int = 1) -> None:
        if not names:
            raise ValueError("there must be an engine")
        self.retry_after_s, self.failures = retry_after_s, failures
        self.states = tuple(EngineState(name) for name in names)
        """Of every engine, best first."""
        rules = BreakerRules(failures=failures, open_s=retry_after_s)
        self.breakers = tuple(Breaker(rules) for _ in names)
        """Of every engine, best first."""
        self._refused: tuple[list[str], ...] = tuple([] for _ in names)  # texts in a row, each once

    def first(self, now: float) -> int:
        """The engine that a sentence would be tried with first."""
        for index, breaker in enumerate(self.breakers):
            if breaker.would_admit(now):
                return index
        return len(self.breakers) - 1

    def admit(self, index: int, now: float) -> Admission:
        """May a sentence try this engine? The last one always may, whatever it did. Report the outcome afterwards."""
        last = index == len(self.breakers) - 1
        admission = self.breakers[index].admit(now, urgent=last)
        # While another sentence is its probe, nobody else is left to ask.
        return Admission.ADMITTED if last and admission is Admission.REFUSED else admission

    def failed(self, index: int, admission: Admission, now: float, why: str, *, text: str = "") -> bool:
        """An engine failed. Returns whether that is news: it begins to rest.

        Args:
            index: of the engine.
            admission: what the sentence was let in with.
            now: the time.
            why: one line for people.
            text: the one that it refused, where that may lie in the text: only several of them in a row count.
        """
        state, breaker, refused = self.states[index], self.breakers[index], self._refused[index]
        state.failed += 1
        state.last_error = why
        if text:
            if text not in refused:
                refused.append(text)
            if len(refused) < _REFUSED_TEXTS:
                breaker.dropped(admission, now)
                return False
        refused.clear()
        opened = breaker.opened
        breaker.failed(admission, now)
        return breaker.opened > opened

    def unreachable(self, index: int, now: float, why: str) -> bool:
        """An engine could not be reached, outside any sentence. Returns whether that is news: it begins to rest."""
        state, breaker = self.states[index], self.breakers[index]
        state.failed += 1
        state.last_error = why
        opened = breaker.opened
        breaker.rest(now, self.retry_after_s)
        return breaker.opened > opened

    def spoke(self, index: int, admission: Admission, now: float) -> bool:
        """An engine spoke. Returns whether that is news: it had rested."""
        breaker = self.breakers[index]
        before = breaker.state(now)
        self._refused[index].clear()
        self.states[index].spoken += 1
        breaker.succeeded(admission, now)
        return before is not BreakerState.CLOSED and breaker.state(now) is BreakerState.CLOSED

    def dropped(self, index: int, admission: Admission, now: float) -> None:
        """Nobody waited for the engine's first sound."""
        self.breakers[index].dropped(admission, now)
