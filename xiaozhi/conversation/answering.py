"""Producing one reply: fixed sentences, a deed, or a model and its tools; then the voice. Packets wait at the gate."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum

from xiaozhi.agents import Agent
from xiaozhi.agents.roster import HOUSE_AGENT
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.cache.answers import How
from xiaozhi.concurrency.channel import CLAUSES, Channel, ChannelClosed
from xiaozhi.conversation.gate import Gate
from xiaozhi.conversation.services import Services
from xiaozhi.events import Clause, Message, SoundSource, SpokenItem, ToolSpec
from xiaozhi.overload.admission import TurnedAway
from xiaozhi.stages.llm.engine import ChatError, ChatRequest
from xiaozhi.stages.llm.stage import Outcome, run_llm
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.text.messages import Key, message
from xiaozhi.text.script import script_of
from xiaozhi.text.units import join_pieces
from xiaozhi.tools.rounds import with_tools
from xiaozhi.tools.tool import ToolResult
from xiaozhi.tools.toolbox import ToolAnswer, Toolbox
from xiaozhi.turn.trace import ToolUse, TurnTrace

_log = logging.getLogger(__name__)

# Two clauses between model and voice.
_CLAUSES_AHEAD = 2
# Subtitle of sound that is no speech, and what the history shows of it.
_MUSIC = "♪"


class CachedRecognizer(Enum):
    """Whether what was heard of a reply, or of a sentence of the server's own, goes into the history."""

    NEVER = "never"  # an excuse, a notice
    BROKEN_OFF = "broken off"  # a goodbye: who lets it pass has gone, and models copy the ends of conversations
    ALWAYS = "always"


Action = Callable[[], Awaitable[ToolResult]]
"""Does what an exact wish asks for; its text is the sentence to say about it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reply is made of.

    Attributes:
        language: to answer in, where the words do not show their own.
        messages: the conversation with the user's text at its end, for the model.
        agent: who answers: how it sounds and which models it prefers; nobody in particular when left out.
        box: what the model may call; None for nothing.
        script: what to say instead of asking the model.
        deed: what to do, once the turn is committed, instead of asking the model.
        name: of the exact intent behind script or deed, for the turn's record; empty for none.
        unasked: no user waits for it: without a sound it is never ready.
        remembered: whether it goes into the history.
        ends: the conversation is over after it.
        names: words that belong to this user alone: an answer with one of them is not for others.
        error: why it is no more than an excuse, for the turn's record; empty for an answer.
        unknown_language: what was heard makes no sense: it is not shown.
    """

    language: str
    messages: Sequence[Message] = ()
    agent: Agent | None = None
    box: Toolbox | None = None
    script: Sequence[Clause] | None = None
    deed: Action | None = None
    name: str = ""
    unasked: bool = False
    remembered: CachedRecognizer = CachedRecognizer.ALWAYS
    ends: bool = False
    names: Sequence[str] = ()
    error: str = ""
    unknown_language: bool = False


def voice_request(agent: Agent) -> VoiceRequest:
    """How an agent would like to sound, as voices understand it."""
    return VoiceRequest(agent.voice.name, agent.voice.gender, agent.voice.rate_percent)


