"""Coze: a published bot, over `/v3/chat`."""

from typing import Any, Final
from urllib.parse import quote

import orjson

from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.stages.llm.event_stream import Event, NotAChatStream
from xiaozhi.stages.llm.platform import Answer, PlatformChat
from xiaozhi.stages.llm.sse import Declined, declined_by_error, error_text
from xiaozhi.stages.llm.threads import Thread
from xiaozhi.text.surrogates import without_halves

# What its codes amount to; the others are failures of the server.
_STATUSES: Final = {
    4000: 400, 4015: 403, 4016: 409, 4100: 401, 4101: 403, 4200: 404, 700012006: 401,
    **dict.fromkeys((4008, 4009, 4010, 4011, 4013, 4014), 429),
    **dict.fromkeys((4027, 4028), 402),
}  # fmt: skip
# The conversation is not there, or another answer is being given in it.
_LOST: Final = (4200, 4016)
_WORK: Final = ("conversation.chat.in_progress", "conversation.message.delta", "conversation.message.completed")


class CozeChat(PlatformChat):
    """One bot: the model's name is its id, the key a personal access token. Prompt, model and tools are its own."""

    path = "/v3/chat"
    upload = "/v1/files/upload"

    def _question(self, request: ChatRequest, thread: Thread, picture: str) -> tuple[str, dict[str, Any]]:
        unseen = [
            {
                "role": one.role,
                "type": "question" if one.role == "user" else "answer",
                "content": without_halves(one.content),
                "content_type": "text",
            }
            for one in thread.unseen(request)
        ]
        if picture:
            parts = [{"type": "text", "text": unseen[-1]["content"]}, {"type": "image", "file_id": picture}]
            unseen[-1] |= {"content": orjson.dumps(parts).decode(), "content_type": "object_string"}
        where = f"{self.path}?conversation_id={quote(thread.id)}" if thread.id else self.path
        return where, {
            "bot_id": self._endpoint.model,
            "user_id": thread.user,
            "stream": True,
            "auto_save_history": True,
            "additional_messages": unseen,
        }

    def _fault(self, status: int, body: dict[str, Any]) -> tuple[int, str]:
        code = body.get("code")
        if status == 200 and isinstance(code, int) and code:
            return _STATUSES.get(code, 500), f"{error_text(body)} ({code})"
        return status, error_text(body)

    def _is_lost(self, status: int, body: dict[str, Any]) -> bool:
        return body.get("code") in _LOST

    def _stop(self, thread: Thread, answer: Answer) -> tuple[str, dict[str, Any]] | None:
        if not answer.task:
            return None
        return "/v3/chat/cancel", {"chat_id": answer.task, "conversation_id": answer.conversation}

    def _read(self, event: Event, body: dict[str, Any], answer: Answer) -> str:
        conversation, kind = body.get("conversation_id"), event.kind
        if isinstance(conversation, str):
            answer.conversation = conversation[:100] or answer.conversation
        match kind:
            case "conversation.chat.created":
                chat = body.get("id")
                answer.task = chat[:100] if isinstance(chat, str) else ""
            case "conversation.chat.completed":
                answer.finished = True
            case "conversation.message.delta" | "conversation.message.completed" if body.get("type") == "answer":
                text = body.get("content")
                whole = kind.endswith("completed")  # once more, where it came in pieces
                if isinstance(text, str) and text and not (whole and answer.said):
                    return text
            case "conversation.chat.requires_action":
                raise NotAChatStream("wants a tool called on this side: take client-side plugins out of the bot")
            case "conversation.chat.failed" | "error":
                told = body.get("last_error") if isinstance(body.get("last_error"), dict) else body
                answer.task = ""
                status, said = self._fault(200, told if isinstance(told, dict) else {})
                if declined_by_error(said):
                    raise Declined(said)
                raise self._refused(status if status != 200 else 500, said, {})
        answer.working = kind in _WORK
        return ""
