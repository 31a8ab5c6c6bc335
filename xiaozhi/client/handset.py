"""A device's hardware in software over a real socket: keys, microphone, loudspeaker and channel, driven by hand.

Light enough for hundreds in one process: two tasks and at most two timers each, and no codec.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self

import aiohttp
import orjson

from xiaozhi.audio.packet_time import packet_ms
from xiaozhi.client.camera import CameraError, explained
from xiaozhi.client.errors import ChannelLost, ConnectFailed
from xiaozhi.client.hello import DEFAULT_FRAME_MS, ServerHello, client_hello
from xiaozhi.client.link import Link, device_session, open_socket
from xiaozhi.client.manners import Flush, Manners, Send
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.client.microphone import Microphone, SpeechMicrophone, SpokenUtterance, Uplink
from xiaozhi.client.ota import ClientIdentity, OtaReply, ask_ota
from xiaozhi.client.report import TurnLog
from xiaozhi.client.speaker import LossReason
from xiaozhi.client.waiting import Waiting
from xiaozhi.transport import framing
from xiaozhi.turn.machine import ListeningMode

# Firmware: the server's hello must come within 10 s.
HELLO_TIMEOUT_S: Final = 10.0
_MAX_MESSAGES: Final = 2000
_LONGEST_OPUS_MS: Final = 120.0


class Sink(Protocol):
    """A real loudspeaker behind the simulated one."""

    def play(self, opus: bytes) -> None:
        """A packet that the device accepted; it is to be heard after those before it."""
        ...

    def clear(self) -> None:
        """Forget what has not been heard yet."""
        ...


class Handset:
    """One device: connect, speak, listen. As a context manager it hangs up at the end.

    Args:
        identity: who it is.
        manners: how it behaves, the firmware's way unless said otherwise.
        microphone: what it hears; one that says what `say` is given, unless a live one is handed in.
        version: binary framing 1, 2 or 3.
        mode: how it listens.
        trace: ask the server for its own times of every turn; real devices never do.
        speed: the microphone's clock against real time. Above 1 tests wait less: the server decides in audio time.
            Playback is always real time.
        session: an HTTP session from `device_session()` to share; the device makes its own when it is left out.
        tools: what the device's MCP server offers, those of every board unless said otherwise.
        sink: where the reply is to be heard as well.
        aec: a build that leaves the echo of its loudspeaker to the server: where the framing has timestamps, packets of
            the microphone say which packet has begun to sound.
    """

    def __init__(
        self,
        identity: ClientIdentity,
        *,
        manners: Manners | None = None,
        microphone: Microphone | None = None,
        version: int = 1,
        mode: ListeningMode = ListeningMode.AUTO,
        trace: bool = False,
        speed: float = 1.0,
        session: aiohttp.ClientSession | None = None,
        tools: DeviceMcpServer | None = None,
        sink: Sink | None = None,
        aec: bool = False,
    ) -> None:
        self.identity = identity
        self.manners = manners or Manners()
        self.microphone = microphone or SpeechMicrophone(self.manners.frame_ms)
        self.mode = mode
        self.tools = tools or DeviceMcpServer()
        self.session_id = ""
        self.received: deque[tuple[float, dict[str, Any]]] = deque(maxlen=_MAX_MESSAGES)
        """The JSON messages of the server and when they came, in milliseconds on the loop's clock; the last 2000."""
        self.sent: deque[tuple[float, dict[str, Any]]] = deque(maxlen=_MAX_MESSAGES)
        """The JSON messages to the server, likewise."""
        self.turn_log = TurnLog(0.0)
        """The turn that goes on, or the last one."""
        self.version = version
        """Binary framing, adopted from the OTA reply by `boot`; set it after that to insist on another."""
        self.traces = trace
        """The server is asked for its times of every turn."""
        self.speed = speed
        """The microphone's clock against real time."""
        self._sink = sink
        self._aec = aec
        self._session = session
        self._owned_session: aiohttp.ClientSession | None = None
        self._longest_packet_ms = DEFAULT_FRAME_MS
        self._uplink = Uplink(self.microphone, speed, self._microphone_gave, self._voiced)
        self._link: Link | None = None
        self._lost = "the device is not connected"  # empty while the channel is open
        self._greeting: asyncio.Future[None] | None = None
        self._barged_in = False
        self._alarm: asyncio.TimerHandle | None = None
        self._waiting = Waiting()
        self._photos: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # The channel --------------------------------------------------------------------------------------------------

    async def boot(self, ota_url: str) -> OtaReply:
        """Ask the OTA address where to connect, and adopt the framing version it names.

        Raises:
            ConnectFailed: see `ask_ota`.
        """
        reply = await ask_ota(self._http(), ota_url, self.identity)
        self.version = reply.version or self.version
        return reply

    async def connect(self, url: str, token: str = "") -> None:
        """Open the channel and exchange hellos.

        Raises:
            ConnectFailed: refused, unreachable, no hello within 10 s, or one with which the firmware would crash.
        """
        if self._link is not None:
            await self.close()
        self._act(self.manners.connecting)
        try:
            socket = await open_socket(
                self._http(), url, self.identity, token or self.manners.empty_token, self.version
            )
            self._greeting = asyncio.get_running_loop().create_future()
            self._link = Link(socket, self._text, self._audio, self._channel_lost)
            self._lost = ""
            self._put(self._hello(self.version))
            try:
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    await self._greeting
            except TimeoutError as error:
                raise ConnectFailed(f"no hello from {url} within {HELLO_TIMEOUT_S:g} s") from error
        except BaseException:
            self._act(self.manners.go_idle)
            await self.close()
            raise
        self._act(self.manners.go_idle)

    def _hello(self, version: int) -> dict[str, Any]:
        return client_hello(version, self.microphone.frame_ms, trace=self.traces, aec=self._aec)

    async def close(self) -> None:
        """Drop the connection as a device does: TCP ends without a Close frame. The device can connect again."""
        self._channel_lost("the device hung up")
        link, self._link = self._link, None
        try:
            if link is not None:
                await link.close()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            for photographing in self._photos:
                photographing.cancel()
            await asyncio.gather(*self._photos, return_exceptions=True)
            if self._owned_session is not None:
                session, self._owned_session = self._owned_session, None
                await session.close()

    @property
    def connected(self) -> bool:
        """The channel is open."""
        return not self._lost

    @property
    def close_code(self) -> int | None:
        """The code of the Close frame with which the server ended the channel; None while there was none."""
        return self._link.close_code if self._link is not None else None

    @property
    def uplink_dropped(self) -> int:
        """Microphone packets of this turn that the network did not take."""
        return self._link.outbox.dropped if self._link is not None else 0

    def begin_turn(self) -> None:
        """Forget what the last turn noted: what comes now belongs to a new one."""
        self.advance()
        self.turn_log = TurnLog(self.now_ms())
        self.manners.speaker.new_record()
        self._barged_in = self.manners.replying
        if self._link is not None:
            self._link.outbox.dropped = 0

    # What the user does -------------------------------------------------------------------------------------------

    def listen(self, mode: ListeningMode | None = None, reason: str = "") -> None:
        """Press the key (or call the wake word, with `reason="wake_word_detected"`): listen, interrupting a reply."""
        self.mode = mode or self.mode
        self._act(lambda now_ms: self.manners.listen(self.mode, now_ms, reason))

    def stop(self) -> None:
        """Release the key (manual mode): the utterance is complete."""
        self._act(self.manners.stop)

    def abort(self, reason: str = "") -> None:
        """Press the key while the device speaks: ask the server to stop."""
        self._act(lambda now_ms: self.manners.abort(now_ms, reason))

    def say(self, speech: SpokenUtterance) -> None:
        """Say this as soon as the microphone is open; the call returns at once.

        Raises:
            TypeError: the device has a live microphone.
        """
        if not isinstance(self.microphone, SpeechMicrophone):
            raise TypeError("a live microphone says what it hears")
        self.microphone.say(speech)

    def detect(self, text: str, wake_audio: SpokenUtterance | None = None) -> None:
        """Report a wake word, after a burst of the audio it was heard in; or hand over a typed text."""
        for opus in wake_audio.packets if wake_audio is not None else ():
            self._microphone_gave(opus)
        self._put({"type": "listen", "state": "detect", "text": text})

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until `condition` is true; it is looked at whenever something has happened to the device.

        Raises:
            TimeoutError: it did not become true in time.
            ChannelLost: the connection ended first.
        """
        self.advance()
        if condition():
            return
        if self._lost:
            raise ChannelLost(self._lost)
        woken = self._waiting.add(condition)
        self._arm()
        async with asyncio.timeout(timeout_s):
            await woken

    # Messages -----------------------------------------------------------------------------------------------------

    def _text(self, text: str) -> None:
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            return  # logged and ignored by the firmware, as is every unknown type
        if not isinstance(message, dict):
            return
        now_ms = self.now_ms()
        self.received.append((now_ms, message))
        match message.get("type"), message.get("state"):
            case "hello", _:
                self._greeted(message)
            case "tts", "start":
                if self._barged_in:
                    # What was heard until now belongs to the reply that has been interrupted.
                    self._barged_in = False
                    self.manners.speaker.new_record()
                self.manners.tts_start(now_ms)
            case "tts", "stop":
                self.manners.tts_stop(now_ms)
            case "mcp", _ if isinstance(message.get("payload"), dict):
                question = self.tools.photo_wanted(message["payload"])
                if question is not None:
                    photographing = asyncio.create_task(self._photograph(message["payload"]["id"], question))
                    self._photos.add(photographing)
                    photographing.add_done_callback(self._photos.discard)
                elif (answer := self.tools.answer(message["payload"])) is not None:
                    self._put({"type": "mcp", "payload": answer})
        self.turn_log.server_said(message, now_ms)
        self.advance()

    async def _photograph(self, number: int | float, question: str) -> None:
        """Answer the camera's tool with what the server says about the picture."""
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": int(number)}
        try:
            text = await explained(self._http(), self.tools.vision, self.identity, self.tools.photo, question)
            reply["result"] = {"content": [{"type": "text", "text": text}], "isError": False}
        except CameraError as error:
            reply["error"] = {"message": str(error)}
        self._put({"type": "mcp", "payload": reply})

    def _greeted(self, message: dict[str, Any]) -> None:
        if self._greeting is None or self._greeting.done():
            return
        try:
            hello = ServerHello.read(message)
        except ConnectFailed as error:
            self._greeting.set_exception(error)
            return
        if hello is None:
            return
        if self.manners.obeys_hello:
            self.session_id = self.session_id if hello.session_id is None else hello.session_id
            self._longest_packet_ms = hello.frame_ms
        else:
            self._longest_packet_ms = _LONGEST_OPUS_MS
        self._greeting.set_result(None)

    def _audio(self, message: bytes) -> None:
        now_ms = self.now_ms()
        if self.turn_log.first_packet_ms is None and self.turn_log.tts_start_ms is not None:
            self.turn_log.first_packet_ms = now_ms
        speaker = self.manners.speaker
        try:
            packet = framing.unpack(self.version, message)
            opus = packet.opus
            duration_ms = packet_ms(opus)
        except (framing.FramingError, ValueError):
            speaker.refuse(LossReason.MALFORMED)
            return
        if duration_ms > self._longest_packet_ms:
            speaker.refuse(LossReason.TOO_LONG)
        elif self.manners.audio(opus, duration_ms, now_ms, packet.timestamp_ms) and self._sink is not None:
            self._sink.play(opus)
        self.advance()

    def _channel_lost(self, why: str) -> None:
        if self._lost:
            return
        self._lost = why
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(ConnectFailed(f"no hello: {why}"))
        self._act(self.manners.go_idle)
        self._waiting.fail(ChannelLost(why))

    def _put(self, message: dict[str, Any]) -> None:
        if self._link is None or self._lost:
            return
        if message["type"] != "hello":
            message = {"session_id": self.session_id, **message}
        self.sent.append((self.now_ms(), message))
        self._link.outbox.put(orjson.dumps(message).decode())

    def _microphone_gave(self, opus: bytes) -> None:
        if self._link is not None and not self._lost:
            timestamp_ms = self.manners.speaker.timestamp_ms(self.now_ms()) if self._aec else 0
            self._link.outbox.put(framing.pack(self.version, opus, timestamp_ms))

    def _voiced(self, at_ms: float) -> None:
        if self.turn_log.tts_start_ms is None:
            self.turn_log.anchor_ms = at_ms
            self._waiting.look()

    # Time ---------------------------------------------------------------------------------------------------------

    def now_ms(self) -> float:
        """The loop's clock, which all times of a device are on."""
        return asyncio.get_running_loop().time() * 1000.0

    def _act(self, action: Callable[[float], None]) -> None:
        action(self.now_ms())
        self.advance()

    def advance(self, now_ms: float | None = None) -> None:
        """Let the device reach the present, do what it decided, and set the alarm for what comes next."""
        self.manners.advance(self.now_ms() if now_ms is None else now_ms)
        for action in self.manners.actions():
            match action:
                case Send(message):
                    self._put(message)
                case Flush() if self._sink is not None:
                    self._sink.clear()
        lost_ms = self._uplink.follow(None if self._lost else self.manners.microphone_from_ms)
        if lost_ms > 0.0:
            # The user has not stopped: what would have been the last voiced sample is still to come.
            self.turn_log.cut_off_ms += lost_ms
            self.turn_log.anchor_ms = self.now_ms() + lost_ms / self.speed
        self._waiting.look()
        self._arm()

    def _arm(self) -> None:
        """Wake up for the next thing due, and for the end of playback when somebody may wait for it."""
        due = [at_ms for at_ms in (self.manners.next_due_ms(),) if at_ms is not None]
        ends_ms = self.manners.speaker.ends_ms()
        if self._waiting and ends_ms is not None:
            due.append(ends_ms)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due:
            at_ms = min(due)
            self._alarm = asyncio.get_running_loop().call_at(at_ms / 1000.0, self._woken, at_ms)

    def _woken(self, due_ms: float) -> None:
        self._alarm = None
        # Timers may fire a little early; the device must not find that nothing is due yet.
        self.advance(max(self.now_ms(), due_ms))

    def _http(self) -> aiohttp.ClientSession:
        if self._session is not None:
            return self._session
        if self._owned_session is None:
            self._owned_session = device_session()
        return self._owned_session
