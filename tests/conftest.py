"""What every test gets: a leaked task fails it, and a leaked process ends with the run."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator

import pytest

from tests import leftovers


def pytest_configure(config: pytest.Config) -> None:
    """Have every process that tests start end with the run, even with one that is killed."""
    if hasattr(config, "workerinput"):  # one of several workers: it is marked and ends itself
        return
    if (watcher := leftovers.watch()) is not None and watcher.stdin is not None:
        config.add_cleanup(watcher.wait)
        config.add_cleanup(watcher.stdin.close)  # the last that is added is the first that is called


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin what takes long first: each of the parallel workers gets a stretch of the list, so they are dealt out."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    stretches = [long[first::workers] for first in range(workers)]
    taken = 0
    items.clear()
    for number, stretch in enumerate(stretches):
        until = (number + 1) * (len(long) + len(others)) // workers - len(items) - len(stretch)
        items += [*stretch, *others[taken : taken + until]]
        taken += until


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
