"""Requests in the shape of chat completions, and what may be left out of them."""

import re
from dataclasses import replace
from typing import Any, Final

import orjson

from xiaozhi.events import Message, ToolSpec
from xiaozhi.settings import LlmEndpoint
from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.text.loose_json import wire_object
from xiaozhi.text.surrogates import without_halves

_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_NAME_CHARS: Final = 64


def completion_body(request: ChatRequest, endpoint: LlmEndpoint, *, max_tokens_name: str) -> bytes:
    """The JSON that asks for a streamed completion, its fields in the order in which the `openai` client has them.

    Args:
        request: what is asked.
        endpoint: the model, its limits, and what else its owner wants sent.
        max_tokens_name: what this endpoint calls the limit of an answer.

    Raises:
        TypeError: `extra_body` of the endpoint holds something that JSON does not know.
    """
    messages = [message_param(message, endpoint.name) for message in request.messages]
    body: dict[str, Any] = {"model": endpoint.model, "stream": True, "messages": messages}
    if endpoint.max_tokens is not None:
        body[max_tokens_name] = endpoint.max_tokens
    if endpoint.temperature is not None:
        body["temperature"] = endpoint.temperature
    if request.tools:
        body["tool_choice"] = request.tool_choice
        body["tools"] = [_tool_param(tool) for tool in request.tools]
    return orjson.dumps(body | (endpoint.extra_body or {}))


def _tool_param(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def message_param(message: Message, endpoint: str) -> dict[str, Any]:
    """One message as the API wants it.

    Args:
        message: of the conversation.
        endpoint: who gets it: what a provider sent beside its calls goes back to that one alone.
    """
    content = without_halves(message.content)
    match message.role:
        case "user" if message.image:
            parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": message.image}}]
            if content:
                parts.append({"type": "text", "text": content})
            return {"role": "user", "content": parts}
        case "assistant" if message.tool_calls:
            return _calling(message, content, endpoint)
        case "tool":
            return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content}
        case role:
            return {"role": role, "content": content}


def _calling(message: Message, content: str, endpoint: str) -> dict[str, Any]:
    provider = message.provider if message.provider is not None and message.provider.endpoint == endpoint else None
    beside = provider.calls if provider is not None else ({},) * len(message.tool_calls)
    calls = []
    for call, extra in zip(message.tool_calls, beside, strict=True):
        # Servers refuse a conversation for a name or arguments that they would not have written themselves.
        function = {"name": _NO_NAME.sub("_", call.name)[:_MAX_NAME_CHARS], "arguments": wire_object(call.arguments)}
        calls.append(
            {**extra, "id": call.id, "type": "function", "function": {**extra.get("function", {}), **function}}
        )
    return {
        **(provider.message if provider is not None else {}),
        "role": "assistant",
        "content": content or None,  # some servers refuse an empty text beside calls
        "tool_calls": calls,
    }


def speaks_of_tools(request: ChatRequest) -> bool:
    """Whether tools are offered, or have been called."""
    return bool(request.tools) or any(message.role == "tool" for message in request.messages)


def without_provider_fields(request: ChatRequest) -> ChatRequest:
    """The request with nothing that a provider sent beside its calls."""
    return replace(request, messages=[replace(message, provider=None) for message in request.messages])


def without_tools(request: ChatRequest) -> ChatRequest:
    """The request for a model that knows no tools: what tools have said already becomes plain text."""
    messages: list[Message] = []
    results: list[str] = []
    for message in request.messages:
        if message.role == "tool":
            results.append(message.content)
            continue
        if results:
            messages.append(_told(results))
            results = []
        if message.content or not message.tool_calls:
            messages.append(replace(message, tool_calls=(), provider=None))
    if results:
        messages.append(_told(results))
    return replace(request, messages=messages, tools=())


def _told(results: list[str]) -> Message:
    return Message("user", "\n".join(["(Results of tools, for the answer:)", *results]))
