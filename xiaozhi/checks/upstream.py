"""Language models: does the address answer, is the key taken, is the model known. Costs a few tokens each."""

import asyncio
import os
import re
import socket
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from xiaozhi.checks.finding import Finding, bad, ok, warn
from xiaozhi.models.resolver import DaemonResolver
from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.settings.pasted import is_near, key_fault
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Message
from xiaozhi.stages.llm.registry import build_model, path_of
from xiaozhi.upstream.failure import FailureKind

ANSWER_S = 3.0
"""Longest wait for a name."""
_TOKENS: Final = 16
"""What a language model may say: less is refused by some."""


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
    return list(await asyncio.gather(*(endpoint(one, settings) for one in settings.endpoints)))


async def endpoint(settings: LlmEndpoint, limits: LlmSettings) -> Finding:
    """One chat endpoint, asked for a few words by the client and in the way of every turn."""
    subject, where, key = f"llm {settings.name}", _where(settings.base_url), settings.key()
    if why := _unusable_key(settings.base_url, key, settings.api_key_env):
        return bad(subject, f"{where}: {why}", required=False)
    keyless = _keyless(key, settings.api_key_env)
    error = await _asked(settings, limits)
    if error is None:
        return ok(subject, f"{where} answers, model {settings.model}{keyless}")
    said = str(error).removeprefix(f"{settings.name}: ")
    match error.status:
        case 401 | 403:
            return bad(subject, f"{where} refuses the key ({said}){keyless}", required=False)
        case 404 | 405 if not re.search(r"\bmodel\b", said, re.IGNORECASE):
            advice = await _elsewhere(settings, limits)
            return bad(subject, f"{where}{path_of(settings)} is not there ({said}): {advice}", required=False)
        case status if 400 <= status < 500 and status not in (408, 429):
            return bad(subject, f"{where} refuses the request for model {settings.model} ({said})", required=False)
        case 0 if error.kind is FailureKind.CONNECTION:
            return warn(subject, f"{where} cannot be reached ({said}): is it running, is the address right?")
        case 0 if error.kind is FailureKind.NONSENSE:
            return bad(subject, f"{where} is no chat endpoint: it {said}", required=False)
        case _:
            return warn(subject, f"{where}: {said}{keyless}")


async def _asked(settings: LlmEndpoint, limits: LlmSettings) -> ChatError | None:
    """Why there are no words; None where there are, or where all that was allowed went into thoughts."""
    from xiaozhi.stages.llm.openai_chat import SPENT

    url = urlsplit(settings.base_url)
    if not getproxies() and (why := await _unknown_host(url.hostname or "", url.port or 443)):
        return ChatError(why, kind=FailureKind.CONNECTION)
    chat = build_model(settings.model_copy(update={"max_tokens": _TOKENS}), limits)
    try:
        async with aclosing(chat.stream(ChatRequest([Message("user", "hi")], "en"))) as deltas:
            await anext(deltas, None)
    except ChatError as error:
        return None if SPENT in str(error) else error
    finally:
        await chat.close()
    return None


async def _elsewhere(settings: LlmEndpoint, limits: LlmSettings) -> str:
    """What to do where nothing is at an address: most often it lacks its version."""
    address = settings.base_url.rstrip("/")
    if not re.search(r"/v\d", address):
        error = await _asked(settings.model_copy(update={"base_url": f"{address}/v1"}), limits)
        if error is None or error.status not in (0, 404, 405):
            return f'write base_url = "{_where(address)}/v1"'
    return f"base_url is what stands before {path_of(settings)} in the service's documents"


async def _unknown_host(host: str, port: int) -> str:
    """Why the name of a host leads nowhere; looked up in a thread that nobody waits for."""
    try:
        async with asyncio.timeout(ANSWER_S):
            await DaemonResolver().resolve(host, port, socket.AF_UNSPEC)
    except TimeoutError:
        return f"no answer about the name {host} within {ANSWER_S:.0f} s"
    except OSError:
        return f"name {host} not found"
    return ""


def _where(base_url: str) -> str:
    """The address without a login."""
    parts = urlsplit(base_url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _unusable_key(base_url: str, key: str, key_env: str) -> str:
    """Why a service need not be asked; empty where it is worth while."""
    if fault := key_fault(key):
        return f"the key {fault}: copy it again"
    missing = not key and key_env and key_env not in os.environ and not is_near(urlsplit(base_url).hostname or "")
    return f"no key: set the environment variable {key_env}" if missing else ""


def _keyless(key: str, key_env: str) -> str:
    """What to say of a service that is asked without a key."""
    if key:
        return ""
    return f"; no key ({key_env} is not set)" if key_env and key_env not in os.environ else "; no key"
