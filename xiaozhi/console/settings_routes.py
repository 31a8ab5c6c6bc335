"""The console's calls that read and change the settings."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from xiaozhi.console.board import Board
from xiaozhi.console.endpoints import replace_endpoints, shown_endpoints, shown_presets
from xiaozhi.console.fields import can_be_changed, tables
from xiaozhi.console.request_guard import Refused, answer, any_body_of, body_of, text_of
from xiaozhi.console.settings_file import SettingsFile
from xiaozhi.console.trials import Trials
from xiaozhi.conversation.services import Services
from xiaozhi.http.openapi import takes
from xiaozhi.migrate.report import Words
from xiaozhi.migrate.xinnan import Migration, migrate_xinnan
from xiaozhi.migrate.yaml_file import MAX_FILE_BYTES, YamlError, read_yaml
from xiaozhi.reload.reloader import Applied
from xiaozhi.settings import Settings
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.schema import find
from xiaozhi.settings.sources import Origin

_MAX_CHANGES = 200
_NOT_HERE = Words("只能写在设置文件里", "is given in the settings file only")


class SettingsRoutes:
    """Answers the pages for settings and models.

    Args:
        services: the settings that hold now.
        file: where they are written.
        board: is told of changes.
        trials: tries a stage.
    """

    def __init__(self, services: Services, file: SettingsFile, board: Board, trials: Trials) -> None:
        self._services = services
        self._file = file
        self._board = board
        self._trials = trials

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the calls."""
        router.add_get("/api/settings", self.show)
        router.add_put("/api/settings", self.change)
        router.add_get("/api/llm-endpoints", self.endpoints)
        router.add_put("/api/llm-endpoints", self.change_endpoints)
        router.add_post("/api/llm-endpoints/models", self.models)
        router.add_get("/api/presets", self.presets)
        router.add_post("/api/migrate", self.migrate)
        router.add_post("/api/test/{stage:vad|asr|llm|tts}", self.test)

    async def show(self, _request: web.Request) -> web.Response:
        """Every setting as the file has it now, with what is known of it."""
        return answer(await asyncio.to_thread(self._read))

    def _read(self) -> dict[str, Any]:
        settings, origins, errors = self._services.settings, dict[str, Origin](), list[str]()
        overridden: Mapping[str, Any] = {}
        try:
            settings, origins = self._file.current(), dict(self._file.origins())
            overridden = self._file.overridden()
        except SettingsError as error:  # a file was damaged since the start; what runs is shown
            errors = list(error.errors)
        path, owners = self._file.path, self._file.owners_path
        return {
            "file": str(path) if path is not None and self._file.exists else None,
            "path": str(path) if path is not None else None,
            "owners_file": str(owners) if owners is not None else None,
            "writable": self._file.writable(),
            "overridden": list(overridden),
            "errors": errors,
            "tables": tables(settings, origins, overridden),
        }

    @takes(changes=(dict[str, Any], {}), unset=(list[str], []))
    async def change(self, request: web.Request) -> web.Response:
        """Write changes into the file and apply them."""
        body = await body_of(request)
        changes, unset = body.get("changes", {}), body.get("unset", [])
        if not isinstance(changes, dict) or not isinstance(unset, list) or not all(isinstance(x, str) for x in unset):
            raise Refused(422, "changes must be an object and unset a list of names")
        if not changes and not unset:
            raise Refused(422, "there is nothing to change")
        if len(changes) + len(unset) > _MAX_CHANGES:
            raise Refused(422, f"at most {_MAX_CHANGES} changes at once")
        return self._outcome(await self._file.change(changes, unset))

    def _outcome(self, outcome: Applied) -> web.Response:
        self._board.settings_changed()
        return answer(
            {
                "applied": list(outcome.applied),
                "restart": list(outcome.restart),
                "overridden": list(outcome.overridden),
            }
        )

    async def endpoints(self, _request: web.Request) -> web.Response:
        """The endpoints of the language model as the file has them; keys are not sent."""
        settings, overridden = await asyncio.to_thread(self._current)
        return answer({"endpoints": shown_endpoints(settings), "overridden": overridden})

    def _current(self) -> tuple[Settings, bool]:
        """The settings of the files, and whether the owner's has other endpoints."""
        try:
            return self._file.current(), "llm.endpoints" in self._file.overridden()
        except SettingsError:
            return self._services.settings, False

    @takes(endpoints=(list[dict[str, Any]], ...))
    async def change_endpoints(self, request: web.Request) -> web.Response:
        """Write another list of endpoints; a list, or an object with `endpoints`."""
        body = await any_body_of(request)
        rows = body.get("endpoints") if isinstance(body, dict) else body
        return self._outcome(await replace_endpoints(self._file, rows))

    @takes(endpoint=(str | dict[str, Any], ...))
    async def models(self, request: web.Request) -> web.Response:
        """Which models an endpoint offers, asked with the key of the body."""
        return answer(await self._trials.models(await body_of(request)))

    async def presets(self, _request: web.Request) -> web.Response:
        """Services of which only the key is left to give."""
        return answer({"presets": shown_presets()})

    @takes(text=(str, ...), language=(str, "zh"), apply=(bool, False))
    async def migrate(self, request: web.Request) -> web.Response:
        """What another server's settings file, as text, is with us; written and applied where the body says so."""
        body = await body_of(request.clone(client_max_size=2 * MAX_FILE_BYTES))  # JSON may double what is quoted
        text = text_of(body, "text", MAX_FILE_BYTES)
        found = await asyncio.to_thread(_migrated, text)
        if body.get("apply") is True:
            return self._outcome(await self._file.write(lambda _owners: found.changes()))
        lines = [line.json("en" if body.get("language") == "en" else "zh") for line in found.lines]
        return answer({"settings": list(found.changes()), "lines": lines})

    @takes(
        endpoint=(str | dict[str, Any], ""),
        engine=(str, ""),
        voice=(str, ""),
        text=(str, ""),
        changes=(dict[str, Any], {}),
    )
    async def test(self, request: web.Request) -> web.Response:
        """Try one stage, with changes that have not been saved yet where the body has some."""
        return answer(await self._trials.run(request.match_info["stage"], await body_of(request)))


def _migrated(text: str) -> Migration:
    """Their file without what the pages may not change. Blocking. Raises `Refused`."""
    try:
        found = migrate_xinnan(read_yaml(text.encode(errors="replace"), "file"))
    except YamlError as error:
        raise Refused(422, str(error)) from None
    fixed = [name for name in found.changes() if (key := find(name.split("."))) and not can_be_changed(name, key)]
    return found.without([name for name in fixed if name != "llm.endpoints"], _NOT_HERE)
