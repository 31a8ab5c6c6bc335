"""The check asks upstream services for their models, over real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from xiaozhi.checks import upstream
from xiaozhi.checks.finding import Level
from xiaozhi.settings import LlmEndpoint, LlmSettings, OpenAIVoiceSettings


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextlib.asynccontextmanager
async def answering(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app = web.Application()
    app.router.add_get("/v1/models", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def endpoint(base_url: str, **more: object) -> LlmEndpoint:
    return LlmEndpoint.model_validate({"name": "one", "base_url": base_url, "model": "bench", "api_key": "K"} | more)


async def test_an_endpoint_that_lists_the_model_is_good() -> None:
    keys: list[str] = []

    def answer(request: web.Request) -> web.Response:
        keys.append(request.headers["Authorization"])
        return web.json_response({"data": [{"id": "bench"}, {"id": "other"}]})

    async with answering(answer) as url:
        found = await upstream.endpoint(endpoint(url))
    assert (found.level, found.text) == (Level.OK, f"{url} answers, model bench")
    assert keys == ["Bearer K"]


@pytest.mark.parametrize(
    ("status", "body", "level", "words"),
    [
        (200, '{"data": [{"id": "llama"}]}', Level.WARN, "does not list the model bench; it lists llama"),
        (200, '{"data": [{"id": "bench:latest"}]}', Level.OK, "answers, model bench"),
        (200, '{"data": []}', Level.OK, "answers"),
        (200, "<html>", Level.OK, "lists no models"),
        (200, '{"data": 5}', Level.OK, "lists no models"),
        (404, "", Level.OK, "lists no models"),
        (401, "", Level.BAD, "refuses the key (HTTP 401)"),
        (403, "", Level.BAD, "refuses the key (HTTP 403)"),
        (500, "", Level.WARN, "answers HTTP 500"),
    ],
)
async def test_what_an_endpoint_answers_is_told(status: int, body: str, level: Level, words: str) -> None:
    async with answering(lambda _: web.Response(status=status, text=body)) as url:
        found = await upstream.endpoint(endpoint(url))
    assert (found.level, found.required) == (level, False)
    assert words in found.text


async def test_an_endpoint_that_is_down_is_a_warning() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    found = await upstream.endpoint(endpoint(url))
    assert found.level is Level.WARN
    assert "cannot be reached (connection refused)" in found.text
    assert (await upstream.endpoint(endpoint("http://no-such-host.invalid/v1"))).level is Level.WARN


async def test_an_endpoint_that_never_answers_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "ANSWER_S", 0.05)
    done = asyncio.Event()

    async def swallow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        found = await upstream.endpoint(endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"))
        done.set()
    assert found.level is Level.WARN
    assert "does not answer within" in found.text


async def test_a_key_that_is_not_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    found = await upstream.endpoint(endpoint("https://api.example.org/v1", api_key="", api_key_env="MY_KEY"))
    assert (found.level, found.required) == (Level.BAD, False)
    assert found.text == "https://api.example.org/v1: no key: set the environment variable MY_KEY"
    async with answering(lambda _: web.json_response({"data": [{"id": "tts-1"}]})) as url:
        voice = await upstream.openai_voice(OpenAIVoiceSettings(base_url=url, api_key_env="MY_KEY"))
    assert (voice.subject, voice.level) == ("tts openai", Level.OK)
    assert voice.text.endswith("; no key (MY_KEY is not set)")


async def test_neither_key_nor_login_is_shown() -> None:
    async with answering(lambda _: web.Response(status=401)) as url:
        found = await upstream.endpoint(endpoint(url.replace("://", "://me:SECRET@"), api_key="SECRET"))
    assert "SECRET" not in str(found)


async def test_without_an_endpoint_the_built_in_responder_is_told() -> None:
    (found,) = await upstream.endpoints(LlmSettings())
    assert found.level is Level.WARN
    assert "built-in responder" in found.text


async def test_all_endpoints_are_asked() -> None:
    async with answering(lambda _: web.json_response({"data": [{"id": "bench"}]})) as url:
        found = await upstream.endpoints(LlmSettings(endpoints=(endpoint(url), endpoint(url, name="two"))))
    assert [(one.subject, one.level) for one in found] == [("llm one", Level.OK), ("llm two", Level.OK)]
