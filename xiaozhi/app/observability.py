"""What lets people and their programs look into a running server: metrics, health and spans, put together."""

import time

from prometheus_client import CollectorRegistry, ProcessCollector

from xiaozhi.access.access_control import AccessControl
from xiaozhi.conversation.services import Services
from xiaozhi.http.health import HealthRoutes
from xiaozhi.http.metrics import MetricsRoutes, Watchers
from xiaozhi.observability.health.alerts import Alerts
from xiaozhi.observability.health.report import not_ready_because, report
from xiaozhi.observability.metrics.figures import TABLES
from xiaozhi.observability.metrics.tables import Figures, Sources
from xiaozhi.observability.metrics.turns import TurnMetrics
from xiaozhi.observability.tracing import Tracer
from xiaozhi.transport.connected_devices import ConnectedDevices


def metrics_routes(sources: Sources) -> MetricsRoutes | None:
    """The metrics of this server, in a registry of its own; None when they are switched off."""
    services = sources.services
    if not services.settings.metrics.enabled:
        return None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Figures(TABLES, sources))
    turns = TurnMetrics(registry)
    services.on_turn.append(lambda _device, trace: turns.count(trace))
    return MetricsRoutes(registry, Watchers(services.settings.metrics, sources.access.trusted))


def health_routes(services: Services, devices: ConnectedDevices, access: AccessControl, alerts: Alerts) -> HealthRoutes:
    """What load balancers and people ask."""
    started_at = time.monotonic()

    def not_ready() -> str:
        return not_ready_because(services, draining=devices.draining, no_room=devices.no_room)

    return HealthRoutes(
        not_ready,
        lambda: report(services, alerts, started_at=started_at, not_ready=not_ready()),
        Watchers(services.settings.metrics, access.trusted),
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
