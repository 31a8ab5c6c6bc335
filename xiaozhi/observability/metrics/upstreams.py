"""Endpoints, voices and the remote recogniser; their names come from the settings, so there are few."""

import time
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric

from xiaozhi.conversation.services import Services
from xiaozhi.observability.health.upstreams import remote_recognition, voice_states
from xiaozhi.observability.metrics.families import Figures, counter, counters, gauge, gauges
from xiaozhi.upstream.breaker import BreakerState
from xiaozhi.upstream.failure import FailureKind


class UpstreamMetrics(Figures):
    """Reads whatever is configured at each scrape; counters of engines that are exchanged begin again at 0.

    Args:
        services: of the process.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        yield from self._endpoints()
        yield from self._voices()
        yield from self._recognition()

    def _endpoints(self) -> Iterator[Metric]:
        chat = self._services.chat
        states = chat.states()
        if not states:
            return
        one = ("endpoint",)
        yield counters(
            "xiaozhi_endpoint_requests", "Requests, hedges among them.", one, {s.name: s.requests for s in states}
        )
        yield counters(
            "xiaozhi_endpoint_succeeded", "Requests answered to the end.", one, {s.name: s.succeeded for s in states}
        )
        yield counters(
            "xiaozhi_endpoint_dropped",
            "Requests ended by us: nobody listened any more, or another was quicker.",
            one,
            {s.name: s.dropped for s in states},
        )
        yield counters(
            "xiaozhi_endpoint_failures",
            "Requests that failed, by how.",
            ("endpoint", "kind"),
            {(s.name, kind.value): s.failures.get(kind.value, 0) for s in states for kind in FailureKind},
        )
        yield counters(
            "xiaozhi_endpoint_hedges",
            "Requests made because another endpoint was late.",
            one,
            {s.name: s.hedges for s in states},
        )
        yield counters("xiaozhi_endpoint_opened", "Times it was left alone.", one, {s.name: s.opened for s in states})
        yield gauges("xiaozhi_endpoint_in_flight", "Requests under way.", one, {s.name: s.in_flight for s in states})
        yield gauges(
            "xiaozhi_endpoint_max_concurrent",
            "Requests that may be under way at once.",
            one,
            {s.name: s.max_concurrent for s in states},
        )
        yield gauges(
            "xiaozhi_endpoint_first_byte_p90_seconds",
            "Rolling 90th percentile of the time to the first piece.",
            one,
            {s.name: s.first_byte_p90_s for s in states if s.first_byte_p90_s is not None},
        )
        yield gauges(
            "xiaozhi_endpoint_healthy",
            "1 when it was well the last time anybody looked, 0 when not.",
            one,
            {s.name: float(s.healthy) for s in states if s.healthy is not None},
        )
        yield _breakers("endpoint", {s.name: s.breaker for s in states})
        yield counter("xiaozhi_chat_answered", "Replies that came to their end.", chat.answered)
        yield counter("xiaozhi_chat_failed", "Replies that no endpoint could give, or finish.", chat.failed)
        yield counter(
            "xiaozhi_chat_continued", "Replies that another endpoint went on with in the middle.", chat.continued
        )
        yield counter(
            "xiaozhi_chat_offline", "Replies given here because the cloud could not be reached.", chat.offline
        )
        yield counter(
            "xiaozhi_hedges_refused",
            "Second requests that were wanted, and not made for want of budget.",
            chat.pool.budget.refused,
        )

    def _voices(self) -> Iterator[Metric]:
        states = voice_states(self._services)
        slots = self._services.voice.slots
        one = ("voice",)
        yield counters("xiaozhi_voice_sentences", "Sentences spoken.", one, {s.name: s.spoken for s in states})
        yield counters("xiaozhi_voice_failures", "Sentences that failed.", one, {s.name: s.failed for s in states})
        yield _breakers("voice", {s.name: s.breaker for s in states})
        yield gauge("xiaozhi_voice_slots_waiting", "Sentences that wait to ask a voice.", slots.waiting)
        yield counter("xiaozhi_voice_slots_waited", "Sentences that had to wait to ask a voice.", slots.waited)

    def _recognition(self) -> Iterator[Metric]:
        remote = remote_recognition(self._services)
        if remote is None:
            return
        yield counter("xiaozhi_remote_asr_requests", "Utterances that the remote recogniser got.", remote.requests)
        yield counter("xiaozhi_remote_asr_failures", "Of these, requests that failed or were late.", remote.failures)
        yield counter("xiaozhi_remote_asr_fallbacks", "Utterances recognised here instead.", remote.fallbacks)
        yield gauge("xiaozhi_remote_asr_in_flight", "Requests under way.", remote.in_flight)
        yield _breakers("remote_asr", {remote.name: remote.breaker.state(time.monotonic())})


def _breakers(kind: str, states: Mapping[str, BreakerState]) -> Metric:
    """One of the states is 1, the others are 0."""
    return gauges(
        f"xiaozhi_{kind}_breaker",
        "1 for the state of the circuit breaker: closed lets requests through.",
        (kind, "state"),
        {(name, state.value): float(state is now) for name, now in states.items() for state in BreakerState},
    )
