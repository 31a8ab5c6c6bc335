"""Which of several upstreams gets the next request. Pure: state and randomness are passed in."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

# One that takes more than twice as long as the quickest, or as itself when well, and noticeably so, is slow.
_SLOW_FACTOR: Final = 2.0
_SLOW_BY_S: Final = 0.15
# So many requests go to those that are worse than the best, to notice when they are well again.
EXPLORED_SHARE: Final = 0.03
# For dividing by a time that was too short to measure.
_MIN_S: Final = 0.001


class UpstreamStanding(IntEnum):
    """How good an upstream is; a lower one is preferred."""

    WELL = 0
    BREAKING = 1
    """It starts quickly and often breaks off; another can go on where it ended."""
    UNPROVEN = 2
    """It failed, and nobody knows yet whether it is back."""
    SLOW = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """One upstream that may be asked now.

    Attributes:
        weight: its share as the settings want it, above 0.
        first_byte_s: how long it takes to its first byte, in seconds; None when that is not known now.
        free_share: the share of its slots that are free, above 0 to 1.
        breaking: it has often broken off lately.
        usual_s: how long it takes to its first byte when it is well; None when that is not known.
        unproven: its breaker is not closed.
    """

    weight: float
    first_byte_s: float | None = None
    free_share: float = 1.0
    breaking: bool = False
    usual_s: float | None = None
    unproven: bool = False


def choose(candidates: Sequence[Candidate], rng: random.Random, *, explore: bool = True) -> int:
    """The index of one, by weight x 1/first-byte time x free slots among the best.

    One that is not known yet counts as quick as the quickest. Those that are slow or break off get few requests as
    long as others are there, and none unless `explore`.

    Raises:
        ValueError: there is none.
    """
    ranks = standings(candidates)
    best = min(ranks)
    rest = [index for index, one in enumerate(ranks) if one is not best]
    if explore and rest and rng.random() < EXPLORED_SHARE:
        indexes = rest
    else:
        indexes = [index for index, one in enumerate(ranks) if one is best]
    best_s = _best_s(candidates)
    return rng.choices(indexes, [_score(candidates[index], best_s) for index in indexes])[0]


def standings(candidates: Sequence[Candidate]) -> list[UpstreamStanding]:
    """How good each of several is.

    Raises:
        ValueError: there is none.
    """
    if not candidates:
        raise ValueError("there must be a candidate")
    best_s = _best_s(candidates)
    return [standing(one, best_s) for one in candidates]


def standing(candidate: Candidate, best_s: float) -> UpstreamStanding:
    """How good one is where the quickest takes `best_s` seconds."""
    if candidate.unproven:
        return UpstreamStanding.UNPROVEN
    took_s = candidate.first_byte_s
    if took_s is not None:
        usual_s = candidate.usual_s
        limit_s = best_s if usual_s is None else min(best_s, max(_MIN_S, usual_s))
        if took_s > _SLOW_FACTOR * limit_s and took_s > limit_s + _SLOW_BY_S:
            return UpstreamStanding.SLOW
    return UpstreamStanding.BREAKING if candidate.breaking else UpstreamStanding.WELL


def _best_s(candidates: Sequence[Candidate]) -> float:
    known = [one.first_byte_s for one in candidates if one.first_byte_s is not None]
    return max(_MIN_S, min(known, default=_MIN_S))


def _score(candidate: Candidate, best_s: float) -> float:
    took_s = max(_MIN_S, best_s if candidate.first_byte_s is None else candidate.first_byte_s)
    return max(1e-9, candidate.weight * best_s / took_s * candidate.free_share)
