"""PyAV, told to start no threads of its own; everything here takes `av` from this module.

Every codec and every resampler of libav brings a pool of threads along, one for each core, although audio never uses
them (measured: two threads an object on two cores, 97 in a server with 40 devices). PyAV has no switch for the pools
that it makes inside; libavutil's own `av_cpu_force_count` makes libav believe in one core, and then it starts none.
"""

import ctypes
import errno
import logging
import os
from pathlib import Path
from typing import Final

import av

_log = logging.getLogger(__name__)

__all__ = ["av", "loaded_library", "open_sound"]

# What a file is called says little of what it is; without this libav also reads lists of other files and addresses.
_OPTIONS: Final = {
    "format_whitelist": "mp3,flac,ogg,mov,aac,wav,asf,ape,aiff,matroska,caf,au,wv,tta",
    "protocol_whitelist": "file",
}


def open_sound(path: Path) -> av.container.InputContainer:
    """Open a sound file of any usual kind, by what is in it.

    Raises:
        OSError: there is none, or it is no regular file.
        av.error.FFmpegError: it is of no such kind.
    """
    if not path.is_file():  # a pipe would keep the thread that reads it for ever
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return av.open(str(path), "r", options=_OPTIONS, metadata_errors="replace")


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
