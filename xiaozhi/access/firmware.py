"""Firmware that devices install when they boot: which file a device is offered, if any.

The traps of real firmware that are avoided here: a version with letters makes it crash at every boot; an offered
version that the image does not hold is installed again at every boot; an image for another chip or one that does not
fit is fetched and refused at every boot; a download without a length fails.
"""

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from xiaozhi.access.firmware_image import ImageError, parse_version, read_image, running_version

_log = logging.getLogger(__name__)

_BOARD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MAX_BYTES: Final = 32 * 1024 * 1024  # larger than any flash of these boards has room for
_MAX_FILES: Final = 2000
# A device that asks so often for the same version does not succeed in installing it; it boots without from then on.
_MAX_OFFERS: Final = 3
_MAX_DEVICES: Final = 10_000
# `esp_chip_info` and image headers number the chips alike, except the first.
_ESP32_MODEL: Final = 1


@dataclass(frozen=True, slots=True)
class Release:
    """One file that was checked.

    Attributes:
        board, version: from its folder and its name.
        numbers: the version in numbers.
        path: the file.
        chip: which chip it runs on, by image header.
        size_bytes: its length.
        stamp: modification time and length; another one means another file.
    """

    board: str
    version: str
    numbers: tuple[int, ...]
    path: Path
    chip: int
    size_bytes: int
    stamp: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Running:
    """What a device says about itself when it boots.

    Attributes:
        board, version: the names it goes by, empty when it did not say.
        chip: by image header; None when it did not say.
        room_bytes: the smallest partition an update could go to; None when it did not say.
    """

    board: str
    version: str
    chip: int | None = None
    room_bytes: int | None = None

    @classmethod
    def of(cls, user_agent: str, body: Mapping[str, Any]) -> "Running":
        """Read `User-Agent: <board>/<version>`, and the body where that is missing. Anything may be wrong in both."""
        board, _, version = user_agent.strip().partition("/")
        if not version or not _BOARD.fullmatch(board):
            about = body.get("board")
            application = body.get("application")
            name = about.get("name") if isinstance(about, dict) else ""
            number = application.get("version") if isinstance(application, dict) else ""
            board = name if isinstance(name, str) and _BOARD.fullmatch(name) else ""
            version = number if isinstance(number, str) else ""
        chip = body.get("chip_info")
        model = chip.get("model") if isinstance(chip, dict) else None
        known = isinstance(model, int) and not isinstance(model, bool)
        return cls(board, version[:32], (0 if model == _ESP32_MODEL else model) if known else None, _room(body))


def _room(body: Mapping[str, Any]) -> int | None:
    table = body.get("partition_table")
    sizes = [
        entry["size"]
        for entry in (table if isinstance(table, list) else [])
        if isinstance(entry, dict)
        and str(entry.get("label", "")).startswith("ota_")
        and isinstance(entry.get("size"), int)
        and not isinstance(entry["size"], bool)
    ]
    return min(sizes) if sizes else None


class FirmwareShelf:
    """The files of `ota.firmware_dir`, checked, and who is offered which.

    Args:
        folder: holds `<board>/<version>.bin`; None for no roll-out.
        rollout_percent: share of the devices that are offered anything.
    """

    def __init__(self, folder: Path | None, rollout_percent: int = 100) -> None:
        self._folder = folder
        self._percent = rollout_percent
        self._releases: dict[str, tuple[Release, ...]] = {}
        self._refused: dict[Path, tuple[int, int]] = {}  # files that were complained about, as they were then
        self._offers: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.offered = 0
        """Updates offered."""

    @property
    def releases(self) -> list[Release]:
        """Every good file, by board and version."""
        return [release for releases in self._releases.values() for release in releases]

    def scan(self) -> None:
        """Look what is in the folder. Reads new files whole (some MB): not on the event loop. Never raises OSError."""
        if self._folder is None:
            return
        known = {release.path: release for release in self.releases}
        found: dict[str, list[Release]] = {}
        try:
            paths = sorted(self._folder.glob("*/*.bin"))[:_MAX_FILES]
        except OSError as error:
            _log.warning("ota.firmware_dir %s cannot be read: %s", self._folder, error.strerror)
            return
        for path in paths:
            release = None
            stamp = (0, 0)
            try:
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                release = known.get(path)
                if release is None or release.stamp != stamp:
                    release = None if self._refused.get(path) == stamp else _check(path, stamp)
            except (ImageError, OSError) as error:
                release = None
                self._refused[path] = stamp
                why = error if isinstance(error, ImageError) else f"cannot be read: {error.strerror}"
                _log.warning("firmware %s is not offered: it %s", path, why)
            if release is not None:
                found.setdefault(release.board, []).append(release)
                if known.get(path) is None or known[path].stamp != stamp:
                    _log.info("firmware %s %s can be installed", release.board, release.version)
        self._refused = {path: stamp for path, stamp in self._refused.items() if path in paths}
        self._releases = {
            board: tuple(sorted(releases, key=lambda one: one.numbers)) for board, releases in found.items()
        }

    def offer(self, device_id: str, running: Running) -> Release | None:
        """What this device should install now; None for nothing."""
        mine = running_version(running.version)
        releases = self._releases.get(running.board, ())
        if mine is None or not releases:
            return None
        fitting = [
            release
            for release in releases
            if release.numbers > mine  # the firmware's own rule: number by number, the longer one is newer
            and running.chip in (None, release.chip)
            and (running.room_bytes is None or release.size_bytes <= running.room_bytes)
            and in_rollout(device_id, release, self._percent)
        ]
        if not fitting:
            return None
        release = fitting[-1]
        key = (device_id, release.version)
        times = self._offers.pop(key, 0)
        self._offers[key] = times + 1
        while len(self._offers) > _MAX_DEVICES:
            self._offers.popitem(last=False)
        if times >= _MAX_OFFERS:
            if times == _MAX_OFFERS:
                _log.warning("firmware %s is offered no more: installing fails", release.version)
            return None
        self.offered += 1
        return release

    def find(self, board: str, file: str) -> Release | None:
        """The release behind a download address."""
        return next((one for one in self._releases.get(board, ()) if one.path.name == file), None)


def in_rollout(device_id: str, release: Release, percent: int) -> bool:
    """Whether this device is among the first `percent` for this release: always the same answer, evenly spread."""
    digest = hashlib.sha256(f"{release.board}|{release.version}|{device_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") * 100 < percent * 2**32


def _check(path: Path, stamp: tuple[int, int]) -> Release:
    board, version = path.parent.name, path.stem
    numbers = parse_version(version)
    if numbers is None:
        raise ImageError("must be named by its version in numbers, such as 2.4.2.bin")
    if not _BOARD.fullmatch(board):
        raise ImageError("must lie in a folder named like the board: letters, digits, - _ .")
    if not path.is_file():  # reading a pipe would never end
        raise ImageError("is no regular file")
    if stamp[1] > _MAX_BYTES:
        raise ImageError("is too large for any board")
    image = read_image(path.read_bytes())
    if image.version != version:
        raise ImageError(f"holds version {image.version!r}: devices would install it again at every boot")
    return Release(board, version, numbers, path, image.chip, image.size_bytes, stamp)
