"""Everything that decides who comes in and what a device is told at boot; kept up to date while serving."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

from xiaozhi.access.activation import Activation
from xiaozhi.access.addresses import networks
from xiaozhi.access.auth import KeyKeeper, TokenAuth
from xiaozhi.access.firmware import FirmwareShelf
from xiaozhi.access.guests import Guests
from xiaozhi.access.identity import Identity
from xiaozhi.access.page_guard import PageGuard
from xiaozhi.access.rate_limits import RateLimiter
from xiaozhi.access.shared_keys import SharedKeys
from xiaozhi.access.shared_rate_limits import SharedLimiter
from xiaozhi.access.tls import TlsFiles
from xiaozhi.access.token_keys import KeyRing
from xiaozhi.cluster.link import RedisLink
from xiaozhi.settings import Settings
from xiaozhi.store import Store

_log = logging.getLogger(__name__)

# Certificates are renewed every two months, firmware is put there by hand: nobody waits for either.
_LOOK_EVERY_S: Final = 10.0


class AccessControl:
    """Tokens, activation, firmware, limits and the certificate of one server.

    Args:
        settings: all of them.
        store: the devices, and the clients that wait.
        ring: from `load_keys`.
        tls: the certificate; None to serve without.
        link: to what the nodes share; None for a node that is alone.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        ring: KeyRing,
        tls: TlsFiles | None = None,
        link: RedisLink | None = None,
    ) -> None:
        self.token_auth = TokenAuth(settings.auth, ring)
        self.activation = Activation(settings.auth, store)
        self.firmware = FirmwareShelf(settings.ota.firmware_dir, settings.ota.rollout_percent)
        per_minute = settings.server.requests_per_minute
        self.requests = SharedLimiter(per_minute, link, "ota") if link is not None else RateLimiter(per_minute)
        self.upgrades = SharedLimiter(per_minute, link, "connect") if link is not None else RateLimiter(per_minute)
        self.trusted = networks(settings.server.trusted_proxies)
        self.pages = PageGuard(settings, self.trusted)
        """Which web pages may ask what devices ask."""
        self.guests = Guests()
        """Who may connect from the console's talk page."""
        self._keeper = KeyKeeper(self.token_auth, settings.auth, settings.server.data_dir)
        self._tls = tls
        self._shared_keys = SharedKeys(link, settings.server.data_dir) if link is not None else None

    def refusals(self) -> dict[str, float]:
        """Who was not let in since the start, by why."""
        return {
            "ota_rate": self.requests.refused,
            "connect_rate": self.upgrades.refused,
            "token_or_blocked": self.token_auth.refused,
            "new_devices": self.activation.newcomers.refused,
            "activation_key": self.activation.wrong_keys,
            "origin": self.pages.refused,
        }

    def retune(self, settings: Settings) -> None:
        """Other limits and other pages from now on."""
        self.pages.retune(settings)
        for limiter in (self.requests, self.upgrades):
            limiter.per_minute = settings.server.requests_per_minute

    def admits_guest(self, identity: Identity, headers: Mapping[str, str]) -> bool:
        """Whether a client that calls itself a talk page of the console is one."""
        # A page of another site cannot set this header, so it may be believed here whoever sends it.
        host = headers.get("X-Forwarded-Host") or headers.get("Host", "")
        origin = headers.get("Origin", "")
        return self.guests.admits(identity.device_id, identity.token, origin, host, time.monotonic())

    async def refresh(self) -> None:
        """Look once for new firmware, keys and certificates."""
        await self._keeper.refresh()
        await self.agree_on_keys()
        await asyncio.to_thread(self.firmware.scan)
        if self._tls is not None:
            await self._tls.refresh()

    async def agree_on_keys(self) -> None:
        """Sign and check tokens with the keys that all nodes have; with this node's own where Redis does not answer."""
        if self._shared_keys is None:
            return
        try:
            ring = await self._shared_keys.agree(time.time())
        except OSError as error:
            _log.warning("the token keys cannot be shared: %s", error.strerror)
            return
        if ring is not None:
            self.token_auth.ring = ring

    async def watch(self) -> None:
        """Look every 10 s. Runs until cancelled; what goes wrong once is logged and tried again."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - serving goes on with what was there before
                _log.exception("looking for new keys, firmware and certificates failed")
