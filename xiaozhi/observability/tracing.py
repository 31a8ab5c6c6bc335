"""Turns as OpenTelemetry spans, built after the turn from its trace; needs the extra `xiaozhi[otel]`.

Nothing is measured for it: every time comes from the one `TurnTrace` that metrics, log and console read as well. Names
follow the semantic conventions for generative AI (`gen_ai.*`) where there are some. What was said is never sent.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from xiaozhi import __version__
from xiaozhi.settings import LlmEndpoint, TracingSettings
from xiaozhi.turn.trace import TurnTrace

Attributes: TypeAlias = Mapping[str, str | int | float | bool | Sequence[str]]

# `gen_ai.provider.name` as the conventions spell it; all others go by the name of their preset.
_PROVIDERS: Final[Mapping[str, str]] = {
    "claude": "anthropic",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "qwen": "alibaba_cloud",
    "qwen-intl": "alibaba_cloud",
}
_HINT: Final = "tracing.enabled needs more packages: pip install 'xiaozhi[otel]'"


class TracingError(Exception):
    """Spans cannot be sent; one line with what to do."""


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One span. Times in seconds on the clock of the trace.

    Attributes:
        name: of the span.
        begin_s, end_s: when.
        upstream: a request to something else, not work of our own.
        attributes: as the conventions name them.
        error: why it failed; empty when it did not.
        events: names and times of points within it.
    """

    name: str
    begin_s: float
    end_s: float
    upstream: bool = False
    attributes: Attributes = field(default_factory=dict)
    error: str = ""
    events: tuple[tuple[str, float], ...] = ()


def spans_of(device_id: str, trace: TurnTrace, endpoints: Sequence[LlmEndpoint]) -> list[SpanRecord]:
    """The spans of a turn, the whole turn first. Pure.

    Args:
        device_id: whose turn it was.
        trace: finished.
        endpoints: of the settings: what the models are called.
    """
    times = [value for name in _POINTS if (value := getattr(trace, name)) is not None]
    if trace.anchor is None or not times:
        return []
    begin_s = trace.anchor - trace.speech_ms / 1000.0
    end_s = max(*times, trace.anchor)
    spans = [_whole(device_id, trace, begin_s, end_s)]
    if trace.speech_ms:
        spans.append(SpanRecord("listen", begin_s, trace.anchor, attributes={"xiaozhi.language": trace.language}))
    if trace.text is not None and trace.decode_ms is not None:
        recognise: Attributes = {"xiaozhi.engine": trace.engine}
        spans.append(SpanRecord("recognise", trace.text - trace.decode_ms / 1000.0, trace.text, attributes=recognise))
    asked_s = trace.text if trace.text is not None else trace.anchor
    answered_s = trace.first_clause or trace.first_token
    if trace.endpoint and answered_s is not None:
        spans.append(_chat(trace, endpoints, asked_s, answered_s))
    if trace.first_clause is not None and trace.first_speech is not None:
        speak: Attributes = {
            "xiaozhi.voice": trace.voice,
            "xiaozhi.kept_clauses": trace.kept_clauses,
            "gen_ai.output.type": "speech",
        }
        spans.append(SpanRecord("speak", trace.first_clause, trace.first_speech, upstream=True, attributes=speak))
    if trace.first_packet is not None and trace.end is not None:
        play: Attributes = {"xiaozhi.reply_ms": trace.reply_ms, "xiaozhi.starved_ms": trace.starved_ms}
        spans.append(SpanRecord("play", trace.first_packet, trace.end, attributes=play))
    return [span for span in spans if span.end_s >= span.begin_s]


_POINTS: Final = ("text", "first_token", "first_clause", "first_speech", "commit", "first_packet", "end", "interrupted")


def _whole(device_id: str, trace: TurnTrace, begin_s: float, end_s: float) -> SpanRecord:
    attributes: Attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "xiaozhi",
        "xiaozhi.device": device_id,
        "xiaozhi.turn": trace.turn,
        "xiaozhi.mode": trace.mode,
        "xiaozhi.language": trace.language,
        "xiaozhi.interrupted": trace.interrupted is not None,
        "xiaozhi.held_ms": trace.held_ms,
        "xiaozhi.kept_clauses": trace.kept_clauses,
        "xiaozhi.tools": tuple(use.name for use in trace.tools),
    }
    names = ("commit", "first_packet", "interrupted")
    events = tuple((name, at) for name in names if (at := getattr(trace, name)) is not None)
    return SpanRecord("turn", begin_s, end_s, attributes=attributes, error=trace.error, events=events)


