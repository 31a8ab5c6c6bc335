"""The settings as one type: one field for each table of `settings.toml`, in the order of the file."""

from typing import ClassVar

from pydantic import model_validator

from xiaozhi.settings.alerts import AlertsSettings
from xiaozhi.settings.asr import AsrSettings
from xiaozhi.settings.audio import AudioSettings, VadSettings
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.settings.cluster import ClusterSettings
from xiaozhi.settings.console import ConsoleSettings
from xiaozhi.settings.llm import LlmSettings
from xiaozhi.settings.memory import MemorySettings
from xiaozhi.settings.mqtt import MqttSettings
from xiaozhi.settings.operation import LoadSettings, LogSettings, MetricsSettings, ModelsSettings
from xiaozhi.settings.push import McpServerSettings, PushSettings, VisionSettings
from xiaozhi.settings.section import Section
from xiaozhi.settings.server import AuthSettings, OtaSettings, ServerSettings
from xiaozhi.settings.store import AgentsSettings, StoreSettings
from xiaozhi.settings.tools import ToolsSettings
from xiaozhi.settings.tracing import TracingSettings
from xiaozhi.settings.tts import TtsSettings
from xiaozhi.settings.turn import TurnSettings


class Settings(Section):
    """Everything. `Settings()` is the embedded default: no key, no download, no internet needed."""

    ENV_PREFIX: ClassVar[str] = "XIAOZHI_"

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    ota: OtaSettings = OtaSettings()
    mqtt: MqttSettings = MqttSettings()
    log: LogSettings = LogSettings()
    models: ModelsSettings = ModelsSettings()
    audio: AudioSettings = AudioSettings()
    vad: VadSettings = VadSettings()
    turn: TurnSettings = TurnSettings()
    asr: AsrSettings = AsrSettings()
    llm: LlmSettings = LlmSettings()
    tts: TtsSettings = TtsSettings()
    cache: CacheSettings = CacheSettings()
    tools: ToolsSettings = ToolsSettings()
    memory: MemorySettings = MemorySettings()
    vision: VisionSettings = VisionSettings()
    push: PushSettings = PushSettings()
    mcp_server: McpServerSettings = McpServerSettings()
    store: StoreSettings = StoreSettings()
    agents: AgentsSettings = AgentsSettings()
    cluster: ClusterSettings = ClusterSettings()
    load: LoadSettings = LoadSettings()
    metrics: MetricsSettings = MetricsSettings()
    alerts: AlertsSettings = AlertsSettings()
    tracing: TracingSettings = TracingSettings()
    console: ConsoleSettings = ConsoleSettings()

    @model_validator(mode="after")
    def _mqtt_has_a_certificate(self) -> "Settings":
        if self.mqtt.enabled and self.mqtt.tls_port and self.server.tls_cert is None:
            raise ValueError("mqtt.tls_port needs server.tls_cert and server.tls_key")
        return self
