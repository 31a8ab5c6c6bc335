"""The tables of two toy engines, as a package from outside brings them."""

from pydantic import Field, SecretStr

from xiaozhi.settings.engines import EngineSettings, KnownVoice
from xiaozhi.settings.pasted import ApiKey


class ParrotSettings(EngineSettings):
    """Recognition, parrot: hears one sentence in everything. zh: 识别 · 鹦鹉：不管听到什么，都是同一句话。"""

    implementation = "toy_parrot:Parrot"
    needs_network = False

    sentence: str = Field("what time is it", min_length=1, max_length=100)


class WhistleSettings(EngineSettings):
    """Voice, whistle: whistles. zh: 声音 · 口哨：吹口哨。"""

    implementation = "toy_whistle:Whistle"
    known_voices = (KnownVoice("high", "*", "female"), KnownVoice("low", "*", "male"))

    api_key: ApiKey = SecretStr("")
    api_key_env: str = "WHISTLE_KEY"
    pitch_hz: int = Field(440, ge=50, le=4000)
    """How high. zh: 音高（赫兹）。"""
