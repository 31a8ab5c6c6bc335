"""Alibaba's DashScope over its inference WebSocket: recognition and CosyVoice, as strict as the service.

Written from Model Studio's pages and from what the official SDK (PyPI `dashscope` 2.0.2) sends and reads.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from bench.standins.base import StandIn, reset
from bench.standins.sound import tone
from xiaozhi.audio.pcm import PcmInt

_PATH = "/api-ws/v1/inference"
_SENTENCE = re.compile(r"[^。！？!?.]+[。！？!?.]*")
_MAX_PIECE_BYTES = 16_384
_SOUND_PIECE_BYTES = 4801  # odd on purpose: pieces of the real service end anywhere
_LATE_PIECES = 3


@dataclass(slots=True)
class DashscopeTaskRecord:
    """What one task was asked.

    Attributes:
        connection: counted from 1.
        payload: of `run-task`.
        sound: what was sent to a recogniser.
        inputs: what was sent to a voice.
        finished: `input` of each `finish-task`.
        spoken_bytes: of sound that a voice has sent.
    """

    connection: int
    payload: dict[str, Any]
    sound: bytearray = field(default_factory=bytearray)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)
    spoken_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Of 16 bits at 16 kHz."""
        return len(self.sound) / 32_000


class _Refused(Exception):
    """The task fails, and the connection is closed."""


class DashscopeStandIn(StandIn):
    """`/api-ws/v1/inference`. `requests` are the tasks, oldest first.

    Attributes:
        words: what is recognised, by the number of the task; the last holds for all further ones.
        ends_by: which of the two fields says that a sentence is over: `both`, `sentence_end` or `end_time`.
        flushes: knows the input `flush`; otherwise sentences end at full stops and at the end alone.
        announces: tells which sentence is spoken.
        idle_s: a task without input for so long fails.
        connections: handshakes that were accepted.

    Args:
        key: of the account.
        sound: makes the sound of a text, int16[n] at 24 kHz; a tone when left out.
        port: 0 for any.
    """

    WS_PATH = _PATH
    FAULTS = frozenset(
        "refuse reset-start fail-start fail-midway reset-midway hang hang-kept garbage empty silence".split()
    )

    def __init__(self, key: str = "sk-dash", sound: Callable[[str], PcmInt] = tone, port: int = 0) -> None:
        super().__init__(port)
        self.key, self.sound = key, sound
        self.words: list[str] = ["what time is it"]
        self.ends_by = "both"
        self.flushes = self.announces = True
        self.idle_s = 23.0
        self.connections = 0
        self.sockets: list[web.WebSocketResponse] = []

    def routes(self) -> list[web.RouteDef]:
        """The WebSocket."""
        return [web.get(_PATH, self._socket)]

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.key}" or self.fault == "refuse":
            return web.json_response({"code": "InvalidApiKey", "message": "Invalid API-key provided."}, status=401)
        self.connections += 1
        socket = web.WebSocketResponse(max_msg_size=1024 * 1024)
        await socket.prepare(request)
        self.sockets.append(socket)
        await _Connection(self, request, socket, self.connections).run()
        return socket


