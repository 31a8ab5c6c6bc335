"""Connections that do nothing, by the hundred: what each costs the server in memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from bench.first_word import settings_toml
from bench.harness import ServerProcess, server_process
from bench.mqtt_device import MqttDevice
from bench.sense_voice_model import build_tiny
from xiaozhi.client.handset import Handset
from xiaozhi.client.link import device_session
from xiaozhi.client.ota import ClientIdentity

# So many calls at once, like a house after a power cut, without overrunning the backlog.
_AT_ONCE: Final = 50
# Nobody listens there: the first turn would find out, and these benches have none.
_NOWHERE: Final = "http://127.0.0.1:9"
# After connections change, memory is read once it has not changed for this long.
_STILL_S: Final = 1.0
_STILL_MB: Final = 0.05
_STILL_WITHIN_S: Final = 15.0


@asynccontextmanager
async def quiet_server(*sets: str) -> AsyncIterator[ServerProcess]:
    """A server with a small recogniser, for what does not depend on the model; its first device has come and gone.

    Args:
        sets: single settings, as `table.name=value`.
    """
    with tempfile.TemporaryDirectory(prefix="xiaozhi-bench-") as folder:
        model = Path(folder) / "model"
        await asyncio.to_thread(build_tiny, model)
        async with server_process(settings_toml(_NOWHERE, _NOWHERE, model), sets=sets) as server:
            async with connected(server, 1):
                pass
            yield server


@asynccontextmanager
async def connected(
    server: ServerProcess,
    count: int,
    progress: Callable[[int], None] = lambda _count: None,
    *,
    asleep: bool = False,
) -> AsyncIterator[list[Handset]]:
    """So many devices that have said hello and nothing more, or sleep by MQTT; they hang up at the end.

    Args:
        server: to connect to.
        count: how many.
        progress: told how many are there.
        asleep: they have asked the OTA address, are connected by MQTT and have no channel.

    Raises:
        ConnectFailed: the server refused one.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(device_session())
        doors = asyncio.Semaphore(_AT_ONCE)
        kind = MqttDevice if asleep else Handset
        devices = [kind(ClientIdentity.numbered(number), session=session) for number in range(1, count + 1)]
        there = 0

        async def call(device: Handset) -> None:
            nonlocal there
            async with doors:
                if isinstance(device, MqttDevice):
                    await device.start(f"{server.base_url}/xiaozhi/ota/")
                else:
                    await device.connect(server.url)
            there += 1
            progress(there)

        try:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for device in devices:
                        tasks.create_task(call(device))
            except ExceptionGroup as refused:
                raise refused.exceptions[0] from refused
            yield devices
        finally:
            await asyncio.gather(*(device.close() for device in devices))


async def settled_mb(server: ServerProcess) -> float:
    """The server's memory in MB once it stands still, or after 15 s."""
    before = server.rss_mb()
    for _ in range(int(_STILL_WITHIN_S / _STILL_S)):
        await asyncio.sleep(_STILL_S)
        now = server.rss_mb()
        if abs(now - before) < _STILL_MB:
            return now
        before = now
    return before
