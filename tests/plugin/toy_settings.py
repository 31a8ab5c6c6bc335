"""The tables of two toy engines, as a package from outside brings them."""

from pydantic import Field, SecretStr

from xiaozhi.settings.engines import EngineSettings, KnownVoice
from xiaozhi.settings.pasted import ApiKey


class ParrotSettings(EngineSettings):
    """A recogniser that hears one sentence in everything."""

    implementation = "toy_parrot:Parrot"
    title = ("识别：鹦鹉", "Recognition: parrot")
    needs_network = False

    sentence: str = Field("what time is it", min_length=1, max_length=100)


class WhistleSettings(EngineSettings):
    """A voice that whistles."""

    implementation = "toy_whistle:Whistle"
    title = ("声音：口哨", "Voice: whistle")
    known_voices = (KnownVoice("high", "*", "female"), KnownVoice("low", "*", "male"))

    api_key: ApiKey = SecretStr("")
    api_key_env: str = "WHISTLE_KEY"
    pitch_hz: int = Field(440, ge=50, le=4000)
