"""The turn machine: what a conversation does next. Pure: audio time in, decisions out.

A turn is three numbers. `turn` counts what the user says, `revision` rises when speech resumes before commit, and
`generation` rises whenever a reply is dropped, interrupted or over: audio of an older generation must not reach the
device.

Life of a turn: speech is found (HEARING); a short silence is the soft end (PAUSED): what was said so far is recognised
and a reply is prepared behind a shut gate. The turn stays open to more speech until the text's own hangover has passed
AND the reply is ready to be heard, because until then waiting costs the listener nothing. Then it is committed
(REPLYING). In realtime mode the microphone stays open during the reply (OVERLAP, PROBING: speech over the reply).
"""

from enum import Enum
from typing import Final

from xiaozhi.settings import TurnSettings
from xiaozhi.text.same_words import same_words
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
from xiaozhi.turn.endpointing import TalkerPace, hangover_ms, interrupts, plain


class ListeningMode(Enum):
    """Who ends the talker's turn, in the protocol's words."""

    AUTO = "auto"  # the server ends it; the device shuts its microphone while it speaks
    MANUAL = "manual"  # the talker releases a key
    REALTIME = "realtime"  # the server ends it; the microphone is always open


class State(Enum):
    """Where a conversation is."""

    IDLE = "idle"  # the device does not listen
    WAITING = "waiting"  # listening, nothing said yet
    HEARING = "hearing"  # the talker speaks
    PAUSED = "paused"  # a soft end has passed; still open to more speech
    REPLYING = "replying"  # committed: the reply is on its way or sounding
    OVERLAP = "overlap"  # speech has been found over the reply, which goes on
    PROBING = "probing"  # the reply is held while that speech is recognised


_ALLOWED: Final[dict[State, frozenset[State]]] = {
    State.IDLE: frozenset({State.WAITING, State.REPLYING}),
    State.WAITING: frozenset({State.IDLE, State.HEARING, State.REPLYING}),
    State.HEARING: frozenset({State.IDLE, State.WAITING, State.PAUSED, State.REPLYING}),
    State.PAUSED: frozenset({State.IDLE, State.WAITING, State.HEARING, State.REPLYING}),
    State.REPLYING: frozenset({State.IDLE, State.WAITING, State.OVERLAP}),
    State.OVERLAP: frozenset({State.IDLE, State.WAITING, State.REPLYING, State.PROBING, State.HEARING}),
    State.PROBING: frozenset({State.IDLE, State.WAITING, State.REPLYING, State.HEARING}),
}

