"""One device's conversation: the one owner of its turn, to whom everything that happens comes as an event.

An event (what the device says, speech, words, what becomes of a reply, a time that is over) is put to the turn machine;
what the machine decides is done in `_apply`, the one table from decision to action. All of it acts at once, on the
stack of what happened; only audio and text travel through channels. Each conversation is one task group; what fails in
it ends this conversation and no other.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from xiaozhi.audio.echo_canceller import SentSound
from xiaozhi.conversation.agent_engines import AgentEars
from xiaozhi.conversation.context import ConversationContext
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.echo_guard import Echo, EchoGuard, PlayedPacket
from xiaozhi.conversation.heard import HeardUtterance
from xiaozhi.conversation.pacer import MAX_RECENT_PACKETS
from xiaozhi.conversation.planning import InHistory, Planner, ReplyPlan
from xiaozhi.conversation.reply import Reply, ReplyEvent
from xiaozhi.conversation.saying import Saying, Told
from xiaozhi.conversation.services import Services
from xiaozhi.conversation.speech_input import SpeechInput
from xiaozhi.conversation.turn_records import TurnRecords
from xiaozhi.events import Clause, KeyReleased, MicPacket, SpeechBegan, SpeechEvent, SpeechLikely
from xiaozhi.stages.asr.stage import PartialText, Recognised
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.text.language import language_of
from xiaozhi.text.messages import message
from xiaozhi.text.script import script_of
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
    ShortenLead,
    StartReply,
    StartSaying,
)
from xiaozhi.turn.endpointing import is_echo, plain
from xiaozhi.turn.greetings import Greetings
from xiaozhi.turn.machine import ListeningMode, TurnMachine, TurnState
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)

# What is known to be whole, as `plain` writes it.
_COMMANDS: Final = frozenset(plain(phrase) for phrase in SPOKEN_COMMANDS_EN)

# A burst of at least this many packets outside listening, just before `detect`, is the firmware's wake-word audio.
_WAKE_BURST_PACKETS: Final = 5
# Two packets of 60 ms wait for a tick as a matter of course.
_KEEPS_UP_MS: Final = 120.0
# No state that waits for a user or for words lasts longer than the longest utterance and its recognition, and this.
_OVERDUE_S: Final = 5.0
_PASSING: Final = (TurnState.HEARING, TurnState.PAUSED, TurnState.OVERLAP, TurnState.PROBING)
# A sentence of the server's own is meant for this moment; a goodbye may take longer, since nobody waits for it.
_PATIENCE_S: Final = 2.0
_GOODBYE_PATIENCE_S: Final = 8.0
# Where recognition is broken and a television is on, the device need not say so after every sentence of its.
_MISSED_EVERY_S: Final = 5.0
# A key that was held for less is a tap, and nobody expects an answer to it (shared with the protocol's checklist);
# where no sound has come at all the clock has to tell, which knows nothing of what is still on its way.
_TAP_MS: Final = 300.0
_LONG_PRESS_S: Final = 1.0
# Whoever aborts a reply within this of `tts/start`, and speaks within that, may only have gone on.
_AT_ONCE_S: Final = 1.0
_GOES_ON_WITHIN_S: Final = 2.0
# What may still be heard of a reply is in so many of its clauses: the rest was said too long ago.
_ECHOED_CLAUSES: Final = 2


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
        self._notice = notice
        self._loop = asyncio.get_running_loop()
        self._tasks: asyncio.TaskGroup | None = None
        self._machine = TurnMachine(settings.turn, _COMMANDS)
        conversations = services.shared.conversations if services.shared is not None else None
        self._context = ConversationContext(
            services, services.store, services.memory, services.summaries, conversations, device_id
        )
        self._records = TurnRecords(services, self._context, services.on_turn, link, device_id)
        ears = AgentEars(services.for_agents, lambda: self._context.agent)
        self._speech_input = SpeechInput(services.batcher, ears, settings)
        self._echo_guard = EchoGuard(services.codec, services.echoes, self._speech_input.clock)
        self._heard = HeardUtterance()
        self.greetings = Greetings(settings.turn)
        """What the device says unasked; an agent may bring its own."""
        self._planner = Planner(services, services.tools, device_id, self._context, self.greetings)
        self._reply: Reply | None = None  # the one that is prepared or spoken
        self._reply_task: asyncio.Task[None] | None = None
        self._earlier: deque[PlayedPacket] = deque(maxlen=MAX_RECENT_PACKETS)  # of replies that are over
        self._cut_off: Reply | None = None  # that was aborted as it began; no part of the history yet
        self._saying: Saying | None = None  # the sentence of the server's own that it speaks
        self._leaving = False  # a goodbye is being said
        self._turns = 0  # that were committed
        self._expected_turn = 0  # the last for which the voice was told that a text will come
        self.refused_turns = 0
        """Texts that came when no new turn could begin."""
        self._active_at = self._loop.time()
        self._at = (self._machine.state, 0, 0)  # where it is: its state, turn and revision
        self._there_since = self._active_at
        self._listening_since = 0.0
        self._told_missed_at = -math.inf
        if notice:
            self.finish()

    async def load(self) -> None:
        """Read what was said before; called before the device may speak, and over within half a second."""
        try:
            await self._context.load()
        except asyncio.CancelledError:  # the device has gone meanwhile
            self._context.close()
            raise
        self._machine.pace.restore(self._context.device.pause_ms)
        self._planner.take_greetings()

    def takes_echo(self, sends_echo: bool, sent: SentSound | None) -> None:
        """Whether the device leaves the echo of its loudspeaker to the server.

        Args:
            sends_echo: so it says; kept for its next start.
            sent: it is taken off by this, of which the device's packets tell over what they were heard; None: not.
        """
        self._context.note_aec(sends_echo)
        if sent is not None:
            self._speech_input.cancel_echo(sent)

    def use_device(self, device: DeviceTools | None) -> None:
        """The device offers tools of its own, or none any more."""
        self._planner.use_device(device)

    async def run(self) -> None:
        """Run until cancelled; everything the conversation holds is freed when this returns."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._speech_input.begin(tasks)
                await self._follow()
        finally:
            self._tasks = None
            self._settle(Told.DROPPED)
            self._settle_cut_off(taken_back=False)
            self._context.close()

    # What the device says -----------------------------------------------------------------------------------------

    def hear(self, packet: MicPacket) -> None:
        """Take one microphone packet. Never waits: the oldest is dropped when the VAD cannot keep up."""
        self._speech_input.put(packet)

    def listen(self, mode: ListeningMode) -> None:
        """`listen/start`."""
        self._active_at = self._listening_since = self._loop.time()
        self._speech_input.take_unheard()
        if self._notice:
            self._give_notice()
            return
        self._apply(self._machine.listen(mode))
        if text := self.greetings.listens(mode, language=self.language):
            self.say(text)

    def stop_listening(self) -> None:
        """`listen/stop`: goes behind the audio that came before it, so that the last syllable is not lost."""
        self._speech_input.key_released()

    def detect(self, text: str) -> None:
        """A wake word, or a typed text: desktop and browser clients use the same message for both."""
        burst = self._speech_input.take_unheard()
        self._active_at = self._loop.time()
        wake_words = {plain(word) for word in self._services.settings.turn.wake_words}
        if burst >= _WAKE_BURST_PACKETS or not plain(text) or plain(text) in wake_words:
            self._apply(self._machine.woken())  # the wake word itself is no command
            if reply := self.greetings.woken(listening=self.listens, language=self.language):
                self.say(reply)
            return
        self.typed(text)

    def typed(self, text: str) -> None:
        """A whole turn in writing."""
        if self._notice:
            self._give_notice()
        elif self._machine.finishing:
            self.refused_turns += 1
        else:
            self._heard.typed(text)
            self._apply(self._machine.typed(text))

    def abort(self, reason: str) -> None:
        """Be silent now. Always answered with `tts/stop`: a device that speaks stays there until it comes."""
        self._heard.missed = ""
        speaking = self._speaks
        unplayed_ms = self._reply.pacer.unplayed_ms() if self._reply is not None else 0.0
        reply = self._reply
        begun = self._loop.time() - (reply.trace.commit or 0.0) if reply is not None and speaking else math.inf
        at_once = not reason and reply is not None and begun <= _AT_ONCE_S and not reply.has_acted
        self._apply(self._machine.abort(at_once=at_once))
        if not speaking:
            self._link.tts_stop()
        elif self._machine.mode is ListeningMode.AUTO and not reason and unplayed_ms > 0.0:
            # With a reason (a wake word), or a pressed key, the device has gone to listening and is silent already.
            self._flush()

    def finish(self) -> None:
        """Begin no new turn: the server stops. What is being heard is still answered, what is being said ends."""
        self._apply(self._machine.finish())

    # What the server says of its own accord; never over the user ---------------------------------------------------

    def say(
        self,
        text: str,
        *,
        language: str = "",
        interruptible: bool = True,
        patience_s: float = _PATIENCE_S,
        in_history: InHistory = InHistory.ALWAYS,
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, if nobody speaks or is answered just now, and no end is near.

        It goes the way of every reply: prepared behind a gate, dropped when the user speaks first, paced, between
        `tts/start` and `tts/stop`. The call returns at once.

        Args:
            text: what to say; an emoji at its beginning is its emotion.
            language: of a text that does not show its own; the user's when empty.
            interruptible: speech over it may stop it (realtime mode); a key or an `abort` always does.
            patience_s: given up when its first sound is not there by then, in seconds.
            in_history: whether it goes into the history, as far as it is heard.

        Returns:
            What became of it, when that is known. It need not be awaited.
        """
        script = [] if self._machine.finishing else script_of(text, language=language or self.language)
        return self._say(script, in_history, patience_s, interruptible=interruptible)

    def _say(
        self, script: list[Clause], in_history: InHistory, patience_s: float, *, interruptible: bool = True
    ) -> asyncio.Future[Told]:
        told: asyncio.Future[Told] = self._loop.create_future()
        begun = script and self._tasks is not None  # else the conversation has not begun, or is over
        decisions = self._machine.say(interruptible=interruptible) if begun else []
        if not decisions:
            told.set_result(Told.REFUSED)
            return told
        timer = self._loop.call_later(patience_s, self._give_up_saying, self._machine.generation)
        self._saying = Saying(script, told, in_history, timer)
        self._apply(decisions)
        return told

    def _give_up_saying(self, generation: int) -> None:
        self._apply(self._machine.give_up_saying(generation))

    def _settle(self, told: Told) -> None:
        """What became of the sentence that is said or was to be said, if there is one."""
        saying, self._saying = self._saying, None
        if saying is not None:
            saying.settle(told)

    def farewell(self) -> bool:
        """Say goodbye and hang up after it; False where nothing is to be said: the caller hangs up at once."""
        if self._turns == 0 or self._tasks is None:
            return False
        if not self._leaving:
            text = self.greetings.farewell(self.language)
            if not text or self._machine.mode is ListeningMode.MANUAL:
                return False
            self._leaving = True
            goodbye = script_of(text, language=self.language)
            told = self._say(goodbye, InHistory.BROKEN_OFF, _GOODBYE_PATIENCE_S)
            self._tasks.create_task(self._leave_after(told), name="leave")
        return True

    async def _leave_after(self, goodbye: asyncio.Future[Told]) -> None:
        told = await goodbye
        self._leaving = False
        if told is Told.INTERRUPTED or not self._rests:  # the user has spoken meanwhile, and the conversation goes on
            self._active_at = self._loop.time()
        else:
            self._link.hang_up("nothing has been said for a while")

    def _give_notice(self) -> None:
        """Say the notice and hang up after it, unless it is being said already."""
        notice = script_of(self._notice, language=self.language)
        told = self._say(notice, InHistory.NEVER, _GOODBYE_PATIENCE_S, interruptible=False)
        if not told.done():
            told.add_done_callback(lambda _told: self._link.hang_up("only a notice is for this device"))

    # What the microphone brings -----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Take what is heard and recognised, until cancelled."""
        async for heard in self._speech_input.heard:
            match heard:
                case Recognised():
                    if self._machine.awaits(heard.ticket):  # else what was asked about went on, or is over
                        self._words(heard)
                case PartialText():
                    if heard.utterance == self._machine.utterance:
                        self._partial(heard)
                case KeyReleased():
                    self._key_released(heard)
                case SpeechLikely():
                    self._apply(self._machine.speech_likely(heard.utterance))
                case _ if heard.utterance == self._machine.utterance:  # else it was over while this was on its way
                    await self._listen_to(heard)

    async def _listen_to(self, heard: SpeechEvent) -> None:
        event = await self._echo_guard.past(
            heard,
            self._sounding(),
            self._machine.settings.soft_end_ms,
            taken=self._machine.state in (TurnState.HEARING, TurnState.PAUSED),
        )
        if event is Echo.OVER:
            self._apply(self._machine.not_speech(heard.utterance))
        elif not isinstance(event, Echo) and event.utterance == self._machine.utterance:
            self._speech(event)

    def _key_released(self, key: KeyReleased) -> None:
        held_s = self._loop.time() - self._listening_since
        no_sound = self.listens and held_s >= _LONG_PRESS_S
        self._apply(self._machine.stop(key.utterance))
        self._tell_missed()
        if no_sound:
            self.say(message("not_understood", self.language), in_history=InHistory.NEVER)

    def _speech(self, event: SpeechEvent) -> None:
        """The user speaks, or has fallen silent."""
        now = self._loop.time()
        self._speech_input.pass_on(event)
        self._heard.grew(event, now)
        if isinstance(event, SpeechBegan):
            self._active_at = now
            self._machine.may_speculate = self._services.may_speculate
            self._machine.settings = self._services.settings.turn
            self._apply(
                self._machine.speech_began(event.utterance, event.start_ms, event.end_ms, pre_roll_ms=event.pre_roll_ms)
            )
        else:
            decisions = self._machine.heard(
                event.utterance,
                event.end_ms,
                event.silence_ms,
                unsent_ms=event.unsent_ms,
                doubtful=event.doubtful,
                certain=event.certain,
            )
            self._apply(decisions)
        self._tell_missed()

    def _partial(self, found: PartialText) -> None:
        """Show what has been heard so far; of speech over a reply nothing is shown before it interrupts."""
        if self._machine.state not in (TurnState.HEARING, TurnState.PAUSED):
            return
        if self._services.recognition.partials.on:
            self._link.stt(found.text)
        if found.settled is not None and self._services.speculation.may_start_early:
            self._heard.settles(found.settled, self._loop.time())
            self._apply(self._machine.settled(found.utterance, found.settled.text))

    def _words(self, answer: Recognised) -> None:
        """Recognition has answered what the machine asked."""
        text = answer.transcript.text
        if self._machine.state in (TurnState.OVERLAP, TurnState.PROBING) and is_echo(text, self._spoken_text()):
            text = ""
        self._heard.recognised(answer, text, self._loop.time())
        if self._services.settings.log.transcripts:
            _log.info("heard", extra={"device": self._device_id, "heard": text})
        wordless = not text and self._machine.state is TurnState.PAUSED
        self._heard.missed = answer.error if wordless else ""
        self._apply(self._machine.recognised(answer.ticket, text, provisional=answer.provisional))
        held_a_key = self._machine.state is TurnState.IDLE and self._heard.length_ms >= _TAP_MS
        if wordless and not self._heard.missed and held_a_key:
            # Whoever has held a key and said nothing that can be understood is not left without an answer.
            self.say(message("not_understood", self.language), in_history=InHistory.NEVER)
        self._tell_missed()

    def _tell_missed(self) -> None:
        """Whoever has finished speaking and was not understood by a fault of ours hears so, and not nothing."""
        now, recognition = self._loop.time(), self._services.for_agents.recognition(self._context.agent)
        if not self._heard.missed or not self._rests:
            return
        trace = TurnTrace(self._machine.turn, mode=self._machine.mode.value, language=self.language, unheard=True)
        trace.engine, trace.error, trace.end = recognition.engine.name, self._heard.missed, now
        self._heard.note(trace, now)
        self._records.unheard(trace)
        self._heard.missed = ""
        if now - self._told_missed_at >= _MISSED_EVERY_S:
            self._told_missed_at = now
            self.say(
                message("busy" if recognition.full else "not_understood", self.language), in_history=InHistory.NEVER
            )

    def _sounding(self) -> Sequence[PlayedPacket]:
        """What an open microphone may hear of the device itself, the oldest first; its echo outlives a reply."""
        if self._machine.mode is not ListeningMode.REALTIME:
            return ()
        return (*self._earlier, *(self._reply.pacer.recent if self._reply is not None else ()))

    def _spoken_text(self) -> str:
        """What the device has been given to say lately."""
        newest = self._reply.pacer.spoken()[-_ECHOED_CLAUSES:] if self._reply else []
        return "".join(clause.speech for clause, _ in newest)

    # What becomes of a reply --------------------------------------------------------------------------------------

    def _reply_told(self, reply: Reply, event: ReplyEvent) -> None:
        if self._reply_task is None or self._reply_task.cancelling() or reply is not self._reply:
            return  # on its way out it may still find itself ready, and must not be committed
        generation = reply.trace.generation
        match event:
            case ReplyEvent.READY:
                self._apply(self._machine.reply_ready(generation))
            case ReplyEvent.KNOWN:
                self._apply(self._machine.question_known(generation))

    def _over(self, reply: Reply, *, taken_back: bool = False) -> None:
        if reply.committed:
            self._earlier.extend(reply.pacer.recent)
            self._records.over(reply, taken_back=taken_back)

    async def _run_reply(self, reply: Reply) -> None:
        failed = False
        try:
            await reply.run()
        except asyncio.CancelledError:
            if self._reply is reply:  # neither dropped nor interrupted: the device is gone in the midst of it
                reply.trace.interrupted = self._loop.time()
                self._over(reply)
            raise
        except Exception:  # noqa: BLE001 - one reply's fault must not end the conversation; it is logged whole
            _log.exception("reply failed", extra={"device": self._device_id})
            reply.trace.error = reply.trace.error or "internal error"
            failed = True
        asked = not reply.plan.unasked
        silent = reply.trace.first_packet is None
        if not asked:
            self._settle(Told.DROPPED if silent else Told.SPOKEN)
        self._over(reply)
        if reply.committed and reply.ends_conversation:
            self._link.hang_up("the user said goodbye")
        if self._reply is not reply:
            return
        self._reply = self._reply_task = None
        self._active_at = self._loop.time()
        self._apply(self._machine.reply_done(reply.trace.generation))
        if failed and reply.committed and asked and silent:
            apology = message("apology", reply.trace.language)
            self._say(script_of(apology, language=self.language), InHistory.ALWAYS, _PATIENCE_S)

    # What the machine decides -------------------------------------------------------------------------------------

    def _apply(self, decisions: list[Decision]) -> None:
        """Do what the machine has decided, in its order."""
        for decision in decisions:
            match decision:
                case NextUtterance(number, mic, afresh):
                    self._speech_input.expect(number, mic, afresh=afresh, gap_ms=self._services.settings.turn.gap_ms)
                case Recognise(ticket, probe):
                    self._recognise(ticket, probe)
                case StartReply():
                    self._start_reply(decision)
                case StartSaying(generation):
                    self._start_saying(generation)
                case Commit(_, revision, _, text):
                    self._commit(revision, text)
                case CommitSaying():
                    self._commit_saying()
                case DropReply():
                    self._services.speculation.wasted += self._saying is None
                    self._drop_reply()
                case Interrupt(_, taken_back, undecided):
                    self._interrupt(taken_back=taken_back, undecided=undecided)
                case ShortenLead() if self._reply is not None:
                    self._reply.pacer.shorten_lead()
                case PauseReply() if self._reply is not None:
                    self._reply.pacer.hold()
                case ResumeReply() if self._reply is not None:
                    self._reply.pacer.resume()
        at = (self._machine.state, self._machine.turn, self._machine.revision)
        if at != self._at:
            self._at, self._there_since = at, self._loop.time()

    def _recognise(self, ticket: int, probe: bool) -> None:
        if not probe:
            self._heard.soft_end = self._loop.time()
            self._expect_reply()
        self._speech_input.recognise(ticket, self._context.rank, probe=probe)

    def _expect_reply(self) -> None:
        """Once in a turn."""
        if self._machine.turn != self._expected_turn:
            self._expected_turn = self._machine.turn
            self._services.expect_reply()

    def _start_reply(self, wanted: StartReply) -> None:
        self._expect_reply()
        if not self._machine.goes_on:
            self._settle_cut_off(taken_back=False)
        text, settled = wanted.text, self._heard.settled
        transcript = settled if wanted.early and settled is not None else self._heard.transcript
        user = language_of(text, default=transcript.language or "zh")
        trace = TurnTrace(wanted.turn, wanted.revision, wanted.generation, heard=text, early=wanted.early)
        trace.engine = self._services.for_agents.recognition(self._context.agent).engine.name
        plan = self._planner.excuse(user) if wanted.excuse else self._planner.plan(text, transcript, user)
        trace.unknown_language = plan.unknown_language
        self._services.speculation.start(early=wanted.early)
        self._begin(plan, trace, user, f"reply-{wanted.turn}.{wanted.revision}")

    def _start_saying(self, generation: int) -> None:
        saying = self._saying
        assert saying is not None
        self._settle_cut_off(taken_back=False)
        plan = ReplyPlan(
            self.language, agent=self._context.agent, script=saying.script, unasked=True, in_history=saying.in_history
        )
        self._begin(plan, TurnTrace(self._machine.turn, generation=generation), self.language, f"say-{generation}")

    def _begin(self, plan: ReplyPlan, trace: TurnTrace, user: str, name: str) -> None:
        """Prepare a reply at once; it is heard when it is committed."""
        assert self._tasks is not None
        trace.mode, trace.language = self._machine.mode.value, user
        over = self._machine.mode is ListeningMode.REALTIME and self._machine.settings.barge_in
        reply = self._reply = Reply(self._services, self._link, plan, trace, self._reply_told, interruptible=over)
        self._reply_task = self._tasks.create_task(self._run_reply(reply), name=name)
        self._services.retirement.until(self._reply_task)

    def _commit(self, revision: int, text: str) -> None:
        reply = self._reply
        assert reply is not None
        self._settle_cut_off(taken_back=self._machine.goes_on)
        trace = reply.trace
        self._services.speculation.commit(early=trace.early)
        self._turns += 1
        self._active_at = self._loop.time()
        trace.revision = revision
        if trace.unknown_language:
            text = ""
        trace.heard = text  # confirmed or heard once more since the reply was started
        trace.language = language_of(text, default=self._heard.transcript.language or "zh")
        self._heard.note(trace, self._active_at)
        self._planner.committed(text)
        self._context.keep_pause(self._machine.pace.habit_ms or 0.0)
        reply.commit(text)

    def _commit_saying(self) -> None:
        reply, saying = self._reply, self._saying
        assert reply is not None and saying is not None
        saying.timer.cancel()  # its sound is there: it is given up no more
        self._active_at = reply.trace.anchor = self._loop.time()
        reply.commit("")

    def _drop_reply(self) -> None:
        """Nothing of it was heard, or it has been silenced."""
        self._settle(Told.DROPPED)
        if self._reply_task is not None:
            self._reply_task.cancel()
        self._reply = self._reply_task = None

    def _interrupt(self, *, taken_back: bool, undecided: bool = False) -> None:
        """Silence the reply and remember what was heard of it, unless it is taken back."""
        reply = self._reply
        if reply is None:
            return
        if taken_back and reply.has_acted:
            self._machine.keep_apart()
            taken_back = False
        reply.trace.interrupted = self._loop.time()
        self._settle(Told.INTERRUPTED)
        reply.stop()
        reply.close_trace()
        if undecided:
            self._earlier.extend(reply.pacer.recent)
            reply.pacer.hold()  # what was heard of it does not grow
            self._cut_off = reply
            self._loop.call_later(_GOES_ON_WITHIN_S, self._nothing_follows, reply)
        else:
            self._over(reply, taken_back=taken_back)
        self._drop_reply()
        if self._machine.mode is ListeningMode.REALTIME:
            self._flush()

    def _nothing_follows(self, reply: Reply) -> None:
        """Whoever has aborted this reply as it began has had time to go on."""
        if self._cut_off is reply:
            self._machine.nothing_follows()
            if not self._machine.goes_on:
                self._settle_cut_off(taken_back=False)

    def _settle_cut_off(self, *, taken_back: bool) -> None:
        """It is known whether the reply that was aborted as it began counts as an answer."""
        reply, self._cut_off = self._cut_off, None
        if reply is not None:
            self._records.over(reply, taken_back=taken_back)

    def _flush(self) -> None:
        """Silence what still waits in a device after a `tts/stop`: going to speaking once more empties its queue.

        Only the firmware does so, and only when it is told before it has begun to play the queue out: `tts/start`
        follows at once, and the second stop comes after what both need to be seen.
        """
        audio = self._services.settings.audio
        if audio.instant_flush and self._link.is_firmware and self._tasks is not None:
            self._link.tts_start()
            self._tasks.create_task(self._end_flush(audio.flush_hold_ms / 1000.0), name="flush")

    async def _end_flush(self, hold_s: float) -> None:
        await asyncio.sleep(hold_s)
        if not self._speaks:  # else another reply has begun meanwhile, which ends with a stop of its own
            self._link.tts_stop()

    # How it is ----------------------------------------------------------------------------------------------------

    @property
    def _speaks(self) -> bool:
        """The device has been told that a reply comes, and it is not over."""
        return self._reply is not None and self._reply.committed

    @property
    def _rests(self) -> bool:
        """Nothing is being heard or answered."""
        return self._machine.state in (TurnState.IDLE, TurnState.WAITING)

    @property
    def doing(self) -> str:
        """The state of its turn machine, for the log."""
        return self._machine.state.value

    @property
    def listens(self) -> bool:
        """The microphone is open, and nothing has been found in it yet."""
        return self._machine.state is TurnState.WAITING

    @property
    def behind(self) -> bool:
        """There may be a word in what has come and has not been listened to yet: the machine is busy."""
        return self.listens and self._speech_input.waiting_ms > _KEEPS_UP_MS

    @property
    def is_stranger(self) -> bool:
        """Nothing was ever said to this device, and nobody has let it in by hand."""
        device = self._context.device
        return self._turns == 0 and not (device.bound or device.talked)

    @property
    def language(self) -> str:
        """What the user spoke last, or is expected to speak."""
        fixed = self._services.settings.asr.language
        return self._heard.language or (fixed if fixed != "auto" else "zh")

    def idle_s(self) -> float:
        """How long nothing has been said by either side, in seconds."""
        return self._loop.time() - self._active_at if self._rests else 0.0

    def check_stall(self) -> None:
        """Called about once a second: leave a state that has lasted longer than anything it may wait for."""
        settings = self._services.settings
        waits_s = settings.turn.max_utterance_s + settings.asr.timeout_s + _OVERDUE_S
        if self._machine.state in _PASSING and self._loop.time() - self._there_since > waits_s:
            _log.error("nothing came of %s", self.doing, extra={"device": self._device_id})
            self._apply(self._machine.overdue())
            if self.idle_s() > 0.0:
                self._heard.missed = self._heard.missed or "nothing came of it"
                self._tell_missed()
