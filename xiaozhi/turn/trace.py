"""The times of one turn, anchored on the last voiced sample. Pure.

The metrics, the log line, the bench and `xiaozhi talk` all read this one record.
"""

from dataclasses import dataclass, field
from typing import Final

SPANS: Final = (
    "soft_end",
    "text",
    "first_token",
    "first_clause",
    "first_speech",
    "commit",
    "first_packet",
    "end",
    "interrupted",
)


@dataclass(frozen=True, slots=True)
class RouteNote:
    """Who answers a request, and how it came to that; for the turn's trace.

    Attributes:
        endpoint: the endpoints that spoke, in order, joined by `+`: several where one broke off and another went on.
        route: the tier and why, in words, such as `edge: short and plain`; empty where nothing was chosen.
        attempts: how many endpoints were asked, hedges among them.
        hedged: a second endpoint was asked because the first was late.
    """

    endpoint: str
    route: str = ""
    attempts: int = 1
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that was called in a turn.

    Attributes:
        name: as the model knows it.
        took_ms: how long it took.
        failed: it was not done.
        result: what came of it; never in the record that is shown, as little as what was said.
    """

    name: str
    took_ms: float
    failed: bool = False
    result: str = ""


STARVED_MS: Final = 60.0
"""Gaps above this are heard: the length of one packet."""


@dataclass(slots=True)
class TurnTrace:
    """When things happened, in seconds on the loop's monotonic clock; None where they did not, or do not count.

    Attributes:
        turn, revision: which turn; the revision that was committed.
        anchor: the last voiced sample (its arrival); the release of the key or the typed text where there is none.
        soft_end: the short silence that started work.
        text: the words of the committed revision were known.
        first_token: the model's first word arrived.
        first_clause: the first clause went to the voice.
        first_speech: the voice's first sound arrived.
        commit: the gate was opened.
        first_packet: the first audio packet left for the device.
        end: the last packet had been played and the device was told.
        interrupted: the user broke in, or the device went away in the midst of the reply.
        early: its reply was begun before the soft end.
        held_ms: how long the turn had to wait for its turn, because the process was overloaded.
        endpoint, route, attempts, hedged: who answered and how it came to that, see `RouteNote`.
        cached: how the answer was found without a model: `exact`, `similar` or `common`; empty when it was not.
        kept_clauses: clauses that cost no synthesis.
        tools: what was called, in the order in which it was begun.
        unheard: through a fault of ours: recognition failed or was late, or there was too much to do.
    """

    turn: int
    revision: int = 0
    generation: int = 0
    anchor: float | None = None
    soft_end: float | None = None
    text: float | None = None
    first_token: float | None = None
    first_clause: float | None = None
    first_speech: float | None = None
    commit: float | None = None
    first_packet: float | None = None
    end: float | None = None
    interrupted: float | None = None
    mode: str = ""
    language: str = ""
    speech_ms: float = 0.0
    decode_ms: float | None = None
    reply_ms: float = 0.0
    starved_ms: float = 0.0
    early: bool = False
    held_ms: float = 0.0
    engine: str = ""
    voice: str = ""
    endpoint: str = ""
    route: str = ""
    attempts: int = 0
    hedged: bool = False
    cached: str = ""
    kept_clauses: int = 0
    tools: list[ToolUse] = field(default_factory=list)
    unheard: bool = False
    error: str = ""
    unknown_language: bool = False
    heard: str = ""
    said: str = ""

    @property
    def outcome(self) -> str:
        """How the turn ended, in one word."""
        if self.unheard:
            return "unheard"
        if self.interrupted is not None:
            return "interrupted"
        if self.error:
            return "failed"
        return "answered" if self.first_packet is not None else "silent"

    def note_route(self, note: RouteNote) -> None:
        """Write down who answers; the latest note counts."""
        self.endpoint, self.route = note.endpoint, note.route or self.route
        self.attempts, self.hedged = note.attempts, note.hedged

    def spans_ms(self) -> dict[str, float | None]:
        """Every time as milliseconds after the anchor; None where it is unknown or lies before the anchor.

        A time before the anchor is stale: it belongs to speech that went on afterwards.
        """
        return {name: self._span_ms(getattr(self, name)) for name in SPANS}

    def _span_ms(self, at: float | None) -> float | None:
        if self.anchor is None or at is None or at < self.anchor:
            return None
        return round((at - self.anchor) * 1000.0, 1)

    def summary(self) -> dict[str, object]:
        """What an operator reads of every turn: how soon it was answered, and what was out of the ordinary."""
        first_audio_ms = self._span_ms(self.first_packet)
        return {
            **({} if first_audio_ms is None else {"first_audio_ms": round(first_audio_ms)}),
            **({} if self.interrupted is None else {"interrupted": True}),
            **({"cached": self.cached} if self.cached else {}),
            **({"endpoint": self.endpoint, "attempts": self.attempts} if self.attempts > 1 else {}),
            **({"starved_ms": round(self.starved_ms)} if self.starved_ms > STARVED_MS else {}),
            **({"held_ms": round(self.held_ms)} if self.held_ms >= 1.0 else {}),
            **({"error": self.error} if self.error else {}),
        }

    def message(self) -> dict[str, object]:
        """The record as the JSON message for a client that asked for it; without what was said."""
        return {
            "type": "trace",
            "turn": self.turn,
            "revision": self.revision,
            "mode": self.mode,
            "language": self.language,
            "speech_ms": round(self.speech_ms),
            "decode_ms": None if self.decode_ms is None else round(self.decode_ms, 1),
            "reply_ms": round(self.reply_ms),
            "starved_ms": round(self.starved_ms, 1),
            "early": self.early,
            "held_ms": round(self.held_ms),
            "engine": self.engine,
            "voice": self.voice,
            "endpoint": self.endpoint,
            "route": self.route,
            "attempts": self.attempts,
            "hedged": self.hedged,
            "cached": self.cached,
            "kept_clauses": self.kept_clauses,
            "tools": [{"name": use.name, "ms": round(use.took_ms), "failed": use.failed} for use in self.tools],
            "outcome": self.outcome,
            "error": self.error,
            "spans": self.spans_ms(),
        }
