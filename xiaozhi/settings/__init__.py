"""Every setting, its default, its unit and its limits; and how file, environment and command line are put together."""

from xiaozhi.settings.asr import AsrSettings
from xiaozhi.settings.audio import AudioSettings, VadSettings
from xiaozhi.settings.console import ConsoleSettings
from xiaozhi.settings.llm import LlmEndpoint, LlmSettings, RoutingSettings
from xiaozhi.settings.memory import MemorySettings
from xiaozhi.settings.model import Settings
from xiaozhi.settings.mqtt import MqttSettings
from xiaozhi.settings.operation import LoadSettings, LoadStep, LogSettings, MetricsSettings, ModelsSettings
from xiaozhi.settings.push import McpServerSettings, PushSettings, VisionSettings
from xiaozhi.settings.server import AuthSettings, OtaSettings, ServerSettings
from xiaozhi.settings.store import AgentsSettings, StoreSettings
from xiaozhi.settings.tools import ToolsSettings
from xiaozhi.settings.tracing import TracingSettings
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
