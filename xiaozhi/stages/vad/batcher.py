"""The batcher: one hop to one thread for everything that all devices have sent, one model run for all of them.

A hop costs as much as judging a window (64-83 us), and a window costs half in company (46 against 117 us), so packets
are gathered. But waiting is latency: packets wait for company only while so many come that company is to be expected
within `tick_ms`, that is from 100 packets a second on (six devices at 60 ms). Below that a packet goes at once,
together with what came in the same turn of the loop or while the thread was busy.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import begin_thread
from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, STATE_WIDTH, WINDOW_SAMPLES, SpeechModel, VadError
from xiaozhi.stages.vad.uplink import UplinkStream

# The packet rate is an average over about this long.
_RATE_SPAN_S: Final = 0.1
# A device that has sent nothing for this long has stopped listening; its decoder is given back.
_REST_AFTER_S: Final = 30.0
_NO_SOUND: Final[PcmFloat] = np.empty(0, np.float32)


@dataclass(slots=True)
class JudgedSound:
    """What was in some packets of one device.

    Attributes:
        pcm: float32[n] at 16 kHz; silence stands for lost packets.
        probabilities: one for each 32 ms window that these packets completed; empty when they were not judged.
        errors: packets that were not Opus.
    """

    pcm: PcmFloat
    probabilities: list[float]
    errors: int


@dataclass(slots=True)
class BatcherStats:
    """Totals since the start, for metrics. Times in seconds."""

    batches: int = 0
    packets: int = 0
    errors: int = 0
    """Packets that were not Opus."""
    served: int = 0
    """Devices, summed over batches: divided by `batches` the mean batch."""
    windows: int = 0
    """Windows judged by the model."""
    still_windows: int = 0
    """Windows of silence, digital or of a quiet room, that needed no model."""
    runs: int = 0
    """Runs of the model."""
    largest_batch: int = 0
    wait_s: float = 0.0
    """From packets to the beginning of their batch, summed over devices."""
    longest_wait_s: float = 0.0
    late: int = 0
    """Devices that waited over `max_wait_ms`: the machine is too slow for them all."""
    busy_s: float = 0.0
    """Time spent in the thread."""


@dataclass(slots=True, eq=False)
class _Job:
    stream: UplinkStream
    packets: Sequence[bytes | None]
    judge: bool
    asked_at_s: float
    future: asyncio.Future[JudgedSound]
    sound: JudgedSound
    failure: Exception | None = None


@dataclass(slots=True)
class _Round:
    """What the thread counted."""

    windows: int = 0
    still_windows: int = 0
    runs: int = 0
    largest_batch: int = 0


class VadBatcher:
    """Hears for all devices. Must be used on one running loop.

    Args:
        model: shared by all.
        settings: `tick_ms`, `max_wait_ms`, `batch_max`, `max_concurrent`.
    """

    def __init__(self, model: SpeechModel, settings: VadSettings) -> None:
        self.stats = BatcherStats()
        self.observe: Callable[[int, float, float], None] | None = None
        """Called after every batch with devices served, the longest wait and the time in the thread (seconds)."""
        self.half_duplex = False
        """Under load: echoes are not cancelled, and nobody is looked for over them."""
        self._model = model
        self._settings = settings
        self._gather_s = min(settings.tick_ms, settings.max_wait_ms) / 1000.0
        self._thread = ThreadPoolExecutor(1, "vad", begin_thread, ("vad",))
        self._waiting: deque[_Job] = deque()
        self._start_handle: asyncio.Handle | None = None
        self._start_soon = False  # `_start_handle` is due in this turn of the loop or the next
        self._running = False
        self._closed = False
        self._recent = 0.0  # packets within _RATE_SPAN_S, exponentially averaged
        self._recent_at_s = -math.inf
        self._awake: set[UplinkStream] = set()
        self._sweep_handle: asyncio.TimerHandle | None = None

    def exchange(self, model: SpeechModel, settings: VadSettings) -> None:
        """Judge with this model and by these settings from the next batch on; a batch that runs keeps those it has."""
        if model is not self._model:
            for stream in self._awake:
                stream.forget()  # what one model remembers means nothing to another
        self._model, self._settings = model, settings
        self._gather_s = min(settings.tick_ms, settings.max_wait_ms) / 1000.0

    def open(self) -> UplinkStream:
        """A new device's stream; close it when the device is gone."""
        return UplinkStream()

    async def hear(self, stream: UplinkStream, packets: Sequence[bytes | None], *, judge: bool = True) -> JudgedSound:
        """Decode packets of one device and judge the windows they complete.

        Without `judge` they are only decoded, which keeps the decoder in step; the next judged window then follows
        nothing. A cancelled call that has not begun costs nothing; one that runs is finished and its result dropped.

        Raises:
            RuntimeError: a former call for this stream has not ended, or the stream or the batcher is closed.
            VadError: the model failed.
        """
        if self._closed or stream.closed:
            raise RuntimeError("hear() after close()")
        if stream.hearing:
            raise RuntimeError("one hear() for a stream at a time")
        if not packets:
            return JudgedSound(_NO_SOUND, [], 0)
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._count(len(packets), now_s)
        job = _Job(stream, packets, judge, now_s, loop.create_future(), JudgedSound(_NO_SOUND, [], 0))
        self._waiting.append(job)
        self._arm()
        stream.hearing = True
        try:
            return await job.future
        finally:
            stream.hearing = False

    def close(self) -> None:
        """Stop: calls that wait end with `VadError`, a batch that runs is left to finish."""
        self._closed = True
        for handle in (self._start_handle, self._sweep_handle):
            if handle is not None:
                handle.cancel()
        for job in self._waiting:
            if not job.future.done():
                job.future.set_exception(VadError("the server is closing"))
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # When ---------------------------------------------------------------------------------------------------------

    def _count(self, packets: int, now_s: float) -> None:
        self._recent = self._recent * math.exp((self._recent_at_s - now_s) / _RATE_SPAN_S) + packets
        self._recent_at_s = now_s

    def _company_expected(self) -> bool:
        return self._recent * self._gather_s / _RATE_SPAN_S >= 1.0

    def _arm(self) -> None:
        """See to it that a batch starts for what waits; the end of a running batch arms the next."""
        if self._running or self._closed or not self._waiting or self._start_soon:
            return
        loop = asyncio.get_running_loop()
        full = len(self._waiting) >= min(self._settings.batch_max, self._settings.max_concurrent)
        due_s = self._waiting[0].asked_at_s + self._gather_s
        if full or not self._company_expected() or due_s <= loop.time():
            if self._start_handle is not None:
                self._start_handle.cancel()
            self._start_soon = True
            self._start_handle = loop.call_soon(self._start)
        elif self._start_handle is None:
            self._start_handle = loop.call_at(due_s, self._start)

    def _start(self) -> None:
        self._start_handle = None
        self._start_soon = False
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        jobs: list[_Job] = []
        while self._waiting and len(jobs) < self._settings.max_concurrent:
            job = self._waiting.popleft()
            if not job.future.done() and not job.stream.closed:  # else its caller went away
                job.stream.enter(began_s)
                self._awake.add(job.stream)
                jobs.append(job)
        if not jobs:
            return
        if self._sweep_handle is None:
            self._sweep_handle = loop.call_later(_REST_AFTER_S, self._sweep)
        self._running = True
        quiet_power = 10.0 ** (self._settings.quiet_dbfs / 10.0)
        batch_max = self._settings.batch_max
        running = loop.run_in_executor(self._thread, self._serve, jobs, self._model, batch_max, quiet_power)
        running.add_done_callback(lambda done: self._finish(jobs, began_s, done))

    def _finish(self, jobs: list[_Job], began_s: float, done: asyncio.Future[_Round]) -> None:
        self._running = False
        for job in jobs:
            job.stream.leave()
        if done.cancelled():
            failure: Exception | None = VadError("the server is closing")
        elif (error := done.exception()) is not None:
            failure = VadError(f"voice activity detection failed: {error}")
            failure.__cause__ = error
        else:
            failure = None
            self._record(jobs, began_s, done.result())
        for job in jobs:
            if job.future.done():
                continue
            if failure is not None or job.failure is not None:
                job.future.set_exception(failure or job.failure or VadError("unknown"))
            else:
                job.future.set_result(job.sound)
        self._arm()

    def _record(self, jobs: list[_Job], began_s: float, counted: _Round) -> None:
        stats = self.stats
        took_s = asyncio.get_running_loop().time() - began_s
        most_s, max_wait_s = 0.0, self._settings.max_wait_ms / 1000.0
        for job in jobs:
            wait_s = began_s - job.asked_at_s
            most_s = max(most_s, wait_s)
            stats.wait_s += wait_s
            stats.late += wait_s > max_wait_s
            stats.packets += len(job.packets)
            stats.errors += job.sound.errors
        stats.batches += 1
        stats.served += len(jobs)
        stats.windows += counted.windows
        stats.still_windows += counted.still_windows
        stats.runs += counted.runs
        stats.largest_batch = max(stats.largest_batch, counted.largest_batch)
        stats.longest_wait_s = max(stats.longest_wait_s, most_s)
        stats.busy_s += took_s
        if self.observe is not None:
            self.observe(len(jobs), most_s, took_s)

    def _sweep(self) -> None:
        """Let those streams rest whose devices have stopped; one timer for all."""
        self._sweep_handle = None
        loop = asyncio.get_running_loop()
        before_s = loop.time() - _REST_AFTER_S
        for stream in [stream for stream in self._awake if stream.closed or stream.heard_at_s <= before_s]:
            self._awake.discard(stream)
            stream.rest()
        if self._awake:
            self._sweep_handle = loop.call_later(_REST_AFTER_S, self._sweep)

    # In the thread ------------------------------------------------------------------------------------------------

    def _serve(self, jobs: list[_Job], model: SpeechModel, batch_max: int, quiet_power: float) -> _Round:
        """Decode everything, then judge the first window of each device together, the second of each, and so on."""
        counted = _Round()
        pending: list[tuple[_Job, list[PcmFloat]]] = []
        for job in jobs:
            try:
                job.sound.pcm, judged, job.sound.errors = job.stream.decode(job.packets, half_duplex=self.half_duplex)
                if job.judge:
                    pending.append((job, job.stream.windows(judged)))
                else:
                    job.stream.skip()
            except Exception as error:  # noqa: BLE001 - one device's fault must not reach the others of its batch
                job.failure = VadError(f"packets could not be decoded: {error!r}")
        index = 0
        while pending := [(job, windows) for job, windows in pending if len(windows) > index]:
            rows: list[tuple[_Job, PcmFloat]] = []
            behind: list[tuple[_Job, list[PcmFloat]]] = []
            for job, windows in pending:
                if job.stream.must_judge(windows[index], quiet_power):
                    behind.append((job, job.stream.catch_up()))
                    rows.append((job, windows[index]))
                else:
                    counted.still_windows += 1
                    job.sound.probabilities.append(0.0)
                    job.stream.judged(0.0, None)
            _catch_up(model, behind, batch_max, counted)
            for first in range(0, len(rows), batch_max):
                _judge(model, rows[first : first + batch_max], counted)
            index += 1
        return counted


