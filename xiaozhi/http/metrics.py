"""`/metrics`: figures for Prometheus, for those who may see them."""

import asyncio
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from xiaozhi.access.addresses import Network, address_of, is_in, networks
from xiaozhi.access.own_token import shows
from xiaozhi.settings import MetricsSettings

METRICS_PATH: Final = "/metrics"


class Watchers:
    """Who may look at figures: addresses of the settings, or whoever shows the token.

    Args:
        settings: the `[metrics]` table.
        proxies: whose word about a client's address counts.
    """

    def __init__(self, settings: MetricsSettings, proxies: Sequence[Network]) -> None:
        self._networks = networks(settings.allow)
        self._token = settings.token.get_secret_value()
        self._proxies = proxies

    def admit(self, request: web.Request) -> bool:
        """Whether this request may see figures."""
        return shows(request, self._token) or is_in(address_of(request, self._proxies), self._networks)


class MetricsRoutes:
    """Answers scrapes.

    Args:
        registry: what is shown.
        watchers: to whom.
    """

    def __init__(self, registry: CollectorRegistry, watchers: Watchers) -> None:
        self._registry = registry
        self._watchers = watchers

    async def show(self, request: web.Request) -> web.Response:
        """All figures, in the format that the scraper asks for."""
        if not self._watchers.admit(request):
            return web.Response(status=403, text="not for this address; see [metrics] in settings.toml\n")
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        end = encode(_Families([]))  # of the whole text, in the formats that have one
        parts = []
        for family in self._registry.collect():  # each is read as it is asked for
            parts.append(encode(_Families([family])).removesuffix(end))
            await asyncio.sleep(0)  # all together would hold up everybody's sound for some ms
        return web.Response(body=b"".join([*parts, end]), headers={"Content-Type": content_type})


class _Families(Collector):
    """What one piece of the text is made from."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """As `Collector` says."""
        return self._families