def _chat(trace: TurnTrace, endpoints: Sequence[LlmEndpoint], asked_s: float, answered_s: float) -> SpanRecord:
    """The question to the model, until there is a first clause to speak: the rest arrives while that is spoken."""
    attributes: dict[str, str | int | float | bool | Sequence[str]] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.output.type": "text",
        "xiaozhi.endpoint": trace.endpoint,
        "xiaozhi.route": trace.route,
        "xiaozhi.attempts": trace.attempts,
        "xiaozhi.hedged": trace.hedged,
    }
    if trace.cached:
        attributes["xiaozhi.cached"] = trace.cached
    if trace.first_token is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = round(trace.first_token - asked_s, 4)
    name = "chat"
    asked = next((one for one in endpoints if one.name == trace.endpoint.split("+")[-1]), None)
    if asked is not None:
        name = f"chat {asked.model}"
        url = urlsplit(asked.base_url)
        attributes["gen_ai.request.model"] = asked.model
        attributes["gen_ai.provider.name"] = _PROVIDERS.get(asked.preset or "", asked.preset or "openai")
        attributes["server.address"] = url.hostname or ""
        attributes["server.port"] = url.port or (443 if url.scheme == "https" else 80)
        if asked.max_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = asked.max_tokens
        if asked.temperature is not None:
            attributes["gen_ai.request.temperature"] = asked.temperature
    return SpanRecord(name, asked_s, answered_s, upstream=True, attributes=attributes, error=trace.error)


class Tracer:
    """Sends the spans of finished turns, in batches from a thread of the OpenTelemetry library.

    Args:
        settings: the `[tracing]` table.

    Raises:
        TracingError: the library is not installed.
    """

    def __init__(self, settings: TracingSettings) -> None:
        self.turns = 0
        """Turns whose spans were handed over; where the collector is away the library says so and drops them."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingError(f"{_HINT} ({error})") from error
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        # The library's limits: 2048 spans wait, 512 go at once, every 5 s.
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, headers=headers, timeout=settings.timeout_s)
        resource = Resource.create({"service.name": settings.service_name, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("xiaozhi", __version__)

    def turn(self, device_id: str, trace: TurnTrace, endpoints: Sequence[LlmEndpoint]) -> None:
        """Hand over the spans of a turn; called on the loop, whose clock the trace is on. Costs some 0.3 ms."""
        records = spans_of(device_id, trace, endpoints)
        if not records:
            return
        self.turns += 1
        offset_s = time.time() - asyncio.get_running_loop().time()
        parent: Any = None
        for record in records:
            span = self._span(record, parent, offset_s)
            if parent is None:
                parent = span
        self._end(parent, records[0], offset_s)

    def _span(self, record: SpanRecord, parent: Any, offset_s: float) -> Any:
        from opentelemetry.trace import SpanKind, set_span_in_context

        span = self._tracer.start_span(
            record.name,
            context=set_span_in_context(parent) if parent is not None else None,
            kind=SpanKind.CLIENT if record.upstream else SpanKind.INTERNAL,
            attributes=dict(record.attributes),
            start_time=_ns(record.begin_s + offset_s),
        )
        if parent is not None:
            self._end(span, record, offset_s)
        return span

    @staticmethod
    def _end(span: Any, record: SpanRecord, offset_s: float) -> None:
        from opentelemetry.trace import Status, StatusCode

        for name, at_s in record.events:
            span.add_event(name, timestamp=_ns(at_s + offset_s))
        if record.error:
            span.set_status(Status(StatusCode.ERROR, record.error))
        span.end(end_time=_ns(record.end_s + offset_s))

    async def close(self) -> None:
        """Send what waits; takes no longer than the time-out of the settings."""
        await asyncio.to_thread(self._provider.shutdown)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