def _catch_up(model: SpeechModel, behind: list[tuple[_Job, list[PcmFloat]]], batch_max: int, counted: _Round) -> None:
    """Show the model the quiet windows that it was not asked about, the first of each device together, and so on."""
    step = 0
    while rows := [(job, left_out[step]) for job, left_out in behind if len(left_out) > step]:
        for first in range(0, len(rows), batch_max):
            _, after = _ask(model, rows[first : first + batch_max], counted)
            for place, (job, _) in enumerate(rows[first : first + batch_max]):
                job.stream.remember(after[:, place])
        step += 1


def _ask(
    model: SpeechModel, rows: list[tuple[_Job, PcmFloat]], counted: _Round
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    counted.windows += len(rows)
    counted.runs += 1
    counted.largest_batch = max(counted.largest_batch, len(rows))
    windows = np.empty((len(rows), CONTEXT_SAMPLES + WINDOW_SAMPLES), np.float32)
    states = np.zeros((2, len(rows), STATE_WIDTH), np.float32)
    for place, (job, row) in enumerate(rows):
        windows[place] = row
        if job.stream.state is not None:
            states[:, place] = job.stream.state
    return model.probabilities(windows, states)


def _judge(model: SpeechModel, rows: list[tuple[_Job, PcmFloat]], counted: _Round) -> None:
    found, after = _ask(model, rows, counted)
    for place, ((job, _), probability) in enumerate(zip(rows, found.tolist(), strict=True)):
        job.sound.probabilities.append(probability)
        job.stream.judged(probability, after[:, place])