class _Connection:
    """One connection: one task after another."""

    def __init__(
        self, service: DashscopeStandIn, request: web.Request, socket: web.WebSocketResponse, number: int
    ) -> None:
        self._service, self._request, self._socket, self._number = service, request, socket, number
        self._id = ""
        self._task: DashscopeTaskRecord | None = None
        self._buffer = ""  # text that is not spoken yet
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue()
        self._speaking: asyncio.Task[None] | None = None
        self._begin_ms = 0
        self._shown = 0
        self._late = False

    async def run(self) -> None:
        try:
            while True:
                try:
                    message = await self._socket.receive(self._service.idle_s if self._task is not None else 60.0)
                except TimeoutError:
                    raise _Refused("CLIENT_ERROR", "request timeout after 23 seconds.") from None
                if message.type is WSMsgType.BINARY:
                    await self._sound(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self._command(json.loads(message.data))
                else:
                    return
        except _Refused as refused:
            code, said = refused.args
            await self._event("task-failed", error_code=code, error_message=said)
            await self._socket.close()
        finally:
            if self._speaking is not None:
                self._speaking.cancel()

    async def _event(self, event: str, payload: dict[str, Any] | None = None, **more: str) -> None:
        header = {"task_id": self._id, "event": event, "attributes": {}, **more}
        await self._socket.send_str(json.dumps({"header": header, "payload": payload or {}}))

    async def _command(self, said: dict[str, Any]) -> None:
        header, payload = said["header"], said["payload"]
        if header["streaming"] != "duplex" or not re.fullmatch(r"[0-9a-f]{32}|[0-9a-f-]{36}", header["task_id"]):
            raise _Refused("InvalidParameter", "task_id or streaming is invalid")
        if header["action"] == "run-task":
            if self._task is not None:
                raise _Refused("InvalidParameter", "another task is running on this connection")
            await self._start(header["task_id"], payload)
        elif self._task is None or header["task_id"] != self._id:
            raise _Refused("InvalidParameter", "task can not be null")
        elif header["action"] == "continue-task":
            await self._text(payload["input"])
        elif header["action"] == "finish-task":
            await self._finish(payload["input"])
        else:
            raise _Refused("InvalidParameter", f"unknown action {header['action']}")

    async def _start(self, task_id: str, payload: dict[str, Any]) -> None:
        fault = self._service.fault
        self._id, task = task_id, DashscopeTaskRecord(self._number, payload)
        if fault == "reset-start":
            reset(self._request)
            return
        if fault == "hang-kept" and any(each.connection == self._number for each in self._service.requests):
            return  # a router has forgotten the connection
        parameters = payload["parameters"]
        wanted = {"asr": ("recognition", 16_000), "tts": ("SpeechSynthesizer", 24_000)}[payload["task"]]
        if (payload["task_group"], payload["function"], parameters["sample_rate"]) != ("audio", *wanted):
            raise _Refused("InvalidParameter", "task_group, function or sample_rate is invalid")
        if parameters["format"] != "pcm" or payload["input"] != {} or fault == "fail-start":
            raise _Refused("InvalidParameter", "[tts:]Engine return error code: 418")
        if payload["task"] == "tts":
            if parameters["text_type"] != "PlainText" or not 0.5 <= parameters["rate"] <= 2.0:
                raise _Refused("InvalidParameter", "text_type or rate is invalid")
            self._sentences = asyncio.Queue()
            self._speaking = asyncio.create_task(self._speak(task))
        self._buffer, self._begin_ms, self._shown = "", 0, 0
        await self._service.record(task)
        if self._late:  # what came too late of the task before
            self._late = False
            await self._socket.send_bytes(bytes([1]) * _SOUND_PIECE_BYTES)
        await asyncio.sleep(0.01)  # whoever does not wait is found out
        self._task = task
        await self._event("task-started")

    # Recognition

    async def _sound(self, data: bytes) -> None:
        task, fault = self._task, self._service.fault
        if task is None or task.payload["task"] != "asr" or task.finished:
            raise _Refused("InvalidParameter", "audio outside of a task")
        if not data or len(data) % 2 or len(data) > _MAX_PIECE_BYTES:
            raise _Refused("InvalidParameter", f"{len(data)} bytes of audio in one message")
        task.sound += data
        if fault == "fail-midway" and task.seconds >= 0.5:
            raise _Refused("InternalError", "internal error\nwith two lines")
        if fault == "reset-midway" and task.seconds >= 0.5:
            reset(self._request)
        elif fault == "garbage" and task.seconds >= 0.5:
            await self._socket.send_str("<html>Please sign in.</html>")
        elif fault != "hang" and int(task.seconds / 0.5) > self._shown:
            self._shown = int(task.seconds / 0.5)
            words = self._words(task).split()
            await self._result({"text": "", "heartbeat": True, "end_time": None})
            await self._result(self._sentence(" ".join(words[: self._shown]), None))

    def _words(self, task: DashscopeTaskRecord) -> str:
        heard = [each for each in self._service.requests if each.payload["task"] == "asr"]
        number = next(index for index, each in enumerate(heard) if each is task)
        return self._service.words[min(number, len(self._service.words) - 1)]

    def _sentence(self, text: str, end_ms: int | None) -> dict[str, Any]:
        said: dict[str, Any] = {"begin_time": self._begin_ms, "text": text, "words": [], "heartbeat": False}
        if self._service.ends_by != "sentence_end":
            said["end_time"] = end_ms
        if self._service.ends_by != "end_time":
            said["sentence_end"] = end_ms is not None
        return said

    async def _result(self, sentence: dict[str, Any]) -> None:
        await self._event("result-generated", {"output": {"sentence": sentence}, "usage": None})

    # Speech

    async def _text(self, given: dict[str, Any]) -> None:
        task = self._task
        if task is None or task.payload["task"] != "tts" or task.finished:
            raise _Refused("InvalidParameter", "text outside of a task")
        task.inputs.append(given)
        if given.get("flush") is True:
            if self._service.flushes:
                self._cut(whole=True)
        elif not given.get("text"):
            raise _Refused("InvalidParameter", "Parameter invalid: text is null")
        else:
            self._buffer += given["text"]
            self._cut(whole=False)

    def _cut(self, *, whole: bool) -> None:
        """Have whole sentences spoken, or all there is."""
        found = _SENTENCE.findall(self._buffer)
        self._buffer = ""
        if found and not whole and found[-1][-1] not in "。！？!?.":
            self._buffer = found.pop()
        for sentence in found:
            self._sentences.put_nowait(sentence)

    async def _speak(self, task: DashscopeTaskRecord) -> None:
        index = 0
        while (sentence := await self._sentences.get()) is not None:
            fault = self._service.fault
            if fault == "hang":
                await self._service.hang()
            about = {"sentence": {"index": index, "words": []}}
            if self._service.announces:
                begin = {"type": "sentence-begin", "original_text": sentence, **about}
                await self._event("result-generated", {"output": begin})
            pcm = self._service.sound(sentence)
            data = (pcm * 0 if fault == "silence" else pcm[:0] if fault == "empty" else pcm).tobytes()
            for start in range(0, len(data), _SOUND_PIECE_BYTES):
                if start and fault == "reset-midway":
                    reset(self._request)
                    return
                if start and fault == "fail-midway":
                    await self._event("task-failed", error_code="InternalError", error_message="no")
                    await self._socket.close()
                    return
                await self._socket.send_bytes(data[start : start + _SOUND_PIECE_BYTES])
                task.spoken_bytes += _SOUND_PIECE_BYTES
                await asyncio.sleep(0)
            if self._service.announces:
                end = {"type": "sentence-end", "original_text": sentence, **about}
                await self._event("result-generated", {"output": end, "usage": {"characters": len(sentence) * 2}})
            index += 1
        await self._over()

    async def _finish(self, given: dict[str, Any]) -> None:
        assert self._task is not None
        task = self._task
        task.finished.append(given)
        if task.payload["task"] == "tts":
            if given.get("directive") == "cancel" and self._speaking is not None:
                self._speaking.cancel()
                for _ in range(_LATE_PIECES):  # what was under way
                    await self._socket.send_bytes(bytes([1]) * _SOUND_PIECE_BYTES)
                await self._over()
                self._late = True
            else:
                self._cut(whole=True)
                self._sentences.put_nowait(None)
            return
        if self._service.fault == "hang":
            return
        if self._service.fault != "empty" and task.sound:
            words = self._words(task)
            await self._result(self._sentence(words, round(task.seconds * 1000)))
        await self._over()

    async def _over(self) -> None:
        self._task = None
        await self._event("task-finished", {"output": {}, "usage": {}})
