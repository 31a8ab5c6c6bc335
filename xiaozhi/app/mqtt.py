"""Devices by MQTT and UDP: ports, listener and sessions, put together."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.mqtt import PUBLISH_TOPIC, MqttOffer
from xiaozhi.access.tls import TlsFiles
from xiaozhi.app.ports import BoundPort
from xiaozhi.conversation.services import Services
from xiaozhi.settings import Settings
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.transport.mqtt import MqttEndpoint, Vision
from xiaozhi.transport.mqtt_codec import MAX_PACKET_BYTES
from xiaozhi.transport.mqtt_listener import MqttListener
from xiaozhi.transport.udp import UdpEndpoint

_log = logging.getLogger(__name__)


class MqttPorts:
    """The ports of `[mqtt]`, bound; a context that closes those that nobody took over. Blocking.

    Raises:
        CannotServe: one is taken or may not be used.
    """

    def __init__(self, settings: Settings) -> None:
        mqtt, host = settings.mqtt, settings.server.host
        with ExitStack() as stack:
            self.plain = stack.enter_context(BoundPort(host, mqtt.port, "mqtt.port"))
            self.udp = stack.enter_context(BoundPort(host, mqtt.udp_port, "mqtt.udp_port", socket.SOCK_DGRAM))
            self.tls = stack.enter_context(BoundPort(host, mqtt.tls_port, "mqtt.tls_port")) if mqtt.tls_port else None
            self._stack = stack.pop_all()

    def __enter__(self) -> "MqttPorts":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class MqttServer:
    """Serves devices by MQTT.

    Args:
        services: the shared engines.
        access: who may connect.
        devices: the register they are in.
        ports: bound.
        vision: where their cameras send pictures; None for nowhere.
        own_base: see `MqttEndpoint`.
    """

    def __init__(
        self,
        services: Services,
        access: AccessControl,
        devices: ConnectedDevices,
        ports: MqttPorts,
        vision: Vision | None,
        own_base: Callable[[], str],
    ) -> None:
        self._ports = ports
        tls_port = ports.tls.number if ports.tls is not None else 0
        self.offer = MqttOffer(services.settings.mqtt, ports.plain.number, tls_port, ports.udp.number)
        """What devices are told."""
        self.udp = UdpEndpoint()
        self.endpoint = MqttEndpoint(services, access, devices, self.udp, self.offer, vision, own_base)
        self.listener = MqttListener(self.endpoint, PUBLISH_TOPIC, MAX_PACKET_BYTES)
        self._watching: asyncio.Task[None] | None = None

    async def start(self, tls: TlsFiles | None) -> None:
        """Take devices from now on.

        Raises:
            CannotServe: another process was quicker.
        """
        for port, context in ((self._ports.plain, None), (self._ports.tls, tls.context if tls is not None else None)):
            if port is not None:
                try:
                    await self.listener.listen(port.sockets, context)
                except OSError as error:
                    raise port.failure(error) from error
        await self.udp.listen(self._ports.udp.sockets)
        _log.info("devices by MQTT on port %d, their sound by UDP on port %d", self.offer.port, self._ports.udp.number)
        self._watching = asyncio.create_task(self.listener.watch(), name="watch-mqtt")

    async def close(self) -> None:
        """Hang everybody up."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self.listener.close()
        await self.endpoint.close()
        self.udp.close()
