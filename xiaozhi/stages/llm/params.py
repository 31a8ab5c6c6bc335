"""Messages and tools in the shape of chat completions."""

from dataclasses import replace

from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
)

from xiaozhi.events import Message, ToolSpec
from xiaozhi.stages.llm.engine import ChatRequest


def message_param(message: Message) -> ChatCompletionMessageParam:
    """One message as the API wants it."""
    match message.role:
        case "system":
            return {"role": "system", "content": message.content}
        case "user":
            if not message.image:
                return {"role": "user", "content": message.content}
            parts: list[ChatCompletionContentPartParam] = [{"type": "image_url", "image_url": {"url": message.image}}]
            if message.content:
                parts.append({"type": "text", "text": message.content})
            return {"role": "user", "content": parts}
        case "assistant":
            if not message.tool_calls:
                return {"role": "assistant", "content": message.content}
            return {
                "role": "assistant",
                "content": message.content or None,  # some servers refuse an empty text beside calls
                "tool_calls": [
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                    for call in message.tool_calls
                ],
            }
        case "tool":
            return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}


def tool_param(tool: ToolSpec) -> ChatCompletionFunctionToolParam:
    """One tool as the API wants it."""
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
    }


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
            messages.append(replace(message, tool_calls=()))
    if results:
        messages.append(_told(results))
    return replace(request, messages=messages, tools=())


def _told(results: list[str]) -> Message:
    return Message("user", "\n".join(["(Results of tools, for the answer:)", *results]))
