"""How long work waits for one of several workers: M/G/c by Erlang C and the Allen-Cunneen approximation. Pure.

Erlang C is exact for exponential service times. Allen and Cunneen (A. O. Allen, Probability, Statistics and Queueing
Theory, 1990) scale its mean wait by (ca² + cs²) / 2, where ca and cs are the coefficients of variation of the times
between arrivals and of the service times; Kingman's formula is the same for one worker. Checked against simulation in
`bench/plan_simulation.py`.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue in front of equal workers.

    Attributes:
        arrivals_per_s: Poisson arrivals.
        service_s: mean service time.
        service_cv: coefficient of variation of the service time, 0 for always the same.
        workers: how many.
    """

    arrivals_per_s: float
    service_s: float
    service_cv: float
    workers: int

    def __post_init__(self) -> None:
        if self.arrivals_per_s < 0 or self.service_s < 0 or self.service_cv < 0 or self.workers < 1:
            raise ValueError("a queue needs rates that are not negative, and at least one worker")

    @property
    def offered(self) -> float:
        """Workers that are busy on average, in Erlang."""
        return self.arrivals_per_s * self.service_s

    @property
    def utilisation(self) -> float:
        """Share of the workers' time that is taken; 1 and above: the queue grows for ever."""
        return self.offered / self.workers

    def waiting_share(self) -> float:
        """Share of arrivals that have to wait at all (Erlang C); 1 when overloaded."""
        if self.utilisation >= 1:
            return 1.0
        if self.offered == 0:
            return 0.0
        blocked = 1.0  # Erlang B by its recursion, which does not overflow
        for number in range(1, self.workers + 1):
            blocked = self.offered * blocked / (number + self.offered * blocked)
        return blocked / (1.0 - self.utilisation * (1.0 - blocked))

    def mean_wait_s(self) -> float:
        """Mean time before a worker begins, in seconds; infinite when overloaded."""
        if self.utilisation >= 1:
            return math.inf
        exponential_s = self.waiting_share() * self.service_s / (self.workers * (1.0 - self.utilisation))
        return exponential_s * (1.0 + self.service_cv**2) / 2.0

    def wait_quantile_s(self, share: float) -> float:
        """The time within which a worker has begun for `share` (0 to 1) of arrivals, in seconds.

        Those that wait are taken to wait for an exponential time, which is exact for exponential service.
        """
        if not 0 <= share < 1:
            raise ValueError("a share lies between 0 and 1")
        if self.utilisation >= 1:
            return math.inf
        waiting = self.waiting_share()
        if waiting <= 1.0 - share:
            return 0.0
        return self.mean_wait_s() / waiting * math.log(waiting / (1.0 - share))
