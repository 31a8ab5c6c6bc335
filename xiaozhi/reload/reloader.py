"""The way in for new settings: from the console, a signal or the file."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from xiaozhi.agents import AgentError
from xiaozhi.conversation.services import Services
from xiaozhi.reload.parts import build_parts, discard, exchange
from xiaozhi.settings import Settings
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.load import Loaded
from xiaozhi.settings.schema import dotted, keys, need_restart, value_of
from xiaozhi.settings.section import Section
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.vad.silero import VadError
from xiaozhi.store import StoreError

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=Section)

# Names in one log line; the rest is counted.
_MAX_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Applied:
    """What has become of new settings. Names are those of the settings file, such as `llm.endpoints`.

    Attributes:
        applied: these hold from now on, see `xiaozhi.settings.section.Applies`.
        restart: these differ from what the process runs on and wait for a restart.
        errors: why nothing at all was changed, one line each.
        overridden: these the command line or the environment sets to something else, as far as somebody has looked.
    """

    applied: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()


class Reloader:
    """Applies new settings to a running server, one change after another.

    Args:
        services: of the process.
        reread: reads the settings as the process did when it started; raises `SettingsError`. Blocking.
    """

    def __init__(self, services: Services, reread: Callable[[], Loaded] | None = None) -> None:
        self.applied = 0
        """Changes that were taken over."""
        self.refused = 0
        """Changes that could not be: nothing was changed."""
        self.on_busy: list[Callable[[bool], None]] = []
        """Told True when a reload begins and False when it is over, for the service manager."""
        self.on_settings: list[Callable[[Settings], None]] = []
        """Told the settings that hold from now on, in the step in which they begin to."""
        self.restart: tuple[str, ...] = ()
        """Settings that were changed and wait for a restart."""
        self.told: tuple[str, ...] = ()
        """Warnings about the settings that are in the log already: each is said once, and whenever somebody asks."""
        self.reread = reread
        self._services = services
        self._lock = asyncio.Lock()

    async def apply(self, settings: Settings, commit: Callable[[], Awaitable[None]] | None = None) -> Applied:
        """Take new settings over: those that can, from the next turn or connection on; all of them or none.

        Never raises for what is wrong with the settings; engines are loaded beside those in use, which takes seconds.

        Args:
            settings: the new ones.
            commit: writes them down, after all that could go wrong and before they hold; where it raises
                `SettingsError` nothing is changed.
        """
        async with self._busy():
            return await self._apply(settings, commit=commit)

    async def rebuild(self, keys: Collection[str]) -> Applied:
        """Build the engines anew that these settings decide about, because there are other files for them now."""
        async with self._busy():
            return await self._apply(self._services.settings, rebuilt=keys)

    async def reload(self, *, asked: bool = True) -> Applied:
        """Read the settings again and apply them; says in the log what came of it.

        Args:
            asked: somebody waits for that line also where nothing has changed.

        Raises:
            RuntimeError: the process does not know where its settings come from.
        """
        if self.reread is None:
            raise RuntimeError("there is nothing to read again")
        async with self._busy():
            try:
                loaded = await asyncio.to_thread(self.reread)
            except SettingsError as mistakes:
                return self._refuse(mistakes.errors)
            for warning in loaded.warnings:
                if asked or warning not in self.told:
                    _log.warning("settings: %s", warning)
            self.told = loaded.warnings
            return await self._apply(loaded.settings, asked=asked)

    @asynccontextmanager
    async def _busy(self) -> AsyncIterator[None]:
        """One at a time, and tell who wants to know."""
        async with self._lock:
            for tell in self.on_busy:
                tell(True)
            try:
                yield
            finally:
                for tell in self.on_busy:
                    tell(False)

    async def _apply(
        self,
        wanted: Settings,
        *,
        asked: bool = False,
        commit: Callable[[], Awaitable[None]] | None = None,
        rebuilt: Collection[str] = (),
    ) -> Applied:
        services = self._services
        keys = changed_keys(services.settings, wanted)
        restart = need_restart(keys)
        settings = held_back(services.settings, wanted, restart)
        live = [key for key in keys if key not in restart]
        live += [key for key in rebuilt if key not in live]
        try:
            parts = await build_parts(services, settings, live) if live else None
        except (EngineError, VoiceError, VadError, AgentError, StoreError) as error:
            return self._refuse([str(error)])
        if commit is not None:
            try:
                await commit()
            except BaseException as error:
                if parts is not None:
                    await discard(parts, services)
                if isinstance(error, SettingsError):
                    return self._refuse(error.errors)
                raise
        if parts is not None:
            exchange(services, parts)
            for take in self.on_settings:
                take(settings)
            self.applied += 1
            _log.info("%s: %s", "built anew" if rebuilt else "settings applied", _names(live))
        if rebuilt:  # nothing was read again: what waits for a restart still does
            return Applied(tuple(live), self.restart)
        if restart and tuple(restart) != self.restart:
            _log.warning("these settings wait for a restart: %s", _names(restart))
        elif parts is None:
            _log.log(logging.INFO if asked else logging.DEBUG, "settings read again: nothing to apply")
        self.restart = tuple(restart)
        return Applied(tuple(live), self.restart)

    def _refuse(self, errors: Sequence[str]) -> Applied:
        """Nothing is changed."""
        self.refused += 1
        _log.error("settings not applied: %s", "; ".join(errors))
        return Applied(restart=self.restart, errors=tuple(errors))


def _names(keys: list[str]) -> str:
    more = len(keys) - _MAX_NAMED
    return ", ".join(keys[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


# What differs between two settings ------------------------------------------------------------------------------------


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Names of the settings that differ, such as `asr.workers`, in the order of the model; lists count as one."""
    names = (dotted(key.path) for key in keys().values() if key.kind != "section" and "*" not in key.path)
    return [name for name in names if value_of(old, name) != value_of(new, name)]


def held_back(old: Settings, new: Settings, names: Collection[str]) -> Settings:
    """The new settings, but with the old values of those that are named."""
    for name in names:
        new = _with(new, name.split("."), value_of(old, name))
    return new


def _with(section: S, path: Sequence[str], value: Any) -> S:
    name, *inner = path
    return section.model_copy(update={name: _with(getattr(section, name), inner, value) if inner else value})
