"""The WebSocket shell: one device's socket, the protocol and its conversation, and how they end."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from xiaozhi.access.identity import Identity
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.conversation.conversation import Conversation
from xiaozhi.conversation.services import Services
from xiaozhi.conversation.speaking import Told
from xiaozhi.events import MicPacket
from xiaozhi.logs import about_device
from xiaozhi.text.emotions import emoji_of
from xiaozhi.tools.device import DeviceTools
from xiaozhi.transport import protocol
from xiaozhi.transport.outbox import Outbox
from xiaozhi.transport.slow_reader import WayOut
from xiaozhi.transport.uplink import AUDIO_COST, TEXT_COST, TURN_COST, Uplink

_log = logging.getLogger(__name__)

# 60 ms frames are fixed: the firmware's jitter queue counts packets, so shorter ones would make it shallower.
FRAME_MS: Final = 60

# A connection closed on the heels of `tts/stop` is taken for an error by desktop clients.
_SETTLE_S: Final = 0.3

_CLOSE_S: Final = 1.0  # the firmware never answers a Close frame


Vision = Callable[[web.Request, Identity], tuple[str, str]]
"""Where a device's camera sends its pictures, and the token it shows there; an empty address for nowhere."""


def no_vision(_request: web.Request, _identity: Identity) -> tuple[str, str]:
    """There is nobody who looks at pictures."""
    return "", ""


