"""Cartesia's WebSocket (`/tts/websocket`): text as it comes into a context, base64 of raw samples out.

Names of messages and fields are those of the SDK `cartesia` 4.2 (`types/generation_request`,
`types/websocket_response`) and of Cartesia's pages on contexts and flushing: a context keeps the tone from text to
text; `flush` has what was sent spoken now, and `flush_done` tells that all its sound has come; every message down
carries the id of its context.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import uuid4

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.settings.pasted import key_fault
from xiaozhi.settings.tts import CartesiaVoiceSettings
from xiaozhi.stages.tts.engine import Mark, TextRefused, VoiceError
from xiaozhi.stages.tts.errors import short
from xiaozhi.stages.tts.socket_session import SocketVoice, SpeechProtocol
from xiaozhi.stages.tts.voice_request import VoiceRequest, bilingual
from xiaozhi.upstream.connections import as_json

_VERSION: Final = "2026-08-14"
_SPEEDS: Final = (0.6, 1.5)  # what Sonic 3 takes
_ADVICE: Final = {
    400: "a parameter is wrong: see tts.cartesia.model and tts.cartesia.voice",
    401: "the key is wrong: see tts.cartesia.api_key",
    402: "the credits are used up: see the console",
    403: "the key may not use this: see tts.cartesia.model",
    404: "no such voice or model: see tts.cartesia.voice and tts.cartesia.model",
    429: "too many sentences at once for this key: lower tts.max_concurrent",
}


class CartesiaProtocol:
    """One context's messages."""

    def __init__(self, settings: CartesiaVoiceSettings, request: VoiceRequest) -> None:
        self.quiet_s: float | None = None
        self._settings, self._request = settings, request
        self._context = uuid4().hex
        self._base: dict[str, Any] = {}  # what the texts of a context have in common
        self._marks = 0

    def begin(self) -> Sequence[str]:
        """Nothing: a context begins with its first text."""
        return ()

    def text(self, text: str, language: str) -> Sequence[str]:
        """The text, and that it is to be spoken now; the voice of a context is that of its first text."""
        settings = self._settings
        voice = bilingual("cartesia", self._request, text, language, settings.voice, settings.voice_en)
        if not self._base:
            self._base = {
                "context_id": self._context,
                "model_id": settings.model,
                "voice": {"mode": "id", "id": voice},
                "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": DOWNLINK_RATE_HZ},
                "max_buffer_delay_ms": 0,
            }
            speed = min(max(1 + (settings.rate_percent + self._request.rate_percent) / 100, _SPEEDS[0]), _SPEEDS[1])
            if speed != 1:
                self._base["generation_config"] = {"speed": round(speed, 2)}
        self._base["language"] = {"yue": "zh"}.get(language, language) or "en"
        return [
            as_json(**self._base, transcript=f"{text.strip()} ", **{"continue": True}),
            as_json(**self._base, transcript="", flush=True, **{"continue": True}),
        ]

    def end(self) -> Sequence[str]:
        """The last message of the context."""
        return [as_json(**self._base, transcript="", **{"continue": False})] if self._base else ()

    def cancel(self) -> Sequence[str]:
        """Stop the context; the connection goes on."""
        return [as_json(context_id=self._context, cancel=True)]

    def receive(self, said: Any) -> Iterator[bytes | Mark | None]:
        """Take a message; one of another context is late, and nobody's.

        Raises:
            VoiceError: an error.
        """
        kind, context = said["type"], said.get("context_id")
        if context != self._context and (context is not None or kind != "error"):
            return
        if kind == "error":
            status = said.get("status_code")
            why = ": ".join(str(said[name]) for name in ("title", "message", "error") if said.get(name))
            parts = ("cartesia", f"error {status}" if status else "", _ADVICE.get(status, ""), short(why))
            raise (TextRefused if status == 422 else VoiceError)(": ".join(filter(None, parts)))
        if kind == "chunk":
            yield base64.b64decode(said["data"] or "", validate=True)
        elif kind == "flush_done":
            yield Mark(self._marks)
            self._marks += 1
        elif kind == "done":
            yield None

    def overdue(self) -> Iterator[Mark]:
        """The service tells all by itself."""
        return iter(())


class CartesiaVoice(SocketVoice):
    """Speaks through Cartesia, a context for each reply, over connections that are kept.

    Args:
        settings: key, model, voices and rate.
        timeout_s: longest time to connect.
    """

    name = "cartesia"
    reuses = True
    advice = _ADVICE

    def __init__(self, settings: CartesiaVoiceSettings, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._settings = settings
        self.about = f"{settings.model}, voice {settings.voice}"

    def address(self, request: VoiceRequest) -> tuple[str, dict[str, str]]:
        """Where, with the key in the header that the SDK sends; older versions of the service had X-API-Key.

        Raises:
            VoiceError: the key is missing or none.
        """
        key = self._settings.key()
        fault = self._settings.missing("tts.cartesia") or (key_fault(key) and f"the key {key_fault(key)}")
        if fault:
            raise VoiceError(f"{self.name}: {fault}")
        return self._settings.url, {"Authorization": f"Bearer {key}", "Cartesia-Version": _VERSION}

    def protocol(self, request: VoiceRequest) -> SpeechProtocol:
        """A context."""
        return CartesiaProtocol(self._settings, request)