class Answering:
    """Produces one reply. Before the gate opens nothing has an effect outside: tools wait for it.

    Args:
        services: the shared engines.
        plan: what to say or whom to ask.
        trace: the turn's record.
        gate: is told when the reply can be heard; tools wait at it.
        items: gets the packets; closed at the end.
        queued_ms: how much speech waits to be played, in milliseconds.
        on_pause: called when the reply may fall silent for a while, because a tool is at work.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        trace: TurnTrace,
        gate: Gate,
        items: Channel[SpokenItem],
        *,
        queued_ms: Callable[[], float],
        on_pause: Callable[[], None],
    ) -> None:
        agent = plan.agent
        self._services = services
        self._plan = plan
        self._trace = trace
        self._gate = gate
        self._items = items
        self._queued_ms = queued_ms
        self._on_pause = on_pause
        self._loop = asyncio.get_running_loop()
        self._tier = agent.tier if agent is not None else ""
        self._wish = voice_request(agent) if agent is not None else ANY_VOICE
        # Replies that are there from the start are in the house's own tone: other agents answer for themselves.
        own_tone = agent is not None and agent.name != HOUSE_AGENT
        self._recall = None if own_tone else services.caches.recall(services.chat, self._recalled)
        self._has_place = False
        if plan.name:
            trace.route = f"intent: {plan.name}"
        trace.error = plan.error
        self.ends_conversation = plan.ends
        """The conversation is over after this reply."""
        self.has_acted = bool(plan.name)
        """It has done something that saying more does not undo."""

    async def run(self) -> None:
        """Think and voice the reply; whatever fails before its first word is answered for with an apology."""
        try:
            try:
                answered = await self._answer()
            except Exception:  # noqa: BLE001 - a fault in one part of one reply; it is logged whole, and the user told
                _log.exception("turn %d failed", self._trace.turn)
                self._trace.error = self._trace.error or "internal error"
                answered = self._trace.first_speech is not None
            if not answered:
                await self._excuse("apology")
        finally:
            self._leave()
            self._items.close()

    async def _answer(self) -> bool:
        """Return whether anything was said; nothing is, too, where no voice works."""
        if self._plan.script is not None:
            await self._recite(self._plan.script)
        elif self._plan.deed is not None:
            await self._do(self._plan.deed)
        elif not await self._admitted():
            await self._excuse("busy")
        else:
            return await self._think_and_voice()
        return True

    def heard_out(self) -> None:
        """The reply was committed and played to its end: others may have this answer, too, if it is for everybody."""
        if self._recall is not None:
            self._recall.keep(self._plan.names)  # what was only prepared leaves nothing behind

    async def _admitted(self) -> bool:
        """Wait for a place while the process is overloaded, and ask for patience; False when there is none in time."""
        admission = self._services.admission
        came = self._loop.time()
        if admission.full:
            await self._excuse("one_moment")
        try:
            await admission.enter()
        except TurnedAway:
            self._trace.unheard, self._trace.error = True, "overloaded"
            return False
        self._has_place = True
        self._trace.held_ms = (self._loop.time() - came) * 1000.0
        return True

    def _leave(self) -> None:
        """On the way to the first sound no longer: somebody else may set out."""
        if self._has_place:
            self._has_place = False
            self._services.admission.leave()

    # Without a model ----------------------------------------------------------------------------------------------

    async def _recite(self, script: Sequence[Clause]) -> None:
        """Speak fixed sentences; they need no place, since no model is asked."""
        self._trace.said = join_pieces([clause.text for clause in script])
        clauses: Channel[Clause] = Channel(len(script) + 1)
        for clause in script:
            clauses.put_nowait(clause)
        clauses.close()
        await self._voice(clauses)

    async def _do(self, deed: Action) -> None:
        self._gate.ready()
        await self._gate.opened()
        began = self._loop.time()
        done = await deed()
        took_ms = (self._loop.time() - began) * 1000.0
        self._trace.tools.append(ToolUse(self._plan.name, took_ms, done.failed, done.text))
        await self._recite(script_of(done.text, language=self._plan.language))

    async def _excuse(self, key: Key) -> None:
        """Speak a sentence of our own."""
        clauses: Channel[Clause] = Channel(_CLAUSES_AHEAD, kind=CLAUSES)
        clauses.put_nowait(self._own(key, "neutral" if key == "one_moment" else "sad"))
        clauses.close()
        await self._voice(clauses)

    def _own(self, key: Key, emotion: str) -> Clause:
        text = message(key, self._plan.language)
        return Clause(text, text, self._plan.language, emotion)

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
            try:
                await self._converse(clauses)
            except ChannelClosed:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, what has been said so far is said to its end
                self._trace.error = str(error) if isinstance(error, ChatError) else "internal error"
                _log.warning("turn %d: %s", self._trace.turn, error, exc_info=not isinstance(error, ChatError))
                if self._trace.tools:  # what was said before them does not stand for an answer
                    done = any(not use.failed for use in self._trace.tools)
                    await clauses.put(self._own("done_untold" if done else "apology", "sad"))
                    self._first_clause()
        except ChannelClosed:
            pass  # the voice has given up and said why
        finally:
            clauses.close()
        return self._trace.first_clause is not None

    async def _converse(self, clauses: Channel[Clause]) -> None:
        """Let the model answer, with as many rounds of tools as it needs.

        Raises:
            ChatError: it failed; what it said before has been put.
            ChannelClosed: the voice has given up.
        """
        plan, box = self._plan, self._plan.box
        if box is None:
            self._trace.said = (await self._ask(clauses, plan.messages, ())).text
            return

        async def ask(messages: Sequence[Message], specs: tuple[ToolSpec, ...]) -> Outcome:
            outcome = await self._ask(clauses, messages, specs)
            self._trace.said = join_pieces([text for text in (self._trace.said, outcome.text) if text])
            return outcome

        def slow(sentence: str) -> None:
            if not clauses.closed:
                for clause in script_of(sentence, language=plan.language):
                    clauses.put_nowait(clause)
                self._first_clause()

        await box.wait_for_device()
        done = await with_tools(
            ask, box, plan.messages, slow, before_calls=self._permission, on_answers=self._note_tools
        )
        self.ends_conversation = self.ends_conversation or done.ends_conversation
        if done.audio is None and done.messages and done.messages[-1].role == "tool":
            raise ChatError(f"{self._services.chat.name}: called tools without end and said nothing about them")
        await self._close_with(clauses, done.closing, done.audio)

    async def _ask(self, clauses: Channel[Clause], messages: Sequence[Message], specs: tuple[ToolSpec, ...]) -> Outcome:
        return await run_llm(
            self._recall or self._services.chat,
            ChatRequest(messages, self._plan.language, specs, tier=self._tier, on_note=self._trace.note_route),
            clauses,
            settings=self._services.settings,
            on_first_token=self._first_token,
            on_first_clause=self._first_clause,
            queued_ms=self._queued_ms,
            more_follows=True,
        )

    async def _permission(self) -> None:
        """Tools have effects: nothing is called before the turn is committed, for which all is ready now."""
        self._leave()
        self._gate.ready()
        await self._gate.opened()
        self.has_acted = True
        self._on_pause()

    def _note_tools(self, answers: Sequence[ToolAnswer]) -> None:
        self._on_pause()  # the model thinks about them next
        for answer in answers:
            name, text = answer.call.name, answer.result.text
            self._trace.tools.append(ToolUse(name, answer.duration_ms, answer.result.failed, text))

    async def _close_with(self, clauses: Channel[Clause], closing: str, sound: SoundSource | None) -> None:
        """What a tool has to say itself, and its sound until that ends."""
        if closing:
            self._trace.said = join_pieces([text for text in (self._trace.said, closing) if text])
            for clause in script_of(closing, language=self._plan.language):
                await clauses.put(clause)
                self._first_clause()
        if sound is None:
            return
        playing = _Playing(sound)
        await clauses.put(Clause(_MUSIC, _MUSIC, self._plan.language, sound=playing.open))
        self._first_clause()
        await playing.ended.wait()
        if playing.error:
            self._trace.error = playing.error
            _log.warning("turn %d: the sound of a tool ended: %s", self._trace.turn, playing.error)
            await clauses.put(self._own("no_sound", "sad"))

    # The voice ----------------------------------------------------------------------------------------------------

    async def _voice(self, clauses: Channel[Clause]) -> None:
        services = self._services
        try:
            await run_tts(
                clauses,
                self._items,
                services.voice.overheard(self._spoke, self._wish),
                services.codec,
                services.speech_settings(),
                on_first_speech=self._first_speech,
                kept=services.caches.kept,
                wish=self._wish,
                on_voice=self._spoke,
                on_hit=self._needed_no_voice,
            )
        except VoiceError as error:
            self._trace.error = self._trace.error or str(error)
            _log.warning("turn %d: %s", self._trace.turn, error)
        finally:
            clauses.close()

    # The record ---------------------------------------------------------------------------------------------------

    def _first_token(self) -> None:
        if self._trace.first_token is None:
            self._trace.first_token = self._loop.time()

    def _first_clause(self) -> None:
        """The voice has work: guess when its first sound comes, so that `tts/start` can go ahead of it."""
        if self._trace.first_clause is None:
            self._trace.first_clause = self._loop.time()
            gap_s = self._services.settings.audio.start_gap_ms / 1000.0
            self._gate.ready_in(self._services.voice_delay.expected_s() - gap_s)

    def _first_speech(self) -> None:
        self._leave()
        trace = self._trace
        trace.first_speech = self._loop.time()
        if trace.first_clause is not None and not trace.kept_clauses:
            self._services.voice_delay.took(trace.first_speech - trace.first_clause)
        self._gate.ready()

    def _spoke(self, voice: str) -> None:
        """Note whose voice it was; several in the order of their first sentences, where one has failed."""
        names = self._trace.voice.split("+") if self._trace.voice else []
        if voice not in names:
            self._trace.voice = "+".join([*names, voice])

    def _recalled(self, how: How) -> None:
        self._trace.cached = how
        if how == "exact":
            self._gate.known()

    def _needed_no_voice(self) -> None:
        self._trace.kept_clauses += 1


class _Playing:
    """Sound of a tool, watched: whether it has ended, and how."""

    def __init__(self, source: SoundSource) -> None:
        self._source = source
        self.ended = asyncio.Event()
        self.error = ""

    async def open(self) -> AsyncGenerator[PcmInt, None]:
        try:
            async with aclosing(self._source()) as pieces:
                async for piece in pieces:
                    yield piece
        except Exception as error:  # noqa: BLE001 - any tool's sound; told in one sentence, the reply goes on
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.ended.set()