# A reply is kept this long into resumed speech, in case the words turn out to be the same (a breath, a cough).
_KEEP_REPLY_MS: Final = 400.0
# Speech over a reply is recognised again after this much more of it, and given up after this long without words.
_PROBE_EVERY_MS: Final = 300.0
_PROBE_MOST_MS: Final = 2000.0
# A provisional text is committed when its confirmation keeps everything else waiting for this long.
_CONFIRM_MOST_MS: Final = 400.0
# Doubtful silence delays a commit by this much at the most.
_DOUBT_MOST_MS: Final = 400.0
# No reply is prepared ahead for speech longer than this: the talker is telling something, not asking.
_SPECULATE_MOST_MS: Final = 10_000.0


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
        self.pace = TalkerPace()
        self.state = State.IDLE
        self.mode = ListeningMode.AUTO
        self.turn = 0
        self.revision = 0
        self.generation = 0
        self.may_speculate = True
        """Set to False under load: replies are then prepared only when the turn is about to be committed."""
        self._ticket = 0
        self._saying = False  # a sentence of the server's own waits for its first sound
        self._interruptible = True  # speech over what sounds now may stop it
        self._begin_utterance(0.0)

    def _begin_utterance(self, start_ms: float) -> None:
        self._began_ms = start_ms
        self._voiced_ms = 0.0  # length from the first to the last voiced sample
        self._silence_ms = 0.0
        self._doubtful = False  # the newest silence may be speech
        self._resumed_ms: float | None = None  # when speech went on with a reply already prepared
        self._attempts = 0
        self._forced = False  # the end is not ours to judge: key released, utterance too long, stream stalled
        self._text: str | None = None  # recognised text of this revision; None while unknown
        self._provisional = False  # that text may still be corrected
        self._unconfirmed_ms: float | None = None  # silence at which only its confirmation was missing
        self._wait_ms = 0.0
        self._reply_text: str | None = None  # text of the prepared reply; None when there is none
        self._reply_ready = False
        self._reply_known = False
        self._probed_ms = 0.0
        self._probe_open = False

    def _go(self, state: State) -> None:
        if state is not self.state:
            if state not in _ALLOWED[self.state]:
                raise RuntimeError(f"no way from {self.state.value} to {state.value}")
            self.state = state

    def _rest_state(self) -> State:
        return State.IDLE if self.mode is ListeningMode.MANUAL else State.WAITING

    # What the device asks for -------------------------------------------------------------------------------------

    def listen(self, mode: ListeningMode) -> list[Decision]:
        """`listen/start`: listen afresh. Repeating it is harmless; during a reply only a pressed key interrupts."""
        self.mode = mode
        decisions: list[Decision] = []
        if self.state in (State.REPLYING, State.OVERLAP, State.PROBING):
            if mode is not ListeningMode.MANUAL:
                return []
            decisions += self._interrupt()
        else:
            # Who presses a key wants to speak now; other devices only say that they listen, so what waits may follow.
            decisions += self._drop_saying() if mode is ListeningMode.MANUAL else []
            decisions += self._drop_reply()
        self._begin_utterance(0.0)
        self._go(State.WAITING)
        return [*decisions, StartListening(hold=mode is ListeningMode.MANUAL)]

    def stop(self) -> list[Decision]:
        """`listen/stop`: the talker released the key; the utterance is complete."""
        match self.state:
            case State.WAITING:
                self._go(State.IDLE)
                return [StopListening()]
            case State.HEARING:
                if self._silence_ms + self._voiced_ms < self.settings.min_utterance_ms:
                    return [StopListening(), *self._discard(State.IDLE)]
                return [StopListening(), *self._force()]
            case State.PAUSED:
                return [StopListening(), *self._force()]
            case _:
                return []

    def abort(self) -> list[Decision]:
        """`abort`: be silent now."""
        match self.state:
            case State.IDLE | State.WAITING:
                return self._drop_saying()
            case State.HEARING | State.PAUSED:
                return self._discard(self._rest_state())
            case State.REPLYING:
                decisions = self._interrupt()
            case State.OVERLAP | State.PROBING:
                decisions = [*self._interrupt(), CloseUtterance()]
        self._go(self._rest_state())
        return decisions

    def typed(self, text: str) -> list[Decision]:
        """A text typed by the user: a whole turn at once."""
        decisions: list[Decision] = []
        if self.state in (State.REPLYING, State.OVERLAP, State.PROBING):
            decisions += self._interrupt()
            self._go(self._rest_state())
        decisions += [*self._drop_saying(), *self._drop_reply(), CloseUtterance()]
        self.turn += 1
        self.revision = 0
        self._begin_utterance(0.0)
        self._text = text
        return [*decisions, *self._start_reply(text), *self._commit()]

    # What the server says of its own accord -----------------------------------------------------------------------

    def say(self, *, interruptible: bool = True) -> list[Decision]:
        """The server has a sentence of its own to say; no decisions when it may not: somebody speaks or is answered.

        It is let out by `reply_ready`, unless the talker speaks first. With `interruptible` off, speech does not stop
        it once it sounds; an `abort` always does.
        """
        if self._saying or self.state not in (State.IDLE, State.WAITING):
            return []
        self._saying = True
        self._interruptible = interruptible
        return [StartSaying(self.generation)]

    def give_up_saying(self, generation: int) -> list[Decision]:
        """The sentence has taken too long to prepare: what was meant for this moment comes too late."""
        return self._drop_saying() if generation == self.generation else []

    def _drop_saying(self) -> list[Decision]:
        if not self._saying:
            return []
        dropped = self.generation
        self._forget_reply()
        return [DropReply(dropped)]

    # What the microphone brings -----------------------------------------------------------------------------------

    def speech_began(self, start_ms: float, end_ms: float) -> list[Decision]:
        """The VAD has found speech that began at `start_ms`."""
        if self.state is State.WAITING:
            decisions = self._drop_saying()
            self.turn += 1
            self.revision = 0
            self._begin_utterance(start_ms)
            self._voiced_ms = end_ms - start_ms
            self._go(State.HEARING)
            return decisions
        over = self.state is State.REPLYING and self.mode is ListeningMode.REALTIME and self._interruptible
        if over and self.settings.barge_in:
            self._begin_utterance(start_ms)
            self._go(State.OVERLAP)
            return []
        return [CloseUtterance()]

    def heard(self, end_ms: float, silence_ms: float, *, doubtful: bool = False) -> list[Decision]:
        """The open utterance has grown to `end_ms`, of which the last `silence_ms` are silence.

        `doubtful`: the newest of that silence may be speech that begins again; nothing is committed on it.
        """
        self._doubtful = doubtful
        resumed = silence_ms < self._silence_ms
        pause_ms, self._silence_ms = self._silence_ms, silence_ms
        self._voiced_ms = max(self._voiced_ms, end_ms - silence_ms - self._began_ms)
        match self.state:
            case State.HEARING:
                return self._heard_speech(end_ms, silence_ms)
            case State.PAUSED if resumed and not self._forced:
                return self._went_on(end_ms, pause_ms)
            case State.PAUSED:
                return self._heard_silence(silence_ms)
            case State.OVERLAP:
                return self._heard_overlap(end_ms, silence_ms)
            case State.PROBING:
                return self._heard_probe(end_ms, silence_ms)
            case _:
                return []

    def stalled(self) -> list[Decision]:
        """No microphone audio has arrived for a while: what has been said is all there is."""
        if self.state in (State.HEARING, State.PAUSED) and self.mode is not ListeningMode.MANUAL:
            return self._force()
        return []

    def _heard_speech(self, end_ms: float, silence_ms: float) -> list[Decision]:
        decisions: list[Decision] = []
        if self._resumed_ms is not None and end_ms - silence_ms - self._resumed_ms > _KEEP_REPLY_MS:
            decisions += self._drop_reply()
        if end_ms - self._began_ms >= self.settings.max_utterance_s * 1000.0:
            return [*decisions, *self._force()]
        early = self._speculates()
        needed_ms = self.settings.soft_end_ms if early else self.settings.neutral_ms
        if self.mode is ListeningMode.MANUAL or silence_ms < needed_ms:
            return decisions
        self._attempts += 1
        self._go(State.PAUSED)
        return [*decisions, self._recognise()]

    def _speculates(self) -> bool:
        return (
            self.settings.speculate
            and self.may_speculate
            and self._attempts < self.settings.max_speculations
            and self._voiced_ms <= _SPECULATE_MOST_MS
        )

    def _went_on(self, end_ms: float, pause_ms: float) -> list[Decision]:
        self.pace.paused_and_went_on(pause_ms)
        self.revision += 1
        self._text = None
        self._ticket += 1  # a recognition under way is stale
        self._resumed_ms = end_ms if self._reply_text is not None else None
        self._go(State.HEARING)
        return []

    def _heard_silence(self, silence_ms: float) -> list[Decision]:
        if self._text == "" and silence_ms >= self.settings.neutral_ms:
            return self._discard(self._rest_state())
        return self._advance()

    def _recognise(self, *, probe: bool = False) -> Recognise:
        self._ticket += 1
        return Recognise(self._ticket, probe)

    # What recognition and the reply bring -------------------------------------------------------------------------

    def recognised(self, ticket: int, text: str, *, provisional: bool = False) -> list[Decision]:
        """The answer to `Recognise`; a ticket that is not the newest is stale and ignored.

        A provisional text starts the reply; another answer with the same ticket confirms or corrects it before commit.
        """
        text = text.strip()
        if ticket != self._ticket or (provisional and not plain(text)):
            return []
        if self.state is State.PROBING:
            return self._probed(text)
        if self.state is not State.PAUSED:
            return []
        self._text = text
        self._provisional = provisional
        self._unconfirmed_ms = None
        self._resumed_ms = None
        if not plain(text):
            self._text = ""
            decisions = self._drop_reply()
            if self._forced or self._silence_ms >= self.settings.neutral_ms:
                decisions += self._discard(self._rest_state())
            return decisions
        self._wait_ms = hangover_ms(text, self.pace, self.settings, self._commands)
        decisions = []
        if self._reply_text is not None and not same_words(self._reply_text, text):
            decisions += self._drop_reply()
        if self._reply_text is None and self.settings.speculate and self.may_speculate:
            decisions += self._start_reply(text)
        return [*decisions, *self._advance()]

    def reply_ready(self, generation: int) -> list[Decision]:
        """The first audio of this reply exists, or will by the time the device can play it."""
        if generation != self.generation:
            return []
        if self._saying:
            self._saying = False
            self._go(State.REPLYING)
            return [CommitSaying(generation), CloseUtterance()]
        self._reply_ready = True
        return self._advance() if self.state is State.PAUSED else []

    def question_known(self, generation: int) -> list[Decision]:
        """The words of this reply's question have been asked before, exactly so: they are a whole question."""
        if generation != self.generation:
            return []
        self._reply_known = True
        return self._advance() if self.state is State.PAUSED else []

    def reply_done(self, generation: int) -> list[Decision]:
        """The reply has been played to its end, or has failed; the device has been told to stop speaking."""
        if generation == self.generation and self._saying:  # it failed before its first sound
            self._forget_reply()
            return []
        if generation != self.generation or self.state not in (State.REPLYING, State.OVERLAP, State.PROBING):
            return []
        self._forget_reply()
        if self.state is State.REPLYING:
            self._go(self._rest_state())
            return []
        self._ticket += 1
        return self._overlap_becomes_turn()  # the talker who spoke over its end has the floor

    # Parts --------------------------------------------------------------------------------------------------------

    def _advance(self) -> list[Decision]:
        """Start and commit the reply of a paused turn as far as its text, silence and reply allow."""
        if not self._text:
            return []
        decisions: list[Decision] = []
        if not self._forced and self._silence_ms < self._needed_ms():
            return []
        if self._reply_text is None:
            decisions += self._start_reply(self._text)
        due = self._forced or self._reply_ready or self._silence_ms >= self.settings.commit_max_ms
        if due and not self._awaits_confirmation() and not self._may_go_on():
            decisions += self._commit()
        return decisions

    def _needed_ms(self) -> float:
        """The silence after which the turn may be committed."""
        return min(self._wait_ms, self.settings.known_ms) if self._reply_known else self._wait_ms

    def _may_go_on(self) -> bool:
        """Whether the talker seems to begin again just now. Steady background noise holds nobody up for ever."""
        return self._doubtful and not self._forced and self._silence_ms < self._needed_ms() + _DOUBT_MOST_MS

    def _awaits_confirmation(self) -> bool:
        """Whether a turn that could be committed has to wait for its words to be confirmed."""
        if not self._provisional:
            return False
        if self._unconfirmed_ms is None:
            self._unconfirmed_ms = self._silence_ms
        return self._silence_ms - self._unconfirmed_ms < _CONFIRM_MOST_MS

    def _start_reply(self, text: str) -> list[Decision]:
        self._reply_text = text
        self._reply_ready = self._reply_known = False
        return [StartReply(self.turn, self.revision, self.generation, text)]

    def _commit(self) -> list[Decision]:
        if self.revision == 0:
            self.pace.finished()
        self._go(State.REPLYING)
        self._resumed_ms = None
        assert self._text is not None
        return [Commit(self.turn, self.revision, self.generation, self._text), CloseUtterance()]

    def _force(self) -> list[Decision]:
        self._forced = True
        if self.state is State.HEARING:
            self._go(State.PAUSED)
            return [self._recognise()]
        if self._text == "":
            return self._discard(self._rest_state())
        return self._advance()

    def _drop_reply(self) -> list[Decision]:
        self._resumed_ms = None
        if self._reply_text is None:
            return []
        dropped = self.generation
        self._forget_reply()
        return [DropReply(dropped)]

    def _forget_reply(self) -> None:
        self._reply_text = None
        self._reply_ready = self._reply_known = False
        self._saying = False
        self._interruptible = True
        self.generation += 1

    def _discard(self, rest: State) -> list[Decision]:
        decisions = [*self._drop_reply(), CloseUtterance()]
        self._ticket += 1
        self._go(rest)
        return decisions

    def _interrupt(self) -> list[Decision]:
        interrupted = self.generation
        self._ticket += 1
        self._forget_reply()
        return [Interrupt(interrupted)]

    # Speech over the reply (realtime mode) ------------------------------------------------------------------------

    def _heard_overlap(self, end_ms: float, silence_ms: float) -> list[Decision]:
        if silence_ms >= self.settings.soft_end_ms:
            self._go(State.REPLYING)
            return [CloseUtterance()]
        if self._voiced_ms < self.settings.barge_in_ms:
            return []
        self._go(State.PROBING)
        return [PauseReply(), self._probe(end_ms)]

    def _probe(self, end_ms: float) -> Recognise:
        self._probed_ms = end_ms
        self._probe_open = True
        return self._recognise(probe=True)

    def _heard_probe(self, end_ms: float, silence_ms: float) -> list[Decision]:
        if self._probe_open:
            return []
        over = silence_ms >= self.settings.soft_end_ms
        if over or end_ms - self._began_ms >= _PROBE_MOST_MS:
            self._go(State.REPLYING)
            return [CloseUtterance(), ResumeReply()]
        return [self._probe(end_ms)] if end_ms - self._probed_ms >= _PROBE_EVERY_MS else []

    def _probed(self, text: str) -> list[Decision]:
        self._probe_open = False
        if not interrupts(text):
            return []
        return [*self._interrupt(), *self._overlap_becomes_turn()]

    def _overlap_becomes_turn(self) -> list[Decision]:
        self.turn += 1
        self.revision = 0
        self._text = None
        self._go(State.HEARING)
        return []
