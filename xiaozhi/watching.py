"""What lets people and their programs look into a running server: metrics, health and spans, put together."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector

from xiaozhi.cluster.node import ClusterNode
from xiaozhi.health.alerts import Alerts
from xiaozhi.health.ready import not_ready_because
from xiaozhi.health.report import report
from xiaozhi.metrics.house import HouseFigures
from xiaozhi.metrics.live import LiveFigures
from xiaozhi.metrics.minds import MindFigures
from xiaozhi.metrics.nodes import NodeFigures
from xiaozhi.metrics.stock import StockFigures
from xiaozhi.metrics.turns import TurnMetrics
from xiaozhi.metrics.upstreams import UpstreamFigures
from xiaozhi.reload.reloader import Reloader
from xiaozhi.services import Services
from xiaozhi.tracing import Tracer
from xiaozhi.transport.console import Console
from xiaozhi.transport.devices import Devices
from xiaozhi.transport.door_figures import DoorFigures
from xiaozhi.transport.doors import Doors
from xiaozhi.transport.entrance import Entrance
from xiaozhi.transport.figures import MetricsDesk, Watchers
from xiaozhi.transport.health import HealthDesk


def metrics_desk(
    services: Services,
    devices: Devices,
    entrance: Entrance,
    alerts: Alerts,
    reloader: Reloader,
    *,
    doors: Doors,
    console: Console | None = None,
    node: Callable[[], ClusterNode | None] = lambda: None,
) -> MetricsDesk | None:
    """The metrics of this server, in a registry of its own; None when they are switched off."""
    settings = services.settings.metrics
    if not settings.enabled:
        return None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(LiveFigures(services, devices))
    registry.register(UpstreamFigures(services))
    registry.register(StockFigures(services))
    registry.register(MindFigures(services))
    registry.register(NodeFigures(services, node))
    registry.register(DoorFigures(entrance, doors, console))
    registry.register(HouseFigures(alerts, reloader, services, entrance.refusals))
    turns = TurnMetrics(registry)
    services.on_turn.append(lambda _device, trace: turns.count(trace))
    return MetricsDesk(registry, Watchers(settings, entrance.trusted))


def health_desk(services: Services, devices: Devices, entrance: Entrance, alerts: Alerts) -> HealthDesk:
    """What load balancers and people ask."""
    started_at = time.monotonic()

    def not_ready() -> str:
        return not_ready_because(services, draining=devices.draining, no_room=devices.no_room)

    return HealthDesk(
        not_ready,
        lambda: report(services, alerts, started_at=started_at, not_ready=not_ready()),
        Watchers(services.settings.metrics, entrance.trusted),
    )


def tracer_of(services: Services) -> Tracer | None:
    """Sends turns as spans; None when that is switched off.

    Raises:
        TracingError: its packages are missing.
    """
    if not services.settings.tracing.enabled:
        return None
    tracer = Tracer(services.settings.tracing)
    services.on_turn.append(lambda device, trace: tracer.turn(device, trace, services.settings.llm.endpoints))
    return tracer
