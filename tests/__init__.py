"""Tests of the whole; the clock is put in place before anything of ours is imported and keeps the real one."""

import os
import sys

from tests import virtual_loop

# In containers Python is often told to write no bytecode: every worker and every server that a test starts would
# compile everything again, which takes longer than all the rest of its start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

virtual_loop.install()
