"""One utterance through the segmenter and the turn machine, in audio time: when is it committed?"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

from bench.endpointing_material import Texts, Utterance, new_segmenter
from xiaozhi.settings import TurnSettings
from xiaozhi.stages.vad.silero import WINDOW_MS
from xiaozhi.turn.decisions import Commit, Decision, NextUtterance, Recognise, StartReply
from xiaozhi.turn.endpointing import UserPace
from xiaozhi.turn.machine import ListeningMode, TurnMachine
from xiaozhi.turn.segmenter import Segmenter

PACKET_MS: Final = 60.0  # of the firmware


@dataclass(frozen=True)
class Upstreams:
    """How long the rest takes.

    Attributes:
        name: in the tables.
        recognition_ms: from the question to the text.
        reply_ms: from the text to the first audio of the reply.
        gap_ms: by which the device is told before the first audio comes; the reply is said to be ready so much ahead.
    """

    name: str
    recognition_ms: float
    reply_ms: float
    gap_ms: float = 80.0


@dataclass(frozen=True)
class Outcome:
    """What became of one utterance; times are milliseconds.

    Attributes:
        cut_off: it was committed, or dropped as nothing, while more of it followed.
        missed: it was never committed.
        commit_ms: from the last voiced sample to the commit; None where it was cut off or missed.
        first_audio_ms: the same to the first audio of the reply.
        replies: how many replies were begun for it.
    """

    cut_off: bool = False
    missed: bool = False
    commit_ms: float | None = None
    first_audio_ms: float | None = None
    replies: int = 0


class Policy(Protocol):
    """Something that ends turns."""

    name: str

    def run(self, utterance: Utterance, texts: Texts, upstreams: Upstreams) -> Outcome:
        """Listen to one utterance."""
        ...


class Packets:
    """The utterance as the server gets it: 60 ms at a time, a window judged when its last sample is there."""

    def __init__(self, utterance: Utterance) -> None:
        self._utterance = utterance
        self.segmenter: Segmenter = new_segmenter()
        self.now_ms = 0.0
        self._judged = 0

    @property
    def silence_ms(self) -> float:
        """As the VAD stage counts it: less than a window that waits to be judged is silence after silence."""
        return 0.0 if self.segmenter.voiced else self.now_ms - self.segmenter.last_voiced_ms

    def next(self) -> bool:
        """Take the next packet; False when there is none."""
        self.now_ms += PACKET_MS
        probabilities = self._utterance.probabilities
        if self.now_ms > len(probabilities) * WINDOW_MS:
            return False
        while (self._judged + 1) * WINDOW_MS <= self.now_ms:
            self.segmenter.feed(probabilities[self._judged])
            self._judged += 1
        return True


class Hangover:
    """A fixed hangover: the turn is over after so much silence, and then the work begins."""

    def __init__(self, hangover_ms: float) -> None:
        self.name = f"fixed {hangover_ms:g} ms"
        self._hangover_ms = hangover_ms

    def run(self, utterance: Utterance, texts: Texts, upstreams: Upstreams) -> Outcome:
        """See `Policy.run`."""
        packets = Packets(utterance)
        while packets.next():
            if packets.segmenter.in_speech and packets.silence_ms >= self._hangover_ms:
                if packets.segmenter.last_voiced_ms < utterance.last_voiced_ms:
                    return Outcome(cut_off=True, replies=1)
                commit_ms = packets.now_ms - utterance.last_voiced_ms
                audio_ms = commit_ms + upstreams.recognition_ms + max(upstreams.reply_ms, upstreams.gap_ms)
                return Outcome(commit_ms=commit_ms, first_audio_ms=audio_ms, replies=1)
        return Outcome(missed=True)


class Profile:
    """The turn machine with some settings.

    Args:
        name: in the tables.
        settings: the `[turn]` table.
        remembers: one user says all utterances, so that the machine learns the pace; else each has a new user.
    """

    def __init__(self, name: str, settings: TurnSettings, *, remembers: bool = False) -> None:
        self.name = name
        self._settings = settings
        self._pace = UserPace() if remembers else None

    def run(self, utterance: Utterance, texts: Texts, upstreams: Upstreams) -> Outcome:
        """See `Policy.run`."""
        machine = TurnMachine(self._settings)
        if self._pace is not None:
            machine.pace = self._pace
        return _Run(machine, utterance, texts, upstreams).outcome()


class _Run:
    """One utterance with one machine; what takes time comes back from a queue, between packets."""

    def __init__(self, machine: TurnMachine, utterance: Utterance, texts: Texts, upstreams: Upstreams) -> None:
        self._machine = machine
        self._utterance = utterance
        self._texts = texts
        self._upstreams = upstreams
        self._packets = Packets(utterance)
        self._due: list[tuple[float, int, Callable[[], list[Decision]]]] = []
        self._order = count()
        self._started_ms: dict[int, float] = {}  # by generation
        self._committed: tuple[float, int] | None = None  # when, and which generation
        self._open = False
        self._lost = False  # a beginning was dropped as nothing

    def outcome(self) -> Outcome:
        """Run to the commit or to the end of the audio."""
        self._apply(self._machine.listen(ListeningMode.AUTO), 0.0)
        while self._committed is None and self._packets.next():
            self._answer(self._packets.now_ms)
            if self._committed is None:
                self._hear()
        replies = len(self._started_ms)
        if self._committed is None:
            return Outcome(missed=True, cut_off=self._lost, replies=replies)
        at_ms, generation = self._committed
        if self._lost or at_ms < self._utterance.last_voiced_ms:
            return Outcome(cut_off=True, replies=replies)
        audio_ms = max(at_ms + self._upstreams.gap_ms, self._started_ms[generation] + self._upstreams.reply_ms)
        end_ms = self._utterance.last_voiced_ms
        return Outcome(commit_ms=at_ms - end_ms, first_audio_ms=audio_ms - end_ms, replies=replies)

    def _answer(self, until_ms: float) -> None:
        while self._due and self._due[0][0] <= until_ms and self._committed is None:
            at_ms, _, answer = heapq.heappop(self._due)
            self._apply(answer(), at_ms)

    def _hear(self) -> None:
        packets, segmenter = self._packets, self._packets.segmenter
        if not segmenter.in_speech:
            return
        if not self._open:
            self._open = True
            self._apply(
                self._machine.speech_began(self._machine.utterance, segmenter.start_ms, packets.now_ms), packets.now_ms
            )
        else:
            number = self._machine.utterance
            heard = self._machine.heard(number, packets.now_ms, packets.silence_ms, doubtful=segmenter.doubtful)
            self._apply(heard, packets.now_ms)

    def _later(self, at_ms: float, answer: Callable[[], list[Decision]]) -> None:
        heapq.heappush(self._due, (at_ms, next(self._order), answer))

    def _apply(self, decisions: list[Decision], now_ms: float) -> None:
        machine, segmenter = self._machine, self._packets.segmenter
        for decision in decisions:
            match decision:
                case Recognise(ticket=ticket):
                    text = self._texts.at(self._utterance, segmenter.last_voiced_ms)
                    self._later(
                        now_ms + self._upstreams.recognition_ms,
                        lambda ticket=ticket, text=text: machine.recognised(ticket, text),  # type: ignore[misc]
                    )
                case StartReply(generation=generation):
                    self._started_ms[generation] = now_ms
                    ready_ms = max(0.0, self._upstreams.reply_ms - self._upstreams.gap_ms)
                    self._later(now_ms + ready_ms, lambda generation=generation: machine.reply_ready(generation))  # type: ignore[misc]
                case Commit(generation=generation):
                    self._committed = (now_ms, generation)
                case NextUtterance() if self._committed is None:
                    self._lost = self._lost or (
                        self._open and segmenter.last_voiced_ms < self._utterance.last_voiced_ms
                    )
                    self._open = False
                    segmenter.close()
                case _:
                    pass
