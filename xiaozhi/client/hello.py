"""The first message in each direction. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.client.errors import ConnectFailed

# Firmware: what it assumes where the server's hello does not say.
DEFAULT_FRAME_MS: Final = 60.0


def client_hello(version: int, frame_ms: int, *, trace: bool, aec: bool) -> dict[str, Any]:
    """What firmware 2.4.2 says of itself.

    Args:
        version: of the binary framing.
        frame_ms: length of its packets.
        trace: the server is asked for its times of every turn.
        aec: a build that leaves the echo of its loudspeaker to the server.
    """
    features = {
        "mcp": True,
        "glyph_push": False,
        **({"trace": True} if trace else {}),
        **({"aec": True} if aec else {}),
    }
    audio = {"format": "opus", "sample_rate": UPLINK_RATE_HZ, "channels": 1, "frame_duration": frame_ms}
    hello = {"type": "hello", "version": version, "features": features, "transport": "websocket"}
    return {**hello, "audio_params": audio}


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What the firmware takes from the server's hello; `frame_ms` is the longest packet its decoder will accept."""

    session_id: str | None
    frame_ms: float

    @classmethod
    def read(cls, message: dict[str, Any]) -> "ServerHello | None":
        """Understand it; None where it is meant for another transport and ignored.

        Raises:
            ConnectFailed: no `transport`, or no text there: every published firmware crashes on it.
        """
        transport = message.get("transport")
        if not isinstance(transport, str):
            raise ConnectFailed("the server's hello names no transport: the firmware would crash")
        if transport != "websocket":
            return None
        session_id, audio = message.get("session_id"), message.get("audio_params")
        declared = audio.get("frame_duration") if isinstance(audio, dict) else None
        return cls(
            session_id if isinstance(session_id, str) else None,
            float(declared) if isinstance(declared, int | float) else DEFAULT_FRAME_MS,
        )
