"""Figures of devices by MQTT and UDP."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from xiaozhi.observability.metrics.families import Figures, counter, counters, gauge
from xiaozhi.transport.mqtt_listener import MqttListener
from xiaozhi.transport.udp import Drop, UdpEndpoint


class MqttMetrics(Figures):
    """Reads the listener and the endpoint of sound.

    Args:
        listener: of MQTT.
        udp: of sound.
    """

    def __init__(self, listener: MqttListener, udp: UdpEndpoint) -> None:
        self._listener = listener
        self._udp = udp

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        listener, udp = self._listener, self._udp
        yield gauge("xiaozhi_mqtt_connections", "MQTT connections, of sleeping devices as well.", len(listener))
        yield counter("xiaozhi_mqtt_refused", "MQTT clients that were not let in.", listener.refused)
        yield counter("xiaozhi_mqtt_flooded", "MQTT clients that sent more than any device does.", listener.flooded)
        yield counter("xiaozhi_mqtt_expired", "MQTT clients from which nothing came for too long.", listener.expired)
        yield gauge("xiaozhi_udp_sessions", "Conversations whose sound goes by UDP.", len(udp))
        yield counter("xiaozhi_udp_lost", "Packets of ended conversations that never came.", udp.lost)
        dropped = {drop.name.lower(): udp.drops[drop] for drop in Drop}
        yield counters("xiaozhi_udp_dropped", "Datagrams that were not used.", ("reason",), dropped)
