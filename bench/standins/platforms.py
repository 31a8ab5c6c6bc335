"""Stand-ins for agent platforms: strict about keys, fields, users and conversations, and each with its own events."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from bench.standins.base import StandIn, reset

KEY: Final = "app-of-the-stand-in"
DEFAULT: Final = "🙂 It is ten past nine. The weather is fine."


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: where, with which body, and in which conversation it was answered."""

    path: str
    body: dict[str, Any]
    conversation: str


@dataclass(slots=True)
class Kept:
    """A conversation: whose it is, what was asked in it, and whether an answer is being given."""

    user: str
    asked: list[str] = field(default_factory=list)
    busy: bool = False


class PlatformStandIn(StandIn):
    """What the platforms have in common.

    Args:
        answer: to everything, or a function of the question.

    Attributes:
        requests: `Asked`, one for each question that was taken.
        conversations: by id; clear it, and every one is lost.
        stopped: answers that were broken off by their id.
        pictures: what was uploaded.
        hang_at: before which piece an answer halts until it is broken off; negative for never.

    Faults:
        401, 429, 500: a refusal, in the platform's words.
        error-mid, hang-mid, reset-mid, cut: after three pieces an error event, silence, a broken connection, an end
            without the last event.
        declined: its filter refuses the question.
    """

    FAULTS = frozenset("401 429 500 error-mid hang-mid reset-mid cut declined".split())

    def __init__(self, answer: str | Callable[[str], str] = DEFAULT) -> None:
        super().__init__()
        self.answer = answer
        self.conversations: dict[str, Kept] = {}
        self.stopped: list[str] = []
        self.hang_at = -1
        self.pictures: list[bytes] = []
        self._numbers = itertools.count(1)
        self._running: dict[str, asyncio.Event] = {}

    def pieces(self, question: str) -> list[str]:
        """The answer, cut between all words and inside of some."""
        text = self.answer(question) if callable(self.answer) else self.answer
        return [text[start : start + 3] for start in range(0, len(text), 3)]

    def authorised(self, request: web.Request) -> bool:
        """Whether the key is given as all of them want it."""
        return request.headers.get("Authorization") == f"Bearer {KEY}" and self.fault != "401"

    async def upload(self, request: web.Request) -> web.Response:
        """Take a picture; its id goes along with a question."""
        form = await request.post()
        file = form.get("file")
        if not self.authorised(request) or not isinstance(file, web.FileField) or file.content_type != "image/png":
            return _json({"code": "unsupported_file_type", "message": "File type not allowed.", "status": 415}, 415)
        self.pictures.append(file.file.read())
        about = {"id": f"file-{len(self.pictures)}", "created_at": 1_700_000_000}
        if isinstance(self, DifyStandIn):
            return _json({**about, "name": file.filename, "mime_type": file.content_type}, 201)
        return _json({"code": 0, "data": {**about, "file_name": file.filename, "bytes": len(self.pictures[-1])}})

    def new_conversation(self, user: str) -> str:
        """Begin one; returns its id."""
        number = next(self._numbers)
        name = f"0193a7f0-0000-4000-8000-{number:012d}"
        self.conversations[name] = Kept(user)
        return name

    async def event(self, response: web.StreamResponse, body: dict[str, Any] | str, kind: str = "") -> None:
        """Send one event."""
        data = body if isinstance(body, str) else orjson.dumps(body).decode()
        head = f"event:{kind}\ndata:" if kind else "data: "  # Coze and others leave the blank out
        await response.write(f"{head}{data}\n\n".encode())

    async def paused(self, request: web.Request, stop: asyncio.Event, number: int) -> bool:
        """Before each piece: whether the answer ends here, broken off or as the fault says."""
        if number == 3 and self.fault == "reset-mid":
            await asyncio.sleep(0)
            reset(request)
        if number == self.hang_at or (number == 3 and self.fault == "hang-mid"):
            await stop.wait()
        return stop.is_set() or (number == 3 and self.fault in ("cut", "reset-mid"))


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


