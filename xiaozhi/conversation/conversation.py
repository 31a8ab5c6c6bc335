"""One device's conversation: builds the stages, owns their task group, applies the turn machine's decisions.

Control acts at once, on the caller's stack; only audio and text travel through channels. Each conversation is one task
group; what fails in it ends this conversation and no other.
"""

import asyncio
import logging
from typing import Final

from xiaozhi.conversation.answering import CachedRecognizer, Plan
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.flush import begin_flush, end_flush
from xiaozhi.conversation.listener import Listener
from xiaozhi.conversation.microphone import Microphone
from xiaozhi.conversation.planning import Planner
from xiaozhi.conversation.recall import Recollection
from xiaozhi.conversation.replies import Replies
from xiaozhi.conversation.services import Services
from xiaozhi.conversation.speaking import PATIENCE_S, Speaker, Told
from xiaozhi.events import MicPacket
from xiaozhi.text.language import language_of
from xiaozhi.tools.device import DeviceTools
from xiaozhi.turn.decisions import (
    Commit,
    CommitSaying,
    Decision,
    DropReply,
    Interrupt,
    NextUtterance,
    PauseReply,
    Recognise,
    ResumeReply,
    StartReply,
    StartSaying,
)
from xiaozhi.turn.endpointing import plain
from xiaozhi.turn.machine import ListeningMode, State, TurnMachine
from xiaozhi.turn.trace import TurnTrace
from xiaozhi.turn.unprompted import Manners

_log = logging.getLogger(__name__)

# A burst of at least this many packets outside listening, just before `detect`, is the firmware's wake-word audio.
_WAKE_BURST_PACKETS: Final = 5
# Two packets of 60 ms wait for a tick as a matter of course.
_KEEPS_UP_MS: Final = 120.0
# No state that waits for a user or for words lasts longer than the longest utterance and its recognition, and this.
_OVERDUE_S: Final = 5.0
_PASSING: Final = (State.HEARING, State.PAUSED, State.OVERLAP, State.PROBING)


