"""What every test gets: a leaked task fails it, and a leaked process ends with the run."""

import asyncio
import gc
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import pytest
from aiohttp import web_app
from hypothesis import HealthCheck, settings

from tests import leftovers, made_once
from tests.virtual_loop import VirtualLoop, at_work
from xiaozhi.models.resolver import DaemonResolver
from xiaozhi.store.database import Database

# How fast an example is made or run says how busy the machine is, not whether anything is right.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Have every process that tests start end with the run, even with one that is killed."""
    if hasattr(config, "workerinput"):  # one of several workers: it is marked and ends itself
        return
    if (watcher := leftovers.watch()) is not None:
        config.add_cleanup(lambda: watcher.__exit__(None, None, None))  # closes its input and waits for its end


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time is virtual wherever a test does not say that it must be real."""
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True, scope="session")
def _own_threads_are_seen() -> Iterator[None]:
    """The store has a thread of its own and so has each look-up of a name, which a virtual loop would not know of."""
    ask = Database._ask

    async def seen(self: Database, call: Any, *, writes: bool, durable: bool) -> Any:
        with at_work(asyncio.get_running_loop()):
            return await ask(self, call, writes=writes, durable=durable)

    resolve = DaemonResolver.resolve

    async def looked_up(self: DaemonResolver, *args: Any, **options: Any) -> Any:
        with at_work(asyncio.get_running_loop()):
            return await resolve(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "_ask", seen)
        patch.setattr(DaemonResolver, "resolve", looked_up)
        yield


@pytest.fixture(autouse=True, scope="session")
def _what_stays_the_same_is_made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        made_once.share(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def _ended_servers_are_let_go() -> Iterator[None]:
    """aiohttp remembers 1,024 routes with the application of each: 20 servers of 5 MB, where a process has one."""
    few = lru_cache(maxsize=8)(web_app._build_middlewares)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_app, "_cached_build_middleware", few)
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin what waits first: each of the parallel workers gets a stretch of the list, so they are dealt out."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    waiting = [item for item in items if item.get_closest_marker("real_time")]
    others = [item for item in items if not item.get_closest_marker("real_time")]
    items[:] = [
        item
        for first in range(workers)
        for item in (
            *waiting[first::workers],
            *others[first * len(others) // workers : (first + 1) * len(others) // workers],
        )
    ]


def pytest_collection_finish() -> None:
    """What has been imported and collected stays to the end: the garbage collector need not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def _no_leaked_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(5):  # tasks that end on their own in the same breath are no leaks
        await asyncio.sleep(0)
    leaked = [task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()]
    for task in leaked:
        task.cancel()
    await asyncio.gather(*leaked, return_exceptions=True)
    assert not leaked, f"tasks left running: {[task.get_name() for task in leaked]}"


@pytest.fixture(autouse=True)
def _watch_tasks(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_leaked_tasks")
