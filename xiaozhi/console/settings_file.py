"""The settings file of a running server: read it, change it, keep the one before. Blocking."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from xiaozhi.console.editing import EditError, edited
from xiaozhi.console.fields import is_read_only
from xiaozhi.console.moved import moved_secrets
from xiaozhi.settings import Settings
from xiaozhi.settings.applies import need_restart
from xiaozhi.settings.documentation import default_text
from xiaozhi.settings.errors import SettingsError, one_line, unknown_key
from xiaozhi.settings.load import Origin
from xiaozhi.settings.schema import find
from xiaozhi.settings.source import SettingsSource
from xiaozhi.settings.text_file import read_text


class Applied(Protocol):
    """What has become of new settings in the running server."""

    @property
    def applied(self) -> Sequence[str]:
        """These hold now."""
        ...

    @property
    def restart(self) -> Sequence[str]:
        """These wait for a restart."""
        ...

    @property
    def errors(self) -> Sequence[str]:
        """Why nothing was changed."""
        ...


Apply = Callable[[Settings], Awaitable[Applied]]
"""Takes settings over in the running server, all that can be or none."""

BACKUP: Final = ".bak"
_MOST_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change.

    Attributes:
        applied: settings that hold now, or from the next turn or connection on.
        restart: settings that hold after a restart.
        overridden: settings that the command line or the environment sets to something else.
    """

    applied: tuple[str, ...]
    restart: tuple[str, ...]
    overridden: tuple[str, ...] = ()


class SettingsFile:
    """Changes settings, one change at a time.

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
        self.changes = 0
        """Changes written since the start."""

    @property
    def path(self) -> Path | None:
        """Where changes are written."""
        return self._source.path if self._source is not None else None

    @property
    def exists(self) -> bool:
        """There is a file already. Blocking."""
        return self.path is not None and self.path.is_file()

    def current(self) -> Settings:
        """The settings of the file, which may differ from those that hold. Blocking. Raises `SettingsError`."""
        return self._source.load().settings if self._source is not None else self._running()

    def origins(self) -> Mapping[str, Origin]:
        """Where each setting comes from that is not at its default. Blocking. Raises `SettingsError`."""
        return self._source.origins() if self._source is not None else {}

    @property
    def _known(self) -> SettingsSource:
        if self._source is None:
            raise SettingsError(["this server was not started with a settings file: nothing can be changed here"])
        return self._source

    def writable(self) -> bool:
        """Whether changes can be written. Blocking."""
        path = self.path
        if path is None:
            return False
        folder = path.parent
        return os.access(folder, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))

    def text(self) -> str:
        """The file; the documented default where there is none. Blocking. Raises `SettingsError`."""
        path = self._known.path
        try:
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return default_text()
        except OSError as error:
            raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from error
        if len(content) > _MOST_BYTES:
            raise SettingsError([f"{path}: is too large to be changed here"])
        try:
            return read_text(content)[0]
        except UnicodeDecodeError:
            raise SettingsError([f"{path}: the file is not UTF-8 text"]) from None

    async def change(self, changes: Mapping[str, Any], unset: Sequence[str]) -> Outcome:
        """Write changes, keep the file before as a backup, and apply them.

        Args:
            changes: new values by name.
            unset: names of settings that go back to their defaults.

        Raises:
            SettingsError: with every mistake, as the command line says them; nothing is written then.
        """
        check_names(changes, unset)
        await asyncio.to_thread(self.check_addresses, changes, unset)
        names = [*changes, *unset]
        return await self.rewrite(lambda text: edited(text, changes, unset), names)

    def check_addresses(self, changes: Mapping[str, Any], unset: Sequence[str] = ()) -> None:
        """Whether every secret goes on to where it was given for. Blocking. Raises `SettingsError`."""
        errors = [
            f"{name}: give it again, it was given for another address"
            for name in moved_secrets(self.current(), changes, unset)
        ]
        if errors:
            raise SettingsError(errors)

    async def rewrite(self, make: Callable[[str], str], names: Sequence[str]) -> Outcome:
        """Write what `make` makes of the text, as `change` does. Raises `SettingsError`."""
        async with self._lock:
            path, draft, settings = await asyncio.to_thread(self._drafted, make)
            try:
                done = await self._apply(settings) if self._apply is not None else None
                if done is not None and done.errors:
                    raise SettingsError(list(done.errors))
                await asyncio.to_thread(self._commit, draft, path)
            finally:
                await asyncio.to_thread(self._remove, draft)
            self.changes += 1
            overridden = await asyncio.to_thread(self._overridden, names)
        restart = need_restart(names) if done is not None else list(names)
        applied = tuple(name for name in names if name not in restart and name not in overridden)
        return Outcome(applied, tuple(name for name in restart if name not in overridden), overridden)

    def preview(self, make: Callable[[str], str]) -> Settings:
        """The settings as they would be, without keeping anything. Blocking. Raises `SettingsError`."""
        _, draft, settings = self._drafted(make)
        self._remove(draft)
        return settings

    def _commit(self, draft: Path, path: Path) -> None:
        try:
            if path.is_file():
                mode = path.stat().st_mode & 0o777
                draft.chmod(mode)
                self._keep(path, mode)
            draft.replace(path)
        except OSError as error:
            raise SettingsError([f"{path}: cannot be written: {error.strerror}"]) from error

    def _keep(self, path: Path, mode: int) -> None:
        """The file before, beside the new one; whoever may not read the one may not read the other."""
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(path.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path.with_name(path.name + BACKUP))

    def _drafted(self, make: Callable[[str], str]) -> tuple[Path, Path, Settings]:
        """The file, a draft beside it, so that relative paths mean the same, and what the draft says.

        It is checked as at the start. Raises `SettingsError`.
        """
        path = self._known.path
        try:
            text = make(self.text())
        except EditError as error:
            raise SettingsError([f"{path}: {error}"]) from None
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise SettingsError([f"{path}: cannot be written: {error.strerror}"]) from error
        draft = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            return path, draft, self._known.load(draft).settings
        except SettingsError as error:
            self._remove(draft)
            place = f"{one_line(str(draft))}: "
            raise SettingsError([line.removeprefix(place) for line in error.errors]) from None
        except OSError as error:
            self._remove(draft)
            raise SettingsError([f"{path}: cannot be written: {error.strerror}"]) from error

    @staticmethod
    def _remove(draft: Path) -> None:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)

    def _overridden(self, names: Sequence[str]) -> tuple[str, ...]:
        origins = self.origins()
        return tuple(name for name in names if origins.get(name) in ("environment", "command line"))


def check_names(changes: Mapping[str, Any], unset: Sequence[str]) -> None:
    """Whether these settings exist and can be changed one by one. Raises `SettingsError`."""
    errors = []
    for name in (*changes, *unset):
        path = tuple(name.split("."))
        key = find(path)
        if key is None or "*" in path:
            errors.append(one_line(f"{name}: {unknown_key(path)}"))
        elif key.kind in ("section", "sections") or is_read_only(name) or key.item == "secret":
            errors.append(f"{name}: cannot be changed here; edit the file")
        elif name in changes and changes[name] is None:
            errors.append(f"{name}: must be {key.allowed()}")
    errors += [f"{name}: cannot be changed and unset at once" for name in unset if name in changes]
    if errors:
        raise SettingsError(errors)
