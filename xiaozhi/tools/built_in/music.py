"""Music from a folder, found by voice and streamed as the sound of a reply."""

import asyncio
import difflib
import logging
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xiaozhi.audio.libav import av, open_sound
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings.tools import MusicSettings
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.music_stream import play
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult
from xiaozhi.tools.wording import pick, plain

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 300.0
"""A folder is looked through again when it was asked about and this much time has passed."""
_MAX_QUEUED: Final = 30
_LISTED: Final = 10
KINDS: Final = frozenset({".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wav", ".wma", ".ape", ".aiff"})
_MAX_TAG_CHARS: Final = 200
_GOOD_ENOUGH: Final = 0.6
"""Likeness from which a title counts as meant; misheard titles of four characters with one wrong reach 0.75."""
_BRACKETS: Final = re.compile(r"[(\[（【《].*?[)\]）】》]")
_TRACK_NUMBER: Final = re.compile(r"^\d{1,3}[\s._-]+")


@dataclass(frozen=True, slots=True)
class Track:
    """One file: `duration_s` is 0 where it is not known."""

    path: Path
    title: str
    artist: str = ""
    album: str = ""
    duration_s: float = 0.0
    changed_at: float = 0.0

    def name(self) -> str:
        """As it is announced."""
        return f"{self.artist} - {self.title}" if self.artist else self.title


