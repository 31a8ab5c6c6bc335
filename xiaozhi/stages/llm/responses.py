"""OpenAI's Responses, and what speaks like it. Nothing is kept over there: the past goes along, as with completions.

A reply that was broken off cannot be gone on with by its id, and of ours every third one may be.
"""

from collections.abc import Iterator
from typing import Any

from xiaozhi.events import Message
from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.stages.llm.event_stream import Event
from xiaozhi.stages.llm.platform import Answer, PlatformChat
from xiaozhi.stages.llm.sse import Declined, declined_by_error, declined_by_reason, error_text
from xiaozhi.stages.llm.threads import Thread
from xiaozhi.stages.llm.tool_calls import CallPiece
from xiaozhi.text.surrogates import without_halves


class ResponsesChat(PlatformChat):
    """One model, with the agent's prompt and our tools."""

    path = "/responses"

    def _question(self, request: ChatRequest, thread: Thread, picture: str) -> tuple[str, dict[str, Any]]:
        prompts = [message.content for message in request.messages if message.role == "system"]
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "instructions": without_halves("\n\n".join(prompts)),
            "input": [item for message in request.messages for item in _items(message)],
            "stream": True,
            "store": False,
        }
        if self._endpoint.max_tokens is not None:
            body["max_output_tokens"] = self._endpoint.max_tokens
        if self._endpoint.temperature is not None:
            body["temperature"] = self._endpoint.temperature
        if request.tools:
            body["tool_choice"] = request.tool_choice
            body["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                    "strict": False,
                }
                for tool in request.tools
            ]
        return self.path, body

    def _read(self, event: Event, body: dict[str, Any], answer: Answer) -> str:
        kind, text = str(body.get("type")), body.get("delta")
        response = body.get("response")
        response = response if isinstance(response, dict) else {}
        match kind:
            case "response.output_text.delta" | "response.refusal.delta":
                return without_halves(text) if isinstance(text, str) else ""
            case "response.output_item.done":
                item = body.get("item")
                if isinstance(item, dict) and item.get("type") == "function_call":
                    call_id, name, arguments = (str(item.get(key) or "") for key in ("call_id", "name", "arguments"))
                    answer.calls.push([CallPiece(len(answer.calls.extra), call_id, name, arguments)])
            case "response.completed":
                answer.finished = True
            case "response.incomplete":
                answer.finished = True
                details = response.get("incomplete_details")
                reason = str(details.get("reason")) if isinstance(details, dict) else ""
                if declined_by_reason(reason):
                    raise Declined(reason)
            case "response.failed" | "error":
                told = response.get("error") or body.get("error") or body
                if declined_by_error(told):
                    raise Declined(error_text(told))
                busy = "rate_limit" in str(told)[:500]
                raise self._refused(429 if busy else 500, error_text(told), {})
        answer.working = kind.endswith(".delta")
        return ""


def _items(message: Message) -> Iterator[dict[str, Any]]:
    """One message as items of the input; a system message is none."""
    content = without_halves(message.content)
    match message.role:
        case "user" if message.image:
            parts = [{"type": "input_text", "text": content}] if content else []
            yield {"role": "user", "content": [*parts, {"type": "input_image", "image_url": message.image}]}
        case "user":
            yield {"role": "user", "content": content}
        case "tool":
            yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": content}
        case "assistant":
            if content:
                yield {"role": "assistant", "content": content}
            for call in message.tool_calls:
                yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
