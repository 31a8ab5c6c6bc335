"""Dify: chat apps, agents and chatflows, over `chat-messages`."""

from typing import Any, Final

from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.stages.llm.event_stream import Event
from xiaozhi.stages.llm.platform import Answer, PlatformChat
from xiaozhi.stages.llm.sse import Declined, declined_by_error, error_text
from xiaozhi.stages.llm.threads import Thread

# Signs of life of a flow that has nothing to say yet; `ping` is none.
_WORK: Final = ("agent_thought", "agent_log", "workflow_started")


class DifyChat(PlatformChat):
    """One app; the address ends in `/v1`, the key is the app's. Its prompt, model and tools are the app's own."""

    path = "/chat-messages"
    upload = "/files/upload"

    def _question(self, request: ChatRequest, thread: Thread, picture: str) -> tuple[str, dict[str, Any]]:
        return self.path, {
            "query": thread.question(request),
            "inputs": {},
            "response_mode": "streaming",  # agents do nothing else
            "user": thread.user,
            "conversation_id": thread.id,
            "files": [{"type": "image", "transfer_method": "local_file", "upload_file_id": picture}] if picture else [],
            "auto_generate_name": False,
        }

    def _is_lost(self, status: int, body: dict[str, Any]) -> bool:
        return status == 404 and "conversation" in error_text(body).lower()

    def _stop(self, thread: Thread, answer: Answer) -> tuple[str, dict[str, Any]] | None:
        return (f"{self.path}/{answer.task}/stop", {"user": thread.user}) if answer.task else None

    def _read(self, event: Event, body: dict[str, Any], answer: Answer) -> str:
        answer.conversation = _name(body.get("conversation_id")) or answer.conversation
        answer.task = _name(body.get("task_id")) or answer.task
        text, kind = body.get("answer"), body.get("event")
        text = text if isinstance(text, str) else ""
        match kind:
            case "message" | "agent_message":
                return text
            case "message_replace":  # moderation: what was said cannot be taken back
                return text.removeprefix(answer.said) if text.startswith(answer.said) else f"\n{text}"
            case "message_end":
                answer.finished = True
            case "error":
                answer.task = ""
                if declined_by_error(body):
                    raise Declined(error_text(body))
                status = body.get("status")
                raise self._refused(status if isinstance(status, int) else 500, error_text(body), {})
            case str() if kind in _WORK or kind.startswith(("node_", "iteration_", "loop_")):
                answer.working = True
        return ""


def _name(value: Any) -> str:
    """An id as these services give them; nothing else goes into an address."""
    return value if isinstance(value, str) and len(value) <= 100 and value.replace("-", "").isalnum() else ""
