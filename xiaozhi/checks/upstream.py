"""Upstream services: is there a key, does the address answer, is the key taken, is the model known. Costs no tokens."""

import asyncio
import os
from urllib.parse import urlsplit

import aiohttp

from xiaozhi.checks.finding import Finding, bad, ok, warn
from xiaozhi.models.resolver import DaemonResolver
from xiaozhi.settings import LlmEndpoint, LlmSettings, OpenAIVoiceSettings

ANSWER_S = 3.0
"""Longest wait for an upstream to answer."""


async def endpoints(settings: LlmSettings) -> list[Finding]:
    """Every chat endpoint, all at once. One that is down is a warning: it may be back when it is needed."""
    if not settings.endpoints:
        return [
            warn(
                "llm",
                "no endpoint: the built-in responder answers (time, arithmetic, small talk); "
                "add [[llm.endpoints]] for a language model",
            )
        ]
    return list(await asyncio.gather(*(endpoint(one) for one in settings.endpoints)))


async def endpoint(settings: LlmEndpoint) -> Finding:
    """One chat endpoint."""
    return await service(
        f"llm {settings.name}", settings.base_url, settings.key(), settings.api_key_env, settings.model
    )


async def openai_voice(settings: OpenAIVoiceSettings) -> Finding:
    """The speech server. Few of them list their models, so a missing list is no fault."""
    return await service("tts openai", settings.base_url, settings.key(), settings.api_key_env, settings.model)


async def service(subject: str, base_url: str, key: str, key_env: str, model: str) -> Finding:
    """An OpenAI-compatible service, asked for its list of models.

    Args:
        subject: how to call it.
        base_url: its address, up to and with `/v1`.
        key: the API key; empty when there is none.
        key_env: the environment variable that should have held the key.
        model: the model that will be asked for.
    """
    where = _where(base_url)
    if not key and key_env and key_env not in os.environ:
        if not _is_local(base_url):
            return bad(subject, f"{where}: no key: set the environment variable {key_env}", required=False)
        keyless = f"; no key ({key_env} is not set)"
    else:
        keyless = "" if key else "; no key"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=DaemonResolver()), trust_env=True) as session,
            session.get(f"{base_url.rstrip('/')}/models", headers=headers) as reply,
        ):
            return await _judge(subject, where, model, reply, keyless)
    except TimeoutError:
        return warn(subject, f"{where} does not answer within {ANSWER_S:.0f} s: is it running, is the address right?")
    except (aiohttp.ClientError, ValueError, OSError) as error:
        return warn(subject, f"{where} cannot be reached ({_reason(error)}): is it running, is the address right?")


async def _judge(subject: str, where: str, model: str, reply: aiohttp.ClientResponse, keyless: str) -> Finding:
    if reply.status in (401, 403):
        return bad(subject, f"{where} refuses the key (HTTP {reply.status}){keyless}", required=False)
    if reply.status in (404, 405, 501):
        return ok(subject, f"{where} answers, and lists no models{keyless}")
    if reply.status >= 400:
        return warn(subject, f"{where} answers HTTP {reply.status}{keyless}")
    try:
        listed = {str(entry["id"]) for entry in (await reply.json(content_type=None))["data"]}
    except (ValueError, KeyError, TypeError):
        return ok(subject, f"{where} answers, and lists no models{keyless}")
    if listed and not {model, f"{model}:latest"} & listed:
        known = ", ".join(sorted(listed)[:5])
        return warn(subject, f"{where} does not list the model {model}; it lists {known}{' …' * (len(listed) > 5)}")
    return ok(subject, f"{where} answers, model {model}{keyless}")


def _where(base_url: str) -> str:
    """The address without a login."""
    parts = urlsplit(base_url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "localhost" or host.startswith(("127.", "10.", "192.168.")) or "." not in host


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name not found"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else "cannot connect"
    return " ".join(str(error).split()) or type(error).__name__
