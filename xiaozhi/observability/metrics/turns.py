"""Histograms of turns, filled from their traces."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from xiaozhi.turn.trace import SPANS, STARVED_MS, TurnTrace

# What a person waits for lies between 0.4 and 1.5 s and is worth telling apart there; above, only that it was long.
_WAIT_BUCKETS_S: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0)
# Local work: a cached or early decode takes milliseconds, a remote recogniser a second.
_WORK_BUCKETS_S: Final = (0.01, 0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
_REPLY_BUCKETS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)


class TurnMetrics:
    """Counts finished turns.

    Args:
        registry: where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._turns = Counter(
            "xiaozhi_turns",
            "Turns, by how they ended; unheard are those that were not understood or taken up, through our fault.",
            ("outcome",),
            registry=registry,
        )
        self._pipeline = Histogram(
            "xiaozhi_pipeline_seconds",
            "From the last voiced sample (or the typed text) to the first audio packet.",
            registry=registry,
            buckets=_WAIT_BUCKETS_S,
        )
        self._recognition = Histogram(
            "xiaozhi_recognition_seconds",
            "From the question for an utterance's text to the text, waiting for a worker included.",
            ("engine",),
            registry=registry,
            buckets=_WORK_BUCKETS_S,
        )
        self._first_token = Histogram(
            "xiaozhi_first_token_seconds",
            "From the text to the language model's first word.",
            ("endpoint",),
            registry=registry,
            buckets=_WAIT_BUCKETS_S,
        )
        self._first_speech = Histogram(
            "xiaozhi_first_speech_seconds",
            "From the first clause to the voice's first sound.",
            ("voice",),
            registry=registry,
            buckets=_WAIT_BUCKETS_S,
        )
        self._span = Histogram(
            "xiaozhi_turn_span_seconds",
            "From the last voiced sample (or the typed text) to each point of a turn.",
            ("span",),
            registry=registry,
            buckets=_WAIT_BUCKETS_S,
        )
        self._reply = Histogram(
            "xiaozhi_reply_seconds", "Length of spoken replies.", registry=registry, buckets=_REPLY_BUCKETS_S
        )
        self._starved = Counter("xiaozhi_starved_turns", "Replies with an audible gap.", registry=registry)
        self._starved_s = Counter(
            "xiaozhi_starved_seconds", "Time in which a device had nothing to play amid a reply.", registry=registry
        )
        self._held = Counter("xiaozhi_held_turns", "Turns that had to wait because of load.", registry=registry)
        self._hedged = Counter(
            "xiaozhi_hedged_turns", "Turns for which a second endpoint was asked.", registry=registry
        )
        self._from_cache = Counter(
            "xiaozhi_cached_answers", "Turns answered without a language model, by how.", ("how",), registry=registry
        )

    def count(self, trace: TurnTrace) -> None:
        """Take in a finished turn."""
        self._turns.labels(trace.outcome).inc()
        for name in SPANS:
            if (span_s := _between(trace.anchor, getattr(trace, name))) is not None:
                self._span.labels(name).observe(span_s)
        if (wait_s := _between(trace.anchor, trace.first_packet)) is not None:
            self._pipeline.observe(wait_s)
        if trace.decode_ms is not None:
            self._recognition.labels(trace.engine).observe(trace.decode_ms / 1000.0)
        asked = trace.text if trace.text is not None else trace.anchor
        if trace.endpoint and (token_s := _between(asked, trace.first_token)) is not None:
            # Several names where one broke off and others went on: the first token was the first one's.
            self._first_token.labels(trace.endpoint.partition("+")[0]).observe(token_s)
        if trace.voice and (speech_s := _between(trace.first_clause, trace.first_speech)) is not None:
            self._first_speech.labels(trace.voice.partition("+")[0]).observe(speech_s)
        if trace.commit is not None or not trace.unheard:
            self._reply.observe(trace.reply_ms / 1000.0)
        self._starved_s.inc(trace.starved_ms / 1000.0)
        if trace.starved_ms > STARVED_MS:
            self._starved.inc()
        if trace.held_ms >= 1.0:
            self._held.inc()
        if trace.hedged:
            self._hedged.inc()
        if trace.cached:
            self._from_cache.labels(trace.cached).inc()


def _between(begin: float | None, end: float | None) -> float | None:
    """Seconds from one time to a later one; None where one is missing or they are not of the same turn."""
    return None if begin is None or end is None or end < begin else end - begin
