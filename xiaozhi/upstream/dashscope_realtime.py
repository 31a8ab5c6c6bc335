"""Alibaba's DashScope over its realtime WebSocket: events in JSON both ways, sound in them as base64.

The events are those of the official SDK (PyPI `dashscope` 2.0.2, `audio/qwen_omni/omni_realtime.py` and
`audio/qwen_tts_realtime/qwen_tts_realtime.py`) and of Model Studio's pages.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS, Connections, reason
from xiaozhi.upstream.dashscope import DashscopeAccount, DashscopeError, dashscope_socket


class DashscopeSession:
    """One session, which is one connection. One coroutine sends, one receives.

    Args:
        socket: the connection.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event.

        Raises:
            DashscopeError: the connection is gone.
        """
        event = {"event_id": f"event_{uuid.uuid4().hex}", "type": kind, **fields}
        try:
            await self._socket.send_str(orjson.dumps(event).decode())
        except (aiohttp.ClientError, OSError) as error:
            raise DashscopeError(reason(error), lost=True) from error

    async def receive(self) -> Mapping[str, Any]:
        """The next event, whose `type` is a text.

        Raises:
            DashscopeError: it is none, tells of an error, or the connection has ended.
        """
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise DashscopeError("the connection ended before the answer", lost=True)
        try:
            event = bounded_json.loads(message.data)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise DashscopeError(f"sent something that is no event: {one_line(message.data, 60)}")
        if event["type"] == "error" or event["type"].endswith(".failed"):
            said = event.get("error")
            said = said.get("message") or said.get("code") if isinstance(said, dict) else said
            raise DashscopeError(one_line(said or "failed", MAX_SHOWN_CHARS))
        return event


@asynccontextmanager
async def dashscope_session(
    connections: Connections, account: DashscopeAccount, model: str, table: str, *, connect_s: float
) -> AsyncIterator[DashscopeSession]:
    """Have a session; leaving it closes it at once.

    Args:
        connections: of the engine.
        account: whose key, and where: the address of the inference WebSocket will do.
        model: which.
        table: the name of its settings, for errors.
        connect_s: the longest time to have a session, in seconds.

    Raises:
        DashscopeError: it cannot be reached, refuses the key or the model.
    """
    base = account.url.rstrip("/").removesuffix("/inference").removesuffix("/realtime")
    url = f"{base}/realtime?model={quote(model, safe='')}"
    async with await dashscope_socket(connections, url, account, table) as socket:
        session = DashscopeSession(socket)
        try:
            async with asyncio.timeout(connect_s):
                while (await session.receive())["type"] != "session.created":
                    pass
        except TimeoutError as error:
            raise DashscopeError(f"no session within {connect_s:g} s") from error
        yield session
