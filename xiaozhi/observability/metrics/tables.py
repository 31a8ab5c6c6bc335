"""Metrics as tables: what each is called, what it says and where it is read. Read at each scrape, and never between."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from xiaozhi.access.access_control import AccessControl
from xiaozhi.cluster.node import ClusterNode
from xiaozhi.console.routes import Console
from xiaozhi.conversation.services import Services
from xiaozhi.http.services import HttpServices
from xiaozhi.observability.health.alerts import Alerts
from xiaozhi.reload.reloader import Reloader
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.transport.mqtt_listener import MqttListener
from xiaozhi.transport.udp import UdpEndpoint

Subject = TypeVar("Subject")
Reading: TypeAlias = float | Mapping[Any, float] | None
"""One value; several by the values of the row's labels (one `str`, or a tuple of them); None where there is none."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a process can be asked about.

    Attributes:
        services, devices, access, alerts, reloader: of the process.
        http: what is offered beside conversations.
        console: the pages for owners; None where they are switched off.
        node: this node of a cluster; None as long as it has not joined one.
        mqtt, udp: where devices connect by MQTT and where their sound goes; None where that is switched off.
    """

    services: Services
    devices: ConnectedDevices
    access: AccessControl
    http: HttpServices
    alerts: Alerts
    reloader: Reloader
    console: Console | None = None
    node: Callable[[], ClusterNode | None] = lambda: None
    mqtt: MqttListener | None = None
    udp: UdpEndpoint | None = None


@dataclass(frozen=True, slots=True)
class Row(Generic[Subject]):
    """One metric.

    Attributes:
        family: counter (only goes up, `_total` is added to its name) or gauge.
        name, text: as Prometheus shows them.
        read: from the table's subject.
        labels: of what is read, in their order.
    """

    family: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    text: str
    read: Callable[[Subject], Reading]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table(Generic[Subject]):
    """The metrics of one subject, or of several of a kind.

    Attributes:
        subjects: by the value of `label`; one is enough where there is no label, and none shows nothing.
        rows: the metrics.
        label: tells several subjects apart. Its values come from the settings, so that there are few.
    """

    subjects: Callable[[Sources], Mapping[str, Subject]]
    rows: Sequence[Row[Subject]]
    label: str = ""

    def read(self, sources: Sources) -> Iterator[Metric]:
        """Every metric that has a value now."""
        subjects = self.subjects(sources)
        own = (self.label,) if self.label else ()
        for row in self.rows if subjects else ():
            family = row.family(row.name, row.text, labels=(*own, *row.labels))
            for name, subject in subjects.items():
                value = row.read(subject)
                values: Mapping[Any, float | None] = value if isinstance(value, Mapping) else {(): value}
                for key, one in values.items():
                    if one is not None:
                        family.add_metric([*((name,) if own else ()), *((key,) if isinstance(key, str) else key)], one)
            yield family


COUNTER: Final = CounterMetricFamily
GAUGE: Final = GaugeMetricFamily


def sole(subject: Subject | None) -> Mapping[str, Subject]:
    """The only subject of a table; none where its part is switched off."""
    return {} if subject is None else {"": subject}


class Figures(Collector):
    """Reads tables at each scrape.

    Args:
        tables: what is read.
        sources: from where.
    """

    def __init__(self, tables: Sequence[Table[Any]], sources: Sources) -> None:
        self._tables = tables
        self._sources = sources

    def describe(self) -> list[Metric]:
        """Nothing: the names depend on the settings of the moment, and reading them needs the running loop."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything once, one metric after the other as it is asked for."""
        for table in self._tables:
            yield from table.read(self._sources)
