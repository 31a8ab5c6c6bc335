"""A test run that is killed leaves no process behind: no server that holds a port, no browser, no upstream."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="follows processes the Linux way")

REPOSITORY = Path(__file__).resolve().parents[1]


def children(pid: int) -> list[int]:
    """A process's children and theirs."""
    direct = [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]
    return direct + [grandchild for child in direct for grandchild in children(child)]


def test_what_a_killed_run_has_started_ends_with_it(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1", "tests/leaving_processes.py"]
    environment = {**os.environ, "LEFT_IN": str(tmp_path)}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    with (tmp_path / "out").open("wb") as out:
        run = subprocess.Popen(words, cwd=REPOSITORY, env=environment, stdout=out, stderr=out)
    try:
        while not (tmp_path / "pids").exists():
            with pytest.raises(subprocess.TimeoutExpired):  # it has not ended
                run.wait(0.1)
        family = children(run.pid)
        server, apart, worker = map(int, (tmp_path / "pids").read_text().split())
        assert {server, apart} <= set(family) and len(family) >= 4, "the server and its recogniser, two sleepers"
        ends = [os.pidfd_open(pid) for pid in {*family, worker} - {run.pid}]
    finally:
        run.kill()
        run.wait()
    waiting = set(ends)
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    while waiting:
        gone = poll.poll(20_000)
        assert gone, f"{len(waiting)} of {len(ends)} processes are still there"
        for end, _ in gone:
            poll.unregister(end)
            waiting.discard(end)
            os.close(end)
