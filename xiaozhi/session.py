"""One device's conversation: builds the stages, owns their task group, applies the turn machine's decisions.

Control acts at once, on the caller's stack; only audio and text travel through channels. Each conversation is one task
group; what fails in it ends this conversation and no other.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Final

from xiaozhi.conversation.answering import Plan
from xiaozhi.conversation.flush import begin_flush, end_flush
from xiaozhi.conversation.microphone import Microphone
from xiaozhi.conversation.own_voice import OwnVoice
from xiaozhi.conversation.planning import Planner
from xiaozhi.conversation.recollection import Recollection
from xiaozhi.conversation.reply import Reply
from xiaozhi.conversation.saying import PATIENCE_S, Speaker, Told
from xiaozhi.conversation.turn_report import report_turn
from xiaozhi.events import KeyReleased, MicPacket, SpeechBegan
from xiaozhi.link import DeviceLink
from xiaozhi.services import Services
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.text.language import language_of
from xiaozhi.text.messages import message
from xiaozhi.text.same_words import same_words
from xiaozhi.tools.device import DeviceTools
from xiaozhi.turn.decisions import (
    CloseUtterance,
    Commit,
    CommitSaying,
    Decision,
    DropReply,
    Interrupt,
    PauseReply,
    Recognise,
    ResumeReply,
    StartListening,
    StartReply,
    StartSaying,
    StopListening,
)
from xiaozhi.turn.endpointing import is_echo, plain
from xiaozhi.turn.machine import ListeningMode, State, TurnMachine
from xiaozhi.turn.manners import Manners
from xiaozhi.turn.trace import TurnTrace
from xiaozhi.turn.utterance_times import UtteranceTimes

_log = logging.getLogger(__name__)

# A burst of at least this many packets outside listening, just before `detect`, is the firmware's wake-word audio.
_WAKE_BURST_PACKETS: Final = 5
# Two packets of 60 ms wait for a tick as a matter of course.
_KEEPS_UP_MS: Final = 120.0
# Where recognition is broken and a television is on, the device need not say so after its every sentence.
_OWN_UP_EVERY_S: Final = 5.0


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
        self._own_voice = OwnVoice(services.codec, self._microphone.close_utterance)
        self._tasks: asyncio.TaskGroup | None = None
        self._reply: Reply | None = None
        self._reply_task: asyncio.Task[None] | None = None
        self.manners = Manners(settings.turn)
        """What the device says unasked; an agent may bring its own."""
        self._speaker = Speaker(self._machine, self.manners, self._apply, link.hang_up, self._language, notice)
        self._planner = Planner(services, device_id, self._recall, self.manners)
        self._times = UtteranceTimes()
        self._turns = 0  # that were committed
        self._finishing = False  # no new turn may begin
        self.refused_turns = 0
        """Texts that came when no new turn could begin."""
        self._transcript = Transcript("")
        self._provisional_ticket: int | None = None  # of the text that waits to be confirmed
        self._missed = ""  # why what was said last could not be recognised
        self._owned_up_at = -math.inf
        self._active_at = self._loop.time()
        self._packet_at = self._active_at

    async def recall(self) -> None:
        """Read what was said before; called before the device may speak, and over within half a second."""
        await self._recall.load()
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
                tasks.create_task(self._follow_speech(), name="follow-speech")
                tasks.create_task(self._follow_texts(), name="follow-texts")
        finally:
            self._tasks = None
            self._speaker.settle(Told.DROPPED)
            self._recall.close()

    # What the device says; all of it acts at once -----------------------------------------------------------------

    def hear(self, packet: MicPacket) -> None:
        """Take one microphone packet. Never waits: the oldest is dropped when the VAD cannot keep up."""
        self._packet_at = self._loop.time()
        self._microphone.put(packet)

    def listen(self, mode: ListeningMode) -> None:
        """`listen/start`."""
        self._active_at = self._loop.time()
        self._microphone.take_unheard()
        if self._speaker.notice:
            self._speaker.give_notice()
            return
        self._apply(self._machine.listen(mode))
        if text := self.manners.listens(mode, language=self._language()):
            self.say(text)

    def finish(self) -> None:
        """Begin no new turn: the server stops. What is being heard is still answered, what is being said ends."""
        self._finishing = True
        self._sync_microphone()

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
            self._microphone.forget_sound()  # the wake word itself is no command
            listening = self._machine.state is State.WAITING
            if reply := self.manners.woken(listening=listening, language=self._language()):
                self.say(reply)
            return
        self.typed(text)

    def typed(self, text: str) -> None:
        """A whole turn in writing."""
        if self._speaker.notice:
            self._speaker.give_notice()
            return
        if self._finishing:
            self.refused_turns += 1
            return
        self._transcript = Transcript(text)
        self._times.typed()
        self._apply(self._machine.typed(text))

    def abort(self, reason: str) -> None:
        """Be silent now. Always answered with `tts/stop`: a device that speaks stays there until it comes."""
        self._missed = ""
        speaking = self._speaks()
        unplayed_ms = self._reply.pacer.unplayed_ms() if self._reply is not None else 0.0
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
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, if nobody speaks or is answered just now; see `Speaker.say`."""
        if self._tasks is None or self._finishing:  # the conversation has not begun, or is over
            refused: asyncio.Future[Told] = self._loop.create_future()
            refused.set_result(Told.REFUSED)
            return refused
        return self._speaker.say(
            text, language=language, emotion=emotion, interruptible=interruptible, patience_s=patience_s
        )

    def farewell(self) -> bool:
        """Say goodbye and hang up after it; False where nothing is to be said: the caller hangs up at once."""
        return self._turns > 0 and self._tasks is not None and self._speaker.farewell(self._is_active)

    def _is_active(self) -> None:
        self._active_at = self._loop.time()

    @property
    def language(self) -> str:
        """What the talker spoke last, or is expected to speak."""
        return self._language()

    def _language(self) -> str:
        fixed = self._services.settings.asr.language
        return self._transcript.language or (fixed if fixed != "auto" else "zh")

    def _start_saying(self, generation: int) -> None:
        assert self._speaker.saying is not None
        trace = TurnTrace(self._machine.turn, generation=generation, mode=self._machine.mode.value)
        trace.language = self._language()
        script, persona = self._speaker.saying.script, self._recall.agent
        self._begin(Plan(trace.language, persona=persona, script=script, unasked=True), trace, f"say-{generation}")

    def _commit_saying(self) -> None:
        assert self._reply is not None
        self._is_active()
        self._speaker.committed()
        self._reply.trace.anchor = self._active_at
        self._reply.commit("")

    def idle_s(self) -> float:
        """How long nothing has been said by either side, in seconds."""
        if self._machine.state not in (State.IDLE, State.WAITING):
            return 0.0
        return self._loop.time() - self._active_at

    def check_stall(self) -> None:
        """Called about once a second: end an utterance whose microphone stream has stopped arriving."""
        if (
            self._machine.state in (State.HEARING, State.PAUSED)
            and self._loop.time() - self._packet_at > self._services.settings.turn.stall_s
        ):
            self._apply(self._machine.stalled())

    # What the stages say ------------------------------------------------------------------------------------------

    async def _follow_speech(self) -> None:
        async for heard in self._microphone.speech:
            if isinstance(heard, KeyReleased):
                self._apply(self._machine.stop())
                self._own_up()
                continue
            event = await self._own_voice.past(heard, self._sounding(), self._machine.settings.soft_end_ms)
            if event is None:
                continue
            now = self._loop.time()
            self._microphone.pass_on(event)
            if isinstance(event, SpeechBegan):
                self._missed = ""
                self._active_at = now
                self._machine.may_speculate = self._services.may_speculate
                self._machine.settings = self._services.settings.turn
                self._times.speech_began(event.start_ms, event.end_ms, now)
                self._apply(self._machine.speech_began(event.start_ms, event.end_ms))
            else:
                self._times.speech_went_on(event.end_ms, event.last_voiced_ms, now)
                self._apply(self._machine.heard(event.end_ms, event.silence_ms, doubtful=event.doubtful))
            self._own_up()

    async def _follow_texts(self) -> None:
        async for recognised in self._microphone.texts:
            text = recognised.transcript.text
            if self._machine.state is State.PROBING and is_echo(text, self._spoken_text()):
                text = ""
            confirms = recognised.ticket == self._provisional_ticket and same_words(text, self._transcript.text)
            if not confirms:  # words that are only confirmed were known before
                self._times.words_known(self._loop.time(), recognised.took_s)
            self._provisional_ticket = recognised.ticket if recognised.provisional else None
            self._transcript = recognised.transcript
            if self._services.settings.log.transcripts:
                _log.info("heard", extra={"device": self._device_id, "heard": text})
            self._missed = recognised.error if not text and self._machine.state is State.PAUSED else ""
            self._apply(self._machine.recognised(recognised.ticket, text, provisional=recognised.provisional))
            self._own_up()

    def _own_up(self) -> None:
        """Whoever has finished speaking and was not understood by a fault of ours hears so, and not nothing."""
        now = self._loop.time()
        if not self._missed or self._machine.state not in (State.IDLE, State.WAITING):
            return
        self._missed = ""
        if now - self._owned_up_at >= _OWN_UP_EVERY_S:
            self._owned_up_at = now
            self.say(message("busy" if self._services.ears.full else "not_understood", self._language()))

    def _sounding(self) -> Sequence[bytes]:
        """What an open microphone may hear of the device itself."""
        reply = self._reply
        if reply is None or not reply.committed or self._machine.mode is not ListeningMode.REALTIME:
            return ()
        return tuple(reply.pacer.recent)

    def _show_partial(self, text: str) -> None:
        """Show what has been heard so far; of speech over a reply nothing is shown before it interrupts."""
        if self._machine.state in (State.HEARING, State.PAUSED):
            self._link.stt(text)

    def _spoken_text(self) -> str:
        return "".join(clause.speech for clause, _ in self._reply.pacer.spoken()) if self._reply else ""

    # What the machine decides -------------------------------------------------------------------------------------

    def _apply(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case StartListening(hold):
                    self._microphone.listen(hold=hold)
                case StopListening():
                    self._microphone.let_go()
                case CloseUtterance():
                    self._microphone.close_utterance()
                case Recognise(ticket, probe):
                    if not probe:
                        self._times.soft_end = self._loop.time()
                    self._microphone.recognise(ticket, self._recall.rank, probe=probe)
                case StartReply(turn, revision, generation, text):
                    self._start_reply(turn, revision, generation, text)
                case DropReply():
                    self._services.speculation.wasted += self._speaker.saying is None
                    self._cancel_reply()
                case Commit(_, revision, _, text):
                    self._commit(revision, text)
                case StartSaying(generation):
                    self._start_saying(generation)
                case CommitSaying():
                    self._commit_saying()
                case Interrupt():
                    self._interrupt()
                case PauseReply():
                    if self._reply is not None:
                        self._reply.pacer.hold()
                case ResumeReply():
                    if self._reply is not None:
                        self._reply.pacer.resume()
        self._sync_microphone()

    def _sync_microphone(self) -> None:
        """The microphone counts while a turn may begin or go on; in realtime mode also during the reply."""
        state = self._machine.state
        realtime = self._machine.mode is ListeningMode.REALTIME and self._services.settings.turn.barge_in
        deaf = bool(self._speaker.notice) or state is State.IDLE or (state is State.REPLYING and not realtime)
        deaf = deaf or (self._finishing and state in (State.WAITING, State.REPLYING))
        self._microphone.hear(deaf=deaf)

    def _start_reply(self, turn: int, revision: int, generation: int, text: str) -> None:
        talker = language_of(text, default=self._transcript.language or "zh")
        trace = TurnTrace(turn, revision, generation, mode=self._machine.mode.value, language=talker)
        trace.engine = self._services.ears.engine.name
        trace.heard = text
        plan = self._planner.plan(text, self._transcript, talker)
        self._services.speculation.started += 1
        self._begin(plan, trace, f"reply-{turn}.{revision}")

    def _begin(self, plan: Plan, trace: TurnTrace, name: str) -> None:
        assert self._tasks is not None
        generation = trace.generation
        reply = Reply(
            self._services,
            self._link,
            plan,
            trace,
            on_ready=lambda: self._apply(self._machine.reply_ready(generation)),
            on_known=lambda: self._apply(self._machine.question_known(generation)),
        )
        self._reply = reply
        self._reply_task = self._tasks.create_task(self._run_reply(reply), name=name)
        self._services.tenants.until(self._reply_task)

    def _commit(self, revision: int, text: str) -> None:
        assert self._reply is not None
        self._services.speculation.committed += 1
        self._turns += 1
        self._active_at = self._loop.time()
        trace = self._reply.trace
        trace.revision = revision
        trace.heard = text  # confirmed or heard once more since the reply was started
        trace.language = language_of(text, default=self._transcript.language or "zh")
        self._times.note(trace, self._active_at)
        self._planner.committed(text)
        self._reply.commit(text)

    async def _run_reply(self, reply: Reply) -> None:
        try:
            await reply.run()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - one reply's fault must not end the conversation; it is logged whole
            _log.exception("reply failed", extra={"device": self._device_id})
            reply.trace.error = reply.trace.error or "internal error"
        if reply.unasked:
            self._speaker.settle(Told.DROPPED if reply.trace.first_packet is None else Told.SPOKEN)
        self._remember(reply)
        if reply.committed and reply.ends_conversation:
            self._link.hang_up("the talker said goodbye")
        if self._reply is reply:
            self._reply = self._reply_task = None
        self._active_at = self._loop.time()
        self._apply(self._machine.reply_done(reply.trace.generation))

    def _cancel_reply(self) -> None:
        self._speaker.settle(Told.DROPPED)
        if self._reply_task is not None:
            self._reply_task.cancel()
        self._reply = self._reply_task = None

    def _interrupt(self) -> None:
        reply = self._reply
        if reply is None:
            return
        reply.trace.interrupted = self._loop.time()
        self._speaker.settle(Told.INTERRUPTED)
        reply.stop()
        reply.close_trace()
        self._remember(reply)
        self._cancel_reply()
        if self._machine.mode is ListeningMode.REALTIME:
            self._flush()

    def _flush(self) -> None:
        assert self._tasks is not None
        audio = self._services.settings.audio
        if begin_flush(self._link, audio):
            self._tasks.create_task(end_flush(self._link, audio, self._speaks), name="flush")

    def _speaks(self) -> bool:
        return self._reply is not None and self._reply.committed

    def _remember(self, reply: Reply) -> None:
        """Put into the history what was heard, and close the turn's record."""
        trace = reply.trace
        if not reply.committed or reply.unasked:
            return
        self._recall.add(trace, reply.pacer.spoken(), reply.pacer.played_ms())
        report_turn(self._services, self._link, self._device_id, trace)
