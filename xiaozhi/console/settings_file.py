"""The file that the console of a running server writes: read it, change it, keep the one before. Blocking."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from xiaozhi.console.credentials import strayed
from xiaozhi.console.editing import EditError, edited, value_at, values_of
from xiaozhi.console.fields import can_be_changed
from xiaozhi.reload.reloader import Applied
from xiaozhi.settings import Settings
from xiaozhi.settings.errors import SettingsError, one_line, unknown_key
from xiaozhi.settings.load import SettingsSource
from xiaozhi.settings.schema import PATHS_AS_TEXT, find, need_restart, value_of
from xiaozhi.settings.sources import Origin, read_text
from xiaozhi.store import private_file

_log = logging.getLogger(__name__)


Apply = Callable[[Settings, Callable[[], Awaitable[None]]], Awaitable[Applied]]
"""Takes settings over in the running server, all that can be or none; calls what writes them before they hold."""

BACKUP: Final = ".bak"
MAX_FILE_BYTES: Final = 1024 * 1024
# Where models lie, chosen by their folder; other paths given in the console stay in the data directory.
_MODEL_PATHS: Final = frozenset({"asr.model_dir", "asr.streaming_model_dir", "tts.sherpa.model_dir", "vad.model"})


@dataclass(frozen=True, slots=True)
class _Draft:
    """A change that holds.

    Attributes:
        text: what is written.
        settings: as they are with it.
        names: of the settings that were given.
        fixed: settings that the environment or the command line sets, whatever the files say.
    """

    text: str
    settings: Settings
    names: Sequence[str]
    fixed: Collection[str]


class SettingsFile:
    """Changes settings, one change at a time, in a file of the console's own beside the owner's.

    Args:
        source: where the settings came from; None for a server that was not started by the command line.
        running: the settings that hold now.
        apply: takes new ones over; without it every change waits for a restart.
    """

    def __init__(
        self, source: SettingsSource | None, running: Callable[[], Settings], apply: Apply | None = None
    ) -> None:
        self._source = source
        self._running = running
        self._apply = apply
        self._lock = asyncio.Lock()
        self._writing: set[asyncio.Task[Applied]] = set()
        self.changes = 0
        """Changes written since the start."""

    @property
    def path(self) -> Path | None:
        """Where changes are written."""
        return self._source.local if self._source is not None else None

    @property
    def owners_path(self) -> Path | None:
        """The owner's file, which is never written."""
        return self._source.path if self._source is not None else None

    @property
    def exists(self) -> bool:
        """Something has been written already. Blocking."""
        return self.path is not None and self.path.is_file()

    def current(self) -> Settings:
        """The settings of the files, which may differ from those that hold. Blocking. Raises `SettingsError`."""
        return self._source.load().settings if self._source is not None else self._running()

    def owners(self) -> Settings:
        """The settings without what the console wrote; the defaults where they do not hold alone. Blocking."""
        try:
            return self._source.load("").settings if self._source is not None else self._running()
        except SettingsError as error:
            _log.debug("without the console's file: %s", error)
            return Settings()

    def origins(self) -> Mapping[str, Origin]:
        """Where each setting comes from that is not at its default. Blocking. Raises `SettingsError`."""
        return self._source.origins() if self._source is not None else {}

    def overridden(self) -> Mapping[str, Any]:
        """What the owner's file says where the console's says something else. Blocking. Raises `SettingsError`."""
        return self._source.overridden() if self._source is not None else {}

    @property
    def _known(self) -> SettingsSource:
        if self._source is None:
            raise SettingsError(["this server was not started with a settings file: nothing can be changed here"])
        return self._source

    def writable(self) -> bool:
        """Whether changes can be written. Blocking."""
        return self.path is not None and os.access(self.path.resolve().parent, os.W_OK)

    def protect(self) -> None:
        """Take the rights of others away from files that may hold keys, those of earlier versions too. Blocking."""
        if self._source is None:
            return
        backup = self._source.path.with_name(self._source.path.name + BACKUP)  # where earlier versions kept one
        for path in (self._source.local, _beside(self._source.local), backup):
            if path.exists():
                private_file.make(path)

    def _text(self) -> str:
        """The console's file; empty where there is none. Raises `SettingsError`."""
        path = self._known.local
        try:
            content = private_file.read(path, max_bytes=MAX_FILE_BYTES + 1) or b""
            if len(content) > MAX_FILE_BYTES:
                raise SettingsError([f"{path}: is too large to be changed here"])
            return read_text(content)[0]
        except OSError as error:
            raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from error
        except UnicodeDecodeError:
            raise SettingsError([f"{path}: the file is not UTF-8 text"]) from None

    async def change(self, changes: Mapping[str, Any], unset: Sequence[str]) -> Applied:
        """Write changes, keep the file before as a backup, and apply them.

        What is as the owner's file or the default has it is not written; all of it is done or nothing.

        Args:
            changes: new values by name.
            unset: names of settings for which the owner's file, or the default, counts again.

        Raises:
            SettingsError: with every mistake, as the command line says them; nothing is written then.
        """
        check_names(changes, unset)
        return await self.write(lambda _owners: changes, unset)

    async def write(self, make: Callable[[Settings], Mapping[str, Any]], unset: Sequence[str] = ()) -> Applied:
        """Write what `make` gives, of which nothing is checked but that it holds; as `change`.

        Args:
            make: gives the new values, from the settings without those of the console; in a thread, under the lock.
            unset: as for `change`.
        """
        # Whoever asked may go away in the middle: what is written and what holds stay the same all the same.
        task = asyncio.get_running_loop().create_task(self._write(make, unset), name="settings")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _write(self, make: Callable[[Settings], Mapping[str, Any]], unset: Sequence[str]) -> Applied:
        async with self._lock:
            draft = await asyncio.to_thread(self._drafted, make, unset)

            async def commit() -> None:
                await asyncio.to_thread(self._commit, draft.text)

            if self._apply is None:
                await commit()
            elif errors := (await self._apply(draft.settings, commit)).errors:
                raise SettingsError(list(errors))
            self.changes += 1
        names = [*draft.names, *unset]
        overridden = tuple(name for name in names if name in draft.fixed)
        restart = need_restart(names) if self._apply is not None else list(names)
        applied = tuple(name for name in names if name not in restart and name not in overridden)
        return Applied(applied, tuple(name for name in restart if name not in overridden), overridden=overridden)

    def preview(self, changes: Mapping[str, Any]) -> Settings:
        """The settings as they would be, without keeping anything. Blocking. Raises `SettingsError`."""
        check_names(changes, ())
        return self._drafted(lambda _owners: changes, ()).settings

    def _drafted(self, make: Callable[[Settings], Mapping[str, Any]], unset: Sequence[str]) -> _Draft:
        """What the file would be and say, checked as at the start. Raises `SettingsError`."""
        text, owners, before, origins = self._text(), self.owners(), self._before(), self.origins()
        fixed = [name for name, origin in origins.items() if origin in ("environment", "command line")]
        try:
            local = values_of(text)
            if theirs := [name for name in unset if origins.get(name) == "file" and value_at(local, name) is None]:
                place = self._known.path
                raise SettingsError([f"{name}: stands in {place}; change it there, or give a value" for name in theirs])
            changes = dict(make(owners))
            after = self._loaded(edited(text, changes, unset))
            needless = [
                name for name in changes if name not in fixed and value_of(after, name) == value_of(owners, name)
            ]
            wanted = {name: value for name, value in changes.items() if name not in needless}
            _refuse_paths(wanted, after, owners)
            found = strayed(before, owners, after, wanted)
            if found.errors:
                raise SettingsError(found.errors)
            written = edited(text, {**wanted, **dict.fromkeys(found.unread, "")}, [*unset, *needless])
            return _Draft(written, self._loaded(written), list(changes), fixed)
        except EditError as error:
            raise SettingsError([f"{self._known.local}: {error}"]) from None

    def _before(self) -> Settings:
        """The settings of the files, or where those do not hold, because somebody edited them, what runs."""
        try:
            return self.current()
        except SettingsError:
            return self._running()

    def _loaded(self, text: str) -> Settings:
        """The settings as they are with this text in the file; the lines of a mistake name no place but the setting."""
        try:
            return self._known.load(text).settings
        except SettingsError as error:
            place = f"{one_line(str(self._known.local))}: "
            raise SettingsError([line.removeprefix(place) for line in error.errors]) from None

    def _commit(self, text: str) -> None:
        """Keep the file before and put the new one in its place; the rights are its owner's alone."""
        path = self._known.local.resolve()  # where it is a link, what it points to is written
        try:
            if (before := private_file.read(path, max_bytes=MAX_FILE_BYTES)) is not None:
                private_file.write(_beside(path), before)
            if text:
                private_file.write(path, text.encode())
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            folder = path.parent
            raise SettingsError(
                [f"{path}: cannot be written: {error.strerror}; make the folder {folder} writable for this server"]
            ) from error


