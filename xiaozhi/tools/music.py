"""Music from a folder, found by voice and streamed as the sound of a reply."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

from xiaozhi.audio.pcm import PcmInt
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings.tools import MusicSettings
from xiaozhi.tools.declare import tool
from xiaozhi.tools.music_library import Track, scan, search
from xiaozhi.tools.music_stream import play
from xiaozhi.tools.tool import Tool, ToolContext, ToolError, ToolResult
from xiaozhi.tools.wording import pick

_LOOK_AGAIN_S: Final = 300.0
"""A folder is looked through again when it was asked about and this much time has passed."""
_MAX_QUEUED: Final = 30
_LISTED: Final = 10


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


def music_tools(box: MusicBox) -> list[Tool]:
    """`play_music` and `find_music`."""

    @tool(speaks=True)
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
