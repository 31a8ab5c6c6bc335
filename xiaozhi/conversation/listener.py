"""Brings what is found in one microphone to the turn machine: speech, words, and that words could not be recognised."""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Final

from xiaozhi.conversation.echo_guard import Echo, EchoGuard
from xiaozhi.conversation.microphone import Microphone
from xiaozhi.conversation.replies import Replies
from xiaozhi.conversation.services import Services
from xiaozhi.events import KeyReleased, SpeechBegan
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.text.language import language_of
from xiaozhi.text.messages import message
from xiaozhi.text.same_words import same_words
from xiaozhi.turn.decisions import Decision
from xiaozhi.turn.endpointing import is_echo
from xiaozhi.turn.machine import State, TurnMachine
from xiaozhi.turn.trace import TurnTrace
from xiaozhi.turn.utterance_times import UtteranceTimes

_log = logging.getLogger(__name__)

# Where recognition is broken and a television is on, the device need not say so after its every sentence.
_OWN_UP_EVERY_S: Final = 5.0
# A key that was held for less is a tap, and nobody expects an answer to it (shared with the protocol's checklist);
# where no sound has come at all the clock has to tell, which knows nothing of what is still on its way.
_TAP_MS: Final = 300.0
_LONG_PRESS_S: Final = 1.0


class Listener:
    """Knows what the user said last, when, and whether it was understood.

    Args:
        services: the shared engines.
        device_id: for the log.
        machine: decides what speech and words mean.
        microphone: where they come from.
        replies: what the device says, which its microphone may hear.
        apply: carries the machine's decisions out.
        say: says a sentence of the server's own.
        is_active: told when somebody speaks.
    """

    def __init__(
        self,
        services: Services,
        device_id: str,
        machine: TurnMachine,
        microphone: Microphone,
        replies: Replies,
        apply: Callable[[list[Decision]], None],
        say: Callable[[str], object],
        is_active: Callable[[], None],
    ) -> None:
        self._services = services
        self._device_id = device_id
        self._machine = machine
        self._microphone = microphone
        self._own_voice = EchoGuard(services.codec, services.echoes, microphone.clock)
        self._replies = replies
        self._apply = apply
        self._say = say
        self._is_active = is_active
        self._loop = asyncio.get_running_loop()
        self._provisional_ticket: int | None = None  # of the text that waits to be confirmed
        self._owned_up_at = -math.inf
        self._listening_since = 0.0
        self._utterance_ms = self._began_ms = 0.0  # the length of the open utterance, and when it began
        self._language = ""  # of the last words
        self.transcript = Transcript("")
        """What was said last."""
        self.times = UtteranceTimes()
        """When."""
        self.missed = ""
        """Why what was said last could not be recognised."""

    @property
    def language(self) -> str:
        """What the user spoke last, or is expected to speak."""
        fixed = self._services.settings.asr.language
        return self._language or (fixed if fixed != "auto" else "zh")

    def listens(self) -> None:
        """The device says that it listens."""
        self._listening_since = self._loop.time()

    def typed(self, text: str) -> None:
        """Something was said in writing."""
        self.transcript = Transcript(text, confidence="sure")
        self._language = language_of(text, default=self._language)
        self.times.typed()

    async def follow_speech(self) -> None:
        """Pass on what the VAD finds, until cancelled."""
        async for heard in self._microphone.speech:
            if isinstance(heard, KeyReleased):
                since_s = self._loop.time() - self._listening_since
                no_sound = self._machine.state is State.WAITING and since_s >= _LONG_PRESS_S
                self._apply(self._machine.stop(heard.utterance))
                self._own_up()
                if no_sound:
                    self._say(message("not_understood", self.language))
                continue
            if heard.utterance != self._machine.utterance:
                continue  # it was over while this was on its way
            taken = self._machine.state in (State.HEARING, State.PAUSED)
            event = await self._own_voice.past(
                heard, self._replies.sounding(), self._machine.settings.soft_end_ms, taken=taken
            )
            if isinstance(event, Echo):
                if event is Echo.OVER:
                    self._apply(self._machine.not_speech(heard.utterance))
                continue
            if event.utterance != self._machine.utterance:
                continue
            now = self._loop.time()
            self._microphone.pass_on(event)
            if isinstance(event, SpeechBegan):
                self.missed = ""
                self._is_active()
                self._machine.may_speculate = self._services.may_speculate
                self._machine.settings = self._services.settings.turn
                self._began_ms = event.start_ms
                self.times.speech_began(event.start_ms, event.end_ms, now)
                self._apply(self._machine.speech_began(event.utterance, event.start_ms, event.end_ms))
            else:
                self.times.speech_went_on(event.end_ms, event.last_voiced_ms, now)
                decisions = self._machine.heard(
                    event.utterance,
                    event.end_ms,
                    event.silence_ms,
                    unsent_ms=event.unsent_ms,
                    doubtful=event.doubtful,
                )
                self._apply(decisions)
            self._utterance_ms = event.end_ms - self._began_ms
            self._own_up()

    async def follow_texts(self) -> None:
        """Pass on what is recognised, until cancelled."""
        async for recognised in self._microphone.texts:
            if not self._machine.awaits(recognised.ticket):
                continue  # what was asked about went on, or is over
            text = recognised.transcript.text
            if self._machine.state is State.PROBING and is_echo(text, self._replies.spoken_text()):
                text = ""
            confirms = recognised.ticket == self._provisional_ticket and same_words(text, self.transcript.text)
            if not confirms:  # words that are only confirmed were known before
                self.times.words_known(self._loop.time(), recognised.took_s)
            self._provisional_ticket = recognised.ticket if recognised.provisional else None
            self.transcript = recognised.transcript
            if self._services.settings.log.transcripts:
                _log.info("heard", extra={"device": self._device_id, "heard": text})
            if text:
                self._language = recognised.transcript.language or self._language
            wordless = not text and self._machine.state is State.PAUSED
            self.missed = recognised.error if wordless else ""
            self._apply(self._machine.recognised(recognised.ticket, text, provisional=recognised.provisional))
            if wordless and not self.missed and self._machine.state is State.IDLE and self._utterance_ms >= _TAP_MS:
                # Whoever has held a key and said nothing that can be understood is not left without an answer.
                self._say(message("not_understood", self.language))
            self._own_up()

    def lost(self) -> None:
        """What was said has come to nothing, by a fault that nobody has told of."""
        self.missed = self.missed or "nothing came of it"
        self._own_up()

    def _own_up(self) -> None:
        """Whoever has finished speaking and was not understood by a fault of ours hears so, and not nothing."""
        now = self._loop.time()
        if not self.missed or self._machine.state not in (State.IDLE, State.WAITING):
            return
        trace = TurnTrace(self._machine.turn, mode=self._machine.mode.value, language=self.language, unheard=True)
        trace.engine, trace.error, trace.end = self._services.ears.engine.name, self.missed, now
        self.times.note(trace, now)
        self._replies.forgotten(trace)
        self.missed = ""
        if now - self._owned_up_at >= _OWN_UP_EVERY_S:
            self._owned_up_at = now
            self._say(message("busy" if self._services.ears.full else "not_understood", self.language))
