"""One reply: the model's words to clauses to speech to packets, behind a gate that opens at commit."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from xiaozhi.agents import Agent
from xiaozhi.agents.roster import HOUSE_AGENT
from xiaozhi.cache.answers import How
from xiaozhi.channel import CLAUSES, PACKETS, Channel, ChannelClosed
from xiaozhi.events import Clause, ClauseStart, Message, SpokenItem
from xiaozhi.link import DeviceLink
from xiaozhi.pacer import Pacer
from xiaozhi.pressure.admission import TurnedAway
from xiaozhi.services import Services
from xiaozhi.stages.llm.engine import ChatError, ChatRequest
from xiaozhi.stages.llm.stage import run_llm
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.wishes import NO_WISH, VoiceWish
from xiaozhi.text.messages import Key, message
from xiaozhi.text.units import join_pieces
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)

# Bounds of the channels inside a reply: two clauses between model and voice, three seconds of speech before the gate.
_CLAUSES_AHEAD = 2
_SPEECH_MS = 3000.0


def _sound_ms(item: SpokenItem) -> float:
    return 0.0 if isinstance(item, ClauseStart) else float(item.duration_ms)


def voice_wish(persona: Agent) -> VoiceWish:
    """How a persona would like to sound, as voices understand it."""
    return VoiceWish(persona.voice.name, persona.voice.gender, persona.voice.rate_percent)


class Reply:
    """Prepares a reply at once and lets it out when it is committed.

    Nothing outside is touched before `commit`: no message to the device, no history, no tool.

    Args:
        services: the shared engines.
        link: the device.
        messages: the conversation with the user's text at its end.
        language: of the user's text.
        trace: the turn's record; its generation marks every packet.
        on_ready: called once, when the first audio is there or will be by the time the device can play it.
        script: what to say instead of asking the model.
        persona: who answers: how it sounds and which models it prefers; nobody in particular when left out.
        unasked: no talker waits for it: without a sound it is never ready.
    """

    def __init__(
        self,
        services: Services,
        link: DeviceLink,
        messages: Sequence[Message],
        language: str,
        trace: TurnTrace,
        on_ready: Callable[[], None],
        *,
        script: Sequence[Clause] | None = None,
        persona: Agent | None = None,
        unasked: bool = False,
    ) -> None:
        self._services = services
        self._link = link
        self._messages = messages
        self._script = script
        self._tier = persona.tier if persona is not None else ""
        self._wish = voice_wish(persona) if persona is not None else NO_WISH
        self.unasked = unasked
        """No talker waits for it, and it is no part of the history."""
        self._language = language
        self.trace = trace
        self._on_ready: Callable[[], None] | None = on_ready
        self._loop = asyncio.get_running_loop()
        self._committed = asyncio.Event()
        self._started_at = 0.0  # when the device was told to go to speaking
        self._stopped = False
        self._has_place = False
        # Replies that are there from the start are in the house's own tone: other personas answer for themselves.
        own_tone = persona is not None and persona.name != HOUSE_AGENT
        self._recall = None if own_tone else services.caches.recall(services.chat, self._recalled)
        self._ready_timer: asyncio.TimerHandle | None = None
        self._pacer = Pacer(link, trace.generation, services.settings.audio.lead_ms)
        self._items: Channel[SpokenItem] = Channel(_SPEECH_MS, _sound_ms, kind=PACKETS)

    @property
    def committed(self) -> bool:
        """The device has been told that a reply comes."""
        return self._committed.is_set()

    @property
    def pacer(self) -> Pacer:
        """What has been sent and played."""
        return self._pacer

    def commit(self, text: str) -> None:
        """Open the gate: tell the device what was heard and that a reply comes. The audio follows when it is ready.

        Where nothing was heard (`text` is empty) the device is not told so.
        """
        if text:
            self._link.stt(text)
        self._link.tts_start()
        self._started_at = self._loop.time()
        self.trace.commit = self._started_at
        self._committed.set()

    def stop(self) -> None:
        """Tell a device that is speaking to stop, once, and let nothing of this reply follow."""
        self._link.silence(self.trace.generation)
        if self.committed and not self._stopped:
            self._stopped = True
            self._link.tts_stop()

    def close_trace(self) -> None:
        """Write down how the reply ended; the first call counts."""
        if self.trace.end is None:
            self.trace.reply_ms = self._pacer.sent_ms
            self.trace.starved_ms = self._pacer.starved_ms
            self.trace.end = self._loop.time()

    async def run(self) -> None:
        """Produce and, once committed, speak the reply; after `tts/start` there is always a `tts/stop`.

        Returns when the reply has been played. Cancelling it drops the reply: cancel only before commit, or after
        `stop`.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._produce(), name="reply-produce")
                tasks.create_task(self._speak(), name="reply-speak")
            if self._recall is not None and self.committed:
                self._recall.keep()  # heard to its end; what was only prepared leaves nothing behind
        finally:
            if self._ready_timer is not None:
                self._ready_timer.cancel()
            self.stop()
            self.close_trace()

    # Producing ----------------------------------------------------------------------------------------------------

    async def _produce(self) -> None:
        """Think and voice the reply; a model that fails before its first word is answered for with an apology."""
        try:
            if self._script is not None:
                await self._recite(self._script)
            elif not await self._admitted():
                await self._excuse("busy")
            elif not await self._think_and_voice():
                await self._excuse("apology")
        finally:
            self._leave()
            self._items.close()

    async def _admitted(self) -> bool:
        """Wait for a place while the process is overloaded, and ask for patience; False when there is none in time."""
        admission = self._services.admission
        came = self._loop.time()
        if admission.full:
            await self._excuse("one_moment")
        try:
            await admission.enter()
        except TurnedAway:
            self.trace.error = "overloaded"
            return False
        self._has_place = True
        self.trace.held_ms = (self._loop.time() - came) * 1000.0
        return True

    def _leave(self) -> None:
        """On the way to the first sound no longer: somebody else may set out."""
        if self._has_place:
            self._has_place = False
            self._services.admission.leave()

    async def _recite(self, script: Sequence[Clause]) -> None:
        """Speak fixed sentences; they need no place, since no model is asked."""
        self.trace.said = join_pieces([clause.text for clause in script])
        clauses: Channel[Clause] = Channel(len(script) + 1)
        for clause in script:
            clauses.put_nowait(clause)
        clauses.close()
        await self._voice(clauses)

    async def _excuse(self, key: Key) -> None:
        """Speak a sentence of our own."""
        text = message(key, self._language)
        clauses: Channel[Clause] = Channel(_CLAUSES_AHEAD, kind=CLAUSES)
        clauses.put_nowait(Clause(text, text, self._language, "neutral" if key == "one_moment" else "sad"))
        clauses.close()
        await self._voice(clauses)

    async def _think_and_voice(self) -> bool:
        """Return whether anything was said."""
        clauses: Channel[Clause] = Channel(_CLAUSES_AHEAD, kind=CLAUSES)
        async with asyncio.TaskGroup() as tasks:
            thinking = tasks.create_task(self._think(clauses), name="llm")
            tasks.create_task(self._voice(clauses), name="tts")
        return thinking.result()

    async def _think(self, clauses: Channel[Clause]) -> bool:
        try:
            outcome = await run_llm(
                self._recall or self._services.chat,
                ChatRequest(self._messages, self._language, tier=self._tier, on_note=self.trace.note_route),
                clauses,
                settings=self._services.settings,
                on_first_token=self._first_token,
                on_first_clause=self._first_clause,
                queued_ms=lambda: self._items.weight + self._pacer.unplayed_ms(),
            )
            self.trace.said = outcome.text
        except ChatError as error:
            self.trace.error = str(error)
            _log.warning("turn %d: %s", self.trace.turn, error)
        except ChannelClosed:
            pass  # the voice has given up and said why
        return self.trace.first_clause is not None

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
            self.trace.error = self.trace.error or str(error)
            _log.warning("turn %d: %s", self.trace.turn, error)
        finally:
            clauses.close()

    def _first_token(self) -> None:
        self.trace.first_token = self._loop.time()

    def _first_clause(self) -> None:
        """The voice has work: guess when its first sound comes, so that `tts/start` can go ahead of it."""
        self.trace.first_clause = self._loop.time()
        expected_s = self._services.voice_delay.expected_s() - self._services.settings.audio.start_gap_ms / 1000.0
        if expected_s <= 0.0:
            self._ready()
        else:
            self._ready_timer = self._loop.call_later(expected_s, self._ready)

    def _spoke(self, voice: str) -> None:
        """Note whose voice it was; several in the order of their first sentences, where one has failed."""
        names = self.trace.voice.split("+") if self.trace.voice else []
        if voice not in names:
            self.trace.voice = "+".join([*names, voice])

    def _recalled(self, how: How) -> None:
        self.trace.cached = how

    def _needed_no_voice(self) -> None:
        self.trace.kept_clauses += 1

    def _first_speech(self) -> None:
        self._leave()
        self.trace.first_speech = self._loop.time()
        if self.trace.first_clause is not None and not self.trace.kept_clauses:
            self._services.voice_delay.took(self.trace.first_speech - self.trace.first_clause)
        self._ready()

    def _ready(self) -> None:
        if self._on_ready is not None:
            on_ready, self._on_ready = self._on_ready, None
            on_ready()

    # Speaking -----------------------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        first: SpokenItem | None = None
        try:
            first = await self._items.peek()
        finally:
            if first is not None or not self.unasked:
                self._ready()  # also when there will be no audio: the turn must not wait for it
        if first is None and self.unasked:
            return
        await self._committed.wait()
        if first is None:
            return
        audio = self._services.settings.audio
        if isinstance(first, ClauseStart):
            self._link.emotion(first.clause.emotion or "neutral")
        # The firmware handles tts/start on its main loop and drops audio that arrives before it has.
        await asyncio.sleep(max(0.0, self._started_at + audio.start_gap_ms / 1000.0 - self._loop.time()))
        await self._pacer.play(self._items, self._first_packet)
        await asyncio.sleep(audio.stop_margin_ms / 1000.0)

    def _first_packet(self) -> None:
        self.trace.first_packet = self._loop.time()
