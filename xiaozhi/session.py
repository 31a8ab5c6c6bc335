"""One device's conversation: builds the stages, owns their task group, applies the turn machine's decisions.

Control acts at once, on the caller's stack; only audio and text travel through channels. Each conversation is one task
group; what fails in it ends this conversation and no other.
"""

import asyncio
import logging
from typing import Final

from xiaozhi.agents import Agent
from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.channel import MICROPHONE, RECOGNITION, SPEECH, TEXTS, Channel
from xiaozhi.events import KeyReleased, MicInput, MicPacket, SpeechBegan, SpeechEvent
from xiaozhi.link import DeviceLink
from xiaozhi.recollection import Recollection, acknowledgement
from xiaozhi.reply import Reply
from xiaozhi.saying import Saying, Told
from xiaozhi.services import Services
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.stage import Ask, AsrInput, Forget, Recognised, run_asr
from xiaozhi.stages.vad.stage import VadControl, run_vad
from xiaozhi.text.language import language_of
from xiaozhi.text.same_words import same_words
from xiaozhi.text.script import script_of
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
from xiaozhi.turn.segmenter import Segmenter
from xiaozhi.turn.trace import TurnTrace
from xiaozhi.workers import Priority

_log = logging.getLogger(__name__)
_turns = logging.getLogger("xiaozhi.turn")

# Microphone audio waits at most this long for the VAD; then the oldest is dropped and counted.
_MIC_MS: Final = 2000.0
_ASSUMED_PACKET_MS: Final = 60.0
# A burst of at least this many packets outside listening, just before `detect`, is the firmware's wake-word audio.
_WAKE_BURST_PACKETS: Final = 5
# A sentence of the server's own is meant for this moment; a goodbye may take longer, since nobody waits for it.
_PATIENCE_S: Final = 2.0
_GOODBYE_PATIENCE_S: Final = 8.0


