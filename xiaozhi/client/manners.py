"""How a device behaves: its states, its microphone and its loudspeaker. Pure: messages and time in, messages out.

The firmware handles messages in two steps, and what is lost depends on them: a message becomes a task of the main loop,
the task changes the state, and only a later event acts on the state (mutes the microphone, clears the audio queue).
Audio is sorted out at once by the state of the moment. Facts are those of firmware 2.4.2 and py-xiaozhi 2.1.1, read in
their code and observed by running it. Times are milliseconds on one monotonic clock.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, TypeAlias

from xiaozhi.client.speaker import DESKTOP_QUEUE_MS, FIRMWARE_QUEUE_PACKETS, LossReason, Speaker
from xiaozhi.turn.machine import ListeningMode


class DeviceState(Enum):
    """What the device shows."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LISTENING = "listening"
    SPEAKING = "speaking"
    NOTIFYING = "notifying"


_ALLOWED: Final[dict[DeviceState, frozenset[DeviceState]]] = {
    DeviceState.IDLE: frozenset(
        {DeviceState.CONNECTING, DeviceState.LISTENING, DeviceState.SPEAKING, DeviceState.NOTIFYING}
    ),
    DeviceState.NOTIFYING: frozenset({DeviceState.IDLE}),
    DeviceState.CONNECTING: frozenset({DeviceState.IDLE, DeviceState.LISTENING}),
    DeviceState.LISTENING: frozenset({DeviceState.SPEAKING, DeviceState.IDLE}),
    DeviceState.SPEAKING: frozenset({DeviceState.LISTENING, DeviceState.IDLE}),
}


def transition(state: DeviceState, to: DeviceState) -> DeviceState:
    """The state after asking for `to`: the firmware refuses what its table does not allow and stays where it is."""
    return to if to in _ALLOWED[state] else state


@dataclass(frozen=True, slots=True)
class Send:
    """Send this JSON message; the shell adds the session id."""

    message: dict[str, object]


@dataclass(frozen=True, slots=True)
class Flush:
    """The audio queue has been cleared: a real loudspeaker must forget it too."""


Action: TypeAlias = Send | Flush


