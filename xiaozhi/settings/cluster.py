"""`[cluster]`: several nodes that share their devices, caches and conversations through Redis."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from xiaozhi.settings.section import Section

_SCHEMES = ("redis", "rediss", "unix")


class ClusterSettings(Section, applies="restart"):
    """Cluster: what joins nodes; without `url` this node is alone.

    Several nodes as one. Each is an ordinary server; what joins them is a Redis (or Valkey): every node tells how it
    does, whichever is asked at the OTA address sends a device to the node it belongs to, and conversations, devices,
    activation codes, token keys, answers, speech and limits are shared. When Redis is away every node goes on by
    itself. Needs: pip install 'xiaozhi[redis]'. Whoever can read this Redis can make device tokens: keep it to
    yourself.

    zh: 集群：把多个节点连成一个。每个节点都是普通的服务器，由 Redis（或 Valkey）联系：各节点报告自己的状况；OTA 地址
    问到哪个节点，都会把设备分到该去的节点；对话、设备、验证码、令牌密钥、回答、语音和限额共享。Redis 不在时各自照常
    运行。需要：pip install 'xiaozhi[redis]'。能读这个 Redis 的人就能伪造设备令牌，请妥善保管。
    """

    url: SecretStr = SecretStr("")
    """redis://[user:password@]host:6379/0, rediss://… for TLS, unix:///path. Empty: this node is alone.
    zh: redis://[用户:密码@]主机:6379/0，TLS 用 rediss://…，也可以是 unix:///路径。留空：本节点单独运行。"""
    password: SecretStr = SecretStr("")
    """The password, where it does not stand in url; best from the environment: XIAOZHI_CLUSTER__PASSWORD.
    zh: 密码，没写在 url 里时填写；最好用环境变量 XIAOZHI_CLUSTER__PASSWORD。"""
    tls_ca: Path | None = Field(None, examples=["/etc/xiaozhi/redis-ca.pem"])
    """With rediss://: the authority that signed Redis's certificate (PEM), where it is none of the public ones.
    zh: 使用 rediss:// 而证书不是公共机构签发时，签发机构的证书（PEM）。"""
    tls_cert: Path | None = Field(None, examples=["/etc/xiaozhi/redis-client.pem"])
    """With rediss:// and a Redis that asks its clients for a certificate (tls-auth-clients yes): this node's, and its
    key (PEM, without a password). Both or none.
    zh: Redis 要求客户端出示证书时的证书文件（PEM），与 tls_key 一起填写。"""
    tls_key: Path | None = Field(None, examples=["/etc/xiaozhi/redis-client-key.pem"])
    """zh: 上面证书的私钥文件（PEM）。"""
    prefix: str = Field("xiaozhi", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """Part of all keys, so that several clusters can use one Redis. Letters, digits, "_", "." and "-", up to 40.
    zh: 所有键的前缀，这样几个集群可以共用一个 Redis。可用字母、数字、“_”“.”“-”，最多 40 个字符。"""
    node: str = Field("", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    """Name of this node, unique in the cluster; up to 64 characters of the same kind. Empty: made of the machine's name
    and the port.
    zh: 本节点的名字，集群里不能重复，最多 64 个字符，可用的字符同上。留空则由机器名和端口组成。"""
    address: str = ""
    """How devices reach this very node, such as "wss://node-1.example.org". Empty: server.public_url, or else this
    machine's address.
    zh: 设备怎样连到这个节点，例如“wss://node-1.example.org”。留空用 server.public_url，没有则用本机地址。"""
    tier: Literal["edge", "cloud"] = "cloud"
    """Of a node: "edge" for one near its devices whose uplink may be cut: it sends only what needs the cloud (pictures,
    mathematics, hard questions) to cloud endpoints, answers by itself when they are gone, and says so once. Or "cloud".
    zh: edge：靠近设备、上行可能中断的节点，只把非云端不可的（图片、数学、难题）交给云端端点，断网时自己回答，并说明
    一次。否则选 cloud。"""
    capacity: int = Field(0, ge=0, le=100_000)
    """Devices this node is made for, in relation to the others. 0 takes server.max_devices.
    zh: 这个节点适合带多少台设备，与其他节点相比。0 取 server.max_devices。"""
    overload: float = Field(1.25, ge=1.0, le=4.0)
    """A node takes at most so many times its share of all devices before others are preferred.
    zh: 节点最多接到应得份额的这么多倍，再多就优先给别的节点。"""
    heartbeat_s: float = Field(1.5, ge=0.1, le=60)
    """How often a node tells how it does, and after how long without it it counts as gone (at least twice as long).
    zh: 节点每隔这么久（秒）报告一次。"""
    expiry_s: float = Field(5.0, ge=0.3, le=300)
    """zh: 这么久（秒）没有报告就算离开；至少是 heartbeat_s 的两倍。"""
    timeout_ms: int = Field(80, ge=5, le=5000)
    """Time for one question to Redis; after three failures it is left alone for retry_s.
    zh: 问一次 Redis 的时间（毫秒）；连续失败三次后暂停使用。"""
    retry_s: float = Field(2.0, ge=0.1, le=60)
    """zh: 暂停这么久（秒）后再试 Redis。"""
    max_value_kb: int = Field(256, ge=1, le=10_240)
    """Larger values are not shared. zh: 更大的内容（KB）不共享。"""
    cache_ttl_s: float = Field(3600.0, ge=1, le=604_800)
    """Life of answers and speech in Redis. zh: 回答和语音在 Redis 里保留这么久（秒）。"""
    flight_wait_ms: int = Field(150, ge=0, le=5000)
    """Speech that another node is making just now is waited for so long, then made here as well.
    zh: 别的节点正在合成同一句时等这么久（毫秒），然后自己也合成。"""
    conversation_days: float = Field(30.0, ge=0.01, le=3650)
    """Conversations and device records are kept in Redis so long after they were last used.
    zh: 对话和设备资料在最后使用之后，在 Redis 里保留多少天。"""

    @field_validator("url")
    @classmethod
    def _redis(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if text and (urlsplit(text).scheme not in _SCHEMES or "://" not in text):
            # The address may hold a password: it is not repeated here.
            raise ValueError('must begin with "redis://", "rediss://" (TLS) or "unix://"')
        return url

    @field_validator("address")
    @classmethod
    def _reachable(cls, address: str) -> str:
        known = address.startswith(("http://", "https://", "ws://", "wss://"))
        if address and not (known and urlsplit(address).hostname):
            raise ValueError('must be an address such as "http://10.0.0.5:8000" or "wss://node-1.example.org"')
        return address

    @model_validator(mode="after")
    def _tls(self) -> "ClusterSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        # Without TLS they would do nothing, and whoever set them takes the connection for a secret one.
        if any(files) and self.enabled and not self.secure:
            raise ValueError('tls_ca, tls_cert and tls_key need a url that begins with "rediss://"')
        return self

    @model_validator(mode="after")
    def _order(self) -> "ClusterSettings":
        if self.expiry_s < 2.0 * self.heartbeat_s:
            raise ValueError("expiry_s must be at least twice heartbeat_s: one lost heartbeat is no death")
        return self

    @property
    def secure(self) -> bool:
        """Redis is reached through TLS."""
        return urlsplit(self.url.get_secret_value()).scheme == "rediss"

    @property
    def enabled(self) -> bool:
        """This node is one of several."""
        return bool(self.url.get_secret_value())