class DifyStandIn(PlatformStandIn):
    """`/v1/chat-messages`, with pings and flow events between the words."""

    _NEEDED: Final = {"query", "inputs", "response_mode", "user"}
    _KNOWN: Final = _NEEDED | {"conversation_id", "files", "auto_generate_name"}

    def routes(self) -> list[web.RouteDef]:
        """See `StandIn.routes`."""
        return [
            web.post("/v1/chat-messages", self._chat),
            web.post("/v1/chat-messages/{task}/stop", self._stop),
            web.post("/v1/files/upload", self.upload),
        ]

    def _refused(self, status: int, code: str, message: str) -> web.Response:
        return _json({"code": code, "message": message, "status": status}, status)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if not self.authorised(request):
            return self._refused(401, "unauthorized", "Access token is invalid")
        body = await request.json()
        right = self._NEEDED <= set(body) <= self._KNOWN and isinstance(body["inputs"], dict)
        if not right or not body["query"] or not body["user"] or body["response_mode"] != "streaming":
            return self._refused(400, "invalid_param", f"fields are {sorted(body)}")
        if self.fault == "429":
            return self._refused(429, "too_many_requests", "Too many requests. Please try again later.")
        if self.fault == "500":
            return self._refused(500, "internal_server_error", "The server has an error")
        if self.fault == "declined":
            return self._refused(400, "completion_request_error", "Content Exists Risk")
        name = body.get("conversation_id") or self.new_conversation(body["user"])
        kept = self.conversations.get(name)
        if kept is None or kept.user != body["user"]:
            return self._refused(404, "not_found", "Conversation Not Exists.")
        kept.asked.append(body["query"])
        await self.record(Asked(request.path, body, name))
        task = f"task-{next(self._numbers)}"
        stop = self._running[task] = asyncio.Event()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        about = {"task_id": task, "message_id": "m-1", "conversation_id": name}
        await self.event(response, {"event": "workflow_started", "data": {"id": "w"}, **about})
        await response.write(b"event: ping\n\n")
        await self.event(response, {"event": "agent_thought", "thought": "The user wants the time.", **about})
        for number, piece in enumerate(self.pieces(body["query"])):
            if number == 3 and self.fault == "error-mid":
                error = {"status": 429, "code": "rate_limit_error", "message": "model is overloaded"}
                await self.event(response, {"event": "error", **error, **about})
                return response
            if await self.paused(request, stop, number):
                return response
            await self.event(response, {"event": "message", "answer": piece, **about})
        sources = [{"position": 1, "document_name": "secret-manual.pdf", "content": "source text"}]
        await self.event(response, {"event": "message_end", "metadata": {"retriever_resources": sources}, **about})
        return response

    async def _stop(self, request: web.Request) -> web.Response:
        task, body = request.match_info["task"], await request.json()
        if not self.authorised(request) or task not in self._running or not body.get("user"):
            return self._refused(400, "invalid_param", "no such task")
        self.stopped.append(task)
        self._running[task].set()
        return _json({"result": "success"})