class Manners:
    """The firmware's manners.

    Call the methods in the order of time; each first lets pass what fell due before `now_ms`. Afterwards take
    `actions()` and arrange for `advance` to be called at `next_due_ms()`.

    Args:
        plays_out: on `tts/stop` in auto mode the queue is played before the microphone opens (2.2.2 and later); older
            firmware clears it and loses the last words.
        task_ms: from the arrival of `tts/start` or `tts/stop` to the change of state; audio that arrives in it is
            dropped. On a fast host it is next to nothing, with a busy display tens of milliseconds.
        handler_ms: from a change of state to what it brings about; audio accepted in it is cleared. Two changes within
            it collapse into one.
        microphone_ms: from `listen/start` to the first sample (observed: 120 ms, so the first 60 ms packet leaves
            after 180).
        queue_packets: how many packets the device holds, see `FIRMWARE_QUEUE_PACKETS` and `NEW_QUEUE_PACKETS`.
    """

    frame_ms: ClassVar[int] = 60
    obeys_hello: ClassVar[bool] = True
    """Repeats the session id of the server's hello, and cannot play packets longer than its `frame_duration`."""
    empty_token: ClassVar[str] = ""
    """What is sent as the token when the device was given none."""

    def __init__(
        self,
        *,
        plays_out: bool = True,
        task_ms: float = 10.0,
        handler_ms: float = 10.0,
        microphone_ms: float = 120.0,
        queue_packets: int = FIRMWARE_QUEUE_PACKETS,
    ) -> None:
        self.state = DeviceState.IDLE
        self.mode = ListeningMode.AUTO
        self._queue_packets = queue_packets
        self.speaker = self._new_speaker()
        self.microphone_from_ms: float | None = None
        """When the open microphone has given, or will give, its first sample; None while it is shut."""
        self.replying = False
        """Between `tts/start` and `tts/stop`, as far as the device has got with them."""
        self._plays_out = plays_out
        self._task_ms = task_ms
        self._handler_ms = handler_ms
        self._microphone_ms = microphone_ms
        self._tasks: deque[tuple[float, Callable[[float], None]]] = deque()
        self._handler_due_ms: float | None = None
        self._draining = False  # the main loop waits for the loudspeaker and does nothing else
        self._clock_ms = 0.0
        self._actions: list[Action] = []

    # Time ---------------------------------------------------------------------------------------------------------

    def next_due_ms(self) -> float | None:
        """When something happens by itself; None when nothing will. Playback alone needs no call."""
        if self._draining:
            drained_ms = self.speaker.ends_ms()
            return self._clock_ms if drained_ms is None else drained_ms
        due = [at_ms for at_ms, _task in list(self._tasks)[:1]]
        if self._handler_due_ms is not None:
            due.append(self._handler_due_ms)
        return max(self._clock_ms, min(due)) if due else None

    def advance(self, now_ms: float) -> None:
        """Let time pass until `now_ms`."""
        while (due_ms := self.next_due_ms()) is not None and due_ms <= now_ms:
            self._clock_ms = due_ms
            self.speaker.advance(due_ms)
            if self._draining:
                self._draining = False
                self._start_listening(due_ms)
            elif self._tasks and self._tasks[0][0] <= due_ms:
                self._tasks.popleft()[1](due_ms)
            else:
                self._handler_due_ms = None
                self._entered(due_ms)
        self._clock_ms = max(self._clock_ms, now_ms)
        self.speaker.advance(now_ms)

    def actions(self) -> list[Action]:
        """What has to be done now, in order; each is handed out once."""
        taken, self._actions = self._actions, []
        return taken

    @property
    def settled(self) -> bool:
        """Nothing sounds and nothing is on its way, as of the last time that was passed in."""
        return not (self._draining or self._tasks or self._handler_due_ms is not None or self.speaker.busy)

    # The server ---------------------------------------------------------------------------------------------------

    def tts_start(self, now_ms: float) -> None:
        """`tts/start` has arrived."""
        self._schedule(self._tts_started, now_ms, self._task_ms)

    def tts_stop(self, now_ms: float) -> None:
        """`tts/stop` has arrived."""
        self._schedule(self._tts_stopped, now_ms, self._task_ms)

    def audio(self, packet: bytes, duration_ms: float, now_ms: float, timestamp_ms: int = 0) -> bool:
        """A packet of the reply has arrived; False when it will not be heard."""
        self.advance(now_ms)
        if not self._accepts_audio():
            self.speaker.refuse(LossReason.NOT_SPEAKING)
            return False
        return self.speaker.put(packet, duration_ms, now_ms, timestamp_ms)

    def connecting(self, now_ms: float) -> None:
        """The device opens the channel."""
        self._schedule(lambda at_ms: self._go(DeviceState.CONNECTING, at_ms), now_ms)

    def notify(self, now_ms: float) -> bool:
        """A notification has come; whether it is played, which is in idle only."""
        self.advance(now_ms)
        if self.state is not DeviceState.IDLE or not self.settled:
            return False
        self._go(DeviceState.NOTIFYING, now_ms)
        return True

    def go_idle(self, now_ms: float) -> None:
        """The channel has just been opened without anything to say yet, or is gone; what waits is played out."""
        self._schedule(lambda at_ms: self._go(DeviceState.IDLE, at_ms), now_ms)

    # The user -----------------------------------------------------------------------------------------------------

    def listen(self, mode: ListeningMode, now_ms: float, reason: str = "") -> None:
        """A key or a wake word: listen in this mode; while speaking, interrupt (with the reason, if there is one)."""

        def pressed(at_ms: float) -> None:
            if self.state is DeviceState.SPEAKING or (reason and self.state is DeviceState.LISTENING):
                self._abort(reason)
            self.mode = mode
            if self.state is DeviceState.LISTENING:
                self._listen_again(at_ms)
            else:
                self._go(DeviceState.LISTENING, at_ms)

        self._schedule(pressed, now_ms)

    def stop(self, now_ms: float) -> None:
        """The key is released: the utterance is complete, the device goes idle with the channel open."""

        def released(at_ms: float) -> None:
            if self.state is DeviceState.LISTENING:
                self._send({"type": "listen", "state": "stop"})
                self.microphone_from_ms = None
                self._go(DeviceState.IDLE, at_ms)

        self._schedule(released, now_ms)

    def abort(self, now_ms: float, reason: str = "") -> None:
        """The key of a toggle while speaking: asks the server to stop and stays in speaking until it says so."""
        self._schedule(lambda _at_ms: self._abort(reason), now_ms)

    # What differs between clients ---------------------------------------------------------------------------------

    def _new_speaker(self) -> Speaker:
        return Speaker(self._queue_packets)

    def _accepts_audio(self) -> bool:
        return self.state is DeviceState.SPEAKING

    def _tts_started(self, now_ms: float) -> None:
        self._go(DeviceState.SPEAKING, now_ms)
        if self.state is DeviceState.SPEAKING and not self.replying:
            self.replying = True
            self.speaker.begin_reply(now_ms)

    def _tts_stopped(self, now_ms: float) -> None:
        self._end_reply(now_ms)
        if self.state is DeviceState.SPEAKING:
            manual = self.mode is ListeningMode.MANUAL
            self._go(DeviceState.IDLE if manual else DeviceState.LISTENING, now_ms)

    def _entered(self, now_ms: float) -> None:
        """Act on the state in which the device is now, whatever it was when the event was raised."""
        match self.state:
            case DeviceState.IDLE:
                self.microphone_from_ms = None
            case DeviceState.LISTENING if self.microphone_from_ms is None:
                if self.mode is ListeningMode.AUTO and self._plays_out:
                    self._draining = True
                else:
                    self._start_listening(now_ms)
            case DeviceState.SPEAKING:
                if self.mode is not ListeningMode.REALTIME:
                    self.microphone_from_ms = None
                self._clear(now_ms, LossReason.CLEARED_BY_START)

    def _start_listening(self, now_ms: float) -> None:
        self._send_listen_start()
        self._clear(now_ms, LossReason.CLEARED_BY_STOP)
        self.microphone_from_ms = now_ms + self._microphone_ms

    def _listen_again(self, _now_ms: float) -> None:
        self._send_listen_start()

    # Tools --------------------------------------------------------------------------------------------------------

    def _schedule(self, task: Callable[[float], None], now_ms: float, delay_ms: float = 0.0) -> None:
        """Tasks of the main loop run in their order, never one before an earlier one."""
        self.advance(now_ms)
        due_ms = now_ms + delay_ms
        if self._tasks:
            due_ms = max(due_ms, self._tasks[-1][0])
        self._tasks.append((due_ms, task))
        self.advance(now_ms)

    def _go(self, to: DeviceState, now_ms: float) -> None:
        after = transition(self.state, to)
        if after is self.state:
            return
        self.state = after
        if self._handler_due_ms is None:
            self._handler_due_ms = now_ms + self._handler_ms

    def _abort(self, reason: str) -> None:
        self._send({"type": "abort", "reason": reason} if reason else {"type": "abort"})

    def _end_reply(self, now_ms: float) -> None:
        self.replying = False
        self.speaker.end_reply(now_ms)

    def _clear(self, now_ms: float, reason: LossReason) -> None:
        if self.speaker.busy:
            self._actions.append(Flush())
        self.speaker.clear(now_ms, reason)

    def _send_listen_start(self) -> None:
        self._send({"type": "listen", "state": "start", "mode": self.mode.value})

    def _send(self, message: dict[str, object]) -> None:
        self._actions.append(Send(message))


