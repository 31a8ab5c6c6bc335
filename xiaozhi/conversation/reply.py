"""One reply to the device: a gate that opens at commit, pacing, and an end that always comes."""

import asyncio
from collections.abc import Callable

from xiaozhi.concurrency.channel import PACKETS, Channel
from xiaozhi.conversation.answering import Answering, Plan
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.gate import Gate
from xiaozhi.conversation.pacer import Pacer
from xiaozhi.conversation.services import Services
from xiaozhi.events import ClauseStart, SpokenItem
from xiaozhi.turn.trace import TurnTrace

# So much speech waits before the gate, or behind a device that is slower than the voice, in milliseconds.
_SPEECH_MS = 3000.0


def _sound_ms(item: SpokenItem) -> float:
    return 0.0 if isinstance(item, ClauseStart) else float(item.duration_ms)


class Reply:
    """Prepares a reply at once and lets it out when it is committed.

    Nothing outside is touched before `commit`: no message to the device, no history, no tool.

    Args:
        services: the shared engines.
        link: the device.
        plan: what to say or whom to ask.
        trace: the turn's record; its generation marks every packet.
        on_ready: called once, when the first audio is there or will be by the time the device can play it.
        on_known: called when exactly this has been asked before.
    """

    def __init__(
        self,
        services: Services,
        link: DeviceLink,
        plan: Plan,
        trace: TurnTrace,
        *,
        on_ready: Callable[[], None],
        on_known: Callable[[], None],
    ) -> None:
        self._audio = services.settings.audio
        self._link = link
        self.unasked = plan.unasked
        """No user waits for it."""
        self.remembered = plan.remembered
        """Whether what is heard of it goes into the history."""
        self.trace = trace
        self._loop = asyncio.get_running_loop()
        self._gate = Gate(on_ready, on_known)
        self._started_at = 0.0  # when the device was told to go to speaking
        self._stopped = False
        max_s = services.settings.llm.reply_max_s
        self._pacer = Pacer(link, trace.generation, self._audio.lead_ms, max_s * 1000.0)
        self._items: Channel[SpokenItem] = Channel(_SPEECH_MS, _sound_ms, kind=PACKETS)
        self._answering = Answering(
            services,
            plan,
            trace,
            self._gate,
            self._items,
            queued_ms=lambda: self._items.weight + self._pacer.unplayed_ms(),
            on_pause=self._pacer.expect_pause,
        )

    @property
    def committed(self) -> bool:
        """The device has been told that a reply comes."""
        return self._gate.is_open

    @property
    def pacer(self) -> Pacer:
        """What has been sent and played."""
        return self._pacer

    @property
    def has_acted(self) -> bool:
        """It has done something that saying more does not undo."""
        return self._answering.has_acted

    @property
    def ends_conversation(self) -> bool:
        """The conversation is over after this reply."""
        return self._answering.ends_conversation

    def commit(self, text: str) -> None:
        """Open the gate: tell the device what was heard and that a reply comes. The audio follows when it is ready.

        Where nothing was heard (`text` is empty) the device is not told so.
        """
        if text:
            self._link.stt(text)
        self._link.tts_start()
        self._started_at = self._loop.time()
        self.trace.commit = self._started_at
        self._gate.open()

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
                producing = tasks.create_task(self._answering.run(), name="reply-produce")
                tasks.create_task(self._speak(producing), name="reply-speak")
            if self.committed:
                self._answering.heard_out()
        except Exception:
            self._nothing_comes()
            raise
        finally:
            self._gate.close()
            self.stop()
            self.close_trace()

    async def _speak(self, producing: asyncio.Task[None]) -> None:
        first = await self._items.peek()
        if first is not None:
            self._gate.ready()
        elif self.unasked:
            return
        else:
            self._nothing_comes()
        await self._gate.opened()
        if first is None:
            return
        if isinstance(first, ClauseStart):
            self._link.emotion(first.clause.emotion or "neutral")
        # The firmware handles tts/start on its main loop and drops audio that arrives before it has.
        await asyncio.sleep(max(0.0, self._started_at + self._audio.start_gap_ms / 1000.0 - self._loop.time()))
        await self._pacer.play(self._items, self._first_packet)
        producing.cancel()  # where it has not ended by itself, the reply is as long as it may be
        await asyncio.sleep(self._audio.stop_margin_ms / 1000.0)

    def _nothing_comes(self) -> None:
        """There will be no audio: the turn must not wait for it; a sentence of the server's own is never ready."""
        if not self.unasked:
            self._gate.ready()

    def _first_packet(self) -> None:
        self.trace.first_packet = self._loop.time()