class Connection:
    """One device's socket and conversation. Implements `DeviceLink`."""

    def __init__(
        self,
        services: Services,
        identity: Identity,
        version: int,
        notice: str = "",
        vision: Vision = no_vision,
    ) -> None:
        self._services = services
        self.identity = identity
        self.session_id = uuid.uuid4().hex[:12]
        self._protocol = protocol.DeviceProtocol(version, self.session_id)
        # The firmware never answers pings in time on old versions and Wi-Fi: no heartbeat. No compression is offered.
        self._socket = web.WebSocketResponse(
            heartbeat=None,
            compress=False,
            autoping=False,  # pings are counted with everything else that comes
            timeout=_CLOSE_S,
            max_msg_size=services.settings.server.max_message_bytes,
        )
        self._way_out = WayOut()
        self._uplink = Uplink()
        self._outbox = Outbox(
            self._socket.send_str,
            self._socket.send_bytes,
            services.settings.server.send_timeout_s,
            self._way_out.room,
        )
        self._conversation = Conversation(services, self, identity.device_id, notice=notice)
        self._vision = vision
        self.admitted = not notice
        """It may converse: it does not only hear a notice."""
        self.tools = DeviceTools(self._tell, services.settings.tools.device)
        """What the device itself can do."""
        self._conversation.use_device(self.tools)
        self._opened_at = asyncio.get_running_loop().time()
        self._spoke = False  # the client has said anything at all
        self._traces = False
        self._bare = False  # its microphone sends samples instead of Opus
        self._ignored = 0
        self._ending: asyncio.Task[None] | None = None
        self._closed_because = ""

    # DeviceLink ---------------------------------------------------------------------------------------------------

    def _say(self, message: Mapping[str, object]) -> None:
        self._outbox.put_text(orjson.dumps(message).decode())

    def _tell(self, message: Mapping[str, object]) -> None:
        """Something for the device's own tools; the firmware looks for the session in it."""
        self._say({**message, "session_id": self.session_id})

    @property
    def is_firmware(self) -> bool:
        """The client repeats the session id it was given."""
        return self._protocol.echoes_session

    def stt(self, text: str) -> None:
        """Show what was heard."""
        self._say(self._protocol.stt(text))

    def emotion(self, name: str) -> None:
        """Show a face."""
        self._say(self._protocol.emotion(name, emoji_of(name)))

    def tts_start(self) -> None:
        """The device goes to speaking."""
        self._say(self._protocol.tts_start())

    def sentence_start(self, text: str) -> None:
        """Show a subtitle."""
        self._say(self._protocol.sentence_start(text))

    def audio(self, opus: bytes, generation: int, timestamp_ms: int) -> None:
        """Send one packet."""
        self._outbox.put_audio(self._protocol.pack(opus, timestamp_ms), generation)

    def silence(self, generation: int) -> None:
        """Let no more audio of this generation out."""
        self._outbox.silence(generation)

    def untaken_ms(self, generation: int) -> float:
        """How much audio at the end of this generation the device cannot have."""
        return float(self._outbox.untaken(generation, self._way_out.waiting) * FRAME_MS)

    def tts_stop(self) -> None:
        """The device goes back to listening or idle."""
        self._say(self._protocol.tts_stop())

    def hang_up(self, why: str) -> None:
        """Close the connection when the device has had the time to act on the last `tts/stop`."""
        asyncio.get_running_loop().call_later(_SETTLE_S, lambda: None if self._socket.closed else self.end(why))

    def trace(self, record: Mapping[str, object]) -> None:
        """Hand over a turn's record, if this client asked for records."""
        if self._traces:
            self._say(record)

    # Life ---------------------------------------------------------------------------------------------------------

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade, converse until either side ends it, and free everything."""
        about_device(self.identity.device_id)
        try:
            await self._socket.prepare(request)
        except ConnectionError:
            _log.debug("gone before it was let in", extra=self._extra())
            return self._socket
        if request.transport is not None:
            self._way_out.bind(request.transport, self._services.settings.server.send_timeout_s)
            self._uplink.bind(request.transport)
        if self.admitted:  # nobody else learns, or changes, what is kept of the device
            await self._conversation.recall()
        tasks = {
            asyncio.create_task(self._conversation.run(), name="conversation"),
            asyncio.create_task(self._outbox.run(), name="outbox"),
            asyncio.create_task(self._read(request), name="read"),
        }
        why = ""
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, TimeoutError):
                    why = "the device does not read"
                elif error is not None and not isinstance(error, ConnectionError):
                    why = "an internal error"
                    _log.error("%s failed", task.get_name(), exc_info=error, extra=self._extra())
            if self.flooded:
                why = "it sends more than any device does"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.tools.close()
            if self._ending is None:
                await self._close(WSCloseCode.GOING_AWAY)
            else:
                await asyncio.shield(self._ending)
            if self._way_out.drop():
                _log.debug("dropped what the device has not taken", extra=self._extra())
            device = {"device": self.identity.device_id, "after_s": round(self.age_s)}
            _log.info("disconnected: %s", why or self._closed_because or "the device went away", extra=device)
        return self._socket

    @property
    def age_s(self) -> float:
        """How long the device has been connected, in seconds."""
        return asyncio.get_running_loop().time() - self._opened_at

    @property
    def language(self) -> str:
        """What the user spoke last."""
        return self._conversation.language

    def say(
        self, text: str, patience_s: float, *, language: str = "", interruptible: bool = True
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, as `Conversation.say` does."""
        return self._conversation.say(text, language=language, interruptible=interruptible, patience_s=patience_s)

    def end(self, why: str) -> asyncio.Task[None]:
        """Close from the server's side, in the background; `why` goes to the log."""
        if self._ending is None:
            self._closed_because = why
            self._ending = asyncio.create_task(self._close(WSCloseCode.OK), name="close")
        return self._ending

    async def _close(self, code: WSCloseCode) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                if self.flooded:
                    await self._uplink.closed.wait()
                else:
                    await self._socket.close(code=code, drain=False)
        except (TimeoutError, ConnectionError):
            _log.debug("close not answered", extra=self._extra())

    def overdue(self) -> str:
        """Called about once a second: send a keepalive when one is due; says why the connection should be closed."""
        server = self._services.settings.server
        now = asyncio.get_running_loop().time()
        if not self._spoke and now - self._opened_at > server.hello_timeout_s:
            return "no hello"
        self._conversation.check_stall()
        if self._conversation.idle_s() > server.idle_close_s:
            return "" if self._conversation.farewell() else f"nothing said for {server.idle_close_s:g} s"
        if now - self._outbox.written_at > server.keepalive_s:
            self._outbox.written_at = now
            self._say(self._protocol.keepalive())
        return ""

    @property
    def busy(self) -> bool:
        """A turn is under way."""
        return self._conversation.idle_s() == 0.0

    @property
    def is_stranger(self) -> bool:
        """Nothing was ever said to this device, and nobody has let it in by hand."""
        return self._conversation.is_stranger

    @property
    def device_id(self) -> str:
        """Whose it is."""
        return self.identity.device_id

    @property
    def doing(self) -> str:
        """The state of the conversation, for the log."""
        return self._conversation.doing

    @property
    def listens(self) -> bool:
        """The microphone is open, and nothing has been found in it yet."""
        return self._conversation.listens

    @property
    def packets_dropped(self) -> int:
        """Packets not sent because the device does not read fast enough."""
        return self._outbox.dropped

    @property
    def flooded(self) -> bool:
        """It was hung up because it sent more than any device does."""
        return self._uplink.flooded

    @property
    def refused_turns(self) -> int:
        """Texts that came when no new turn could begin."""
        return self._conversation.refused_turns

    def finish(self) -> None:
        """Begin no new turn."""
        self._conversation.finish()

    @property
    def settled(self) -> bool:
        """No turn is under way, what was said is listened to, and the device has acted on the last `tts/stop`."""
        talk = self._conversation
        return talk.idle_s() >= _SETTLE_S and self._outbox.empty and not talk.behind

    async def _read(self, request: web.Request) -> None:
        async for message in self._socket:
            cost = TEXT_COST
            if message.type is WSMsgType.BINARY:
                cost = AUDIO_COST
                self._receive(self._protocol.receive_binary(message.data))
            elif message.type is WSMsgType.TEXT:
                event = self._protocol.receive_text(message.data)
                self._receive(event)
                if isinstance(event, protocol.Detect):
                    cost = TURN_COST
                elif isinstance(event, protocol.Hello) and "mcp" in event.features and self.admitted:
                    self.tools.start_mcp(*self._vision(request, self.identity))
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            if not await self._uplink.spend(cost):
                return

    def _receive(self, event: protocol.Event) -> None:
        talk = self._conversation
        match event:
            case protocol.Audio(opus, timestamp_ms):
                talk.hear(MicPacket(opus, timestamp_ms, self._bare))
            case protocol.Hello():
                self._traces, self._bare = event.traces, event.bare
                self._services.prewarm()
                self._say(self._protocol.hello(DOWNLINK_RATE_HZ, FRAME_MS))
            case protocol.ListenStart(mode):
                talk.listen(mode)
            case protocol.ListenStop():
                talk.stop_listening()
            case protocol.Detect(text):
                talk.detect(text)
            case protocol.Abort(reason):
                talk.abort(reason)
            case protocol.Ping():
                self._say(self._protocol.pong(int(time.time() * 1000)))
            case protocol.Iot(message):
                self.tools.receive_iot(message)
            case protocol.Mcp(payload):
                self.tools.receive_mcp(payload)
            case protocol.Ignored(why):
                self._ignored += 1
                if self._ignored <= 20:  # a client that floods does not flood the log
                    _log.debug("ignored: %s", why, extra=self._extra())
                return
        self._spoke = True

    def _extra(self) -> dict[str, object]:
        return {"device": self.identity.device_id, "session": self.session_id}
