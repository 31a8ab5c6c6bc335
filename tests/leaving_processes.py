"""What `test_killed_run` has run by a pytest of its own: it leaves processes behind and never ends by itself."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.test_serve_cli import Running, free_port


def test_leaving_processes() -> None:
    folder = Path(os.environ["LEFT_IN"])
    server = Running(folder, free_port())
    sleeper = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    apart = subprocess.Popen([sys.executable, "-c", sleeper], start_new_session=True)
    (folder / "pids.part").write_text(f"{server.process.pid} {apart.pid} {os.getpid()}")
    (folder / "pids.part").replace(folder / "pids")
    time.sleep(600)
