"""Chooses the chat model that the settings ask for."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from xiaozhi.settings import LlmSettings
from xiaozhi.stages.llm.engine import ChatModel
from xiaozhi.stages.llm.responder import BuiltInResponder


@dataclass(frozen=True, slots=True)
class BuiltChat:
    """A chat model, why it was chosen, and what to do for a better one (empty when there is nothing to do)."""

    model: ChatModel
    why: str
    hint: str = ""


def build_chat(settings: LlmSettings) -> BuiltChat:
    """The first endpoint; the built-in responder when there is none. Opens no connection."""
    if not settings.endpoints:
        return BuiltChat(
            BuiltInResponder(),
            "built-in responder: no endpoint is set",
            "for real conversation add [[llm.endpoints]] with name, base_url, model and api_key to settings.toml",
        )
    # Imported only when chosen: loading the client takes most of a second.
    from xiaozhi.stages.llm.openai_chat import OpenAIChat

    endpoint = settings.endpoints[0]
    url = urlsplit(endpoint.base_url)
    where = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()  # no credentials
    hints = []
    if endpoint.api_key_env and not endpoint.key():
        hints.append(f"the variable {endpoint.api_key_env} holds no key")
    if len(settings.endpoints) > 1:
        unused = ", ".join(f'"{other.name}"' for other in settings.endpoints[1:])
        hints.append(f"only the first endpoint is used, not {unused}")
    return BuiltChat(
        OpenAIChat(endpoint, settings), f'endpoint "{endpoint.name}": {endpoint.model} at {where}', "; ".join(hints)
    )
