"""One device's session: what it says becomes its conversation's, and what the conversation says goes down to it.

Whatever carries a device (a WebSocket, MQTT with UDP) understands its messages with a `DeviceProtocol`, gives the
events to a `DeviceSession`, and brings what the session has to say down to the device as a `Downlink`.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol

from xiaozhi.audio.echo_canceller import SentSound
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.conversation.conversation import Conversation
from xiaozhi.conversation.saying import Told
from xiaozhi.conversation.services import Services
from xiaozhi.events import MicPacket
from xiaozhi.text.emotions import emoji_of
from xiaozhi.tools.device import DeviceTools
from xiaozhi.transport.protocol import (
    Abort,
    Detect,
    DeviceProtocol,
    Event,
    Hello,
    Ignored,
    Iot,
    ListenStart,
    ListenStop,
    Mcp,
    Ping,
)

_log = logging.getLogger(__name__)

# 60 ms frames are fixed: the firmware's jitter queue counts packets, so shorter ones would make it shallower.
FRAME_MS: Final = 60

# A connection closed on the heels of `tts/stop` is taken for an error by desktop clients.
_SETTLE_S: Final = 0.3

# A client that floods does not flood the log.
_MAX_IGNORED_LINES: Final = 20


class Downlink(Protocol):
    """What carries messages and sound down to one device. Nothing here waits."""

    written_at: float
    """When something was last written, on the loop's clock."""
    start_margin_ms: float
    """So much longer than over one ordered connection sound has to wait behind `tts/start`."""
    stop_margin_ms: float
    """So much longer `tts/stop` has to wait behind the sound."""

    @property
    def empty(self) -> bool:
        """Nothing waits to be written."""
        ...

    @property
    def dropped(self) -> int:
        """Packets not sent because the device does not read fast enough."""
        ...

    def send(self, message: Mapping[str, object]) -> None:
        """Send one message, behind the messages and packets that were sent before."""
        ...

    def send_audio(self, opus: bytes, generation: int, timestamp_ms: int) -> None:
        """Send one Opus packet of `FRAME_MS`, unless by then its generation or a later one is silenced."""
        ...

    def silence(self, generation: int) -> None:
        """Send no packet of this generation or an older one any more."""
        ...

    def untaken(self, generation: int) -> int:
        """Packets at the end of this generation that the device cannot have; 0 where it is not the newest."""
        ...


class CallLeg(Protocol):
    """One device's end of a call."""

    hung_up: asyncio.Event
    """A key was pressed, or the device is gone."""

    def heard(self, opus: bytes) -> None:
        """A packet of its microphone."""
        ...


