"""The device protocol, sans I/O: messages in, events out; and what the server says, as dictionaries.

Written from what clients really send (firmware 1.6 to 2.4, desktop and browser clients): every field but `type` is
optional, unknown messages are ignored, nothing a client sends closes the connection, `session_id` is never relied on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.events import MicPacket
from xiaozhi.text import bounded_json
from xiaozhi.transport import framing
from xiaozhi.turn.machine import ListeningMode

# Longer texts than this are no speech of a person; the rest is cut.
MAX_TYPED_CHARS: Final = 2000


@dataclass(frozen=True, slots=True)
class Hello:
    """The client introduced itself.

    `features` holds the names it says it can do; `traces` whether it wants a record of every turn (our own clients).
    """

    version: int
    features: frozenset[str] = frozenset()
    traces: bool = False


@dataclass(frozen=True, slots=True)
class ListenStart:
    """The microphone's stream begins."""

    mode: ListeningMode


@dataclass(frozen=True, slots=True)
class ListenStop:
    """The key was released."""


@dataclass(frozen=True, slots=True)
class Detect:
    """A wake word was heard by the device, or (desktop and browser clients) the user typed a text."""

    text: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop speaking now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Mcp:
    """A JSON-RPC message of the device's MCP server."""

    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Iot:
    """Things of the device or their states (firmware before 1.8)."""

    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The channel is closed (MQTT; on a WebSocket its end says so)."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Ping:
    """A client's own keepalive (browser clients)."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that means nothing to us; `why` goes to the debug log."""

    why: str


Event: TypeAlias = Hello | ListenStart | ListenStop | Detect | Abort | Mcp | Iot | MicPacket | Goodbye | Ping | Ignored