class DesktopManners(Manners):
    """The manners of py-xiaozhi: plays whatever arrives in any state and clears its queue on `tts/stop`.

    It handles messages at once, opens its microphone at once, sends 20 ms frames, an empty session id, and a token even
    when it has none.
    """

    frame_ms = 20
    obeys_hello = False
    empty_token = "test-token"

    def __init__(self) -> None:
        super().__init__(task_ms=0.0, handler_ms=0.0, microphone_ms=0.0)

    def abort(self, now_ms: float, reason: str = "") -> None:
        """Ask the server to stop and, in auto mode, listen at once without waiting for it."""

        def aborted(at_ms: float) -> None:
            self._abort(reason)
            if self.mode is ListeningMode.AUTO:
                self._go(DeviceState.LISTENING, at_ms)

        self._schedule(aborted, now_ms)

    def _new_speaker(self) -> Speaker:
        return Speaker(max_packets=None, max_ms=DESKTOP_QUEUE_MS)

    def _accepts_audio(self) -> bool:
        return True

    def _tts_started(self, now_ms: float) -> None:
        if not self.replying:
            self.replying = True
            self.speaker.begin_reply(now_ms)
        if self.mode is not ListeningMode.REALTIME or self.state is not DeviceState.LISTENING:
            self._go(DeviceState.SPEAKING, now_ms)

    def _tts_stopped(self, now_ms: float) -> None:
        self._end_reply(now_ms)
        if self.state is DeviceState.IDLE:
            return
        if self.mode is ListeningMode.MANUAL:
            if self.state is DeviceState.SPEAKING:
                self._go(DeviceState.IDLE, now_ms)
            return
        self._clear(now_ms, LossReason.CLEARED_BY_STOP)
        if self.state is DeviceState.LISTENING and self.mode is ListeningMode.AUTO:
            self._listen_again(now_ms)
        else:
            self._go(DeviceState.LISTENING, now_ms)

    def _entered(self, now_ms: float) -> None:
        match self.state:
            case DeviceState.IDLE:
                self.microphone_from_ms = None
            case DeviceState.LISTENING if self.microphone_from_ms is None:
                self._send_listen_start()
                self.microphone_from_ms = now_ms
            case DeviceState.SPEAKING if self.mode is not ListeningMode.REALTIME:
                self.microphone_from_ms = None