def _beside(path: Path) -> Path:
    return path.with_name(path.name + BACKUP)


def _refuse_paths(changes: Mapping[str, Any], after: Settings, owners: Settings) -> None:
    """Paths given here stay inside the data directory, links followed; those of models may lie where models do."""
    errors = []
    for name in changes:
        key = find(tuple(name.split(".")))
        if key is None or not (key.kind == "path" or key.path in PATHS_AS_TEXT or name == "store.file"):
            continue
        value = value_of(after, name)
        if value is None or (key.path in PATHS_AS_TEXT and value == "auto"):
            continue
        path = owners.server.data_dir / value if name == "store.file" else Path(value)
        allowed = [owners.server.data_dir, *([owners.models.dir] if name in _MODEL_PATHS else [])]
        if not any(path.resolve().is_relative_to(folder.resolve()) for folder in allowed):
            folders = " or ".join(str(folder) for folder in allowed)
            errors.append(one_line(f"{name}: {path} is outside of {folders}; paths elsewhere are set in settings.toml"))
    if errors:
        raise SettingsError(errors)


def check_names(changes: Mapping[str, Any], unset: Sequence[str]) -> None:
    """Whether these settings exist and can be changed one by one. Raises `SettingsError`."""
    errors = []
    for name in (*changes, *unset):
        path = tuple(name.split("."))
        key = find(path)
        if key is None or "*" in path:
            errors.append(one_line(f"{name}: {unknown_key(path)}"))
        elif key.kind == "section" or (name in changes and not can_be_changed(name, key)):
            errors.append(f"{name}: cannot be changed here; edit the file")
        elif name in changes and changes[name] is None:
            errors.append(f"{name}: must be {key.allowed()}")
    errors += [f"{name}: cannot be changed and unset at once" for name in unset if name in changes]
    if errors:
        raise SettingsError(errors)
