"""PyAV, told to start no threads of its own; everything here takes `av` from this module.

Every codec and every resampler of libav brings a pool of threads along, one for each core, although audio never uses
them (measured: two threads an object on two cores, 97 in a server with 40 devices). PyAV has no switch for the pools
that it makes inside; libavutil's own `av_cpu_force_count` makes libav believe in one core, and then it starts none.
"""

import ctypes
import logging
from pathlib import Path

import av

_log = logging.getLogger(__name__)

__all__ = ["av", "loaded_library"]


def loaded_library(name: str) -> str | None:
    """The file of a library that PyAV has loaded, such as "libavutil"; only Linux tells."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    return next((line[line.index("/") :] for line in lines if f"/{name}" in line), None)


def _believe_in_one_core() -> None:
    path = loaded_library("libavutil")
    if path is None:
        _log.debug("libavutil was not found: libav starts threads that do nothing")
        return
    try:
        force_count = ctypes.CDLL(path).av_cpu_force_count
    except (OSError, AttributeError) as error:
        _log.debug("libav starts threads that do nothing: %s", error)
        return
    force_count.argtypes, force_count.restype = [ctypes.c_int], None
    force_count(1)


_believe_in_one_core()
