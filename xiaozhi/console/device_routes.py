"""The console's calls about devices, what was said to them and what they keep in mind."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from xiaozhi.access.addresses import OTA_PATH, base_of, is_loopback
from xiaozhi.access.guests import is_guest
from xiaozhi.access.identity import normal_id
from xiaozhi.access.lan import reachable_host
from xiaozhi.console.board import Board
from xiaozhi.console.request_guard import Refused, answer, body_of, number_of, text_of
from xiaozhi.conversation.services import Services
from xiaozhi.http.openapi import takes
from xiaozhi.store import DeviceAccess, DeviceRecord, PendingClient
from xiaozhi.transport.connected_devices import ConnectedDevices

_LONGEST: Final = 200
_LONGEST_SAYING: Final = 300
_MAX_DEVICES: Final = 20_000
# The sentence is spoken to its end before the call is answered; a long one goes on without it.
_SAID_S: Final = 30.0
# What somebody types is meant, but need not be said this very second.
_PATIENCE_S: Final = 8.0
_PRIORITIES: Final = ("", "high", "low")
_WRITABLE: Final = ("name", "room", "owner", "agent", "language", "priority")


# What becomes of a sentence on a device that sleeps, as its announcer has it; everything else is said to have failed.
_TOLD_ASLEEP: Final = ("spoken", "interrupted", "shown")


class DeviceRoutes:
    """Answers the pages for devices.

    Args:
        services: store and agents.
        online: who is connected.
        board: turns, and is told of new names.
    """

    def __init__(self, services: Services, online: ConnectedDevices, board: Board) -> None:
        self._services = services
        self._store = services.store
        self._online = online
        self._board = board
        self._lan_host = reachable_host(services.settings.server.host)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the calls."""
        router.add_get("/api/devices", self.devices)
        router.add_post("/api/devices/bind", self.bind)
        router.add_patch("/api/devices/{id}", self.change)
        router.add_delete("/api/devices/{id}", self.remove)
        router.add_post("/api/devices/{id}/say", self.say)
        router.add_get("/api/devices/{id}/turns", self.turns)
        router.add_delete("/api/devices/{id}/turns", self.clear)
        router.add_get("/api/devices/{id}/memories", self.memories)
        router.add_post("/api/devices/{id}/memories", self.remember)
        router.add_delete("/api/devices/{id}/memories/{number:[0-9]{1,18}}", self.forget)

    # Devices ------------------------------------------------------------------------------------------------------

    async def devices(self, request: web.Request) -> web.Response:
        """Every device that was ever seen, and those that are connected; and what a new one has to be told."""
        online = self._online.online()
        known = await self._store.devices.list()
        pending = await self._store.pending.list()
        rows = [self._row(device, online, pending) for device in known[:_MAX_DEVICES]]
        seen = {device.id for device in known}
        rows += [self._row(DeviceRecord(name), online) for name in sorted(online - seen) if not is_guest(name)]
        rows.sort(key=lambda row: not row["online"])
        settings = self._services.settings
        base = base_of(request, settings.server, self._lan_host)
        if is_loopback(base):  # a browser on this machine; no device reaches that
            base = base.replace(urlsplit(base).hostname or "", self._lan_host, 1)
        return answer({"devices": rows, "ota_url": base + OTA_PATH, "needs_code": settings.auth.mode == "activate"})

    def _row(
        self, device: DeviceRecord, online: frozenset[str], pending: Sequence[PendingClient] = ()
    ) -> dict[str, Any]:
        return {
            "id": device.id,
            "name": device.name,
            "room": device.room,
            "owner": device.owner,
            "board": device.board,
            "firmware": device.firmware,
            "agent": device.agent,
            "language": device.language,
            "online": device.id in online,
            "last_seen": device.last_seen or None,
            "bound": device.bound,
            "allowed": device.access is DeviceAccess.ALLOWED,
            "blocked": device.access is DeviceAccess.BLOCKED,
            "priority": device.priority,
            # Other clients that want to be it; a new device has only its own, whose code proves that somebody sees it.
            "waiting": [
                {"code": one.code, "address": one.address}
                for one in pending
                if one.device == device.id and device.client_id
            ],
        }

    @takes(code=(str, ...), owner=(str, ""))
    async def bind(self, request: web.Request) -> web.Response:
        """Bind the device that shows this code."""
        body = await body_of(request)
        code, owner = text_of(body, "code", 40), text_of(body, "owner", _LONGEST, default="")
        device = await self._store.pending.bind(code, owner=owner)
        if device is None:
            raise Refused(422, "no device shows this code now; codes change every ten minutes")
        self._board.renamed(device.id)
        return answer(self._row(device, self._online.online()))

    @takes(
        name=(str, ""), room=(str, ""), owner=(str, ""), agent=(str, ""), language=(str, ""), priority=(str, ""),
        blocked=(bool, None), allowed=(bool, None), bound=(bool, None),
    )  # fmt: skip
    async def change(self, request: web.Request) -> web.Response:
        """Change what people decide about a device."""
        device = await self._known(request)
        body = await body_of(request)
        words = {name: text_of(body, name, _LONGEST) for name in _WRITABLE if name in body}
        if (agent := words.get("agent")) and agent not in self._services.roster:
            raise Refused(422, f"there is no agent {agent!r}")
        if words.get("priority", "") not in _PRIORITIES:
            raise Refused(422, f"priority must be one of {', '.join(_PRIORITIES[1:])}, or empty")
        flags: dict[str, Any] = {name: body[name] for name in ("blocked", "allowed", "bound") if name in body}
        if not all(isinstance(flag, bool) for flag in flags.values()):
            raise Refused(422, "blocked, allowed and bound must be true or false")
        if flags.get("bound") is True:
            raise Refused(422, "a device is bound by its code, or let in with allowed")
        if unknown := set(body) - set(words) - set(flags):
            raise Refused(422, f"cannot be changed: {', '.join(sorted(unknown))}"[:200])
        if words:
            try:
                device = await self._store.devices.update(device.id, **words)
            except ValueError as error:
                raise Refused(422, str(error)) from None
        device = await self._decide(device, flags)
        self._board.renamed(device.id)
        return answer(self._row(device, self._online.online()))

    async def _decide(self, device: DeviceRecord, flags: Mapping[str, bool]) -> DeviceRecord:
        devices = self._store.devices
        if flags.get("bound") is False:
            device = await devices.unbind(device.id)
        if flags.get("blocked"):
            device = await devices.block(device.id)
            self._online.hang_up(device.id, "blocked on the console")
        elif flags.get("allowed"):
            device = await devices.allow(device.id)
        elif "blocked" in flags or "allowed" in flags:
            device = await devices.unlist(device.id)
        return device

    async def remove(self, request: web.Request) -> web.Response:
        """Delete a device and everything that is known of it."""
        device = await self._known(request)
        self._online.hang_up(device.id, "removed on the console")
        await self._store.devices.remove(device.id)
        self._board.ring.forget(device.id)
        self._board.renamed(device.id)
        return answer({"removed": device.id})

    @takes(text=(str, ...))
    async def say(self, request: web.Request) -> web.Response:
        """Have a connected device say a sentence; answered when it has been said, or is not going to be."""
        name = _id(request)
        text = text_of(await body_of(request), "text", _LONGEST_SAYING).strip()
        if not text:
            raise Refused(422, "text must not be empty")
        connection = self._online.find(name)
        if self._online.asleep(name) is not None:
            (result,) = (await self._services.announce(text, [name], "")).values()
            return answer({"told": result if result in _TOLD_ASLEEP else "dropped"})
        if connection is None:
            raise Refused(409, "this device is not connected")
        told = connection.say(text, _PATIENCE_S)
        try:
            async with asyncio.timeout(_SAID_S):
                outcome = (await asyncio.shield(told)).value
        except TimeoutError:
            outcome = "speaking"
        return answer({"told": outcome})

    async def _known(self, request: web.Request) -> DeviceRecord:
        device = await self._store.devices.get(_id(request))
        if device is None:
            raise Refused(404, "there is no such device")
        return device

    # What was said ------------------------------------------------------------------------------------------------

    async def turns(self, request: web.Request) -> web.Response:
        """The newest turns of a device."""
        limit, before = number_of(request, "limit", 50, 500), number_of(request, "before", 0, 1 << 62)
        return answer({"turns": await self._board.turns(_id(request), limit, before)})

    async def clear(self, request: web.Request) -> web.Response:
        """Forget what was said to a device."""
        device = await self._known(request)
        gone = await self._store.turns.clear(device.id)
        self._board.ring.forget(device.id)
        return answer({"removed": gone})

    async def memories(self, request: web.Request) -> web.Response:
        """What a device was told to keep in mind."""
        kept = await self._store.memories.list(_id(request))
        return answer({"memories": [dataclasses.asdict(memory) for memory in kept]})

    @takes(text=(str, ...))
    async def remember(self, request: web.Request) -> web.Response:
        """Have a device keep something in mind."""
        device = await self._known(request)
        try:
            memory = await self._store.memories.add(device.id, text_of(await body_of(request), "text", 500))
        except ValueError as error:
            raise Refused(422, str(error)) from None
        return answer(dataclasses.asdict(memory))

    async def forget(self, request: web.Request) -> web.Response:
        """Forget one thing of a device."""
        if not await self._store.memories.remove(_id(request), int(request.match_info["number"])):
            raise Refused(404, "there is no such memory")
        return answer({"removed": int(request.match_info["number"])})


def _id(request: web.Request) -> str:
    name = request.match_info["id"]
    if len(name) > 100 or not name.isprintable():
        raise Refused(404, "there is no such device")
    return normal_id(name)
