"""Messages and tools in the shape of chat completions."""

from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
)

from xiaozhi.events import Message, ToolSpec


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
