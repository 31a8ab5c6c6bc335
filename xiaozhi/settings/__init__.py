"""Every setting, its default, its unit and its limits; and how file, environment and command line are put together.

`Settings()` is the embedded default: no key, no download, no internet needed.
"""

from typing import ClassVar

from pydantic import model_validator

from xiaozhi.settings.asr import AsrSettings
from xiaozhi.settings.audio import AudioSettings, VadSettings
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.settings.cluster import ClusterSettings
from xiaozhi.settings.console import ConsoleSettings
from xiaozhi.settings.llm import LlmEndpoint, LlmSettings, RoutingSettings
from xiaozhi.settings.mqtt import MqttSettings
from xiaozhi.settings.operation import (
    AlertsSettings,
    LoadSettings,
    LoadStep,
    LogSettings,
    MetricsSettings,
    ModelsSettings,
    TracingSettings,
)
from xiaozhi.settings.push import McpServerSettings, PushSettings, VisionSettings
from xiaozhi.settings.section import Section
from xiaozhi.settings.server import AuthSettings, OtaSettings, ServerSettings
from xiaozhi.settings.store import AgentsSettings, MemorySettings, StoreSettings
from xiaozhi.settings.tools import ToolsSettings
from xiaozhi.settings.tts import (
    EdgeVoiceSettings,
    EspeakVoiceSettings,
    OpenAIVoiceSettings,
    SherpaVoiceSettings,
    TtsSettings,
)
from xiaozhi.settings.turn import TurnSettings

__all__ = [
    "AgentsSettings",
    "AlertsSettings",
    "AsrSettings",
    "AudioSettings",
    "AuthSettings",
    "ConsoleSettings",
    "EdgeVoiceSettings",
    "EspeakVoiceSettings",
    "LlmEndpoint",
    "LlmSettings",
    "LoadSettings",
    "LoadStep",
    "LogSettings",
    "McpServerSettings",
    "MemorySettings",
    "MetricsSettings",
    "ModelsSettings",
    "MqttSettings",
    "OpenAIVoiceSettings",
    "OtaSettings",
    "PushSettings",
    "RoutingSettings",
    "ServerSettings",
    "Settings",
    "SherpaVoiceSettings",
    "StoreSettings",
    "ToolsSettings",
    "TracingSettings",
    "TtsSettings",
    "TurnSettings",
    "VadSettings",
    "VisionSettings",
]


class Settings(Section):
    """Settings of xiaozhi.

    Every line that is not a comment shows the built-in default: the server runs the same without this file.
    Change what you need and leave the rest. `xiaozhi check` tries everything that is named here and says what is wrong.

    Any setting can be given in other places, too. The higher one wins:

      1. command line    xiaozhi serve --set asr.workers=3
      2. environment     XIAOZHI_ASR__WORKERS=3      (two underscores between table and name; lists and tables as JSON)
      3. the console     settings.local.toml beside this file (mine.local.toml beside mine.toml), which only the console
                         writes, and only what was changed there; the log and `xiaozhi check` say where it overrides
                         this file, and the console takes an override away again
      4. this file       ./settings.toml, or the one named by --settings FILE
      5. default

    What is allowed stands behind a value, and when a change of it holds where it is not as for its whole table.
    Units are part of the names: _ms milliseconds, _s seconds, _bps bits per second, _mb megabytes, _wpm words a minute.
    Relative paths are relative to the folder of this file.

    First things to change, in the order in which an owner notices them:

      answers that are worth hearing     [[llm.endpoints]]     a key, or a model on your own machine
      being understood, Chinese above    xiaozhi models pull sense-voice, then nothing: asr.engine = "auto" finds it
      a nicer voice without internet     xiaozhi models pull matcha-zh, then tts.engines = ["sherpa", "espeak"]
      being cut off / waiting too long   [turn] complete_ms, neutral_ms, trailing_ms
      more than 20 devices on one box    [asr] workers, [audio] complexity, [server] max_devices
    """

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
