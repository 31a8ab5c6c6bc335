"""The replies of one conversation, one at a time: begun, interrupted or dropped, remembered when they are over."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from xiaozhi.conversation.answering import CachedRecognizer, Plan
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.echo_guard import PlayedPacket
from xiaozhi.conversation.pacer import MAX_RECENT_PACKETS
from xiaozhi.conversation.recall import Recollection
from xiaozhi.conversation.reply import Reply
from xiaozhi.conversation.services import Services
from xiaozhi.conversation.speaking import Speaker, Told
from xiaozhi.conversation.turn_report import report_turn
from xiaozhi.text.messages import message
from xiaozhi.turn.decisions import Decision
from xiaozhi.turn.machine import ListeningMode, TurnMachine
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)


class Replies:
    """Runs what the turn machine wants answered or said.

    Args:
        services: the shared engines.
        link: the way to the device.
        device_id: for the log.
        machine: is told when a reply is ready or over.
        recall: remembers what was heard.
        speaker: is told what became of a sentence of the server's own.
        apply: carries the machine's decisions out.
        is_active: told when a reply is over.
    """

    def __init__(
        self,
        services: Services,
        link: DeviceLink,
        device_id: str,
        machine: TurnMachine,
        recall: Recollection,
        speaker: Speaker,
        apply: Callable[[list[Decision]], None],
        is_active: Callable[[], None],
    ) -> None:
        self._services = services
        self._link = link
        self._device_id = device_id
        self._machine = machine
        self._recall = recall
        self._speaker = speaker
        self._apply = apply
        self._is_active = is_active
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self.now: Reply | None = None
        """The one that is prepared or spoken."""
        self._earlier: deque[PlayedPacket] = deque(maxlen=MAX_RECENT_PACKETS)  # of replies that are over

    def begin(self, tasks: asyncio.TaskGroup, plan: Plan, trace: TurnTrace, name: str) -> None:
        """Prepare a reply at once; it is heard when it is committed.

        Args:
            tasks: of the conversation; one of them runs it.
            plan: what to say or whom to ask.
            trace: the turn's record.
            name: of its task.
        """
        generation = trace.generation

        def tell(event: Callable[[int], list[Decision]]) -> None:
            if not task.cancelling():  # on its way out it may still find itself ready, and must not be committed
                self._apply(event(generation))

        reply = Reply(
            self._services,
            self._link,
            plan,
            trace,
            on_ready=lambda: tell(self._machine.reply_ready),
            on_known=lambda: tell(self._machine.question_known),
        )
        self.now = reply
        self._task = task = tasks.create_task(self._run(reply), name=name)
        self._services.retirement.until(task)

    async def _run(self, reply: Reply) -> None:
        failed = False
        try:
            await reply.run()
        except asyncio.CancelledError:
            if self.now is reply:  # neither dropped nor interrupted: the device is gone in the midst of it
                reply.trace.interrupted = self._loop.time()
                self._remember(reply)
            raise
        except Exception:  # noqa: BLE001 - one reply's fault must not end the conversation; it is logged whole
            _log.exception("reply failed", extra={"device": self._device_id})
            reply.trace.error = reply.trace.error or "internal error"
            failed = True
        if reply.unasked:
            self._speaker.settle(Told.DROPPED if reply.trace.first_packet is None else Told.SPOKEN)
        self._remember(reply)
        if reply.committed and reply.ends_conversation:
            self._link.hang_up("the user said goodbye")
        if self.now is not reply:
            return
        self.now = self._task = None
        self._is_active()
        self._apply(self._machine.reply_done(reply.trace.generation))
        if failed and reply.committed and not reply.unasked and reply.trace.first_packet is None:
            self._speaker.say(message("apology", reply.trace.language))

    def cancel(self) -> None:
        """Drop it; whoever waits for a sentence of the server's own is told."""
        self._speaker.settle(Told.DROPPED)
        if self._task is not None:
            self._task.cancel()
        self.now = self._task = None

    @property
    def has_acted(self) -> bool:
        """It has done something that saying more does not undo."""
        return self.now is not None and self.now.has_acted

    def interrupt(self, *, taken_back: bool = False) -> bool:
        """Silence it and remember what was heard of it, unless it is taken back; False where there is none."""
        reply = self.now
        if reply is None:
            return False
        reply.trace.interrupted = self._loop.time()
        self._speaker.settle(Told.INTERRUPTED)
        reply.stop()
        reply.close_trace()
        self._remember(reply, taken_back=taken_back)
        self.cancel()
        return True

    def _remember(self, reply: Reply, *, taken_back: bool = False) -> None:
        """Put into the history what was heard, whoever began it, and close the turn's record.

        A device that is frozen or out of range takes nothing, and hears nothing, long before it is found out.
        """
        trace = reply.trace
        if not reply.committed:
            return
        self._earlier.extend(reply.pacer.recent)
        broken_off = trace.interrupted is not None
        if not taken_back and (
            reply.remembered is CachedRecognizer.ALWAYS
            or (reply.remembered is CachedRecognizer.BROKEN_OFF and broken_off)
        ):
            untaken_ms = self._link.untaken_ms(trace.generation)
            heard_ms = min(reply.pacer.played_ms(), reply.pacer.sent_ms - untaken_ms)
            self._recall.add(trace, reply.pacer.spoken(), heard_ms, cut=untaken_ms > 0.0)
            if not reply.unasked:
                report_turn(self._services, self._link, self._device_id, trace)
        elif not reply.unasked:
            self.forgotten(trace)

    def forgotten(self, trace: TurnTrace) -> None:
        """A turn that is no part of the history: somebody has spoken and could not be understood."""
        self._services.store.turns.next_id()  # the pages tell turns apart by it
        report_turn(self._services, self._link, self._device_id, trace)

    @property
    def speaks(self) -> bool:
        """The device has been told that a reply comes, and it is not over."""
        return self.now is not None and self.now.committed

    def sounding(self) -> Sequence[PlayedPacket]:
        """What an open microphone may hear of the device itself, the oldest first; its echo outlives a reply."""
        if self._machine.mode is not ListeningMode.REALTIME:
            return ()
        return (*self._earlier, *(self.now.pacer.recent if self.now is not None else ()))

    def spoken_text(self) -> str:
        """What the device has been given to say so far."""
        return "".join(clause.speech for clause, _ in self.now.pacer.spoken()) if self.now else ""
