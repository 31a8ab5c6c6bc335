"""One reply: prepared behind a gate, let out at commit at the speed of sound, with an end that always comes.

What it is made of is its plan: fixed sentences, an action, or a model and its tools; then the voice.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from enum import Enum

from xiaozhi.agents import Agent
from xiaozhi.agents.roster import HOUSE_AGENT
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.cache.answers import How
from xiaozhi.concurrency.channel import CLAUSES, PACKETS, Channel, ChannelClosed
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.engines import Engines
from xiaozhi.conversation.pacer import Pacer
from xiaozhi.conversation.planning import Action, ReplyPlan
from xiaozhi.events import Clause, ClauseStart, Message, SoundSource, SpokenItem, ToolSpec
from xiaozhi.overload.admission import TurnedAway
from xiaozhi.stages.llm.cached import Lookup, said
from xiaozhi.stages.llm.engine import ChatError, ChatRequest
from xiaozhi.stages.llm.stage import ModelAnswer, run_llm
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.text.messages import Key, message
from xiaozhi.text.script import script_of
from xiaozhi.text.units import join_pieces
from xiaozhi.tools.rounds import with_tools
from xiaozhi.tools.toolbox import ToolAnswer
from xiaozhi.turn.trace import RouteNote, ToolUse, TurnTrace

_log = logging.getLogger(__name__)

# Two clauses between model and voice.
_CLAUSES_AHEAD = 2
# So much speech waits before the gate, or behind a device that is slower than the voice, in milliseconds.
_SPEECH_MS = 3000.0
# Behind the gate nobody hears a reply yet: so much later than those of one that is heard are its packets needed.
_UNCOMMITTED_MS = 300.0
# A client that is no firmware begins to play with the message, but may handle it in a task of its own.
_MAX_CLIENT_GAP_MS = 20.0
# The most audio that waits in a device whose reply speech may stop, where it is heard to its end. Firmware and desktop
# clients are still kept fed with it (180 to 300 ms, see turn/playout.py).
_INTERRUPTIBLE_LEAD_MS = 180.0
# Subtitle of sound that is no speech, and what the history shows of it.
_MUSIC = "♪"


class ReplyEvent(Enum):
    """What a reply tells before it is over."""

    READY = "ready"  # its first audio is there, or will be by the time the device can play it; once at the most
    KNOWN = "known"  # exactly this has been asked before: it is a whole question


def voice_request(agent: Agent) -> VoiceRequest:
    """How an agent would like to sound, as voices understand it."""
    voice = agent.voice
    return VoiceRequest(voice.name, voice.gender, voice.rate_percent, voice.pitch_semitones)


def _sound_ms(item: SpokenItem) -> float:
    return 0.0 if isinstance(item, ClauseStart) else float(item.duration_ms)


class Reply:
    """Prepares a reply at once and lets it out when it is committed.

    Nothing outside is touched before `commit`: no message to the device, no history, no tool.

    Args:
        engines: what it goes through.
        link: the device.
        plan: what to say or whom to ask.
        trace: the turn's record; its generation marks every packet.
        notify: told what happens to it, on the stack of what happens.
        interruptible: speech over it may stop it.
    """

    def __init__(
        self,
        engines: Engines,
        link: DeviceLink,
        plan: ReplyPlan,
        trace: TurnTrace,
        notify: Callable[["Reply", ReplyEvent], None],
        *,
        interruptible: bool = False,
    ) -> None:
        agent = plan.agent
        self._engines = engines
        self._audio = engines.settings.audio
        self._link = link
        self.plan = plan
        """What it is made of."""
        self.trace = trace
        """The turn's record."""
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._opened = asyncio.Event()  # the gate
        self._ready_told = False
        self._ready_timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0  # when the device was told to go to speaking
        self._stopped = False
        lead_ms = min(self._audio.lead_ms, _INTERRUPTIBLE_LEAD_MS) if interruptible else self._audio.lead_ms
        most_speech_ms = engines.settings.llm.reply_max_s * 1000.0
        self.pacer = Pacer(link, engines.pacing, trace.generation, lead_ms, most_speech_ms)
        """What has been sent and played."""
        self._items: Channel[SpokenItem] = Channel(_SPEECH_MS, _sound_ms, kind=PACKETS)
        self._request = voice_request(agent) if agent is not None else ANY_VOICE
        # Replies that are there from the start are in the house's own tone: other agents answer for themselves.
        own_tone = agent is not None and agent.name != HOUSE_AGENT
        self._cached = None if own_tone else engines.caches.lookup
        self._asked: tuple[Lookup, ModelAnswer] | None = None  # what the cache had no answer to, and the model's
        self._has_place = False
        if plan.name:
            trace.route = f"intent: {plan.name}"
        trace.error = plan.error
        self.ends_conversation = plan.ends
        """The conversation is over after this reply."""
        self.has_acted = bool(plan.name)
        """It has done something that saying more does not undo."""

    # The gate -----------------------------------------------------------------------------------------------------

    @property
    def committed(self) -> bool:
        """The device has been told that a reply comes."""
        return self._opened.is_set()

    def commit(self, text: str) -> None:
        """Open the gate: tell the device what was heard and that a reply comes. The audio follows when it is ready.

        Where nothing was heard (`text` is empty) the device is not told so.
        """
        if text:
            self._link.stt(text)
        self._link.tts_start()
        self._started_at = self.trace.commit = self._loop.time()
        self._opened.set()

    def stop(self) -> None:
        """Tell a device that is speaking to stop, once, and let nothing of this reply follow."""
        self.pacer.stop()
        self._link.silence(self.trace.generation)
        if self.committed and not self._stopped:
            self._stopped = True
            self._link.tts_stop()

    def close_trace(self) -> None:
        """Write down how the reply ended; the first call counts."""
        if self.trace.end is None:
            self.trace.reply_ms = self.pacer.sent_ms
            self.trace.starved_ms = self.pacer.starved_ms
            self.trace.end = self._loop.time()

    def _ready(self) -> None:
        """Nothing is gained by waiting any longer. The first call counts."""
        if not self._ready_told:
            self._ready_told = True
            self._notify(self, ReplyEvent.READY)

    def _ready_in(self, seconds: float) -> None:
        """The same, after a while; at once when that is over already."""
        if seconds <= 0.0:
            self._ready()
        elif self._ready_timer is None:
            self._ready_timer = self._loop.call_later(seconds, self._ready)

    def _nothing_comes(self) -> None:
        """There will be no audio: the turn must not wait for it; a sentence of the server's own is never ready."""
        if not self.plan.unasked:
            self._ready()

    # Its life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Produce and, once committed, speak the reply; after `tts/start` there is always a `tts/stop`.

        Returns when the reply has been played. Cancelling it drops the reply: cancel only before commit, or after
        `stop`.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                producing = tasks.create_task(self._produce(), name="reply-produce")
                tasks.create_task(self._speak(producing), name="reply-speak")
            if self.committed:  # what was only prepared leaves nothing behind
                self._heard_out()
        except Exception:
            self._nothing_comes()
            raise
        finally:
            self._ready_told = True  # over or given up: nothing is ready any more
            if self._ready_timer is not None:
                self._ready_timer.cancel()
            self.stop()
            self.close_trace()

    def _heard_out(self) -> None:
        """It was played to its end: others may have this answer, too, if it is for everybody."""
        if self._cached is not None and self._asked is not None:
            lookup, outcome = self._asked
            self._cached.keep(lookup, outcome.whole, used_tools=bool(self.trace.tools), names=self.plan.names)

    async def _speak(self, producing: asyncio.Task[None]) -> None:
        first = await self._items.peek()
        if first is not None:
            self._ready()
        elif self.plan.unasked:
            return
        else:
            self._nothing_comes()
        await self._opened.wait()
        if first is None:
            return
        if isinstance(first, ClauseStart):
            self._link.emotion(first.clause.emotion or "neutral")
        # The firmware handles tts/start on its main loop and drops audio that arrives before it has.
        await asyncio.sleep(max(0.0, self._started_at + self._start_gap_s - self._loop.time()))
        await self.pacer.play(self._items, self._first_packet)
        producing.cancel()  # where it has not ended by itself, the reply is as long as it may be
        await asyncio.sleep((self._audio.stop_margin_ms + self._link.stop_margin_ms) / 1000.0)

    @property
    def _start_gap_s(self) -> float:
        """What lies at least between `tts/start` and the first packet."""
        wished_ms = self._audio.start_gap_ms
        gap_ms = wished_ms if self._link.is_firmware else min(wished_ms, _MAX_CLIENT_GAP_MS)
        return (gap_ms + self._link.start_margin_ms) / 1000.0

    async def _produce(self) -> None:
        """Think and voice the reply; whatever fails before its first word is answered for with an apology."""
        try:
            try:
                answered = await self._answer()
            except Exception:  # noqa: BLE001 - a fault in one part of one reply; it is logged whole, and the user told
                _log.exception("turn %d failed", self.trace.turn)
                self.trace.error = self.trace.error or "internal error"
                answered = self.trace.first_speech is not None
            if not answered:
                await self._excuse("apology")
        finally:
            self._leave()
            self._items.close()

    async def _answer(self) -> bool:
        """Return whether anything was said; nothing is, too, where no voice works."""
        if self.plan.script is not None:
            await self._recite_answer(self.plan.script)
        elif self.plan.action is not None:
            await self._do(self.plan.action)
        elif not await self._admitted():
            await self._excuse("busy")
        else:
            return await self._think_and_voice()
        return True

    async def _admitted(self) -> bool:
        """Wait for a place while the process is overloaded, and ask for patience; False when there is none in time."""
        admission = self._engines.admission
        came = self._loop.time()
        if admission.full:
            await self._excuse("one_moment")
        try:
            await admission.enter()
        except TurnedAway:
            self.trace.unheard, self.trace.error = True, "overloaded"
            return False
        self._has_place = True
        self.trace.held_ms = (self._loop.time() - came) * 1000.0
        return True

    def _leave(self) -> None:
        """On the way to the first sound no longer: somebody else may set out."""
        if self._has_place:
            self._has_place = False
            self._engines.admission.leave()

    # Without a model ----------------------------------------------------------------------------------------------

    async def _recite(self, script: Sequence[Clause]) -> None:
        """Speak fixed sentences; they need no place, since no model is asked."""
        clauses: Channel[Clause] = Channel(len(script) + 1)
        for clause in script:
            clauses.put_nowait(clause)
        clauses.close()
        await self._voice(clauses)

    async def _recite_answer(self, script: Sequence[Clause]) -> None:
        self.trace.said = join_pieces([clause.text for clause in script])
        await self._recite(script)

    async def _do(self, action: Action) -> None:
        self._ready()
        await self._opened.wait()
        began = self._loop.time()
        done = await action()
        took_ms = (self._loop.time() - began) * 1000.0
        self.trace.tools.append(ToolUse(self.plan.name, took_ms, done.failed, done.text))
        await self._recite_answer(script_of(done.text, language=self.plan.language))

    async def _excuse(self, key: Key) -> None:
        """Speak a sentence of our own."""
        await self._recite([self._own(key, "neutral" if key == "one_moment" else "sad")])

    def _own(self, key: Key, emotion: str) -> Clause:
        text = message(key, self.plan.language)
        return Clause(text, text, self.plan.language, emotion)

    # With a model -------------------------------------------------------------------------------------------------

    async def _think_and_voice(self) -> bool:
        """Return whether anything was said."""
        clauses: Channel[Clause] = Channel(_CLAUSES_AHEAD, kind=CLAUSES)
        async with asyncio.TaskGroup() as tasks:
            thinking = tasks.create_task(self._think(clauses), name="llm")
            tasks.create_task(self._voice(clauses), name="tts")
        return thinking.result()

    async def _think(self, clauses: Channel[Clause]) -> bool:
        try:
            await self._converse(clauses)
        except ChannelClosed:
            pass  # the voice has given up and said why
        except Exception as error:  # noqa: BLE001 - whatever it is, what has been said so far is said to its end
            self.trace.error = str(error) if isinstance(error, ChatError) else "internal error"
            _log.warning("turn %d: %s", self.trace.turn, error, exc_info=not isinstance(error, ChatError))
            if self.trace.tools:  # what was said before them does not stand for an answer
                done = any(not use.failed for use in self.trace.tools)
                with suppress(ChannelClosed):
                    await clauses.put(self._own("done_untold" if done else "apology", "sad"))
                    self._first_clause()
        finally:
            clauses.close()
        return self.trace.first_clause is not None

    async def _converse(self, clauses: Channel[Clause]) -> None:
        """Let the model answer, with as many rounds of tools as it needs.

        Raises:
            ChatError: it failed; what it said before has been put.
            ChannelClosed: the voice has given up.
        """
        plan, toolbox = self.plan, self.plan.toolbox
        if toolbox is None:
            self.trace.said = (await self._ask(clauses, plan.messages, ())).text
            return

        async def ask(messages: Sequence[Message], specs: tuple[ToolSpec, ...]) -> ModelAnswer:
            outcome = await self._ask(clauses, messages, specs)
            self.trace.said = join_pieces([text for text in (self.trace.said, outcome.text) if text])
            return outcome

        def slow(sentence: str) -> None:
            if not clauses.closed:
                for clause in script_of(sentence, language=plan.language):
                    clauses.put_nowait(clause)
                self._first_clause()

        await toolbox.wait_for_device()
        done = await with_tools(
            ask, toolbox, plan.messages, slow, before_calls=self._permission, on_answers=self._note_tools
        )
        self.ends_conversation = self.ends_conversation or done.ends_conversation
        if done.audio is None and done.messages and done.messages[-1].role == "tool":
            raise ChatError(f"{self._engines.chat.name}: called tools without end and said nothing about them")
        await self._close_with(clauses, done.closing, done.audio)

    async def _ask(
        self, clauses: Channel[Clause], messages: Sequence[Message], specs: tuple[ToolSpec, ...]
    ) -> ModelAnswer:
        """Let the cache answer, or the model where it cannot; a question that tools were called for is the model's."""
        agent = self.plan.agent
        request = ChatRequest(
            messages,
            self.plan.language,
            specs,
            tier=agent.tier if agent is not None else "",
            endpoint=agent.endpoint if agent is not None else "",
            conversation=self.plan.conversation,
            permission=self._permission,
            on_note=self.trace.note_route,
        )
        request = self._engines.chat.aim(request)
        acts = self._engines.chat.acts(request)
        if acts:
            await self._permission()
        lookup = await self._cached.look_up(request) if self._cached is not None and not acts else None
        found = lookup.found if lookup is not None else None
        if found is not None:
            self._found(found.how)
        outcome = await run_llm(
            self._engines.chat.stream(request) if found is None else said(found.answer),
            clauses,
            language=self.plan.language,
            settings=self._engines.settings,
            on_first_token=self._first_token,
            on_first_clause=self._first_clause,
            queued_ms=self._queued_ms,
            more_follows=True,
        )
        keeps = lookup is not None and found is None and not self.has_acted
        self._asked = (lookup, outcome) if lookup is not None and keeps else None
        return outcome

    async def _permission(self) -> None:
        """Tools have effects: nothing is called before the turn is committed, for which all is ready now."""
        self._leave()
        self._ready()
        await self._opened.wait()
        self.has_acted = True
        self.pacer.expect_pause()

    def _note_tools(self, answers: Sequence[ToolAnswer]) -> None:
        self.pacer.expect_pause()  # the model thinks about them next
        for answer in answers:
            name, text = answer.call.name, answer.result.text
            self.trace.tools.append(ToolUse(name, answer.duration_ms, answer.result.failed, text))

    async def _close_with(self, clauses: Channel[Clause], closing: str, sound: SoundSource | None) -> None:
        """What a tool has to say itself, and its sound until that ends."""
        if closing:
            self.trace.said = join_pieces([text for text in (self.trace.said, closing) if text])
            for clause in script_of(closing, language=self.plan.language):
                await clauses.put(clause)
                self._first_clause()
        if sound is None:
            return
        ended = asyncio.Event()
        failure = ""

        async def played() -> AsyncGenerator[PcmInt, None]:
            nonlocal failure
            try:
                async with aclosing(sound()) as pieces:
                    async for piece in pieces:
                        yield piece
            except Exception as error:  # noqa: BLE001 - any tool's sound; told in one sentence, the reply goes on
                failure = f"{type(error).__name__}: {error}"
            finally:
                ended.set()

        await clauses.put(Clause(_MUSIC, _MUSIC, self.plan.language, sound=played))
        self._first_clause()
        await ended.wait()
        if failure:
            self.trace.error = failure
            _log.warning("turn %d: the sound of a tool ended: %s", self.trace.turn, failure)
            await clauses.put(self._own("no_sound", "sad"))

    # The voice ----------------------------------------------------------------------------------------------------

    def _queued_ms(self) -> float:
        """How much speech is there and still to be played."""
        return self._items.weight + self.pacer.unplayed_ms()

    async def _voice(self, clauses: Channel[Clause]) -> None:
        engines = self._engines
        engines.load_shedder.voices += 1
        try:
            await run_tts(
                clauses,
                self._items,
                engines.for_agents.speech(self.plan.agent),
                engines.speech_settings(),
                request=self._request,
                queued_ms=lambda: self._queued_ms() + (0.0 if self.committed else _UNCOMMITTED_MS),
                on_first_speech=self._first_speech,
                on_voice=self._spoke,
                on_hit=self._needed_no_voice,
            )
        except VoiceError as error:
            self.trace.error = self.trace.error or str(error)
            _log.warning("turn %d: %s", self.trace.turn, error)
        finally:
            engines.load_shedder.voices -= 1
            clauses.close()

    # The record ---------------------------------------------------------------------------------------------------

    def _first_token(self) -> None:
        if self.trace.first_token is None:
            self.trace.first_token = self._loop.time()

    def _first_clause(self) -> None:
        """The voice has work: guess when its first sound comes, so that `tts/start` can go ahead of it."""
        if self.trace.first_clause is None:
            self.trace.first_clause = self._loop.time()
            self._ready_in(self._engines.voice_delay.expected_s() - self._start_gap_s)

    def _first_packet(self) -> None:
        self.trace.first_packet = self._loop.time()

    def _first_speech(self) -> None:
        self._leave()
        trace = self.trace
        trace.first_speech = self._loop.time()
        if trace.first_clause is not None and not trace.kept_clauses:
            self._engines.voice_delay.took(trace.first_speech - trace.first_clause)
        self._ready()

    def _spoke(self, voice: str) -> None:
        """Note whose voice it was; several in the order of their first sentences, where one has failed."""
        names = self.trace.voice.split("+") if self.trace.voice else []
        if voice not in names:
            self.trace.voice = "+".join([*names, voice])

    def _found(self, how: How) -> None:
        self.trace.cached = how
        self.trace.note_route(RouteNote("cache", f"cache: {how}", attempts=0))
        if how == "exact":
            self._notify(self, ReplyEvent.KNOWN)

    def _needed_no_voice(self) -> None:
        self.trace.kept_clauses += 1
