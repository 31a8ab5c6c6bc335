"""Home Assistant's conversation, over its REST interface: the house understands, acts and says what it did."""

from typing import Any, Final

from xiaozhi.stages.llm.continuation import goes_on
from xiaozhi.stages.llm.engine import ChatError, ChatRequest
from xiaozhi.stages.llm.event_stream import Event, NotAChatStream
from xiaozhi.stages.llm.platform import Answer, PlatformChat
from xiaozhi.stages.llm.threads import Thread
from xiaozhi.text.messages import message as own_message
from xiaozhi.text.surrogates import without_halves
from xiaozhi.upstream.failure import FailureKind

_NOT_UNDERSTOOD: Final = ("no_intent_match", "no_valid_targets")


class HomeAssistantChat(PlatformChat):
    """One conversation agent: the model's name is its id, the key a long-lived access token.

    What it does not understand another endpoint may answer; it never goes on with an answer of somebody else.
    """

    path = "/api/conversation/process"
    answers_in_json = True

    def _question(self, request: ChatRequest, thread: Thread, picture: str) -> tuple[str, dict[str, Any]]:
        newest = request.messages[-1]
        if newest.role != "user" or goes_on(request):
            raise ChatError(self._line("does not go on with what others have begun"), kind=FailureKind.REQUEST)
        body = {  # below the user's words there may be notes for language models
            "text": without_halves(newest.content.partition("\n")[0]),
            "language": request.language,
            "agent_id": self._endpoint.model,
        }
        return self.path, body | ({"conversation_id": thread.id} if thread.id else {})

    def _read(self, event: Event, body: dict[str, Any], answer: Answer) -> str:
        conversation, response = body.get("conversation_id"), body.get("response")
        if isinstance(conversation, str):
            answer.conversation = conversation[:100]
        try:
            speech = str(response["speech"]["plain"]["speech"])  # type: ignore[index]  # hostile: any shape
            code = response["data"]["code"] if response["response_type"] == "error" else ""  # type: ignore[index]
        except (KeyError, TypeError):
            raise NotAChatStream("sent no answer of a conversation") from None
        if code in _NOT_UNDERSTOOD and len(self._settings.endpoints) > 1:
            raise ChatError(self._line(f"has not understood: {speech[:200]}"), kind=FailureKind.REQUEST)
        answer.finished = True
        # A script may act and say nothing.
        return speech if speech.strip() else own_message("done", str(body["response"].get("language")))
