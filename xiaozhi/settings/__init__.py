"""Every setting, its default, its unit and its limits; and how file, environment and command line are put together."""

from xiaozhi.settings.model import (
    AsrSettings,
    AudioSettings,
    AuthSettings,
    EdgeVoiceSettings,
    EspeakVoiceSettings,
    LlmEndpoint,
    LlmSettings,
    LogSettings,
    ModelsSettings,
    OpenAIVoiceSettings,
    ServerSettings,
    Settings,
    SherpaVoiceSettings,
    TtsSettings,
    TurnSettings,
    VadSettings,
)

__all__ = [
    "AsrSettings",
    "AudioSettings",
    "AuthSettings",
    "EdgeVoiceSettings",
    "EspeakVoiceSettings",
    "LlmEndpoint",
    "LlmSettings",
    "LogSettings",
    "ModelsSettings",
    "OpenAIVoiceSettings",
    "ServerSettings",
    "Settings",
    "SherpaVoiceSettings",
    "TtsSettings",
    "TurnSettings",
    "VadSettings",
]
