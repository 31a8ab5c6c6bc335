"""Turns as OpenTelemetry spans, read back from the wire by a collector that decodes OTLP."""

import asyncio
import contextlib
import gzip
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.house import house, question
from xiaozhi.observability.tracing import Tracer, TracingError, spans_of
from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.operation import TracingSettings
from xiaozhi.turn.trace import ToolUse, TurnTrace

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs xiaozhi[otel]"
)


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: list[str] = []
        self.resources: list[dict[str, Any]] = []
        self.spans: dict[str, Any] = {}

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = trace_service.ExportTraceServiceRequest.FromString(body)
        self.headers.append(request.headers.get("Authorization", ""))
        for resource in message.resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans |= {span.name: span for span in scope.spans}
        return web.Response(
            body=trace_service.ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def attributes(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    taking = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", taking.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    taking.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield taking
    finally:
        await runner.cleanup()


async def test_a_live_turn_arrives_at_a_collector_as_spans_that_fit_its_trace(tmp_path: Path) -> None:
    async with collector() as taking:
        tracing = {"enabled": True, "endpoint": taking.url, "headers": {"Authorization": "Bearer secret"}}
        async with house(tmp_path, tracing=tracing) as home, home.device() as device:
            report = await device.turn(question())
            assert report.trace is not None
            spans_ms = report.trace["spans"]
        spans = taking.spans
        assert set(spans) == {"turn", "listen", "recognise", "chat bench", "speak", "play"}
        turn = spans["turn"]
        assert all(span.parent_span_id == turn.span_id for name, span in spans.items() if name != "turn")
        assert len({span.trace_id for span in spans.values()}) == 1 and not turn.parent_span_id
        chat = spans["chat bench"]
        shown = attributes(chat)
        assert shown["gen_ai.operation.name"] == "chat" and shown["gen_ai.request.model"] == "bench"
        assert shown["gen_ai.provider.name"] == "openai" and shown["server.address"] == "127.0.0.1"
        assert shown["xiaozhi.endpoint"] == "stand-in"
        asked_ms = spans_ms["first_token"] - spans_ms["text"]
        assert shown["gen_ai.response.time_to_first_chunk"] == pytest.approx(asked_ms / 1000.0, abs=0.001)
        anchor_ns = spans["listen"].end_time_unix_nano
        assert (spans["play"].start_time_unix_nano - anchor_ns) / 1e6 == pytest.approx(
            spans_ms["first_packet"], abs=0.2
        )
        assert (turn.end_time_unix_nano - anchor_ns) / 1e6 == pytest.approx(spans_ms["end"], abs=0.2)
        assert [event.name for event in turn.events] == ["commit", "first_packet"]
        assert taking.resources[0]["service.name"] == "xiaozhi" and taking.headers[0] == "Bearer secret"
        assert "what time" not in str(spans) and "ten past" not in str(spans)


def test_a_turn_that_failed_or_was_typed_has_the_spans_that_it_has() -> None:
    endpoint = LlmEndpoint.model_validate({"preset": "claude", "api_key": "k", "max_tokens": 5, "temperature": 0.5})
    trace = TurnTrace(
        3, anchor=10.0, first_token=10.4, commit=10.5, end=11.0, endpoint=f"gone+{endpoint.name}", error="broke off"
    )
    trace.tools.append(ToolUse("weather", 12.0))
    whole, chat = spans_of("aa:bb", trace, [endpoint])
    assert (whole.begin_s, whole.end_s, whole.error) == (10.0, 11.0, "broke off")
    assert whole.attributes["xiaozhi.tools"] == ("weather",)
    assert chat.name == f"chat {endpoint.model}" and chat.attributes["gen_ai.provider.name"] == "anthropic"
    assert chat.attributes["gen_ai.request.max_tokens"] == 5 and chat.attributes["server.port"] == 443
    assert spans_of("aa:bb", TurnTrace(1), []) == []
    assert [span.name for span in spans_of("aa:bb", TurnTrace(1, anchor=1.0, end=2.0, speech_ms=50.0), [])] == [
        "turn",
        "listen",
    ]


async def test_a_collector_that_is_away_costs_a_turn_nothing(tmp_path: Path) -> None:
    tracer = Tracer(TracingSettings(endpoint="http://127.0.0.1:9/v1/traces", timeout_s=0.5))
    now = asyncio.get_running_loop().time()
    tracer.turn("aa:bb", TurnTrace(1, anchor=now, end=now + 1), ())
    assert tracer.turns == 1
    await tracer.close()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingError, match=r"pip install 'xiaozhi\[otel\]'"):
        Tracer(TracingSettings())
    assert not Settings().tracing.enabled
