"""What lets people and their programs look into a running server: metrics, health and spans, put together."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector

from xiaozhi.access.access_control import AccessControl
from xiaozhi.app.mqtt import MqttServer
from xiaozhi.cluster.node import ClusterNode
from xiaozhi.console.routes import Console
from xiaozhi.conversation.services import Services
from xiaozhi.http.health import HealthRoutes
from xiaozhi.http.metrics import MetricsRoutes, Watchers
from xiaozhi.http.services import HttpServices
from xiaozhi.observability.health.alerts import Alerts
from xiaozhi.observability.health.ready import not_ready_because
from xiaozhi.observability.health.report import report
from xiaozhi.observability.metrics.access import AccessMetrics
from xiaozhi.observability.metrics.caches import CacheMetrics
from xiaozhi.observability.metrics.cluster import ClusterMetrics
from xiaozhi.observability.metrics.live import LiveMetrics
from xiaozhi.observability.metrics.memory import MemoryMetrics
from xiaozhi.observability.metrics.mqtt import MqttMetrics
from xiaozhi.observability.metrics.process import ProcessMetrics
from xiaozhi.observability.metrics.turns import TurnMetrics
from xiaozhi.observability.metrics.upstreams import UpstreamMetrics
from xiaozhi.observability.tracing import Tracer
from xiaozhi.reload.reloader import Reloader
from xiaozhi.transport.connected_devices import ConnectedDevices


def metrics_routes(
    services: Services,
    devices: ConnectedDevices,
    access: AccessControl,
    alerts: Alerts,
    reloader: Reloader,
    *,
    doors: HttpServices,
    console: Console | None = None,
    mqtt: MqttServer | None = None,
    node: Callable[[], ClusterNode | None] = lambda: None,
) -> MetricsRoutes | None:
    """The metrics of this server, in a registry of its own; None when they are switched off."""
    settings = services.settings.metrics
    if not settings.enabled:
        return None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(LiveMetrics(services, devices))
    registry.register(UpstreamMetrics(services))
    registry.register(CacheMetrics(services))
    registry.register(MemoryMetrics(services))
    registry.register(ClusterMetrics(services, node))
    registry.register(AccessMetrics(access, doors, console))
    registry.register(ProcessMetrics(alerts, reloader, services, access.refusals))
    if mqtt is not None:
        registry.register(MqttMetrics(mqtt.listener, mqtt.udp))
    turns = TurnMetrics(registry)
    services.on_turn.append(lambda _device, trace: turns.count(trace))
    return MetricsRoutes(registry, Watchers(settings, access.trusted))


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