class Conversation:
    """One device's conversation.

    Args:
        services: the shared engines.
        link: the way back to the device.
        device_id: for the log.
        notice: where this is not empty, the device hears it instead of a conversation, and is hung up.
    """

    def __init__(self, services: Services, link: DeviceLink, device_id: str, *, notice: str = "") -> None:
        settings = services.settings
        self._services = services
        self._link = link
        self._device_id = device_id
        self._loop = asyncio.get_running_loop()
        self._machine = TurnMachine(settings.turn, services.commands)
        self._recall = Recollection(services, device_id)
        self._microphone = Microphone(services, self._show_partial)
        self._tasks: asyncio.TaskGroup | None = None
        self.manners = Manners(settings.turn)
        """What the device says unasked; an agent may bring its own."""
        self._speaker = Speaker(
            self._machine, self.manners, self._apply, link.hang_up, lambda: self._listener.language, notice
        )
        self._replies = Replies(
            services, link, device_id, self._machine, self._recall, self._speaker, self._apply, self._is_active
        )
        self._listener = Listener(
            services,
            device_id,
            self._machine,
            self._microphone,
            self._replies,
            self._apply,
            lambda text: self.say(text, remembered=CachedRecognizer.NEVER),
            self._is_active,
        )
        self._planner = Planner(services, device_id, self._recall, self.manners)
        self._turns = 0  # that were committed
        self.refused_turns = 0
        """Texts that came when no new turn could begin."""
        self._active_at = self._loop.time()
        self._at = (self._machine.state, 0, 0)  # where it is: its state, turn and revision
        self._there_since = self._active_at
        if notice:
            self.finish()

    async def recall(self) -> None:
        """Read what was said before; called before the device may speak, and over within half a second."""
        await self._recall.load()
        self._machine.pace.restore(self._recall.device.pause_ms)
        self._planner.take_manners()

    def use_device(self, device: DeviceTools | None) -> None:
        """The device offers tools of its own, or none any more."""
        self._planner.use_device(device)

    async def run(self) -> None:
        """Run until cancelled; everything the conversation holds is freed when this returns."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._microphone.run(), name="microphone")
                tasks.create_task(self._listener.follow_speech(), name="follow-speech")
                tasks.create_task(self._listener.follow_texts(), name="follow-texts")
        finally:
            self._tasks = None
            self._speaker.settle(Told.DROPPED)
            self._recall.close()

    # What the device says; all of it acts at once -----------------------------------------------------------------

    def hear(self, packet: MicPacket) -> None:
        """Take one microphone packet. Never waits: the oldest is dropped when the VAD cannot keep up."""
        self._microphone.put(packet)

    def listen(self, mode: ListeningMode) -> None:
        """`listen/start`."""
        self._active_at = self._loop.time()
        self._microphone.take_unheard()
        self._listener.listens()
        if self._speaker.notice:
            self._speaker.give_notice()
            return
        self._apply(self._machine.listen(mode))
        if text := self.manners.listens(mode, language=self.language):
            self.say(text)

    def finish(self) -> None:
        """Begin no new turn: the server stops. What is being heard is still answered, what is being said ends."""
        self._apply(self._machine.finish())

    @property
    def doing(self) -> str:
        """The state of its turn machine, for the log."""
        return self._machine.state.value

    @property
    def listens(self) -> bool:
        """The microphone is open, and nothing has been found in it yet."""
        return self._machine.state is State.WAITING

    @property
    def behind(self) -> bool:
        """There may be a word in what has come and has not been listened to yet: the machine is busy."""
        return self.listens and self._microphone.waiting_ms > _KEEPS_UP_MS

    def stop_listening(self) -> None:
        """`listen/stop`: goes behind the audio that came before it, so that the last syllable is not lost."""
        self._microphone.key_released()

    def detect(self, text: str) -> None:
        """A wake word, or a typed text: desktop and browser clients use the same message for both."""
        burst = self._microphone.take_unheard()
        self._active_at = self._loop.time()
        wake_words = {plain(word) for word in self._services.settings.turn.wake_words}
        if burst >= _WAKE_BURST_PACKETS or not plain(text) or plain(text) in wake_words:
            self._apply(self._machine.woken())  # the wake word itself is no command
            if reply := self.manners.woken(listening=self.listens, language=self.language):
                self.say(reply)
            return
        self.typed(text)

    def typed(self, text: str) -> None:
        """A whole turn in writing."""
        if self._speaker.notice:
            self._speaker.give_notice()
            return
        if self._machine.finishing:
            self.refused_turns += 1
            return
        self._listener.typed(text)
        self._apply(self._machine.typed(text))

    def abort(self, reason: str) -> None:
        """Be silent now. Always answered with `tts/stop`: a device that speaks stays there until it comes."""
        self._listener.missed = ""
        speaking = self._replies.speaks
        unplayed_ms = self._replies.now.pacer.unplayed_ms() if self._replies.now is not None else 0.0
        self._apply(self._machine.abort())
        if not speaking:
            self._link.tts_stop()
        elif self._machine.mode is ListeningMode.AUTO and not reason and unplayed_ms > 0.0:
            # With a reason (a wake word), or a pressed key, the device has gone to listening and is silent already.
            self._flush()

    # What the server says of its own accord -----------------------------------------------------------------------

    def say(
        self,
        text: str,
        *,
        language: str = "",
        emotion: str = "",
        interruptible: bool = True,
        patience_s: float = PATIENCE_S,
        remembered: CachedRecognizer = CachedRecognizer.ALWAYS,
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, if nobody speaks or is answered just now; see `Speaker.say`."""
        if self._tasks is None or self._machine.finishing:  # the conversation has not begun, or is over
            refused: asyncio.Future[Told] = self._loop.create_future()
            refused.set_result(Told.REFUSED)
            return refused
        return self._speaker.say(
            text,
            language=language,
            emotion=emotion,
            interruptible=interruptible,
            patience_s=patience_s,
            remembered=remembered,
        )

    def farewell(self) -> bool:
        """Say goodbye and hang up after it; False where nothing is to be said: the caller hangs up at once."""
        return self._turns > 0 and self._tasks is not None and self._speaker.farewell(self._is_active)

    @property
    def is_stranger(self) -> bool:
        """Nothing was ever said to this device, and nobody has let it in by hand."""
        device = self._recall.device
        return self._turns == 0 and not (device.bound or device.talked)

    def _is_active(self) -> None:
        self._active_at = self._loop.time()

    @property
    def language(self) -> str:
        """What the user spoke last, or is expected to speak."""
        return self._listener.language

    def _start_saying(self, generation: int) -> None:
        assert self._speaker.saying is not None
        trace = TurnTrace(self._machine.turn, generation=generation, mode=self._machine.mode.value)
        trace.language = self.language
        saying, agent = self._speaker.saying, self._recall.agent
        plan = Plan(trace.language, agent=agent, script=saying.script, unasked=True, remembered=saying.remembered)
        self._begin(plan, trace, f"say-{generation}")

    def _commit_saying(self) -> None:
        reply = self._replies.now
        assert reply is not None
        self._is_active()
        self._speaker.committed()
        reply.trace.anchor = self._active_at
        reply.commit("")

    def idle_s(self) -> float:
        """How long nothing has been said by either side, in seconds."""
        if self._machine.state not in (State.IDLE, State.WAITING):
            return 0.0
        return self._loop.time() - self._active_at

    def check_stall(self) -> None:
        """Called about once a second: leave a state that has lasted longer than anything it may wait for."""
        settings = self._services.settings
        waits_s = settings.turn.max_utterance_s + settings.asr.timeout_s + _OVERDUE_S
        if self._machine.state in _PASSING and self._loop.time() - self._there_since > waits_s:
            _log.error("nothing came of %s", self.doing, extra={"device": self._device_id})
            self._apply(self._machine.overdue())
            if self.idle_s() > 0.0:
                self._listener.lost()

    # What the machine decides -------------------------------------------------------------------------------------

    def _apply(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case NextUtterance(number, mic, afresh):
                    self._microphone.expect(number, mic, afresh=afresh)
                case Recognise(ticket, probe):
                    if not probe:
                        self._listener.times.soft_end = self._loop.time()
                    self._microphone.recognise(ticket, self._recall.rank, probe=probe)
                case StartReply():
                    self._start_reply(decision)
                case DropReply():
                    self._services.speculation.wasted += self._speaker.saying is None
                    self._replies.cancel()
                case Commit(_, revision, _, text):
                    self._commit(revision, text)
                case StartSaying(generation):
                    self._start_saying(generation)
                case CommitSaying():
                    self._commit_saying()
                case Interrupt(_, taken_back):
                    if taken_back and self._replies.has_acted:
                        self._machine.keep_apart()
                        taken_back = False
                    silenced = self._replies.interrupt(taken_back=taken_back)
                    if silenced and self._machine.mode is ListeningMode.REALTIME:
                        self._flush()
                case PauseReply():
                    if (reply := self._replies.now) is not None:
                        reply.pacer.hold()
                case ResumeReply():
                    if (reply := self._replies.now) is not None:
                        reply.pacer.resume()
        at = (self._machine.state, self._machine.turn, self._machine.revision)
        if at != self._at:
            self._at, self._there_since = at, self._loop.time()

    def _show_partial(self, text: str) -> None:
        """Show what has been heard so far; of speech over a reply nothing is shown before it interrupts."""
        if self._machine.state in (State.HEARING, State.PAUSED):
            self._link.stt(text)

    def _start_reply(self, wanted: StartReply) -> None:
        transcript, text = self._listener.transcript, wanted.text
        user = language_of(text, default=transcript.language or "zh")
        mode = self._machine.mode.value
        trace = TurnTrace(wanted.turn, wanted.revision, wanted.generation, mode=mode, language=user)
        trace.engine = self._services.ears.engine.name
        trace.heard = text
        plan = self._planner.excuse(user) if wanted.excuse else self._planner.plan(text, transcript, user)
        trace.unknown_language = plan.unknown_language
        self._services.speculation.started += 1
        self._begin(plan, trace, f"reply-{wanted.turn}.{wanted.revision}")

    def _begin(self, plan: Plan, trace: TurnTrace, name: str) -> None:
        assert self._tasks is not None
        self._replies.begin(self._tasks, plan, trace, name)

    def _commit(self, revision: int, text: str) -> None:
        reply = self._replies.now
        assert reply is not None
        self._services.speculation.committed += 1
        self._turns += 1
        self._active_at = self._loop.time()
        trace = reply.trace
        trace.revision = revision
        if trace.unknown_language:
            text = ""
        trace.heard = text  # confirmed or heard once more since the reply was started
        trace.language = language_of(text, default=self._listener.transcript.language or "zh")
        self._listener.times.note(trace, self._active_at)
        self._planner.committed(text)
        self._recall.keep_pause(self._machine.pace.habit_ms or 0.0)
        reply.commit(text)

    def _flush(self) -> None:
        assert self._tasks is not None
        audio = self._services.settings.audio
        if begin_flush(self._link, audio):
            self._tasks.create_task(end_flush(self._link, audio, lambda: self._replies.speaks), name="flush")