@dataclass(slots=True)
class DeviceProtocol:
    """One connection's protocol state: the framing version, from the header or the hello.

    Args:
        version: the `Protocol-Version` header, or None where there was none.
        session_id: of the server's hello.
        transport: what carries it, as the server's hello names it.
        udp: where sound goes beside MQTT, with key and nonce, for the server's hello.
    """

    version: int = 1
    session_id: str = ""
    transport: str = "websocket"
    udp: Mapping[str, object] | None = None
    echoes_session: bool = field(default=False, init=False)
    """The client has repeated our session id: a mark of the firmware, never a condition for being understood."""
    bare: bool = field(default=False, init=False)
    """Its microphone's frames are samples and not Opus (desktop clients; what it plays is Opus even so)."""
    _greeted: bool = field(default=False, init=False)

    @property
    def has_timestamps(self) -> bool:
        """Its packets of sound carry timestamps, and those of the microphone may repeat them."""
        return self.transport == "udp" or self.version in (2, framing.MQTT_GATEWAY)

    def receive_text(self, text: str) -> Event:
        """Understand a text frame. Never raises: what cannot be understood is `Ignored`."""
        message = read_message(text)
        return message if isinstance(message, Ignored) else self.receive_message(message)

    def receive_message(self, message: dict[str, Any]) -> Event:
        """Understand a message that `read_message` has read. Never raises."""
        if self.session_id and message.get("session_id") == self.session_id:
            self.echoes_session = True
        match message.get("type"):
            case "hello":
                return self._hello(message)
            case "listen":
                return _listen(message)
            case "abort":
                return Abort(_string(message, "reason"))
            case "mcp":
                payload = message.get("payload")
                return Mcp(payload) if isinstance(payload, dict) else Ignored("mcp without a payload object")
            case "iot":
                return Iot(message)
            case "goodbye" if self.transport == "udp":
                return Goodbye(_string(message, "session_id"))
            case "ping":
                return Ping()
            case str() as kind:
                return Ignored(f"unknown type {kind[:40]!r}")
            case _:
                return Ignored("no type")

    def receive_binary(self, message: bytes) -> Event:
        """Understand a binary frame. Never raises: a wrong one is `Ignored`. An empty packet is silence (a DTX gap)."""
        try:
            return framing.unpack(self.version, message, bare=self.bare)
        except framing.FramingError as error:
            return Ignored(str(error))

    def pack(self, opus: bytes, timestamp_ms: int) -> bytes:
        """One binary message around an Opus packet in this connection's framing."""
        return framing.pack(self.version, opus, timestamp_ms)

    def _hello(self, message: dict[str, Any]) -> Event:
        if self._greeted:
            # A second server hello would leave a stale event in the firmware: its next connection would not wait.
            return Ignored("a second hello")
        self._greeted = True
        if self.version != framing.MQTT_GATEWAY and isinstance(message.get("version"), int):
            self.version = framing.version_of(message["version"])
        features = message.get("features")
        names = (
            frozenset(name for name, on in features.items() if on is True and isinstance(name, str))
            if isinstance(features, dict)
            else frozenset()
        )
        audio = message.get("audio_params")
        self.bare = (
            isinstance(audio, dict) and audio.get("format") == "pcm" and audio.get("sample_rate") == UPLINK_RATE_HZ
        )
        return Hello(self.version, names, "trace" in names)

    # What the server says -----------------------------------------------------------------------------------------

    def _message(self, kind: str, **fields: object) -> dict[str, object]:
        return {"type": kind, **fields, "session_id": self.session_id}

    def hello(self, sample_rate_hz: int, frame_ms: int) -> dict[str, object]:
        """The answer to the client's hello. `transport` is not optional: without it the firmware crashes."""
        return {
            "type": "hello",
            "transport": self.transport,
            "session_id": self.session_id,
            **({"version": self.version, "udp": self.udp} if self.udp is not None else {}),
            "audio_params": {
                "format": "opus",
                "sample_rate": sample_rate_hz,
                "channels": 1,
                "frame_duration": frame_ms,
            },
        }

    def stt(self, text: str) -> dict[str, object]:
        """What was heard, for the device's screen."""
        return self._message("stt", text=text)

    def emotion(self, name: str, emoji: str) -> dict[str, object]:
        """The face to show; one of 21 names, unknown ones leave the previous face."""
        return self._message("llm", emotion=name, text=emoji)

    def tts_start(self) -> dict[str, object]:
        """The device goes to speaking: it mutes its microphone (auto mode) and clears its audio queue."""
        return self._message("tts", state="start")

    def sentence_start(self, text: str) -> dict[str, object]:
        """The subtitle of the audio that follows."""
        return self._message("tts", state="sentence_start", text=text)

    def tts_stop(self) -> dict[str, object]:
        """The device goes back to listening (auto, realtime) or idle (manual)."""
        return self._message("tts", state="stop")

    def keepalive(self) -> dict[str, object]:
        """A message every client ignores: it resets the firmware's 120 s timer, which pings do not."""
        return self._message("mcp", payload={"jsonrpc": "2.0", "method": "notifications/keepalive"})

    def pong(self, timestamp_ms: int) -> dict[str, object]:
        """The answer to a client's own ping message."""
        return self._message("pong", timestamp=timestamp_ms)


def read_message(text: str | bytes) -> dict[str, Any] | Ignored:
    """The JSON object of a text frame, or why there is none. Never raises."""
    try:
        message = bounded_json.loads(text)
    except orjson.JSONDecodeError as error:
        return Ignored(f"not JSON: {error}")
    if not isinstance(message, dict):
        return Ignored(f"JSON, but {type(message).__name__} instead of an object")
    return message


def _string(message: dict[str, Any], key: str) -> str:
    value = message.get(key)
    return value[:MAX_TYPED_CHARS] if isinstance(value, str) else ""


def _listen(message: dict[str, Any]) -> Event:
    match message.get("state"):
        case "start":
            mode = message.get("mode")
            known = {member.value: member for member in ListeningMode}
            return ListenStart(known.get(mode, ListeningMode.AUTO) if isinstance(mode, str) else ListeningMode.AUTO)
        case "stop":
            return ListenStop()
        case "detect":
            return Detect(_string(message, "text"))
        case _:
            return Ignored("listen without a known state")
