"""Tests of the whole; the clock is put in place before anything of ours is imported and keeps the real one."""

from tests import virtual_loop

virtual_loop.install()
