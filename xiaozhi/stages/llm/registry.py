"""Chooses the chat model that the settings ask for."""

import random
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from xiaozhi.settings import LlmEndpoint, LlmSettings
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.llm.responder import BuiltInResponder

if TYPE_CHECKING:
    from xiaozhi.stages.llm.connections import HostConnections
    from xiaozhi.stages.llm.endpoint import EndpointChat

_KINDS: Final = {
    "openai": "openai_chat:OpenAIChat",
    "responses": "responses:ResponsesChat",
    "dify": "dify:DifyChat",
    "coze": "coze:CozeChat",
    "fastgpt": "fastgpt:FastGptChat",
    "ragflow": "fastgpt:RagFlowChat",
    "home-assistant": "home_assistant:HomeAssistantChat",
}


@dataclass(frozen=True, slots=True)
class BuiltChat:
    """Who answers, why it was chosen, and what to do for a better one (empty when there is nothing to do)."""

    chat: Chat
    why: str
    hint: str = ""


def build_chat(
    settings: LlmSettings, timezone: str = "", *, edge: bool = False, rng: random.Random | None = None
) -> BuiltChat:
    """All endpoints as one; the built-in responder when there is none. Opens no connection.

    Args:
        settings: the table `llm`.
        timezone: of the users, for the built-in responder's clock; empty for that of the machine.
        edge: this node is near its devices and may lose its uplink.
        rng: spreads the questions; seeded in tests.
    """
    if not settings.endpoints:
        zone = ZoneInfo(timezone) if timezone else None
        responder = BuiltInResponder(lambda: datetime.now(zone).astimezone(zone))
        return BuiltChat(
            Chat(settings, [responder]),
            "built-in responder: no endpoint is set",
            'for real conversation add [[llm.endpoints]] with a preset such as "qwen", and its key, to settings.toml',
        )
    from xiaozhi.stages.llm.connections import HostConnections

    connections = HostConnections(settings)
    models = [build_model(endpoint, settings, connections) for endpoint in settings.endpoints]
    keyless = [one for one in settings.endpoints if one.api_key_env and not one.key()]
    several = len(settings.endpoints) > 1
    hints = [
        f"the variable {one.api_key_env} holds no key" + (f' for endpoint "{one.name}"' if several else "")
        for one in keyless
    ]
    why = "; ".join(_line(one, several) for one in settings.endpoints)
    return BuiltChat(Chat(settings, models, rng=rng, edge=edge), why, "; ".join(hints))


def build_model(
    endpoint: LlmEndpoint, settings: LlmSettings, connections: "HostConnections | None" = None
) -> "EndpointChat":
    """One endpoint of its kind, imported only now: loading the client takes most of a second."""
    return _class_of(endpoint)(endpoint, settings, connections)


def path_of(endpoint: LlmEndpoint) -> str:
    """What a kind of endpoint is asked at, behind its address."""
    return _class_of(endpoint).path


def _class_of(endpoint: LlmEndpoint) -> "type[EndpointChat]":
    module, _, name = _KINDS[endpoint.kind].partition(":")
    kind: type[EndpointChat] = getattr(import_module(f"xiaozhi.stages.llm.{module}"), name)
    return kind


def _line(endpoint: LlmEndpoint, several: bool) -> str:
    url = urlsplit(endpoint.base_url)
    where = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()  # no credentials
    tier = f" ({endpoint.place})" if several else ""
    return f'endpoint "{endpoint.name}"{tier}: {endpoint.model} at {where}'
