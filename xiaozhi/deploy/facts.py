"""What every configuration is written from: the settings, and how much the server needs with them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from xiaozhi.checks.machine import DESCRIPTORS_OF_THE_PROCESS
from xiaozhi.program import PlainError
from xiaozhi.settings import Settings

LIVE_PATH: Final = "/health/live"
READY_PATH: Final = "/health/ready"
METRICS_PATH: Final = "/metrics"

# bench.devices on a machine with other jobs: 633 MB with 40 devices, 691 MB with 100. The rest is room for models of
# other sizes and for caches, chosen, not measured; so is twice the 1 MB that settings.toml states for a device.
_BASE_MB: Final = 1024
_PER_DEVICE_MB: Final = 2
# A drain is over when the last turn is; connections, caches and the store are closed after it.
_CLOSE_S: Final = 15
# bench.devices with 100 devices, on the same machine: 99 % of one core for the whole server. Threads of recognition and
# of the codec are added to it, so the sum is a generous upper limit, not a measurement.
_LOOP_CORES: Final = 1
# 100 voices that are heard at once keep less than one core busy, however many threads share it.
_CODEC_CORES: Final = 1


class DeployError(PlainError):
    """A configuration cannot be written; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A key that the server reads from its environment, or from a file of that name.

    Attributes:
        variable: its name.
        used: a part that is switched on asks for it.
    """

    variable: str
    used: bool


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment.

    Attributes:
        settings: as they are loaded here.
        settings_file: where they come from; None for the built-in defaults.
        domain: the name devices know the server by; empty where it has none.
        nodes: `host:port` of each node behind a front.
        replicas: nodes that are started where the orchestrator starts them.
        image: of containers.
        choices: what else was chosen on the command line, by the names that the templates use.
    """

    settings: Settings
    settings_file: Path | None = None
    domain: str = ""
    nodes: tuple[str, ...] = ()
    replicas: int = 1
    image: str = "xiaozhi:latest"
    choices: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where a node listens."""
        return self.settings.server.port or 8000

    @property
    def mqtt_ports(self) -> list[str]:
        """What devices by MQTT need beside it, as `1883` and `8884/udp`."""
        mqtt = self.settings.mqtt
        ports = [mqtt.port, *([mqtt.tls_port] if mqtt.tls_port else [])]
        return [*map(str, ports), f"{mqtt.udp_port}/udp"] if mqtt.enabled else []

    @property
    def node_speaks_tls(self) -> bool:
        """The node's port itself is encrypted."""
        return self.settings.server.tls_cert is not None and not self.settings.server.tls_port

    @property
    def host(self) -> str:
        """The name for fronts and certificates: the given one, else that of `server.public_url`, else an example."""
        return self.domain or urlsplit(self.settings.server.public_url).hostname or "xiaozhi.example.org"

    @property
    def stop_s(self) -> int:
        """From SIGTERM to the end at most, in whole seconds."""
        return math.ceil(self.settings.server.drain_s) + _CLOSE_S

    @property
    def tunnel_s(self) -> int:
        """How long a front may see nothing on a WebSocket: well above the keepalive, and above a pause in a talk."""
        return max(3600, 2 * math.ceil(self.settings.server.idle_close_s))

    @property
    def cores(self) -> int:
        """Processor cores that the server may use at most."""
        asr, audio = self.settings.asr, self.settings.audio
        return _LOOP_CORES + asr.workers * asr.threads + (audio.codec_workers or _CODEC_CORES)

    @property
    def memory_mb(self) -> int:
        """Memory that the server may use at most, in megabytes."""
        return _BASE_MB + _PER_DEVICE_MB * self.settings.server.max_devices + self.settings.cache.speech_memory_mb

    @property
    def picture_mb(self) -> int:
        """The largest body that a device sends, in megabytes: a picture, and what is around it."""
        return math.ceil(self.settings.vision.max_mb) + 1

    @property
    def descriptors(self) -> int:
        """Open files and sockets that the server may have; twice what it needs, so that max_devices may be raised."""
        return max(4096, 2 * (self.settings.server.max_devices + DESCRIPTORS_OF_THE_PROCESS))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The keys the settings name, those in use first."""
        found: dict[str, bool] = {}
        for path, variable, given in _key_variables(self.settings, ()):
            found[variable] = found.get(variable, False) or (not given and _in_use(self.settings, path))
        return tuple(
            Secret(name, used) for name, used in sorted(found.items(), key=lambda item: (not item[1], item[0]))
        )

    def settings_text(self) -> str:
        """The settings file, to be copied into something that others may read.

        Raises:
            DeployError: it holds a secret.
        """
        if self.settings_file is None:
            return "# The built-in defaults hold. Every setting is explained in the settings.toml of the project.\n"
        try:
            text = self.settings_file.read_text(encoding="utf-8")
        except OSError as error:
            raise DeployError(f"{self.settings_file} cannot be read: {error.strerror}") from error
        for where, value in _secrets(self.settings, ()):
            if value in text:
                raise DeployError(
                    f"{self.settings_file}: {where} is written in the file and would be readable by others; name an "
                    "environment variable instead (…_env), or give the setting as XIAOZHI_… in a secret"
                )
        return text


def _key_variables(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Every field `…_env` that names a variable: where it stands, the name, and whether the key itself is given."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            inner = getattr(value, name)
            if name.endswith("_env") and isinstance(inner, str):
                plain = getattr(value, name.removesuffix("_env"), "")
                given = plain.get_secret_value() if isinstance(plain, SecretStr) else plain
                if inner:
                    yield path, inner, bool(given)
            else:
                yield from _key_variables(inner, (*path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _key_variables(item, (*path, str(index)))


def _in_use(settings: Settings, path: tuple[str, ...]) -> bool:
    """Whether what stands at `path` is switched on."""
    match path:
        case ("llm", "endpoints", *_):
            return True
        case ("tts", engine, *_):
            return engine in settings.tts.engines
        case ("asr", engine, *_):
            return engine == settings.asr.engine
        case ("tools", "weather", *_):
            return settings.tools.enabled and settings.tools.weather.provider == "qweather"
        case ("tools", "search", *_):
            return settings.tools.enabled and settings.tools.search.provider == "tavily"
        case ("tools", "home_assistant", *_):
            return settings.tools.enabled and bool(settings.tools.home_assistant.url)
        case ("cache", "embeddings", *_):
            return bool(settings.cache.embeddings.base_url)
        case ("memory", *_):
            return settings.memory.engine == "mem0"
        case _:
            return False


def _secrets(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Every secret that is not empty, with its place."""
    if isinstance(value, SecretStr):
        if value.get_secret_value():
            yield ".".join(path), value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _secrets(item, (*path, str(name)))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _secrets(item, (*path, str(index)))
