"""What the pages look at: listens to turns and log lines, samples figures, spreads them to the pages that are open."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from xiaozhi.access.guests import is_guest
from xiaozhi.console.hub import Hub
from xiaozhi.console.log_lines import LogLines
from xiaozhi.console.overview import Alerts, gauges, hearing, overview
from xiaozhi.console.records import TurnRing, joined, live_record, named, stored_record
from xiaozhi.console.secret_values import secrets_of
from xiaozhi.console.series import SAMPLE_EVERY_S, Series, figures_of
from xiaozhi.conversation.services import Services
from xiaozhi.overload.usage import CpuMeter
from xiaozhi.store import StoreError
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.turn.trace import TurnTrace

_log = logging.getLogger(__name__)

_PUBLISH_EVERY_S: Final = 2.0
_TICK_S: Final = 1.0
_NAMES: Final = 2000
_NAME_FRESH_S: Final = 30.0
_GUEST_NAME: Final = "Console"
# Pages get at most so many log lines a second; a flood (level debug) would only push them off the hub.
_LINES_A_SECOND: Final = 50
_MAX_TURNS: Final = 500


class Board:
    """Collects what the pages show.

    Args:
        services: what is read.
        devices: who is connected.
        alerts: what holds now.
        progress: of models that are being fetched.
    """

    def __init__(
        self,
        services: Services,
        devices: ConnectedDevices,
        alerts: Alerts,
        progress: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        settings = services.settings.console
        self.hub = Hub()
        self.series = Series()
        self.ring = TurnRing(settings.turns)
        self.alerts = alerts
        self.lines = LogLines(settings.log_lines, secrets_of(services.settings), transcripts=settings.transcripts)
        self.lines.on_line = self._on_line
        self._services = services
        self._devices = devices
        self._transcripts = settings.transcripts
        self._cpu = CpuMeter()
        self._names: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._told: dict[str, Any] = {}
        self._progress = progress
        self._models_told: dict[str, Any] = {}
        self._lines_told = 0
        self._running: asyncio.Task[None] | None = None
        self._naming: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to listen."""
        self._services.on_turn.append(self._on_turn)
        logging.getLogger().addHandler(self.lines)
        self._running = asyncio.get_running_loop().create_task(self._run(), name="console")

    async def close(self) -> None:
        """Stop listening and end every stream."""
        logging.getLogger().removeHandler(self.lines)
        if self._on_turn in self._services.on_turn:
            self._services.on_turn.remove(self._on_turn)
        self.hub.close()
        tasks = [*self._naming, *([self._running] if self._running is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What is shown ------------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """The figures of this moment, without the plots."""
        now_s = asyncio.get_running_loop().time()
        shown = overview(self._services, self.series, len(self._devices), self._cpu, self.alerts, now_s)
        return {**shown, **self.models()}

    def models(self) -> dict[str, Any]:
        """Models on their way, and what is understood with the one in use."""
        return {"pulls": self._progress(), "hearing": hearing(self._services)}

    async def turns(self, device_id: str = "", limit: int = 50, before: int = 0) -> list[dict[str, Any]]:
        """Turns of memory and store, the newest first; memory alone where the store cannot be read."""
        limit = max(1, min(_MAX_TURNS, limit))
        kept: list[dict[str, Any]] = []
        try:
            stored = await self._services.store.turns.list(device_id, limit=limit, before=before)
            kept = [stored_record(turn, transcripts=self._transcripts) for turn in stored]
        except StoreError as error:
            _log.debug("%s", error)  # the store has said it already
        found = joined(self.ring.find(device_id, before), kept, limit)
        return [named(record, await self.name_of(record["device"])) for record in found]

    async def name_of(self, device_id: str) -> str:
        """What people call a device; empty where it has no name."""
        if is_guest(device_id):
            return _GUEST_NAME
        now_s = time.monotonic()
        name, read_s = self._names.get(device_id, ("", -_NAME_FRESH_S))
        if now_s - read_s >= _NAME_FRESH_S:
            try:
                device = await self._services.store.devices.get(device_id)
                name = device.name if device is not None else ""
            except StoreError as error:
                _log.debug("%s", error)
            self._names[device_id] = (name, now_s)
            while len(self._names) > _NAMES:
                self._names.popitem(last=False)
        return name

    def renamed(self, device_id: str) -> None:
        """A device may have another name now."""
        self._names.pop(device_id, None)

    def settings_changed(self) -> None:
        """There may be new secrets that must not be shown."""
        self.lines.forget(secrets_of(self._services.settings))

    # What happens -------------------------------------------------------------------------------------------------

    def _on_turn(self, device_id: str, trace: TurnTrace) -> None:
        loop = asyncio.get_running_loop()
        self.series.add(figures_of(trace, loop.time()))
        self.series.spoke(trace, loop.time())
        record = live_record(self._services.store.turns.last_id, device_id, trace, transcripts=self._transcripts)
        self.ring.add(record)
        if len(self.hub):
            task = loop.create_task(self._tell_turn(record), name="console-turn")
            self._naming.add(task)
            task.add_done_callback(self._naming.discard)

    async def _tell_turn(self, record: dict[str, Any]) -> None:
        self.hub.publish("turn", named(record, await self.name_of(record["device"])))

    def _on_line(self, line: dict[str, Any]) -> None:
        self._lines_told += 1
        if self._lines_told <= _LINES_A_SECOND:
            self.hub.publish("log", line)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        sampled_s = published_s = loop.time()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = loop.time()
            self._lines_told = 0
            try:
                if now_s - sampled_s >= SAMPLE_EVERY_S - _TICK_S / 2.0:
                    sampled_s = now_s
                    self._sample(now_s)
                if len(self.hub) and now_s - published_s >= _PUBLISH_EVERY_S - _TICK_S / 2.0:
                    published_s = now_s
                    self.hub.publish("overview", self.overview())
                self._tell_alerts()
                if len(self.hub) and (models := self.models()) != self._models_told:
                    self._models_told = models
                    self.hub.publish("models", models)
            except Exception:  # noqa: BLE001 - the pages go on; it is logged whole
                _log.exception("the console's figures failed")

    def _sample(self, now_s: float) -> None:
        read = gauges(self._services, len(self._devices), self._cpu)
        point = {name: read[name] for name in ("asr_queue_ms", "loop_lag_ms", "cpu_percent", "memory_mb")}
        self.series.sample(now_s, time.time(), {"devices": read["devices_online"], **point})

    def _tell_alerts(self) -> None:
        holding = {str(alert["name"]): dict(alert) for alert in self.alerts()}
        for name, alert in holding.items():
            if name not in self._told:
                self.hub.publish("alert", {**alert, "active": True})
        for name, alert in self._told.items():
            if name not in holding:
                self.hub.publish("alert", {**alert, "active": False})
        self._told = holding
