"""The turn machine: what a conversation does next. Pure: audio time in, decisions out.

A turn is three numbers. `turn` counts what the user says, `revision` rises when speech resumes before commit, and
`generation` rises whenever a reply is dropped, interrupted or over: audio of an older generation must not reach the
device. A fourth, `utterance`, says what the microphone's sound belongs to: it rises with every `NextUtterance`, the
only way in which an utterance ends, so what is still on its way from one that is over is known by its number.

Life of a turn: speech is found (HEARING); a short silence is the soft end (PAUSED): what was said so far is recognised
and a reply is prepared behind a shut gate. The turn stays open to more speech until the text's own hangover has passed
AND the reply is ready to be heard, because until then waiting costs the listener nothing. Then it is committed
(REPLYING). In realtime mode the microphone stays open during the reply. Speech over it (OVERLAP) pauses it soon and
without further questions (PROBING); what is recognised of that speech stops it for good, or lets it go on.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Concatenate, Final, ParamSpec

from xiaozhi.settings import TurnSettings
from xiaozhi.text.same_words import same_words
from xiaozhi.turn.decisions import (
    Commit,
    CommitSaying,
    Decision,
    DropReply,
    Interrupt,
    Mic,
    NextUtterance,
    PauseReply,
    Recognise,
    ResumeReply,
    ShortenLead,
    StartReply,
    StartSaying,
)
from xiaozhi.turn.endpointing import (
    UserPace,
    hangover_ms,
    interrupts,
    is_backchannel,
    is_plainly_whole,
    is_to_reply,
    joined,
    plain,
    words_in,
)
from xiaozhi.turn.utterance import OpenUtterance


class ListeningMode(Enum):
    """Who ends the user's turn, in the protocol's words."""

    AUTO = "auto"  # the server ends it; the device shuts its microphone while it speaks
    MANUAL = "manual"  # the user releases a key
    REALTIME = "realtime"  # the server ends it; the microphone is always open


class TurnState(Enum):
    """Where a conversation is."""

    IDLE = "idle"  # the device does not listen
    WAITING = "waiting"  # listening, nothing said yet
    HEARING = "hearing"  # the user speaks
    PAUSED = "paused"  # a soft end has passed; still open to more speech
    REPLYING = "replying"  # committed: the reply is on its way or sounding
    OVERLAP = "overlap"  # speech has been found over the reply, which goes on
    PROBING = "probing"  # the same, with the reply held


_ALLOWED: Final[dict[TurnState, frozenset[TurnState]]] = {
    TurnState.IDLE: frozenset({TurnState.WAITING, TurnState.REPLYING}),
    TurnState.WAITING: frozenset({TurnState.IDLE, TurnState.HEARING, TurnState.REPLYING}),
    TurnState.HEARING: frozenset({TurnState.IDLE, TurnState.WAITING, TurnState.PAUSED, TurnState.REPLYING}),
    TurnState.PAUSED: frozenset({TurnState.IDLE, TurnState.WAITING, TurnState.HEARING, TurnState.REPLYING}),
    TurnState.REPLYING: frozenset({TurnState.IDLE, TurnState.WAITING, TurnState.OVERLAP}),
    TurnState.OVERLAP: frozenset(
        {TurnState.IDLE, TurnState.WAITING, TurnState.REPLYING, TurnState.PROBING, TurnState.HEARING}
    ),
    TurnState.PROBING: frozenset(
        {TurnState.IDLE, TurnState.WAITING, TurnState.REPLYING, TurnState.OVERLAP, TurnState.HEARING}
    ),
}

# A reply is taken back when speech goes on no later than this after its turn was committed: the first second of sound,
# behind 80 ms in which the device gets ready, and the 300 ms of pre-roll that a beginning reaches back count for it.
_TAKE_BACK_MS: Final = 1000.0
# Behind sound for which a reply was held in vain (a television, a song) none is held again for so long; words still
# stop it.
_NO_HOLD_MS: Final = 10_000.0
# Streaming recognisers hear "you", "please", "you know" in a fan, a street or a party.
_MIN_FAINT_WORDS: Final = 3

P = ParamSpec("P")


@dataclass(slots=True)
class _Reply:
    """The reply of the present generation: prepared, or committed and sounding."""

    text: str
    ready: bool = False
    known: bool = False  # exactly this has been asked before
    saying: bool = False  # a sentence of the server's own that waits for its first sound
    interruptible: bool = True  # speech over it may stop it
    committed_ms: float = -math.inf  # when, of audio time; never for what was not said aloud


def _event(
    take: Callable[Concatenate["TurnMachine", P], list[Decision]],
) -> Callable[Concatenate["TurnMachine", P], list[Decision]]:
    """Something that happened. Whatever it changes, the microphone follows at its end, and nowhere else."""

    @functools.wraps(take)
    def taken(self: "TurnMachine", /, *args: P.args, **kwargs: P.kwargs) -> list[Decision]:
        return self._settle(take(self, *args, **kwargs))

    return taken


class TurnMachine:
    """One conversation's turn-taking.

    Every method takes something that happened and returns what to do now, in order. Times are audio milliseconds.

    Args:
        settings: the `[turn]` table.
        commands: texts known to be complete, as `endpointing.plain` writes them.
    """

    def __init__(self, settings: TurnSettings, commands: frozenset[str] = frozenset()) -> None:
        self.settings = settings
        """May be exchanged at any time: every decision reads them afresh."""
        self._commands = commands
        self.pace = UserPace()
        self.state = TurnState.IDLE
        self.mode = ListeningMode.AUTO
        self.turn = 0
        self.revision = 0
        self.generation = 0
        self.utterance = 0
        """What the microphone's sound belongs to now."""
        self.may_speculate = True
        """Set to False under load: replies are then prepared only when the turn is about to be committed."""
        self.finishing = False
        """No new turn may begin."""
        self._ticket = 0
        self._heard = OpenUtterance()
        self._reply: _Reply | None = None
        self._mic = Mic.SHUT  # as it was told last
        self._may_hold_from_ms = 0.0
        self._cut_off = ""  # what a reply answered that was aborted as it began: the user may go on with it
        self._pressed = 0  # the first utterance since the device said that it listens
        self._closing = False  # the utterance is over
        self._afresh = False  # and what has come since is no part of the next

    def _go(self, state: TurnState) -> None:
        if state is not self.state:
            if state not in _ALLOWED[self.state]:
                raise RuntimeError(f"no way from {self.state.value} to {state.value}")
            self.state = state

    def _rest_state(self) -> TurnState:
        return TurnState.IDLE if self.mode is ListeningMode.MANUAL else TurnState.WAITING

    # The microphone -----------------------------------------------------------------------------------------------

    def _close(self, *, afresh: bool = False) -> None:
        """The utterance is over or worth nothing; another number goes out when this event is settled."""
        self._closing = True
        self._afresh = self._afresh or afresh

    def _settle(self, decisions: list[Decision]) -> list[Decision]:
        """The end of every event: the microphone is told what the state of things means to it."""
        mic = self._wanted()
        if not self._closing and mic is self._mic:
            return decisions
        self._mic, afresh = mic, self._afresh
        self._closing = self._afresh = False
        self.utterance += 1
        return [*decisions, NextUtterance(self.utterance, mic, afresh)]

    def _wanted(self) -> Mic:
        """The microphone counts while a turn may begin or go on; in realtime mode also during the reply."""
        match self.state:
            case TurnState.IDLE:
                return Mic.SHUT
            case TurnState.WAITING if self.finishing:
                return Mic.SHUT
            case TurnState.REPLYING:
                realtime = self.mode is ListeningMode.REALTIME and self.settings.barge_in
                over = self._reply is not None and self._reply.interruptible
                return Mic.OPEN if realtime and over and not self.finishing else Mic.SHUT
            case _:
                return Mic.HELD if self.mode is ListeningMode.MANUAL else Mic.OPEN

    # What the device asks for -------------------------------------------------------------------------------------

    @_event
    def listen(self, mode: ListeningMode) -> list[Decision]:
        """`listen/start`: listen afresh. Repeating it is harmless; during a reply only a pressed key interrupts."""
        self.mode = mode
        decisions: list[Decision] = []
        if self.state in (TurnState.REPLYING, TurnState.OVERLAP, TurnState.PROBING):
            if mode is not ListeningMode.MANUAL:
                return []
            decisions += self._interrupt()
        elif self._reply is not None and (mode is ListeningMode.MANUAL or not self._reply.saying):
            # Who presses a key wants to speak now; other devices only say that they listen, so what waits may follow.
            decisions += self._drop_reply()
        self._ticket += 1
        self._go(TurnState.WAITING)
        self._close(afresh=True)
        self._pressed = self.utterance + 1
        return decisions

    @_event
    def stop(self, utterance: int) -> list[Decision]:
        """`listen/stop`: the user released the key; the utterance is complete.

        It comes behind the sound before it: whoever has pressed the key again holds it, and where no key is held it is
        out of date as everything else is.
        """
        if utterance < (self._pressed if self.mode is ListeningMode.MANUAL else self.utterance):
            return []
        match self.state:
            case TurnState.WAITING:
                self._go(TurnState.IDLE)
            case TurnState.HEARING if self._heard.silence_ms + self._heard.voiced_ms < self.settings.min_utterance_ms:
                return self._discard(TurnState.IDLE)
            case TurnState.HEARING | TurnState.PAUSED:
                return self._force()
        return []

    @_event
    def woken(self) -> list[Decision]:
        """A wake word, or a sign of life without words: what was said before it counts no more."""
        self._close(afresh=True)
        self._cut_off = ""
        match self.state:
            case TurnState.HEARING:
                return self._discard(TurnState.WAITING)  # a key that is held is held on
            case TurnState.PAUSED:
                return self._discard(self._rest_state())
            case TurnState.OVERLAP | TurnState.PROBING:
                return self._go_on_replying()
        return []

    @_event
    def abort(self, *, at_once: bool = False) -> list[Decision]:
        """`abort`: be silent now; `at_once`: the reply had only begun, so the user may not have finished."""
        match self.state:
            case TurnState.IDLE | TurnState.WAITING:
                return self._drop_reply()
            case TurnState.HEARING:
                return self._discard(TurnState.WAITING)  # a key that is held is held on
            case TurnState.PAUSED:
                return self._discard(self._rest_state())
        self._close()
        if at_once and self._reply is not None and self._reply.text and not math.isinf(self._reply.committed_ms):
            self._cut_off, self._heard.before = self._reply.text, ""
        decisions = self._interrupt(undecided=bool(self._cut_off))
        self._go(self._rest_state())
        return decisions

    @property
    def goes_on(self) -> bool:
        """What is being heard goes on with what was said before it."""
        return bool(self._heard.before)

    def nothing_follows(self) -> None:
        """Whoever has aborted a reply as it began does not go on: what he says next is a turn of its own."""
        self._cut_off = ""

    @_event
    def typed(self, text: str) -> list[Decision]:
        """A text typed by the user: a whole turn at once."""
        if self.state in (TurnState.REPLYING, TurnState.OVERLAP, TurnState.PROBING):
            decisions = self._interrupt()
            self._go(self._rest_state())
        else:
            decisions = self._drop_reply()
        self._close()
        self._cut_off = ""
        self._begin_turn(OpenUtterance(text=text))
        return [*decisions, *self._start_reply(text), *self._commit()]

    @_event
    def finish(self) -> list[Decision]:
        """Begin no new turn: what is being heard is still answered, what is being said ends."""
        self.finishing = True
        return []

    # What the server says of its own accord -----------------------------------------------------------------------

    @_event
    def say(self, *, interruptible: bool = True) -> list[Decision]:
        """The server has a sentence of its own to say; no decisions when it may not: somebody speaks or is answered.

        It is let out by `reply_ready`, unless the user speaks first. With `interruptible` off, speech does not stop
        it once it sounds; an `abort` always does.
        """
        if self._reply is not None or self.state not in (TurnState.IDLE, TurnState.WAITING):
            return []
        self._reply = _Reply("", saying=True, interruptible=interruptible)
        return [StartSaying(self.generation)]

    @_event
    def give_up_saying(self, generation: int) -> list[Decision]:
        """The sentence has taken too long to prepare: what was meant for this moment comes too late."""
        waits = self._reply is not None and self._reply.saying and generation == self.generation
        return self._drop_reply() if waits else []

    # What the microphone brings -----------------------------------------------------------------------------------

    @_event
    def speech_likely(self, utterance: int) -> list[Decision]:
        """Somebody may begin to speak; where he does, `speech_began` follows."""
        over = utterance == self.utterance and self.state is TurnState.REPLYING and self._mic is Mic.OPEN
        return [ShortenLead()] if over else []

    @_event
    def speech_began(
        self, utterance: int, start_ms: float, end_ms: float, *, pre_roll_ms: float = 0.0
    ) -> list[Decision]:
        """The VAD has found speech, from `start_ms` to `end_ms`: it begins an utterance, or is out of date.

        Of it `pre_roll_ms` are from before the voice.
        """
        if utterance != self.utterance:
            return []
        heard = OpenUtterance(began_ms=start_ms, voiced_until_ms=end_ms, voice_from_ms=start_ms + pre_roll_ms)
        match self.state:
            case TurnState.WAITING:
                decisions = self._drop_reply()
                heard.before, heard.after_abort, self._cut_off = self._cut_off, bool(self._cut_off), ""
                self._begin_turn(heard)
                self._go(TurnState.HEARING)
                return decisions
            case TurnState.REPLYING if self._mic is Mic.OPEN:
                if self._reply is not None and start_ms - self._reply.committed_ms <= _TAKE_BACK_MS:
                    heard.before = self._reply.text
                self._heard = heard
                self._go(TurnState.OVERLAP)
                return self._heard_overlap(end_ms)
            case _:  # the microphone is shut, or its utterance has begun: whoever speaks now is found once more
                self._close()
        return []

    @_event
    def not_speech(self, utterance: int) -> list[Decision]:
        """What the VAD has found was nobody, such as the device's own voice: it may look for the next."""
        if utterance != self.utterance:
            return []
        if self.state in (TurnState.OVERLAP, TurnState.PROBING):
            return self._go_on_replying()
        if self.state in (TurnState.WAITING, TurnState.REPLYING):
            self._close()
        return []

    @_event
    def heard(
        self,
        utterance: int,
        end_ms: float,
        silence_ms: float,
        *,
        unsent_ms: float = 0.0,
        doubtful: bool = False,
        certain: bool = True,
    ) -> list[Decision]:
        """The open utterance has grown, and its last `silence_ms` are silence.

        Args:
            utterance: its number.
            end_ms: up to where sound has come.
            silence_ms: since the last voiced sample.
            unsent_ms: of it, what no sound has come for.
            doubtful: the newest of that silence may be speech; nothing is committed on it.
            certain: a voice in full has been heard in it; else a few words may be what noise sounds like.
        """
        if utterance != self.utterance:
            return []
        heard = self._heard
        pause_ms = heard.grew(end_ms, silence_ms, unsent_ms, doubtful)
        heard.certain = heard.certain or certain
        now_ms = end_ms + unsent_ms
        match self.state:
            case TurnState.HEARING:
                return self._heard_speech(now_ms)
            case TurnState.PAUSED if pause_ms is not None and not heard.forced:
                return self._went_on(now_ms, pause_ms)
            case TurnState.PAUSED:
                return self._heard_silence()
            case TurnState.OVERLAP | TurnState.PROBING:
                return self._heard_overlap(now_ms)
            case _:
                return []

    @_event
    def overdue(self) -> list[Decision]:
        """Nothing has come of this state for longer than anything it waits for may take: leave it."""
        match self.state:
            case TurnState.HEARING:
                return self._force()
            case TurnState.PAUSED if not self._heard.text:
                return self._discard(self._rest_state())
            case TurnState.PAUSED:
                self._heard.provisional = False
                return self._force()
            case TurnState.OVERLAP | TurnState.PROBING:
                return self._go_on_replying()
        return []

    def _heard_speech(self, now_ms: float) -> list[Decision]:
        heard, decisions = self._heard, list[Decision]()
        if heard.outgrows_reply():
            decisions += self._drop_reply()
        if now_ms - heard.began_ms >= self.settings.max_utterance_s * 1000.0:
            return [*decisions, *self._force()]
        needed_ms = self.settings.soft_end_ms if self._speculates() else self.settings.neutral_ms
        if self.mode is ListeningMode.MANUAL or (heard.silence_ms < needed_ms and not heard.stalled(self.settings)):
            return decisions
        heard.attempts += 1
        self._go(TurnState.PAUSED)
        return [*decisions, self._recognise()]

    def _speculates(self) -> bool:
        return self.settings.speculate and self.may_speculate and self._heard.may_be_a_question(self.settings)

    def _went_on(self, now_ms: float, pause_ms: float) -> list[Decision]:
        self.pace.paused_and_went_on(pause_ms)
        self.revision += 1
        self._ticket += 1  # a recognition under way is stale
        self._heard.text = None
        self._heard.failures = 0
        self._heard.resumed_ms = now_ms if self._reply is not None else None
        self._go(TurnState.HEARING)
        return []

    def _heard_silence(self) -> list[Decision]:
        if self._heard.text == "" and self._is_quiet():
            return self._discard(self._rest_state())
        return self._advance()

    def _is_quiet(self) -> bool:
        """Who has said nothing that can be understood says nothing more."""
        return self._heard.stalled(self.settings) or self._heard.silence_ms >= self.settings.neutral_ms

    def _may_be_noise(self, text: str) -> bool:
        """A recogniser hears a word or two in noise; of a voice that was never in full they are not believed."""
        heard = self._heard
        return not (heard.certain or plain(text) in self._commands) and words_in(text) < _MIN_FAINT_WORDS

    def _recognise(self, *, probe: bool = False) -> Recognise:
        self._ticket += 1
        return Recognise(self._ticket, probe)

    # What recognition and the reply bring -------------------------------------------------------------------------

    def awaits(self, ticket: int) -> bool:
        """Whether the answer to this question still matters."""
        return ticket == self._ticket and self.state in (TurnState.PAUSED, TurnState.OVERLAP, TurnState.PROBING)

    @_event
    def recognised(self, ticket: int, text: str, *, provisional: bool = False) -> list[Decision]:
        """The answer to `Recognise`; a ticket that is not the newest is stale and ignored.

        A provisional text starts the reply; another answer with the same ticket confirms or corrects it before commit.
        """
        text = text.strip()
        if not self.awaits(ticket) or (provisional and not plain(text)):
            return []
        if self.state is not TurnState.PAUSED:
            return self._probed(text)
        heard = self._heard
        if self._may_be_noise(text):
            text = ""
        if is_to_reply(text) or (heard.after_abort and not plain(text)):
            heard.before = ""
        text = self._whole(text)
        heard.text, heard.provisional = text, provisional
        heard.unconfirmed_ms = heard.resumed_ms = None
        if not plain(text):
            heard.text = ""
            decisions = self._drop_reply()
            if heard.forced or self._is_quiet():
                decisions += self._discard(self._rest_state())
            return decisions
        heard.wait_ms = hangover_ms(text, self.pace, self.settings, self._commands)
        decisions = []
        if self._reply is not None and not same_words(self._reply.text, text):
            decisions += self._drop_reply()
        if self._reply is None and not heard.failures and self.settings.speculate and self.may_speculate:
            decisions += self._start_reply(text)
        return [*decisions, *self._advance()]

    @_event
    def settled(self, utterance: int, text: str) -> list[Decision]:
        """What has been said up to the last voiced sample, before anybody has asked: it may go on.

        A sentence that is plainly whole is worth beginning its reply before the soft end: the answer to `Recognise`
        confirms it or drops it, and so does speech that goes on.
        """
        heard, text = self._heard, self._whole(text.strip())
        asked = self.state is TurnState.PAUSED and heard.text is None
        if utterance != self.utterance or not (asked or self.state is TurnState.HEARING):
            return []
        if self._reply is not None and same_words(self._reply.text, text):
            return []
        decisions = self._drop_reply()
        # What is said about the reply before is a turn of its own, which only the answer to `Recognise` makes it.
        unsure = self._may_be_noise(text) or (heard.before and is_to_reply(text))
        allowed = heard.may_start_early() and self._speculates() and not heard.failures and not unsure
        if allowed and is_plainly_whole(text, self._commands):
            heard.early_starts += 1
            heard.resumed_ms = heard.voiced_until_ms  # what is voiced behind it has other words
            decisions += self._start_reply(text, early=True)
        return decisions

    def _whole(self, text: str) -> str:
        """With what was said in front of it, where it goes on with that."""
        goes_on = self._heard.before and not is_to_reply(text)
        return joined(self._heard.before, text) if goes_on else text

    @_event
    def reply_ready(self, generation: int) -> list[Decision]:
        """The first audio of this reply exists, or will by the time the device can play it."""
        reply = self._reply
        if reply is None or generation != self.generation:
            return []
        if reply.saying:
            reply.saying = False
            self._go(TurnState.REPLYING)
            self._close()
            return [CommitSaying(generation)]
        reply.ready = True
        return self._advance() if self.state is TurnState.PAUSED else []

    @_event
    def question_known(self, generation: int) -> list[Decision]:
        """The words of this reply's question have been asked before, exactly so: they are a whole question."""
        if self._reply is None or generation != self.generation:
            return []
        self._reply.known = True
        return self._advance() if self.state is TurnState.PAUSED else []

    @_event
    def reply_done(self, generation: int) -> list[Decision]:
        """The reply is over: played to its end, or failed. A device that was told to speak has been told to stop.

        One that fails before its turn is committed is followed by an excuse, and where that fails too by nothing.
        """
        reply = self._reply
        if reply is None or generation != self.generation:
            return []
        self._forget_reply()
        match self.state:
            case TurnState.HEARING:
                self._heard.failures += 1
            case TurnState.PAUSED:
                self._heard.failures += 1
                return self._advance() if self._heard.failures == 1 else self._discard(self._rest_state())
            case TurnState.REPLYING:
                self._go(self._rest_state())
            case TurnState.OVERLAP | TurnState.PROBING:
                self._ticket += 1
                self._heard.before = ""
                return self._overlap_becomes_turn()  # the user who spoke over its end has the floor
        return []

    # Parts --------------------------------------------------------------------------------------------------------

    def _begin_turn(self, heard: OpenUtterance) -> None:
        self.turn += 1
        self.revision = 0
        self._heard = heard

    def _advance(self) -> list[Decision]:
        """Start and commit the reply of a paused turn as far as its text, silence and reply allow."""
        heard, decisions = self._heard, list[Decision]()
        known = self._reply is not None and self._reply.known
        needed_ms = min(heard.wait_ms, self.settings.known_ms) if known else heard.wait_ms
        if not heard.text or not heard.has_finished(needed_ms, self.settings):
            return []
        if self._reply is None:
            decisions += self._start_reply(heard.text)
        ready = self._reply is not None and self._reply.ready
        due = heard.forced or ready or heard.silence_ms >= self.settings.commit_max_ms
        if due and not heard.awaits_confirmation() and not heard.may_go_on(needed_ms, self.settings):
            decisions += self._commit()
        return decisions

    def _start_reply(self, text: str, *, early: bool = False) -> list[Decision]:
        self._reply = _Reply(text)
        excuse = self._heard.failures > 0
        return [StartReply(self.turn, self.revision, self.generation, text, excuse, early)]

    def _commit(self) -> list[Decision]:
        heard = self._heard
        if self.revision == 0 and heard.voiced_ms:
            self.pace.finished()
        self._go(TurnState.REPLYING)
        self._close()
        assert heard.text is not None
        assert self._reply is not None
        self._reply.text = heard.text
        if heard.voiced_ms:
            self._reply.committed_ms = heard.voiced_until_ms + heard.silence_ms
        return [Commit(self.turn, self.revision, self.generation, heard.text)]

    def _force(self) -> list[Decision]:
        self._heard.forced = True
        if self.state is TurnState.HEARING:
            self._go(TurnState.PAUSED)
            return [self._recognise()]
        if self._heard.text == "":
            return self._discard(self._rest_state())
        return self._advance()

    def _drop_reply(self) -> list[Decision]:
        """Forget what is prepared, if anything is; nothing of it was heard."""
        self._heard.resumed_ms = None
        if self._reply is None:
            return []
        dropped = self.generation
        self._forget_reply()
        return [DropReply(dropped)]

    def _forget_reply(self) -> None:
        self._reply = None
        self.generation += 1

    def _discard(self, rest: TurnState) -> list[Decision]:
        self._ticket += 1
        self._go(rest)
        self._close()
        return self._drop_reply()

    def _interrupt(self, *, taken_back: bool = False, undecided: bool = False) -> list[Decision]:
        interrupted = self.generation
        self._ticket += 1
        self._forget_reply()
        return [Interrupt(interrupted, taken_back, undecided)]

    # Speech over the reply (realtime mode) ------------------------------------------------------------------------

    def _heard_overlap(self, now_ms: float) -> list[Decision]:
        heard, decisions, held = self._heard, list[Decision](), self.state is TurnState.PROBING
        long_enough, in_vain = heard.voice_ms >= self.settings.barge_in_ms, heard.is_held_in_vain(now_ms)
        may_hold = now_ms >= self._may_hold_from_ms and not in_vain and heard.silence_ms < self.settings.soft_end_ms
        if not held and long_enough and may_hold:
            self._go(TurnState.PROBING)
            decisions.append(PauseReply())
        elif held and in_vain:
            self._may_hold_from_ms = now_ms + _NO_HOLD_MS
            self._go(TurnState.OVERLAP)
            decisions.append(ResumeReply())
        if long_enough and heard.probe_is_due(now_ms, self.settings):
            heard.probed(now_ms)
            return [*decisions, self._recognise(probe=True)]
        return [*decisions, *self._go_on_replying()] if heard.was_nothing(now_ms, self.settings) else decisions

    def _probed(self, text: str) -> list[Decision]:
        self._heard.probe_open = False
        if self._may_be_noise(text):
            text = ""
        self._heard.has_words = not is_backchannel(text)
        if is_to_reply(text):
            self._heard.before = ""
        goes_on = bool(self._heard.before)
        if is_backchannel(text) if goes_on else not interrupts(text):
            return self._heard_overlap(self._heard.voiced_until_ms + self._heard.silence_ms)
        return [*self._interrupt(taken_back=goes_on), *self._overlap_becomes_turn()]

    def keep_apart(self) -> None:
        """The reply that was taken back has done something: what is being said is a turn of its own."""
        self._heard.before = ""

    def _go_on_replying(self) -> list[Decision]:
        """What was heard over the reply is over, and did not mean to stop it."""
        held = self.state is TurnState.PROBING
        self._ticket += 1
        self._go(TurnState.REPLYING)
        self._close()
        return [ResumeReply()] if held else []

    def _overlap_becomes_turn(self) -> list[Decision]:
        self.turn += 1
        self.revision = 0
        self._heard.text = None
        self._go(TurnState.HEARING)
        return []
