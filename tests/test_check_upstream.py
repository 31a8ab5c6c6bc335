"""The check asks language models for a few words and speech servers for their models, over real sockets."""

import socket
import time
from typing import Any

import orjson
import pytest

from bench.standins.chat import ChatStandIn, Verbatim
from xiaozhi.checks import upstream
from xiaozhi.checks.finding import Finding, Level
from xiaozhi.models import resolver
from xiaozhi.settings import LlmEndpoint, LlmSettings


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def endpoint(base_url: str, **more: object) -> LlmEndpoint:
    return LlmEndpoint.model_validate({"name": "one", "base_url": base_url, "model": "bench", "api_key": "K"} | more)


async def found(address: str, limits: LlmSettings | None = None, **more: object) -> Finding:
    return await upstream.endpoint(endpoint(address, **more), limits or LlmSettings())


async def test_an_endpoint_is_asked_for_a_few_words_as_a_turn_asks_it() -> None:
    async with ChatStandIn("Hello there.") as chat:
        one = await found(f"{chat.url}/v1", extra_body={"enable_thinking": False}, temperature=0.5)
        (asked,) = chat.requests
    assert (one.level, one.text) == (Level.OK, f"{chat.url}/v1 answers, model bench")
    assert asked.headers["Authorization"] == "Bearer K"
    assert asked.body == {
        "model": "bench",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 16,
        "temperature": 0.5,
        "enable_thinking": False,
    }


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        ("only-reasoning", Level.BAD, "is no chat endpoint: it answered nothing"),
        ("think-cut", Level.OK, "answers, model bench"),
        ("html", Level.BAD, "is no chat endpoint: it answered with text/html"),
        ("400", Level.BAD, "refuses the request for model bench (HTTP 400: The request was refused)"),
        ("401", Level.BAD, "refuses the key (HTTP 401: Incorrect API key provided)"),
        ("429", Level.WARN, "HTTP 429"),
        ("500", Level.WARN, "HTTP 500: The server had an error while processing your request"),
        ("hang", Level.WARN, "no first token within 0.3 s"),
        ("refuse", Level.WARN, "cannot be reached ("),
    ],
)
async def test_what_an_endpoint_answers_is_told(fault: str, level: Level, words: str) -> None:
    async with ChatStandIn() as chat:
        chat.fault = fault
        one = await found(f"{chat.url}/v1", LlmSettings(first_token_timeout_s=0.3), thinks=fault == "think-cut")
    assert (one.level, one.required) == (level, False)
    assert words in one.text and "\n" not in one.text


@pytest.mark.parametrize(
    ("body", "status", "level", "words"),
    [
        (
            {"error": {"message": "There is no model bench"}},
            404,
            Level.BAD,
            "There is no model bench",
        ),
        ({"error": {"message": "Content Exists Risk"}}, 400, Level.OK, "answers"),
        ({"error": {"message": "Use 'max_completion_tokens' instead."}}, 400, Level.OK, "answers"),
    ],
)
async def test_what_an_endpoint_refuses_is_told(body: object, status: int, level: Level, words: str) -> None:
    def answer(asked: dict[str, Any]) -> Verbatim | None:
        return None if "max_completion_tokens" in asked else Verbatim(orjson.dumps(body), status, "application/json")

    async with ChatStandIn() as chat:
        chat.verbatim = answer
        one = await found(f"{chat.url}/v1")
    assert one.level is level and words in one.text


async def test_an_address_that_lacks_its_version_is_said_with_what_to_write() -> None:
    async with ChatStandIn() as chat:
        one = await found(chat.url)
        assert one.text.endswith(f'write base_url = "{chat.url}/v1"'), one.text
        chat.fault = "401"
        assert "/v1" in (await found(chat.url)).text, "that answers, and refuses the key"
        one = await found(f"{chat.url}/v2")
    assert one.level is Level.BAD and "base_url is what stands before /chat/completions" in one.text


async def test_an_endpoint_that_is_down_is_a_warning() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    one = await found(url)
    assert one.level is Level.WARN
    assert "cannot be reached (" in one.text and "is it running, is the address right?" in one.text
    one = await found("http://no-such-host.invalid/v1")
    assert one.level is Level.WARN and "name no-such-host.invalid not found" in one.text


async def test_a_name_about_which_nobody_answers_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "ANSWER_S", 0.05)
    monkeypatch.setattr(resolver, "_addresses", lambda *_: time.sleep(1))
    assert "no answer about the name" in (await found("http://slow.invalid/v1")).text


async def test_a_key_that_no_service_gave_is_said_and_sent_nowhere() -> None:
    async with ChatStandIn() as chat:
        one = await found(f"{chat.url}/v1", api_key="你的api key")
        assert chat.requests == []
    assert one.level is Level.BAD
    assert one.text == f"{chat.url}/v1: the key holds characters that no key has: copy it again"


async def test_a_key_that_is_not_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    one = await found("https://api.example.org/v1", api_key="", api_key_env="MY_KEY")
    assert (one.level, one.required) == (Level.BAD, False)
    assert one.text == "https://api.example.org/v1: no key: set the environment variable MY_KEY"


async def test_neither_key_nor_login_is_shown() -> None:
    async with ChatStandIn() as chat:
        chat.fault = "401"
        one = await found(f"{chat.url}/v1".replace("://", "://me:SECRET@"), api_key="SECRET")
    assert "SECRET" not in str(one)


async def test_without_an_endpoint_the_built_in_responder_is_told() -> None:
    (one,) = await upstream.endpoints(LlmSettings())
    assert one.level is Level.WARN
    assert "built-in responder" in one.text


async def test_all_endpoints_are_asked() -> None:
    async with ChatStandIn() as chat:
        both = (endpoint(f"{chat.url}/v1"), endpoint(f"{chat.url}/v1", name="two"))
        all_found = await upstream.endpoints(LlmSettings(endpoints=both))
    assert [(one.subject, one.level) for one in all_found] == [("llm one", Level.OK), ("llm two", Level.OK)]