class DeviceSession:
    """One device's conversation over whatever carries it. Implements `DeviceLink` and `ConnectedDevice`.

    Args:
        services: the shared engines.
        device_id: whose it is.
        protocol: understands the device and words what it is told; tells the session id.
        downlink: the way down to it.
        tools: what the device itself can do; closed by whoever made them.
        notice: where this is not empty, the device hears it instead of a conversation, and is hung up.
    """

    def __init__(
        self,
        services: Services,
        device_id: str,
        protocol: DeviceProtocol,
        downlink: Downlink,
        tools: DeviceTools,
        *,
        notice: str = "",
    ) -> None:
        self.device_id = device_id
        self.protocol = protocol
        self.tools = tools
        self.admitted = not notice
        """It may converse: it does not only hear a notice."""
        self.ended = False
        """Somebody here wants it closed; `ended_because` says why."""
        self.ended_because = ""
        self.leg: CallLeg | None = None
        """The call that the device is in."""
        self._services = services
        self._downlink = downlink
        self._sent = SentSound()
        self._conversation = Conversation(services, self, device_id, notice=notice)
        self._conversation.use_device(tools)
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._reading: asyncio.Timeout | None = None  # while it runs
        self.recalled = asyncio.Event()
        """What was said before has been read, and the device is listened to."""
        self._spoke = False  # the client has said anything at all
        self._traces = False
        self._ignored = 0

    async def run(self, reading: Coroutine[Any, Any, None], *given_up: asyncio.Future[None]) -> str:
        """Converse until either side ends it or what carries it is over; everything is freed when this returns.

        Args:
            reading: reads from the device, in this task. What comes before `recalled` is set must wait for that, but a
                hello: the device is answered at once.
            given_up: fails where nothing can be told the device any more.

        Returns:
            Why, where it is an error; else `ended_because` says it, or the device went away.
        """
        conversation = self._loop.create_task(self._converse(), name="conversation")
        others = (conversation, *given_up)
        for other in others:
            other.add_done_callback(self._stop_reading)
        errors: list[BaseException | None] = []
        try:
            async with asyncio.timeout(None) as self._reading:
                if self.ended:
                    self._stop_reading()
                await reading
        except Exception as error:  # noqa: BLE001 - said and logged below
            if self._reading is None or not self._reading.expired():
                errors.append(error)
        finally:
            self._reading = None
            reading.close()
            errors += [other.exception() for other in others if other.done() and not other.cancelled()]
            conversation.cancel()
            await asyncio.gather(conversation, return_exceptions=True)
        for failure in errors:
            if isinstance(failure, TimeoutError):
                return "the device does not read"
            if failure is not None and not isinstance(failure, ConnectionError):
                _log.error("the session failed", exc_info=failure, extra=self.about)
                return "an internal error"
        return ""

    async def _converse(self) -> None:
        """Read what was said before, over within half a second, and then listen."""
        if self.admitted:  # nobody else learns, or changes, what is kept of the device
            await self._conversation.load()
        self.recalled.set()
        await self._conversation.run()

    def _stop_reading(self, _because: object = None) -> None:
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(self._loop.time())

    def gone(self, why: str = "") -> None:
        """It is over: a call ends, and the log says so."""
        if self.leg is not None:
            self.leg.hung_up.set()
        after = {"device": self.device_id, "after_s": round(self.age_s)}
        _log.info("disconnected: %s", why or self.ended_because or "the device went away", extra=after)

    def receive(self, event: Event) -> None:
        """What the device has just said. Never waits."""
        talk = self._conversation
        match event:
            case MicPacket() if self.leg is not None:
                self.leg.heard(event.opus)
            case MicPacket():
                talk.hear(event)
            case Hello():
                self._traces = event.traces
                self._services.prewarm()
                self._take_echo("aec" in event.features)
                self._downlink.send(self.protocol.hello(DOWNLINK_RATE_HZ, FRAME_MS))
            case ListenStart(mode):
                talk.listen(mode)
            case ListenStop():
                talk.stop_listening()
            case Detect(text):
                talk.detect(text)
            case Abort() if self.leg is not None:
                self.leg.hung_up.set()
            case Abort(reason):
                talk.abort(reason)
            case Ping():
                self._downlink.send(self.protocol.pong(int(time.time() * 1000)))
            case Iot(message):
                self.tools.receive_iot(message)
            case Mcp(payload):
                self.tools.receive_mcp(payload)
            case Ignored(why):
                self._ignored += 1
                if self._ignored <= _MAX_IGNORED_LINES:
                    _log.debug("ignored: %s", why, extra=self.about)
                return
        self._spoke = True

    def _take_echo(self, sends_echo: bool) -> None:
        """Firmware that leaves the echo to the server says so; without timestamps it stays in."""
        wanted = sends_echo and self._services.settings.audio.echo_cancellation
        self._sent.kept = wanted and self.protocol.has_timestamps
        self._conversation.takes_echo(sends_echo, self._sent if self._sent.kept else None)
        if wanted and not self._sent.kept:
            _log.info("echo stays in until it starts again: no timestamps", extra=self.about)

    @property
    def about(self) -> dict[str, object]:
        """Whose and which it is, for the log."""
        return {"device": self.device_id, "session": self.protocol.session_id}

    # DeviceLink ---------------------------------------------------------------------------------------------------

    @property
    def is_firmware(self) -> bool:
        """The client repeats the session id it was given."""
        return self.protocol.echoes_session

    @property
    def start_margin_ms(self) -> float:
        """So much longer than over one ordered connection sound has to wait behind `tts_start`."""
        return self._downlink.start_margin_ms

    @property
    def stop_margin_ms(self) -> float:
        """So much longer `tts_stop` has to wait behind the sound."""
        return self._downlink.stop_margin_ms

    def stt(self, text: str) -> None:
        """Show what was heard."""
        self._downlink.send(self.protocol.stt(text))

    def emotion(self, name: str) -> None:
        """Show a face."""
        self._downlink.send(self.protocol.emotion(name, emoji_of(name)))

    def tts_start(self) -> None:
        """The device goes to speaking."""
        self._downlink.send(self.protocol.tts_start())

    def sentence_start(self, text: str) -> None:
        """Show a subtitle."""
        self._downlink.send(self.protocol.sentence_start(text))

    def audio(self, opus: bytes, generation: int) -> None:
        """Send one packet."""
        self._downlink.send_audio(opus, generation, self._sent.sent(opus, FRAME_MS))

    def silence(self, generation: int) -> None:
        """Let no more audio of this generation out."""
        self._sent.stop()
        self._downlink.silence(generation)

    def untaken_ms(self, generation: int) -> float:
        """How much audio at the end of this generation the device cannot have."""
        return float(self._downlink.untaken(generation) * FRAME_MS)

    def tts_stop(self) -> None:
        """The device goes back to listening or idle."""
        self._downlink.send(self.protocol.tts_stop())

    def hang_up(self, why: str) -> None:
        """Close the connection when the device has had the time to act on the last `tts/stop`."""
        self._loop.call_later(_SETTLE_S, self.end, why)

    def trace(self, record: Mapping[str, object]) -> None:
        """Hand over a turn's record, if this client asked for records."""
        if self._traces:
            self._downlink.send(record)

    # ConnectedDevice ----------------------------------------------------------------------------------------------

    def say(
        self, text: str, patience_s: float, *, language: str = "", interruptible: bool = True
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, as `Conversation.say` does."""
        return self._conversation.say(text, language=language, interruptible=interruptible, patience_s=patience_s)

    def end(self, why: str) -> None:
        """Close it from the server's side, soon; `why` goes to the log, the first one counts."""
        self.ended_because = self.ended_because or why
        self.ended = True
        self._stop_reading()

    def check(self) -> None:
        """Called about once a second: send a keepalive when one is due, end what lasts too long."""
        server = self._services.settings.server
        now = self._loop.time()
        if not self._spoke and self.age_s > server.hello_timeout_s:
            self.end("no hello")
            return
        self._conversation.check_stall()
        if self.leg is None and self._conversation.idle_s() > server.idle_close_s:
            if not self._conversation.farewell():
                self.end(f"nothing said for {server.idle_close_s:g} s")
        elif now - self._downlink.written_at > server.keepalive_s:
            self._downlink.written_at = now
            self._downlink.send(self.protocol.keepalive())

    def finish(self) -> None:
        """Begin no new turn."""
        self._conversation.finish()

    @property
    def age_s(self) -> float:
        """How long the device has been connected, in seconds."""
        return self._loop.time() - self._opened_at

    @property
    def language(self) -> str:
        """What the user spoke last."""
        return self._conversation.language

    @property
    def busy(self) -> bool:
        """A turn is under way, or a call."""
        return self.leg is not None or self._conversation.idle_s() == 0.0

    @property
    def is_stranger(self) -> bool:
        """Nothing was ever said to this device, and nobody has let it in by hand."""
        return self._conversation.is_stranger

    @property
    def doing(self) -> str:
        """The state of the conversation, for the log."""
        return self._conversation.doing

    @property
    def listens(self) -> bool:
        """The microphone is open, and nothing has been found in it yet."""
        return self._conversation.listens

    @property
    def settled(self) -> bool:
        """No turn is under way, what was said is listened to, and the device has acted on the last `tts/stop`."""
        talk = self._conversation
        return self.leg is None and talk.idle_s() >= _SETTLE_S and self._downlink.empty and not talk.behind

    @property
    def packets_dropped(self) -> int:
        """Packets not sent because the device does not read fast enough."""
        return self._downlink.dropped

    @property
    def refused_turns(self) -> int:
        """Texts that came when no new turn could begin."""
        return self._conversation.refused_turns
