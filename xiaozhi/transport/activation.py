"""Whose a device is: lists, and the six-digit code that binds a new device to its owner."""

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from xiaozhi.settings import AuthSettings
from xiaozhi.store import Access, Device
from xiaozhi.store.devices import Devices as DeviceTable
from xiaozhi.transport.identity import Identity, normal_id
from xiaozhi.transport.shared_pending import SharedPending

_log = logging.getLogger(__name__)

_MOST_PENDING: Final = 10_000
_CHALLENGE_BYTES: Final = 16
# Parsed but not used by firmware 2.4; what other servers send.
_TIMEOUT_MS: Final = 30_000


class Standing(Enum):
    """What a client may do."""

    ADMITTED = "admitted"
    UNBOUND = "unbound"  # must be activated first; may only be told its code
    BLOCKED = "blocked"


class Poll(Enum):
    """The answer to a device that asks whether it has been activated; the values are HTTP statuses."""

    ACTIVE = 200
    WAITING = 202
    REFUSED = 403


@dataclass(slots=True)
class _Pending:
    challenge: str
    since_s: float


class Activation:
    """Decides about devices by the lists of the settings and by what the store knows of them.

    A bound device is its id and its client id together: the client id is a random one that a device makes on its first
    boot, so somebody who only knows a MAC address has to be bound as well. Where the store knows the key of a device's
    chip, it must also have answered the challenge with it.

    Args:
        settings: the `[auth]` table.
        devices: the store's devices.
        now_s: wall time in seconds.
        shared: what other nodes have given to clients; None for a node that is alone.
    """

    def __init__(
        self,
        settings: AuthSettings,
        devices: DeviceTable,
        now_s: Callable[[], float] = time.time,
        shared: SharedPending | None = None,
    ) -> None:
        self._settings = settings
        self._devices = devices
        self._now_s = now_s
        self._shared = shared
        self._allowed = {normal_id(one) for one in settings.allow}
        self._blocked = {normal_id(one) for one in settings.block}
        self._pending: OrderedDict[tuple[str, str], _Pending] = OrderedDict()
        self.activated = 0
        """Devices that asked and were found bound."""
        self.wrong_keys = 0
        """Answers to a challenge that were made with another key."""

    @property
    def required(self) -> bool:
        """New devices must be bound."""
        return self._settings.mode == "activate"

    async def standing(self, identity: Identity) -> Standing:
        """What this client may do, apart from its token.

        Raises:
            StoreError: the store cannot be read.
        """
        if identity.device_id in self._blocked:
            return Standing.BLOCKED
        device = await self._devices.get(identity.device_id)
        if device is not None and device.access is Access.BLOCKED:
            return Standing.BLOCKED
        if identity.device_id in self._allowed or (device is not None and device.access is Access.ALLOWED):
            return Standing.ADMITTED
        if not self.required:
            return Standing.BLOCKED if self._allowed and (device is None or not device.bound) else Standing.ADMITTED
        if device is None or not device.bound:
            return Standing.UNBOUND
        if device.client_id == identity.client_id:
            return Standing.ADMITTED
        if device.hmac_key or not self._may_adopt(device, await self._pending_of(identity)):
            return Standing.UNBOUND
        await self._adopt(identity)
        return Standing.ADMITTED

    async def _pending_of(self, identity: Identity) -> _Pending | None:
        """What this client has been given, by whichever node."""
        key = (identity.device_id, identity.client_id)
        if key not in self._pending and self._shared is not None and (found := await self._shared.get(*key)):
            self._remember(key, _Pending(*found))
        return self._pending.get(key)

    def _remember(self, key: tuple[str, str], pending: _Pending) -> None:
        self._pending.pop(key, None)
        self._pending[key] = pending
        while len(self._pending) > _MOST_PENDING:
            self._pending.popitem(last=False)

    def _may_adopt(self, device: Device, pending: _Pending | None) -> bool:
        """Whether the device was bound after this very client had been given the code."""
        if not device.client_id:
            return True
        return pending is not None and device.bound_at >= pending.since_s

    async def _adopt(self, identity: Identity) -> None:
        """From now on the device is this client."""
        await self._devices.update(identity.device_id, client_id=identity.client_id)
        self._pending.pop((identity.device_id, identity.client_id), None)
        if self._shared is not None:
            await self._shared.forget(identity.device_id, identity.client_id)
        self.activated += 1
        _log.info("activated", extra={"device": identity.device_id})

    async def code_for(self, identity: Identity) -> str:
        """The six digits that bind this client, the same ones until they expire.

        Raises:
            StoreError: the store cannot be written.
        """
        code = await self._devices.pending_code(identity.device_id)
        key = (identity.device_id, identity.client_id)
        pending = await self._pending_of(identity)
        if pending is None:
            pending = _Pending(secrets.token_hex(_CHALLENGE_BYTES), self._now_s())
            if self._shared is not None:
                await self._shared.put(*key, pending.challenge, pending.since_s)
        self._remember(key, pending)
        return code

    async def section(self, identity: Identity, where: str) -> dict[str, object]:
        """The `activation` section of the OTA answer: the device speaks and shows it, then polls.

        Args:
            identity: who asks.
            where: what to do with the code, in so few words that a screen 200 pixels wide has room for them: where the
                console is.

        Raises:
            StoreError: the store cannot be written.
        """
        code = await self.code_for(identity)
        challenge = self._pending[identity.device_id, identity.client_id].challenge
        return {"code": code, "message": f"{where}\n{code}", "challenge": challenge, "timeout_ms": _TIMEOUT_MS}

    async def poll(self, identity: Identity, body: Mapping[str, Any]) -> Poll:
        """A device asks whether it has been bound.

        Args:
            identity: who asks.
            body: empty, or serial number, challenge and HMAC; desktop clients wrap them in `Payload`.

        Raises:
            StoreError: the store cannot be read or written.
        """
        standing = await self.standing(identity)
        if standing is Standing.BLOCKED:
            return Poll.REFUSED
        if not self.required:
            return Poll.ACTIVE
        device = await self._devices.get(identity.device_id)
        pending = await self._pending_of(identity)
        if device is not None and device.hmac_key and not _proves(device.hmac_key, pending, body):
            self.wrong_keys += 1
            return Poll.REFUSED
        if standing is Standing.ADMITTED:
            return Poll.ACTIVE
        if device is not None and device.bound and self._may_adopt(device, pending):
            await self._adopt(identity)
            return Poll.ACTIVE
        return Poll.WAITING


def _proves(key: bytes, pending: _Pending | None, body: Mapping[str, Any]) -> bool:
    """Whether the challenge that was given to this client was answered with the device's key."""
    payload = body.get("Payload")
    answer: Mapping[str, Any] = payload if isinstance(payload, dict) else body
    digest = answer.get("hmac")
    if pending is None or not isinstance(digest, str):
        return False
    challenge = pending.challenge.encode()
    # Chips use the key's bytes, desktop clients the text of its hexadecimal digits.
    expected = [hmac.new(form, challenge, hashlib.sha256).hexdigest() for form in (key, key.hex().encode())]
    matches = [hmac.compare_digest(digest.lower().encode("utf-8", "replace"), one.encode()) for one in expected]
    return any(matches)


def spoken_code(code: str, *, chinese: bool) -> str:
    """What a device that connects without having been bound is told: the digits one by one, twice. Pure."""
    pause, stop = ("，", "。") if chinese else (", ", ". ")
    digits = pause.join(code)
    if chinese:
        return f"这台设备还没有绑定{stop}请输入验证码{stop}{digits}{stop}再说一遍{stop}{digits}{stop}"
    return f"This device is not bound yet{stop}Please enter the code{stop}{digits}{stop}Once more{stop}{digits}{stop}"
