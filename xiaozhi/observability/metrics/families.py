"""Metric families in one line each."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# The value of the one label, or the values of all labels in their order.
Names = TypeVar("Names", bound=str | tuple[str, ...])


class Figures(Collector):
    """Reads something at each scrape; nothing is said ahead of what there will be."""

    def describe(self) -> list[Metric]:
        """Nothing: the names depend on the settings of the moment, and reading them needs the running loop."""
        return []


def gauge(name: str, text: str, value: float) -> Metric:
    """A value that goes up and down."""
    return GaugeMetricFamily(name, text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    """A value that only goes up; `_total` is added to the name."""
    return CounterMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], values: Mapping[Names, float]) -> Metric:
    """Gauges of one name."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def counters(name: str, text: str, labels: Sequence[str], values: Mapping[Names, float]) -> Metric:
    """Counters of one name."""
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Names, float]) -> Metric:
    for names, value in values.items():
        family.add_metric([names] if isinstance(names, str) else list(names), value)
    return family
