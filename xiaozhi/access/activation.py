"""Who may be a device: lists, the one client that is pinned to it, and the six-digit code that lets another one in."""

import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from xiaozhi.access.identity import Identity, normal_id
from xiaozhi.access.rate_limits import Newcomers, OncePer, bucket_of
from xiaozhi.program import program
from xiaozhi.settings import AuthSettings
from xiaozhi.store import DeviceAccess, DeviceRecord, NoRoom, PendingClient, Store
from xiaozhi.store.devices import NO_CLIENT_ID, UNPROVEN
from xiaozhi.store.pending import CODE_TTL_S

_log = logging.getLogger(__name__)

# Parsed but not used by firmware 2.4; what other servers send.
_TIMEOUT_MS: Final = 30_000
_WANTS_IN: Final = (
    "another Client-Id wants to be this device, from %s, and shows the code %s; let it in on the console or with"
    " `%s devices release %s` if the board was erased"
)
_SAID_EVERY_S: Final = 60.0
# Who has come by a token of `auth.tokens` and gives no client id: nobody else can be this device by giving none.
_BY_TOKEN: Final = "!"


class Crowded(Exception):
    """Too many new devices have come, or wait to be let in.

    Attributes:
        wait_s: when to come again.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many new devices")
        self.wait_s = wait_s


class Standing(Enum):
    """What a client may do."""

    ADMITTED = "admitted"
    UNBOUND = "unbound"  # must be let in first; may only be told its code
    BLOCKED = "blocked"


class Poll(Enum):
    """The answer to a device that asks whether it has been activated; the values are HTTP statuses."""

    ACTIVE = 200
    WAITING = 202
    REFUSED = 403


class Activation:
    """Decides who may be a device, by the lists of the settings and by what the store knows.

    A device is its id and its client id together: the client id is a random one that a device makes on its first boot,
    and the first one that comes is pinned. So somebody who only knows a MAC address is not the device: he is told a
    code of his own, and is let in when its owner enters that. The same happens to a board that was erased. Where the
    store knows the key of a device's chip, it must also have answered the challenge with it.

    Args:
        settings: the `[auth]` table.
        store: the devices, and the clients that wait.
    """

    def __init__(self, settings: AuthSettings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._allowed = {normal_id(one) for one in settings.allow}
        self._blocked = {normal_id(one) for one in settings.block}
        self.newcomers = Newcomers(settings.new_devices_per_hour)
        """How many may come that were never seen."""
        self._said = OncePer(_SAID_EVERY_S)
        self.activated = 0
        """Devices that asked and were found let in."""
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
        return self._standing(identity, await self._store.devices.get(identity.device_id))

    def _standing(self, identity: Identity, device: DeviceRecord | None) -> Standing:
        listed = identity.device_id in self._allowed or (device is not None and device.access is DeviceAccess.ALLOWED)
        bound = device is not None and device.bound
        if identity.device_id in self._blocked or (device is not None and device.access is DeviceAccess.BLOCKED):
            return Standing.BLOCKED
        if not (listed or bound or self.required or not self._allowed):
            return Standing.BLOCKED
        if self._settings.mode == "open":
            return Standing.ADMITTED
        if self.required and not (listed or bound):
            return Standing.UNBOUND
        pinned = device.client_id if device is not None else ""
        return Standing.ADMITTED if pinned in ("", _pin_of(identity)) else Standing.UNBOUND

    async def sends_echo(self, identity: Identity) -> bool:
        """Whether it has said that it leaves the echo of its loudspeaker to the server. Raises `StoreError`."""
        device = await self._store.devices.get(identity.device_id)
        return device is not None and device.aec

    async def knows(self, identity: Identity) -> bool:
        """Whether this client is a device that somebody has let in, or has talked to. Raises `StoreError`."""
        device = await self._store.devices.get(identity.device_id)
        known = device is not None and (device.bound or device.talked)
        return known and self._standing(identity, device) is Standing.ADMITTED

    async def enter(self, identity: Identity, address: str, *, configured: bool) -> Standing:
        """As `standing`, for a client that connects: the first one of a device is pinned to it.

        Args:
            identity: who connects.
            address: where from.
            configured: it shows a token that the owner has typed into it, and may be any device that is not blocked.

        Raises:
            Crowded: it is new, and too many are.
            StoreError: the store cannot be read.
        """
        device = await self._store.devices.get(identity.device_id)
        standing = self._standing(identity, device)
        if configured and standing is Standing.UNBOUND:
            standing = Standing.ADMITTED
        if standing is not Standing.ADMITTED or self._settings.mode == "open" or identity.is_anonymous:
            return standing
        if device is None:
            self._let_come(address)
        if device is None or not device.client_id:
            with self._room_for(identity):
                device = await self._store.devices.pin(identity.device_id, _pin_of(identity, configured=configured))
        return standing if configured else self._standing(identity, device)

    def _let_come(self, address: str) -> None:
        if wait_s := self.newcomers.wait_s(address, time.monotonic()):
            raise Crowded(wait_s)

    @contextlib.contextmanager
    def _room_for(self, identity: Identity) -> Iterator[None]:
        try:
            yield
        except NoRoom as error:
            if self._said.allows("", time.monotonic()):
                _log.error("a new device is turned away: %s", error, extra={"device": identity.device_id})
            raise Crowded(CODE_TTL_S) from None

    async def code_for(self, identity: Identity, address: str) -> PendingClient:
        """What lets this client in: the six digits and the challenge, the same ones until they expire.

        Raises:
            Crowded: it is new and too many are, or too many wait.
            StoreError: the store cannot be written.
        """
        if await self._store.devices.get(identity.device_id) is None:
            self._let_come(address)
        with self._room_for(identity):
            return await self._store.pending.ask(identity.device_id, _pin_of(identity), address=bucket_of(address))

    async def section(self, identity: Identity, address: str, where: str, *, chinese: bool) -> dict[str, object]:
        """The `activation` section of the OTA answer: the device speaks and shows it, then polls.

        Args:
            identity: who asks.
            address: where from.
            where: what to do with the code, in so few words that a screen 200 pixels wide has room for them: where the
                console is.
            chinese: the language of the device.

        Raises:
            Crowded, StoreError: as `code_for`.
        """
        pending = await self.code_for(identity, address)
        lines = [where, pending.code]
        if await self._is_taken(identity):
            lines.insert(0, "身份变了，请到此放行" if chinese else "New client, let in at")
            if self._said.allows(identity.device_id, time.monotonic()):
                name = identity.device_id
                _log.warning(_WANTS_IN, address, pending.code, program(), name, extra={"device": name})
        message = "\n".join(lines)
        return {"code": pending.code, "message": message, "challenge": pending.challenge, "timeout_ms": _TIMEOUT_MS}

    async def notice(self, identity: Identity, address: str, *, chinese: bool) -> str:
        """What a client that connects without having been let in is told. Raises as `code_for`."""
        pending = await self.code_for(identity, address)
        return spoken_code(pending.code, chinese=chinese, taken=await self._is_taken(identity))

    async def _is_taken(self, identity: Identity) -> bool:
        device = await self._store.devices.get(identity.device_id)
        return device is not None and device.client_id not in ("", _pin_of(identity), UNPROVEN + _pin_of(identity))

    async def poll(self, identity: Identity, body: Mapping[str, Any]) -> Poll:
        """A device asks whether it has been let in.

        Args:
            identity: who asks.
            body: empty, or serial number, challenge and HMAC; desktop clients wrap them in `Payload`.

        Raises:
            StoreError: the store cannot be read or written.
        """
        device = await self._store.devices.get(identity.device_id)
        standing = self._standing(identity, device)
        if standing is Standing.BLOCKED:
            return Poll.REFUSED
        if device is not None and device.hmac_key and (self.required or standing is Standing.UNBOUND):
            if not _proves(device.hmac_key, await self._store.pending.find(device.id, _pin_of(identity)), body):
                self.wrong_keys += 1
                return Poll.REFUSED
            if device.client_id == UNPROVEN + _pin_of(identity):
                device = await self._store.devices.update(device.id, client_id=_pin_of(identity))
                standing = self._standing(identity, device)
        if standing is not Standing.ADMITTED:
            return Poll.WAITING
        if self.required:
            self.activated += 1
            _log.info("activated", extra={"device": identity.device_id})
        return Poll.ACTIVE


def _pin_of(identity: Identity, *, configured: bool = False) -> str:
    return identity.client_id or (_BY_TOKEN if configured else NO_CLIENT_ID)


def _proves(key: bytes, pending: PendingClient | None, body: Mapping[str, Any]) -> bool:
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


def spoken_code(code: str, *, chinese: bool, taken: bool = False) -> str:
    """What a device that connects without having been let in is told: the digits one by one, twice. Pure.

    Args:
        code: six digits.
        chinese: the language.
        taken: another client is this device.
    """
    pause, stop = ("，", "。") if chinese else (", ", ". ")
    digits = pause.join(code)
    if chinese:
        why = "这台设备的身份变了。请在控制台放行，或者输入验证码" if taken else "这台设备还没有绑定。请输入验证码"
        return f"{why}{stop}{digits}{stop}再说一遍{stop}{digits}{stop}"
    why = (
        "This device has a new identity. Let it in on the console, or enter the code"
        if taken
        else ("This device is not bound yet. Please enter the code")
    )
    return f"{why}{stop}{digits}{stop}Once more{stop}{digits}{stop}"
