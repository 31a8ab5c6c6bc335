"""Alerts, reloads, who was not let in, and which version this is."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import Metric

from xiaozhi import __version__
from xiaozhi.conversation.services import Services
from xiaozhi.observability.health.alerts import Alerts
from xiaozhi.observability.health.rules import WATCHED
from xiaozhi.observability.metrics.families import Figures, counter, counters, gauge, gauges
from xiaozhi.reload.reloader import Reloader


class ProcessMetrics(Figures):
    """Reads what concerns the process as a whole at each scrape.

    Args:
        alerts: of the process.
        reloader: likewise.
        services: likewise.
        refusals: who was not let in, by why.
    """

    def __init__(
        self, alerts: Alerts, reloader: Reloader, services: Services, refusals: Callable[[], Mapping[str, float]]
    ) -> None:
        self._alerts = alerts
        self._reloader = reloader
        self._services = services
        self._refusals = refusals

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        active = {alert.rule.name for alert in self._alerts.active}
        yield gauges(
            "xiaozhi_alert",
            "1 while somebody should look.",
            ("name",),
            {rule.name: float(rule.name in active) for rule in WATCHED},
        )
        yield counter("xiaozhi_alerts_raised", "Alerts raised.", self._alerts.raised)
        yield counters(
            "xiaozhi_alert_webhooks",
            "Alerts sent to the webhook, by outcome.",
            ("outcome",),
            {"sent": self._alerts.webhook.sent, "failed": self._alerts.webhook.failed},
        )
        yield counters(
            "xiaozhi_reloads",
            "New settings, by outcome.",
            ("outcome",),
            {"applied": self._reloader.applied, "refused": self._reloader.refused},
        )
        yield gauge("xiaozhi_settings_waiting", "Settings that wait for a restart.", len(self._reloader.restart))
        yield gauge(
            "xiaozhi_former_engines", "Exchanged engines that are still used.", self._services.retirement.retiring
        )
        yield counters("xiaozhi_refused", "Requests and devices not let in, by why.", ("why",), self._refusals())
        readings = self._alerts.readings
        if readings.cpu_percent is not None:
            yield gauge(
                "xiaozhi_cpu_ratio", "Processor time in use, of all cores it may use.", readings.cpu_percent / 100
            )
        if readings.disk_percent is not None:
            yield gauge("xiaozhi_disk_ratio", "Used space of the data folder's disk.", readings.disk_percent / 100)
        yield gauges("xiaozhi_build_info", "1; the version as a label.", ("version",), {__version__: 1.0})