class CozeStandIn(PlatformStandIn):
    """`/v3/chat`: refusals come with status 200, and a conversation gives one answer at a time."""

    BOT: Final = "7400000000000000001"
    _FIELDS: Final = {"bot_id", "user_id", "stream", "auto_save_history", "additional_messages"}

    def routes(self) -> list[web.RouteDef]:
        """See `StandIn.routes`."""
        return [
            web.post("/v3/chat", self._chat),
            web.post("/v3/chat/cancel", self._cancel),
            web.post("/v1/files/upload", self.upload),
        ]

    def _refused(self, code: int, message: str) -> web.Response:
        return _json({"code": code, "msg": message, "detail": {"logid": "2026"}})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if not self.authorised(request):
            return self._refused(4100, "authentication is invalid")
        body = await request.json()
        messages = body["additional_messages"]
        given = [{name for name, value in one.items() if value is not None} for one in messages]  # the SDK sends nulls
        whole = all(set(one) == {"role", "type", "content", "content_type"} for one in given)
        if set(body) != self._FIELDS or not whole or messages[-1]["role"] != "user" or body["stream"] is not True:
            return self._refused(4000, "invalid request parameter")
        if body["bot_id"] != self.BOT:
            return self._refused(4200, "the bot does not exist")
        if self.fault == "429":
            return self._refused(4013, "Your request exceeds the rate limit")
        if self.fault == "500":
            return self._refused(5000, "internal error")
        if self.fault == "declined":
            return self._refused(4000, "the content is 敏感")
        name = request.query.get("conversation_id") or self.new_conversation(body["user_id"])
        kept = self.conversations.get(name)
        if kept is None or kept.user != body["user_id"]:
            return self._refused(4200, "the conversation does not exist")
        if kept.busy:
            return self._refused(4016, "another chat is in progress in the conversation")
        kept.busy = True
        kept.asked += [one["content"] for one in messages]
        await self.record(Asked(request.path, body, name))
        chat = f"chat-{next(self._numbers)}"
        stop = self._running[chat] = asyncio.Event()
        try:
            return await self._stream(request, messages[-1]["content"], name, chat, stop)
        except (asyncio.CancelledError, ConnectionError):
            kept.busy = not stop.is_set()  # the model goes on without a listener until it is cancelled
            raise

    async def _stream(
        self, request: web.Request, question: str, name: str, chat: str, stop: asyncio.Event
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        about = {"id": chat, "conversation_id": name, "bot_id": self.BOT}
        for word in ("created", "in_progress"):
            await self.event(response, {**about, "status": word}, f"conversation.chat.{word}")
        message = {"conversation_id": name, "chat_id": chat, "role": "assistant", "content_type": "text"}
        recalled = {**message, "type": "verbose", "content": '{"msg_type":"knowledge_recall","data":"source text"}'}
        await self.event(response, recalled, "conversation.message.completed")
        thought = {**message, "type": "answer", "content": "", "reasoning_content": "The user wants the time."}
        await self.event(response, thought, "conversation.message.delta")
        pieces = self.pieces(question)
        for number, piece in enumerate(pieces):
            if number == 3 and self.fault == "error-mid":
                failed = {**about, "status": "failed", "last_error": {"code": 4013, "msg": "model is overloaded"}}
                await self.event(response, failed, "conversation.chat.failed")
                break
            if await self.paused(request, stop, number):
                break
            said = {**message, "type": "answer", "content": piece}
            await self.event(response, said, "conversation.message.delta")
        else:
            whole = {**message, "type": "answer", "content": "".join(pieces)}
            await self.event(response, whole, "conversation.message.completed")
            more = {**message, "type": "follow_up", "content": "What else can you do?"}
            await self.event(response, more, "conversation.message.completed")
            await self.event(response, {**about, "status": "completed"}, "conversation.chat.completed")
        self.conversations[name].busy = False
        await self.event(response, '"[DONE]"', "done")
        return response

    async def _cancel(self, request: web.Request) -> web.Response:
        body = await request.json()
        if not self.authorised(request) or set(body) != {"chat_id", "conversation_id"}:
            return self._refused(4000, "invalid request parameter")
        self.stopped.append(body["chat_id"])
        self._running[body["chat_id"]].set()
        self.conversations[body["conversation_id"]].busy = False
        about = {"id": body["chat_id"], "conversation_id": body["conversation_id"], "bot_id": self.BOT}
        return _json({"code": 0, "msg": "", "data": {**about, "status": "canceled"}})


class HomeAssistantStandIn(PlatformStandIn):
    """`/api/conversation/process`: knows lamps, and forgets conversations whenever it likes."""

    AGENT: Final = "conversation.home_assistant"

    def routes(self) -> list[web.RouteDef]:
        """See `StandIn.routes`."""
        return [web.post("/api/conversation/process", self._process)]

    async def _process(self, request: web.Request) -> web.StreamResponse:
        if not self.authorised(request):
            return web.Response(status=401, text="401: Unauthorized")
        body = await request.json()
        if set(body) - {"conversation_id"} != {"text", "language", "agent_id"} or body["agent_id"] != self.AGENT:
            return _json({"message": "Message format incorrect"}, 400)
        name = body.get("conversation_id", "")
        name = name if name in self.conversations else self.new_conversation("house")
        self.conversations[name].asked.append(body["text"])
        await self.record(Asked(request.path, body, name))
        understood = "lamp" in body["text"] or "灯" in body["text"]
        speech = ("".join(self.pieces(body["text"]))) if understood else "Sorry, I couldn't understand that"
        response: dict[str, Any] = {
            "response_type": "action_done" if understood else "error",
            "language": body["language"],
            "data": {} if understood else {"code": "no_intent_match"},
            "speech": {"plain": {"speech": speech, "extra_data": None}},
        }
        return _json({"response": response, "conversation_id": name, "continue_conversation": False})


class ResponsesStandIn(PlatformStandIn):
    """`/v1/responses`: calls the tool `lamp` when it is asked to, and refuses what OpenAI refuses.

    Attributes:
        calls: arguments of the call that the next question without a result is answered with; empty for none.
    """

    calls = ""

    def routes(self) -> list[web.RouteDef]:
        """See `StandIn.routes`."""
        return [web.post("/v1/responses", self._create)]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        if not self.authorised(request):
            return _json({"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}}, 401)
        body = await request.json()
        known = {"model", "instructions", "input", "stream", "store", "tools", "tool_choice", "max_output_tokens"}
        items = body["input"]
        called = {item["call_id"] for item in items if item.get("type") == "function_call"}
        results = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
        if set(body) - known or called != results or any(item.get("role") == "system" for item in items):
            return _json({"error": {"message": "Invalid input", "type": "invalid_request_error"}}, 400)
        await self.record(Asked(request.path, body, ""))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        numbers = itertools.count()

        async def send(kind: str, **more: Any) -> None:
            await self.event(response, {"type": kind, "sequence_number": next(numbers), **more}, kind)

        await send("response.created", response={"id": "resp_1", "status": "in_progress"})
        await send("response.reasoning_summary_text.delta", item_id="rs_1", delta="The user wants the time.")
        if self.calls and not results:
            call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "lamp", "arguments": ""}
            await send("response.output_item.added", output_index=0, item=call)
            await send("response.function_call_arguments.delta", item_id="fc_1", delta=self.calls)
            await send("response.output_item.done", output_index=0, item={**call, "arguments": self.calls})
        else:
            for number, piece in enumerate(self.pieces(str(items[-1]))):
                if number == 3 and self.fault == "error-mid":
                    error = {"code": "rate_limit_exceeded", "message": "model is overloaded"}
                    await send("response.failed", response={"id": "resp_1", "status": "failed", "error": error})
                    return response
                if await self.paused(request, asyncio.Event(), number):
                    return response
                await send("response.output_text.delta", item_id="msg_1", delta=piece)
        await send("response.completed", response={"id": "resp_1", "status": "completed"})
        return response