def _heard_ms(item: SpeechEvent | KeyReleased | Ask | Forget) -> float:
    """How much sound an item holds, in milliseconds."""
    return 0.0 if isinstance(item, KeyReleased | Ask | Forget) else len(item.pcm) * 1000.0 / UPLINK_RATE_HZ


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
        self._switch_to: Agent | None = None  # what the text being answered asks for
        self._mic: Channel[MicInput] = Channel(
            _MIC_MS, lambda _packet: _ASSUMED_PACKET_MS, drop_oldest=True, kind=MICROPHONE
        )
        self._speech: Channel[SpeechEvent | KeyReleased] = Channel(_MIC_MS, _heard_ms, kind=SPEECH)
        self._inbox: Channel[AsrInput] = Channel(_MIC_MS, _heard_ms, kind=RECOGNITION)
        self._texts: Channel[Recognised] = Channel(16, kind=TEXTS)
        self._vad = VadControl()
        self._vad.deaf = True
        self._tasks: asyncio.TaskGroup | None = None
        self._reply: Reply | None = None
        self._reply_task: asyncio.Task[None] | None = None
        self.manners = Manners(settings.turn)
        """What the device says unasked; an agent may bring its own."""
        self._notice = notice
        self._saying: Saying | None = None
        self._leaving = False  # a goodbye is being said
        self._turns = 0  # that were committed
        self._transcript = Transcript("")
        self._unheard_packets = 0  # since listening ended
        self._active_at = self._loop.time()
        self._packet_at = self._active_at
        # Times of the open utterance, for the trace.
        self._audio_epoch_s = 0.0
        self._last_voiced_ms = 0.0
        self._speech_began_ms = 0.0
        self._soft_end_at: float | None = None
        self._text_at: float | None = None
        self._decode_ms: float | None = None
        self._provisional_ticket: int | None = None  # of the text that waits to be confirmed

    async def recall(self) -> None:
        """Read what was said before; called before the device may speak, and over within half a second."""
        await self._recall.load()
        self._take_manners()

    def _take_manners(self) -> None:
        """A persona's own words are said where the settings leave it to the persona."""
        persona = self._recall.agent
        self.manners.take(wake_reply=persona.wake_reply, greeting=persona.greeting, goodbye=persona.goodbye)

    async def run(self) -> None:
        """Run until cancelled; everything the conversation holds is freed when this returns."""
        settings = self._services.settings
        ear = self._services.tick.open()
        segmenter = Segmenter(settings.vad.threshold, settings.vad.release_threshold, settings.vad.min_speech_ms)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(
                    run_vad(
                        self._mic,
                        self._speech,
                        self._services.tick,
                        ear,
                        segmenter,
                        pre_roll_ms=settings.vad.pre_roll_ms,
                        control=self._vad,
                    ),
                    name="vad",
                )
                tasks.create_task(
                    run_asr(self._inbox, self._texts, self._services.ears, settings.asr.timeout_s, self._show_partial),
                    name="asr",
                )
                tasks.create_task(self._follow_speech(), name="follow-speech")
                tasks.create_task(self._follow_texts(), name="follow-texts")
        finally:
            self._tasks = None
            self._settle(Told.DROPPED)
            self._recall.close()
            ear.close()

    # What the device says; all of it acts at once -----------------------------------------------------------------

    def hear(self, packet: MicPacket) -> None:
        """Take one microphone packet. Never waits: the oldest is dropped when the VAD cannot keep up."""
        self._packet_at = self._loop.time()
        if self._vad.deaf:
            self._unheard_packets += 1
        self._mic.put_nowait(packet)

    def listen(self, mode: ListeningMode) -> None:
        """`listen/start`."""
        self._active_at = self._loop.time()
        self._unheard_packets = 0
        if self._notice:
            self._give_notice()
            return
        self._apply(self._machine.listen(mode))
        if text := self.manners.listens(mode, language=self._language()):
            self.say(text)

    def stop_listening(self) -> None:
        """`listen/stop`: goes behind the audio that came before it, so that the last syllable is not lost."""
        self._mic.put_nowait(KeyReleased())

    def detect(self, text: str) -> None:
        """A wake word, or a typed text: desktop and browser clients use the same message for both."""
        burst, self._unheard_packets = self._unheard_packets, 0
        self._active_at = self._loop.time()
        wake_words = {plain(word) for word in self._services.settings.turn.wake_words}
        if burst >= _WAKE_BURST_PACKETS or not plain(text) or plain(text) in wake_words:
            self._vad.reset()  # the wake word itself is no command
            listening = self._machine.state is State.WAITING
            if reply := self.manners.woken(listening=listening, language=self._language()):
                self.say(reply)
            return
        self.typed(text)

    def typed(self, text: str) -> None:
        """A whole turn in writing."""
        if self._notice:
            self._give_notice()
            return
        self._transcript = Transcript(text)
        self._soft_end_at = self._text_at = None
        self._decode_ms = None
        self._apply(self._machine.typed(text))

    def abort(self, reason: str) -> None:
        """Be silent now. Always answered with `tts/stop`: a device that speaks stays there until it comes."""
        speaking = self._reply is not None and self._reply.committed
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
        patience_s: float = _PATIENCE_S,
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, if nobody speaks or is answered just now.

        It goes the way of every reply: prepared behind a gate, dropped when the talker speaks first, paced, between
        `tts/start` and `tts/stop`. It is not part of the history. The call returns at once.

        Args:
            text: what to say.
            language: of a text that does not show its own; the talker's when empty.
            emotion: one of the 21 names; empty takes that of an emoji in the text, or `neutral`.
            interruptible: speech over it may stop it (realtime mode); a key or an `abort` always does.
            patience_s: given up when its first sound is not there by then, in seconds.

        Returns:
            What became of it, when that is known. It need not be awaited.
        """
        told: asyncio.Future[Told] = self._loop.create_future()
        script = script_of(text, language=language or self._language(), emotion=emotion)
        decisions = self._machine.say(interruptible=interruptible) if script and self._tasks is not None else []
        if not decisions:
            told.set_result(Told.REFUSED)
            return told
        generation = self._machine.generation
        timer = self._loop.call_later(patience_s, lambda: self._apply(self._machine.give_up_saying(generation)))
        self._saying = Saying(script, told, timer)
        self._apply(decisions)
        return told

    def farewell(self) -> bool:
        """Say goodbye and hang up after it; False where nothing is to be said: the caller hangs up at once."""
        if self._leaving:
            return True
        text = self.manners.farewell(self._language())
        if not text or not self._turns or self._machine.mode is ListeningMode.MANUAL:
            return False
        self._leaving = True
        self.say(text, patience_s=_GOODBYE_PATIENCE_S).add_done_callback(self._said_goodbye)
        return True

    def _said_goodbye(self, told: asyncio.Future[Told]) -> None:
        self._leaving = False
        came_back = self._machine.state not in (State.IDLE, State.WAITING)
        if told.result() is Told.INTERRUPTED or came_back:
            self._active_at = self._loop.time()
        else:
            self._link.hang_up("nothing has been said for a while")

    def _give_notice(self) -> None:
        told = self.say(self._notice, interruptible=False, patience_s=_GOODBYE_PATIENCE_S)
        if not told.done():
            told.add_done_callback(lambda _told: self._link.hang_up("only a notice is for this device"))

    def _language(self) -> str:
        fixed = self._services.settings.asr.language
        return self._transcript.language or (fixed if fixed != "auto" else "zh")

    def _start_saying(self, generation: int) -> None:
        assert self._tasks is not None
        assert self._saying is not None
        trace = TurnTrace(self._machine.turn, generation=generation, mode=self._machine.mode.value)
        trace.language = self._language()
        reply = Reply(
            self._services,
            self._link,
            (),
            trace.language,
            trace,
            lambda: self._ready(generation),
            script=self._saying.script,
            persona=self._recall.agent,
            unasked=True,
        )
        self._reply = reply
        self._reply_task = self._tasks.create_task(self._run_reply(reply), name=f"say-{generation}")

    def _commit_saying(self) -> None:
        assert self._reply is not None
        self._active_at = self._loop.time()
        if self._saying is not None:
            self._saying.timer.cancel()
        self._reply.trace.anchor = self._active_at
        self._reply.commit("")

    def _settle(self, told: Told) -> None:
        """What became of the sentence that is said or was to be said, if there is one."""
        saying, self._saying = self._saying, None
        if saying is not None:
            saying.timer.cancel()
            if not saying.told.done():
                saying.told.set_result(told)

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
        async for event in self._speech:
            now = self._loop.time()
            if isinstance(event, KeyReleased):
                self._apply(self._machine.stop())
                continue
            self._inbox.put_nowait(event)
            if isinstance(event, SpeechBegan):
                self._active_at = now
                self._machine.may_speculate = self._services.may_speculate
                self._audio_epoch_s = now - event.end_ms / 1000.0
                self._speech_began_ms = event.start_ms
                self._last_voiced_ms = event.end_ms
                self._apply(self._machine.speech_began(event.start_ms, event.end_ms))
            else:
                # The earliest arrival so far tells best when a sample was spoken; later ones were held up on the way.
                self._audio_epoch_s = min(self._audio_epoch_s, now - event.end_ms / 1000.0)
                self._last_voiced_ms = event.last_voiced_ms
                self._apply(self._machine.heard(event.end_ms, event.silence_ms, doubtful=event.doubtful))

    async def _follow_texts(self) -> None:
        async for recognised in self._texts:
            text = recognised.transcript.text
            if self._machine.state is State.PROBING and is_echo(text, self._spoken_text()):
                text = ""
            confirms = recognised.ticket == self._provisional_ticket and same_words(text, self._transcript.text)
            if not confirms:  # words that are only confirmed were known before
                self._text_at = self._loop.time()
                self._decode_ms = recognised.took_s * 1000.0
            self._provisional_ticket = recognised.ticket if recognised.provisional else None
            self._transcript = recognised.transcript
            if self._services.settings.log.transcripts:
                _log.info("heard %r", text, extra={"device": self._device_id})
            self._apply(self._machine.recognised(recognised.ticket, text, provisional=recognised.provisional))

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
                    self._inbox.put_nowait(Forget())
                    self._vad.reset()
                    self._vad.hold = hold
                case StopListening():
                    self._vad.hold = False
                case CloseUtterance():
                    self._inbox.put_nowait(Forget())
                    self._vad.close_utterance()
                case Recognise(ticket, probe):
                    if not probe:
                        self._soft_end_at = self._loop.time()
                    self._inbox.put_nowait(Ask(ticket, Priority.PROBE if probe else Priority.FINAL))
                case StartReply(turn, revision, generation, text):
                    self._start_reply(turn, revision, generation, text)
                case DropReply():
                    self._services.speculation.wasted += self._saying is None
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
        deaf = bool(self._notice) or state is State.IDLE or (state is State.REPLYING and not realtime)
        if deaf != self._vad.deaf:
            self._vad.reset()
            self._vad.deaf = deaf
            self._unheard_packets = 0

    def _start_reply(self, turn: int, revision: int, generation: int, text: str) -> None:
        assert self._tasks is not None
        language = language_of(text, default=self._transcript.language or "zh")
        trace = TurnTrace(turn, revision, generation, mode=self._machine.mode.value, language=language)
        trace.engine = self._services.ears.engine.name
        trace.heard = text
        messages = self._recall.messages(text, self._transcript)
        self._switch_to = self._recall.wanted(text)
        leaves = self.manners.leaves(text)
        script = script_of(self.manners.farewell(language), language=language) if leaves else None
        if self._switch_to is not None:
            script = [acknowledgement(self._switch_to)]
        reply = Reply(
            self._services,
            self._link,
            messages,
            language,
            trace,
            lambda: self._ready(generation),
            script=script,
            persona=self._switch_to or self._recall.agent,
        )
        self._services.speculation.started += 1
        self._reply = reply
        self._reply_task = self._tasks.create_task(self._run_reply(reply), name=f"reply-{turn}.{revision}")

    def _ready(self, generation: int) -> None:
        self._apply(self._machine.reply_ready(generation))

    def _commit(self, revision: int, text: str) -> None:
        assert self._reply is not None
        self._services.speculation.committed += 1
        self._turns += 1
        self._active_at = self._loop.time()
        trace = self._reply.trace
        trace.revision = revision
        trace.heard = text  # confirmed or heard once more since the reply was started
        trace.language = language_of(text, default=self._transcript.language or "zh")
        trace.soft_end, trace.text, trace.decode_ms = self._soft_end_at, self._text_at, self._decode_ms
        if self._soft_end_at is None:  # typed: there was no voice to count from
            trace.anchor = self._active_at
        else:
            trace.anchor = self._audio_epoch_s + self._last_voiced_ms / 1000.0
            trace.speech_ms = self._last_voiced_ms - self._speech_began_ms
        if self._switch_to is not None:
            self._recall.switch(self._switch_to)
            self._take_manners()
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
            self._settle(Told.DROPPED if reply.trace.first_packet is None else Told.SPOKEN)
        self._remember(reply)
        if reply.committed and not reply.unasked and self.manners.leaves(reply.trace.heard):
            self._link.hang_up("the talker said goodbye")
        if self._reply is reply:
            self._reply = self._reply_task = None
        self._active_at = self._loop.time()
        self._apply(self._machine.reply_done(reply.trace.generation))

    def _cancel_reply(self) -> None:
        self._settle(Told.DROPPED)
        if self._reply_task is not None:
            self._reply_task.cancel()
        self._reply = self._reply_task = None

    def _interrupt(self) -> None:
        reply = self._reply
        if reply is None:
            return
        reply.trace.interrupted = self._loop.time()
        self._settle(Told.INTERRUPTED)
        reply.stop()
        reply.close_trace()
        self._remember(reply)
        self._cancel_reply()
        if self._machine.mode is ListeningMode.REALTIME:
            self._flush()

    def _flush(self) -> None:
        """Silence what still waits in the device: going to speaking once more empties its queue.

        Only the firmware does so, and only when it is told before it has begun to play the queue out, so `tts/start`
        follows the `tts/stop` that has just been sent at once, and the second stop after what both need to be seen.
        """
        assert self._tasks is not None
        if self._services.settings.audio.instant_flush and self._link.is_firmware:
            self._link.tts_start()
            self._tasks.create_task(self._end_flush(), name="flush")

    async def _end_flush(self) -> None:
        await asyncio.sleep(self._services.settings.audio.flush_hold_ms / 1000.0)
        if self._reply is None or not self._reply.committed:
            self._link.tts_stop()

    def _remember(self, reply: Reply) -> None:
        """Put into the history what was heard, and close the turn's record."""
        trace = reply.trace
        if not reply.committed or reply.unasked:
            return
        self._recall.add(trace, reply.pacer.spoken(), reply.pacer.played_ms())
        for listener in self._services.on_turn:
            listener(self._device_id, trace)
        record = trace.message()
        extra = {"device": self._device_id, **{key: value for key, value in record.items() if key != "type"}}
        if self._services.settings.log.transcripts:
            extra |= {"heard": trace.heard, "said": trace.said}
        _turns.info("turn", extra=extra)
        self._link.trace(record)
