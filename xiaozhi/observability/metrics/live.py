"""What the process counts by itself, read at each scrape: nothing here costs anything between two scrapes."""

import asyncio
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from xiaozhi.concurrency.channel import KINDS
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.services import Services
from xiaozhi.observability.metrics.families import Figures, counter, counters, gauge, gauges
from xiaozhi.overload.steps import Step
from xiaozhi.transport.connected_devices import ConnectedDevices


class LiveMetrics(Figures):
    """Reads the shared engines of a process.

    Args:
        services: what is read.
        devices: who is connected.
    """

    def __init__(self, services: Services, devices: ConnectedDevices) -> None:
        self._services = services
        self._devices = devices

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        devices = self._devices
        yield gauge("xiaozhi_devices_online", "Devices that are connected.", len(devices))
        yield counter("xiaozhi_devices_refused", "Devices turned away for want of room.", devices.refused)
        yield counter(
            "xiaozhi_devices_flooded", "Devices hung up because they sent more than any does.", devices.flooded
        )
        yield counter(
            "xiaozhi_downlink_dropped",
            "Packets not sent because their device does not read fast enough.",
            devices.packets_dropped,
        )
        yield from self._load()
        yield from self._hearing()
        yield from self._recognition()
        yield from _pool(self._services.codec, "codec")
        yield from _channels()
        yield gauge("xiaozhi_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))

    def _load(self) -> Iterator[Metric]:
        load_shedder, admission = self._services.load_shedder, self._services.admission
        yield gauge(
            "xiaozhi_loop_lag_seconds",
            "Second longest standstill of the loop in the last two seconds.",
            load_shedder.lag.lag_ms() / 1e3,
        )
        yield counter("xiaozhi_loop_stalls", "Standstills of the loop that were too long.", load_shedder.lag.stalls)
        yield gauges(
            "xiaozhi_degraded",
            "1 while this is given up because of load.",
            ("step",),
            {step.value: float(step in load_shedder.taken) for step in Step},
        )
        yield counters(
            "xiaozhi_degradations",
            "How often this was given up.",
            ("step",),
            {step.value: load_shedder.times_taken[step] for step in Step},
        )
        yield gauge("xiaozhi_turns_waiting", "Turns that wait because of load.", admission.waiting)
        yield counter("xiaozhi_turns_held", "Turns that had to wait because of load.", admission.held)
        yield counter("xiaozhi_turns_turned_away", "Turns that waited in vain.", admission.turned_away)
        yield gauge(
            "xiaozhi_memory_ratio", "Memory in use, of what may be used.", load_shedder.readings.memory_percent / 100
        )

    def _hearing(self) -> Iterator[Metric]:
        stats = self._services.batcher.stats
        yield counter("xiaozhi_vad_windows", "Windows of 32 ms that the model judged.", stats.windows)
        yield counter("xiaozhi_vad_still_windows", "Windows that needed no model.", stats.still_windows)
        yield counter("xiaozhi_vad_runs", "Runs of the model, each for several devices.", stats.runs)
        yield counter("xiaozhi_vad_wait_seconds", "Time that devices waited for their tick.", stats.wait_s)
        yield counter("xiaozhi_vad_served", "Devices served, summed over ticks.", stats.served)
        yield counter("xiaozhi_vad_late", "Devices that waited longer than they should.", stats.late)
        yield counter("xiaozhi_vad_busy_seconds", "Time in the thread that decodes and judges.", stats.busy_s)
        yield counter("xiaozhi_uplink_packets", "Opus packets heard.", stats.packets)
        yield counter("xiaozhi_uplink_errors", "Packets that were not Opus.", stats.errors)
        echoes = self._services.echoes
        yield counter("xiaozhi_own_voice_held_back", "Times that a device heard itself speak.", echoes.held_back)
        yield counter(
            "xiaozhi_own_voice_let_through", "Of these, times that somebody spoke over it.", echoes.let_through
        )

    def _recognition(self) -> Iterator[Metric]:
        recognition, speculation = self._services.recognition, self._services.speculation
        yield from _pool(recognition.pool, "asr")
        yield counter("xiaozhi_asr_early", "Decodes begun before anybody asked.", recognition.early.begun)
        yield counter("xiaozhi_asr_early_used", "Early decodes that were the answer.", recognition.early.used)
        yield counter("xiaozhi_speculations", "Replies begun before their turn was over.", speculation.started)
        yield counter("xiaozhi_speculations_committed", "Of these, replies that were spoken.", speculation.committed)
        yield counter("xiaozhi_speculations_wasted", "Of these, replies dropped unheard.", speculation.wasted)


def _pool(pool: WorkerPool, name: str) -> Iterator[Metric]:
    yield gauge(f"xiaozhi_{name}_queue_seconds", "Age of the oldest job that waits.", pool.oldest_wait_s())
    yield gauge(f"xiaozhi_{name}_queue_jobs", "Jobs that wait.", pool.waiting)
    yield gauge(f"xiaozhi_{name}_workers_busy", "Threads at work.", pool.workers - pool.idle_workers)
    yield gauge(f"xiaozhi_{name}_workers", "Threads.", pool.workers)
    yield counter(f"xiaozhi_{name}_dropped", "Jobs that went stale before they began.", pool.dropped)


def _channels() -> Iterator[Metric]:
    """Channels of all conversations of the process, by purpose."""
    one = ("channel",)
    depth = {kind.name: float(kind.depth()) for kind in KINDS}
    age = {kind.name: kind.oldest_s() for kind in KINDS}
    yield gauges("xiaozhi_channel_items", "Items that wait between two stages.", one, depth)
    yield gauges("xiaozhi_channel_seconds", "Age of the oldest waiting item.", one, age)
    yield counters("xiaozhi_channel_dropped", "Items dropped.", one, {kind.name: kind.dropped for kind in KINDS})
