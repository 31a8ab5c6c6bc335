"""What one turn was like for the person in front of the device. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.client.speaker import LossReason, Playback


class TurnOutcome(StrEnum):
    """How a turn ended."""

    ANSWERED = "answered"
    SILENT = "no sound in the answer"
    """The device went to speaking and back, and nothing was heard."""
    NO_ANSWER = "no answer"
    """The device was not made to speak within the time allowed; often nothing was understood."""
    STUCK = "left in speaking"
    """No `tts/stop`, or playback without end, within the time allowed."""
    LOST = "connection lost"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A subtitle of the reply and when it arrived, in milliseconds from the last voiced sample."""

    text: str
    at_ms: float


@dataclass(slots=True)
class TurnReport:
    """One turn as it was heard.

    Times are milliseconds after the last voiced sample was spoken (after the text was sent, where it was typed); None
    where it did not happen, negative where it happened before.

    Attributes:
        outcome: how it ended.
        heard: what the server understood (`stt`).
        said: the sentences of the reply.
        emotion: the last face it asked for.
        stt_ms, tts_start_ms, first_packet_ms, tts_stop_ms: when these arrived; the packet is the first of the reply.
        first_heard_ms: when the first sound came out of the loudspeaker.
        play_end_ms: when the last one had.
        reply_ms: how much sound was heard.
        received: packets of the reply that arrived.
        dropped: packets that were not heard, by reason.
        starved_count, starved_ms: gaps in the middle of the reply.
        lead_max_ms: the most audio that waited in the device.
        cut_off_ms: speech that was lost because the device was made to speak before it was over.
        uplink_dropped: microphone packets lost because the network did not take them.
        undecodable: packets of the reply that are not Opus.
        reply_pcm: what was heard, float32[n] at 24 kHz; None when it was not decoded.
        trace: the server's own account of the turn, None when it sent none.
    """

    outcome: TurnOutcome
    heard: str = ""
    said: list[Sentence] = field(default_factory=list)
    emotion: str = ""
    stt_ms: float | None = None
    tts_start_ms: float | None = None
    first_packet_ms: float | None = None
    first_heard_ms: float | None = None
    tts_stop_ms: float | None = None
    play_end_ms: float | None = None
    reply_ms: float = 0.0
    received: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    starved_count: int = 0
    starved_ms: float = 0.0
    lead_max_ms: float = 0.0
    cut_off_ms: float = 0.0
    uplink_dropped: int = 0
    undecodable: int = 0
    reply_pcm: PcmFloat | None = None
    trace: dict[str, Any] | None = None

    @property
    def answered(self) -> bool:
        """Something was heard."""
        return self.outcome is TurnOutcome.ANSWERED

    @property
    def text(self) -> str:
        """The whole reply."""
        return " ".join(sentence.text for sentence in self.said)

    def span_ms(self, name: str) -> float | None:
        """One of the server's times in the trace, by name; None where there is no trace or it did not happen."""
        spans = self.trace.get("spans") if self.trace is not None else None
        value = spans.get(name) if isinstance(spans, dict) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def as_dict(self) -> dict[str, object]:
        """Everything but the sound, for JSON."""
        times = ("stt_ms", "tts_start_ms", "first_packet_ms", "first_heard_ms", "tts_stop_ms", "play_end_ms")
        totals = ("reply_ms", "starved_ms", "lead_max_ms", "cut_off_ms")
        counts = ("received", "starved_count", "uplink_dropped", "undecodable")
        return {
            "outcome": self.outcome.value,
            "heard": self.heard,
            "said": [{"text": sentence.text, "at_ms": round(sentence.at_ms, 1)} for sentence in self.said],
            "emotion": self.emotion,
            **{name: _rounded(getattr(self, name)) for name in (*times, *totals)},
            **{name: getattr(self, name) for name in counts},
            "dropped": self.dropped,
            "trace": self.trace,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


@dataclass(slots=True)
class TurnLog:
    """A turn while it goes on. Times are milliseconds on the device's clock; `anchor_ms` is the last voiced sample."""

    begun_ms: float
    anchor_ms: float | None = None
    stt_ms: float | None = None
    tts_start_ms: float | None = None
    first_packet_ms: float | None = None
    tts_stop_ms: float | None = None
    heard: str = ""
    emotion: str = ""
    said: list[tuple[float, str]] = field(default_factory=list)
    cut_off_ms: float = 0.0
    trace: dict[str, Any] | None = None

    def server_said(self, message: dict[str, Any], now_ms: float) -> None:
        """Note a JSON message of the server; times are those of the first of its kind, except for `tts/stop`."""
        text = message.get("text")
        match message.get("type"), message.get("state"):
            case "stt", _ if isinstance(text, str):
                self.heard = text
                self.stt_ms = now_ms if self.stt_ms is None else self.stt_ms
            case "llm", _ if isinstance(message.get("emotion"), str):
                self.emotion = message["emotion"]
            case "tts", "start":
                self.tts_start_ms = now_ms if self.tts_start_ms is None else self.tts_start_ms
                self.tts_stop_ms = None  # an earlier one ended an interrupted reply
            case "tts", "sentence_start" if isinstance(text, str):
                self.said.append((now_ms, text))
            case "tts", "stop":
                self.tts_stop_ms = now_ms
            case "trace", _:
                self.trace = message

    def report(self, outcome: TurnOutcome, playback: Playback) -> TurnReport:
        """The finished turn; without an anchor (nothing was voiced) times count from the beginning of the turn."""
        anchor_ms = self.begun_ms if self.anchor_ms is None else self.anchor_ms

        def after(at_ms: float | None) -> float | None:
            return None if at_ms is None else at_ms - anchor_ms

        if outcome is TurnOutcome.ANSWERED and not playback.heard:
            outcome = TurnOutcome.SILENT
        return TurnReport(
            outcome=outcome,
            heard=self.heard,
            said=[Sentence(text, at_ms - anchor_ms) for at_ms, text in self.said],
            emotion=self.emotion,
            stt_ms=after(self.stt_ms),
            tts_start_ms=after(self.tts_start_ms),
            first_packet_ms=after(self.first_packet_ms),
            first_heard_ms=after(playback.heard[0].at_ms if playback.heard else None),
            tts_stop_ms=after(self.tts_stop_ms),
            play_end_ms=after(playback.ended_ms),
            reply_ms=playback.heard_ms,
            received=playback.received,
            dropped={drop.value: playback.dropped[drop] for drop in LossReason if playback.dropped[drop]},
            starved_count=playback.starved_count,
            starved_ms=playback.starved_ms,
            lead_max_ms=playback.lead_max_ms,
            cut_off_ms=self.cut_off_ms,
            trace=self.trace,
        )
