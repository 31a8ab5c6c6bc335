"""Music files of a folder: what they are called, and which of them a user means. Runs in worker threads."""

import difflib
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xiaozhi.audio.libav import av, open_sound

_log = logging.getLogger(__name__)

KINDS: Final = frozenset({".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wav", ".wma", ".ape", ".aiff"})
_MAX_TAG_CHARS: Final = 200
_GOOD_ENOUGH: Final = 0.6
"""Likeness from which a title counts as meant; misheard titles of four characters with one wrong reach 0.75."""
_NOT_LETTERS: Final = re.compile(r"[\W_]+")
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


def plain(text: str) -> str:
    """Lower case, without blanks and punctuation, full-width forms made ordinary."""
    return _NOT_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())


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
