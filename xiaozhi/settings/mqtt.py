"""`[mqtt]`: devices that are reached while they sleep."""

import re
from typing import Final

from pydantic import Field, field_validator, model_validator

from xiaozhi.settings.section import Networks, Port, Section

TLS_PORT: Final = 8883
"""The firmware speaks TLS on exactly this port, and on no other."""
ALL_DEVICES: Final = "*"
# The firmware cuts at the first colon and knows no IPv6; up to 2.4 a port that is no number crashes it at every boot.
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?:(\d{1,5})")


class MqttSettings(Section, applies="restart"):
    """MQTT: reach devices while they sleep.

    By WebSocket a sleeping board has no connection, by MQTT it keeps one. Reminders, announcements and calls then come
    to it by themselves. Control goes over MQTT, sound over UDP; both ports must be reachable from the devices. What a
    device was told holds from its next start on: restart boards after a change. The nodes of a cluster listen on the
    same ports, and a device keeps to the node that it was told of; an MQTT broker of other make cannot stand between.

    zh: MQTT：让休眠的设备也能收到消息：控制走 MQTT，声音走 UDP。用 WebSocket 时休眠的板子没有连接，用 MQTT 则一直连着：
    提醒、播报和呼叫会自己送到。设备要能访问这两个端口；改动在设备下次开机后生效，请重启板子。
    """

    enabled: bool = False
    """Offer it to the devices below. zh: 打开后，下面列出的设备改用 MQTT 和 UDP。"""
    port: Port = 1883
    """Of MQTT without TLS.
    zh: MQTT 端口（不加密）。不能是 8883：固件在 8883 上一定用 TLS。"""
    tls_port: Port = 0
    """Of MQTT with TLS (with the certificate of [server]); 0 for none. The firmware speaks TLS on port 8883 and only
    there, and takes no self-signed certificate.
    zh: MQTT 加 TLS 的端口，用 [server] 的证书，0 为不开。固件只在 8883 上用 TLS，而且不认自签证书。"""
    udp_port: Port = 8884
    """Of sound by UDP.
    zh: 声音走的 UDP 端口。"""
    devices: tuple[str, ...] = (ALL_DEVICES,)
    """Which devices use it; all others stay with the WebSocket. Device-Ids such as "aa:bb:cc:dd:ee:ff", or "*" for all.
    zh: 哪些设备用 MQTT，其余的仍用 WebSocket。填 Device-Id，例如“aa:bb:cc:dd:ee:ff”，“*”为全部。"""
    endpoint: str = ""
    """How devices reach MQTT, where that is not the host of the OTA address with the ports above: behind a port
    mapping, in a container. As host:port, such as "xiaozhi.example.org:8883". Empty: found out by itself.
    zh: 设备怎样访问 MQTT，形如“xiaozhi.example.org:8883”；有端口映射或在容器里时填写。不填则用 OTA 地址的主机名和上面
    的端口。"""
    udp_endpoint: str = ""
    """As endpoint, for the sound.
    zh: 设备怎样访问 UDP，形如“主机:端口”；不填则自动得出。"""
    keepalive_s: int = Field(240, ge=30, le=3600)
    """A sleeping device says at least this often that it is there; one that is switched off counts as connected for one
    and a half times as long.
    zh: 休眠的设备至少每隔这么久（秒）报到一次；断电的设备最多按它的一倍半时间仍算在线。"""
    gateways: Networks = ()
    """MQTT gateways of other make (xiaozhi-mqtt-gateway) that bring their devices here by WebSocket, with
    `?from=mqtt_gateway` and its own framing: addresses or networks. They are believed who a device is and where
    it comes from: its token is not looked at here.
    zh: 别家 MQTT 网关（xiaozhi-mqtt-gateway）的地址或网段：它们用 WebSocket 带“?from=mqtt_gateway”转接设备，说的设备
    身份和地址也会被采信，不再检查令牌。"""

    @field_validator("endpoint", "udp_endpoint")
    @classmethod
    def _reachable(cls, endpoint: str) -> str:
        match = _ENDPOINT.fullmatch(endpoint)
        if endpoint and (match is None or not 0 < int(match[1]) < 65_536):
            raise ValueError('must be a host and a port such as "xiaozhi.example.org:8883", or empty')
        return endpoint

    @model_validator(mode="after")
    def _ports(self) -> "MqttSettings":
        if self.port == TLS_PORT:
            raise ValueError(f"port must not be {TLS_PORT}: devices speak TLS there; that is what tls_port is for")
        if self.tls_port not in (0, TLS_PORT) and not self.endpoint:
            raise ValueError(f"tls_port must be {TLS_PORT}, where devices speak TLS, or endpoint say what leads to it")
        return self
