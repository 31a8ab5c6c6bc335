"""What an agent is, and how it is read from TOML and JSON. Pure."""

import tomllib
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from xiaozhi.agents.prompt import PromptError, check_template
from xiaozhi.program import PlainError

LONGEST_PROMPT: Final = 8000
_Spoken = Annotated[str, Field(max_length=200)]


class AgentError(PlainError):
    """An agent cannot be used; one line says which and what to do."""


class VoicePreference(BaseModel):
    """How an agent would like to sound; each voice engine does what it can of it.

    Attributes:
        engine: the engine that speaks first, such as `minimax`, by its table in the settings; where it fails, or is
            empty, those of `tts.engines` do.
        name: a voice by the name an engine knows, such as `zh-CN-YunxiNeural`; empty for the settings' own.
        gender: taken where the name is empty or unknown to an engine.
        rate_percent: slower or faster than usual.
        pitch_semitones: lower or higher than the voice is, where the engine can.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field("", max_length=40)
    name: str = Field("", max_length=100)
    gender: Literal["", "female", "male"] = ""
    rate_percent: int = Field(0, ge=-50, le=100)
    pitch_semitones: int = Field(0, ge=-12, le=12)


class Agent(BaseModel):
    """An agent.

    Attributes:
        name: what commands call it; also understood when spoken.
        aliases: further names to call it by, in any language.
        about: one line for lists.
        prompt: who it is, for the model; a template, see `xiaozhi.agents.prompt`.
        language: what it speaks: `zh`, `en` …; `auto` follows the user.
        voice: how it sounds.
        recognizer: the engine that hears for it, by its table in the settings; empty for `asr.engine`, which also hears
            where this one fails.
        endpoint: which of `llm.endpoints` answers for it, by its name; others do where it fails, or is empty.
        tier: which models it prefers: `edge` or `cloud`; empty for no preference.
        tools: names or patterns (`*`) of the tools it may call.
        wake_reply: what it says when it is woken; empty for the settings' own, as with the next two.
        greeting: what it says when somebody switches to it.
        goodbye: what it says before it leaves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=40)
    aliases: tuple[Annotated[str, Field(min_length=1, max_length=40)], ...] = Field((), max_length=20)
    about: str = Field("", max_length=200)
    prompt: str = Field("", max_length=LONGEST_PROMPT)
    language: Literal["auto", "zh", "en", "ja", "ko", "yue"] = "auto"
    voice: VoicePreference = VoicePreference()
    recognizer: str = Field("", max_length=40)
    endpoint: str = Field("", max_length=100)
    tier: Literal["", "edge", "cloud"] = ""
    tools: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(("*",), max_length=200)
    wake_reply: _Spoken = ""
    greeting: _Spoken = ""
    goodbye: _Spoken = ""

    @field_validator("name")
    @classmethod
    def _speakable(cls, name: str) -> str:
        if name != name.strip() or not all(char.isalnum() or char in " -_" for char in name):
            raise ValueError("may only hold letters, digits, blanks, - and _")
        return name

    @field_validator("prompt")
    @classmethod
    def _template(cls, prompt: str) -> str:
        try:
            check_template(prompt)
        except PromptError as error:
            raise ValueError(str(error)) from None
        return prompt.strip()

    @property
    def names(self) -> tuple[str, ...]:
        """Everything it answers to."""
        return (self.name, *self.aliases)


def agent_from_toml(text: str, source: str) -> Agent:
    """Read an agent.

    Args:
        text: TOML.
        source: where it comes from, for the message.

    Raises:
        AgentError: it is not TOML, or a value is not allowed; every mistake is a line.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AgentError(f"{source}: {error}") from None
    try:
        return Agent.model_validate(values)
    except ValidationError as error:
        raise AgentError(_mistakes(error, source)) from None


def agent_from_json(text: str, source: str) -> Agent:
    """Read an agent as the store keeps it. Raises `AgentError`."""
    try:
        return Agent.model_validate_json(text)
    except ValidationError as error:
        raise AgentError(_mistakes(error, source)) from None


def agent_to_toml(agent: Agent) -> str:
    """An agent as a file that people can change."""
    voice = agent.voice
    lines = [
        f"name = {_quoted(agent.name)}",
        f"aliases = [{', '.join(map(_quoted, agent.aliases))}]",
        f"about = {_quoted(agent.about)}",
        f"language = {_quoted(agent.language)}   # auto, zh, en, ja, ko, yue",
        f"recognizer = {_quoted(agent.recognizer)}   # such as volcengine; empty for asr.engine",
        f"endpoint = {_quoted(agent.endpoint)}   # a name of [[llm.endpoints]], or empty",
        f"tier = {_quoted(agent.tier)}   # edge, cloud, or empty",
        f"tools = [{', '.join(map(_quoted, agent.tools))}]   # names or patterns",
        f"wake_reply = {_quoted(agent.wake_reply)}",
        f"greeting = {_quoted(agent.greeting)}",
        f"goodbye = {_quoted(agent.goodbye)}",
        "# {{ device }}, {{ room }}, {{ owner }}, {{ language }}, {{ memory }}, {{ summary }} and {{ date }}",
        "# are filled in; those that are not used here are added at the end by themselves.",
        f"prompt = {_long(agent.prompt)}",
        "",
        "[voice]",
        f"engine = {_quoted(voice.engine)}   # such as minimax; empty for tts.engines",
        f"name = {_quoted(voice.name)}",
        f"gender = {_quoted(voice.gender)}   # female, male, or empty",
        f"rate_percent = {voice.rate_percent}   # -50 to 100",
        f"pitch_semitones = {voice.pitch_semitones}   # -12 to 12",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char >= " " and char != "\x7f" else f"\\u{ord(char):04x}" for char in escaped) + '"'


def _long(text: str) -> str:
    if "'''" in text or any(char < " " and char != "\n" for char in text) or "\x7f" in text:
        return _quoted(text)
    return f"'''\n{text}\n'''"


def _mistakes(error: ValidationError, source: str) -> str:
    lines = []
    for mistake in error.errors():
        where = ".".join(str(part) for part in mistake["loc"])
        what = mistake["msg"].removeprefix("Value error, ")
        lines.append(f"{source}: {where}: {what}" if where else f"{source}: {what}")
    return "\n".join(lines)