class MusicBox:
    """The music folder of the process; its threads start with the first use. Use it on one loop.

    Args:
        folder: where the files lie.
        settings: bounds.
    """

    def __init__(self, folder: Path, settings: MusicSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._pool: WorkerPool | None = None
        self._tracks: list[Track] = []
        self._looked_at = 0.0
        self._looking = asyncio.Lock()

    async def tracks(self) -> list[Track]:
        """What there is; looks through the folder when that was long ago."""
        async with self._looking:
            if not self._looked_at or time.monotonic() - self._looked_at > _LOOK_AGAIN_S:
                found = await asyncio.to_thread(scan, self._folder, self._settings.max_tracks, self._tracks)
                self._tracks, self._looked_at = found, time.monotonic()
            return self._tracks

    async def find(self, query: str) -> list[Track]:
        """The tracks a user may mean, best first."""
        tracks = await self.tracks()
        return await asyncio.to_thread(search, tracks, query)

    def play(self, tracks: Sequence[Track]) -> AsyncGenerator[PcmInt, None]:
        """The sound of tracks, one after the other: int16[n] at 24 kHz. Raises `DecodeError` when there is none."""
        if self._pool is None:
            self._pool = WorkerPool(self._settings.workers, "music")
        return play([track.path for track in tracks], self._pool, self._settings.ahead_s)

    async def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def tools(host: ToolHost) -> list[Tool]:
    """`play_music` and `find_music`; none without a folder."""
    settings = host.settings.music
    if not settings.folder:
        return []
    box = MusicBox(settings.folder, settings)
    host.on_close.append(box.close)

    @tool()
    async def play_music(context: ToolContext, query: str = "", shuffle: bool = False) -> ToolResult:
        """Play music from the owner's collection on this device; it plays until the user speaks.

        Takes:
            query: title, artist or album in the user's words; empty for anything.
            shuffle: in random order; the order of the files otherwise.
        """
        language = context.language
        tracks = await box.tracks()
        if not tracks:
            raise ToolError(pick(language, "音乐文件夹是空的。", "The music folder is empty."))
        if query.strip():
            chosen = _meant(await box.find(query), query)
            if not chosen:
                raise ToolError(
                    pick(language, f"我没有找到“{query[:40]}”。", f"I found no music called {query[:40]!r}.")
                )
        else:
            chosen, shuffle = list(tracks), True
        if shuffle:
            chosen = random.sample(chosen, len(chosen))
        queue = chosen[:_MAX_QUEUED]
        text = pick(language, f"正在播放：{queue[0].name()}", f"Playing: {queue[0].name()}")
        return ToolResult(text, audio=lambda: box.play(queue))

    @tool()
    async def find_music(context: ToolContext, query: str = "") -> str:
        """What the owner's music collection holds.

        Takes:
            query: title, artist or album; empty for an overview.
        """
        tracks = await box.tracks()
        found = await box.find(query) if query.strip() else tracks
        if not found:
            return pick(context.language, "没有找到。", "Nothing found.")
        names = "\n".join(track.name() for track in found[:_LISTED])
        more = len(found) - _LISTED
        return names + (pick(context.language, f"\n还有{more}首", f"\nand {more} more") if more > 0 else "")

    return [play_music, find_music]


def _meant(found: Sequence[Track], query: str) -> list[Track]:
    """One title, when a title was named; everything of an artist or album, when that was."""
    if not found:
        return []
    first = found[0]
    named = query.casefold().strip()
    for group in ("artist", "album"):
        value = getattr(first, group).casefold()
        if value and value == named.removesuffix("的歌").strip():
            return [track for track in found if getattr(track, group).casefold() == value]
    return [first]


# What lies in the folder; runs in worker threads ----------------------------------------------------------------


def scan(folder: Path, most: int, known: Sequence[Track] = ()) -> list[Track]:
    """Every music file below a folder by path; links out of it are not followed.

    Args:
        folder: where to look.
        most: at most so many.
        known: from the scan before; files that have not changed are not read again.
    """
    before = {track.path: track for track in known}
    tracks: list[Track] = []
    for path in _files(folder):
        if len(tracks) == most:
            _log.warning("%s holds more than %d files; tools.music.max_tracks leaves the rest out", folder, most)
            break
        try:
            changed_at = path.stat().st_mtime
        except OSError:
            continue  # gone since it was listed
        old = before.get(path)
        tracks.append(old if old is not None and old.changed_at == changed_at else _read(path, changed_at))
    return tracks


def search(tracks: Sequence[Track], query: str, most: int = 20) -> list[Track]:
    """The tracks a user may mean, best first: by title, artist or album, also when a little is misheard."""
    wanted = plain(query[:_MAX_TAG_CHARS])
    if not wanted:
        return []
    scored = [(score, -index) for index, track in enumerate(tracks) if (score := _likeness(wanted, track)) > 0]
    scored.sort(reverse=True)
    return [tracks[-index] for _, index in scored[:most]]


def _likeness(wanted: str, track: Track) -> float:
    """How well a track fits, 0 for not at all; an exact title is best, then one that contains the words."""
    title = plain(_BRACKETS.sub("", track.title)) or plain(track.title)
    artist, album = plain(track.artist), plain(track.album)
    if wanted == title:
        return 5.0
    if artist and wanted in (artist + title, title + artist, artist + "的" + title, title + "by" + artist):
        return 4.9
    if wanted in title:
        return 3.0 + len(wanted) / len(title)
    if artist and (wanted == artist or artist == wanted.removesuffix("的歌")):
        return 2.9
    if title and title in wanted and len(title) > 1:
        return 2.0 + len(title) / len(wanted)
    if (artist and wanted in artist) or (album and wanted in album):
        return 1.9
    if not set(wanted) & set(title):
        return 0.0
    matcher = difflib.SequenceMatcher(None, wanted, title, autojunk=False)
    if matcher.real_quick_ratio() < _GOOD_ENOUGH or matcher.quick_ratio() < _GOOD_ENOUGH:
        return 0.0
    ratio = matcher.ratio()
    return ratio if ratio >= _GOOD_ENOUGH else 0.0


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in KINDS:
                yield Path(here, name)


def _read(path: Path, changed_at: float) -> Track:
    """The tags of a file, or what its name tells: `Artist - Title.mp3`, `01 Title.mp3`."""
    title = artist = album = ""
    duration_s = 0.0
    try:
        with open_sound(path) as container:
            # Ogg keeps its tags with the stream, the others with the file.
            tags = {name.lower(): value for name, value in container.metadata.items()}
            for stream in container.streams.audio[:1]:
                tags = {name.lower(): value for name, value in stream.metadata.items()} | tags
            title, artist, album = (_tag(tags, name) for name in ("title", "artist", "album"))
            duration_s = (container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError, ValueError) as error:
        _log.debug("%s: tags cannot be read: %s", path, type(error).__name__)
    if not title:
        stem = _TRACK_NUMBER.sub("", path.stem)
        before, dash, after = stem.partition(" - ")
        title, artist = (after.strip(), artist or before.strip()) if dash else (stem.strip() or path.stem, artist)
    return Track(path, title, artist, album, duration_s, changed_at)


def _tag(tags: Mapping[str, str], name: str) -> str:
    return " ".join(tags.get(name, "").replace("\0", " ").split())[:_MAX_TAG_CHARS]
