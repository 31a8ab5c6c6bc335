"""Models that a running server fetches, and takes over as soon as they are complete, whoever fetched them."""

import asyncio
import logging
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from xiaozhi.conversation.services import Services
from xiaozhi.models.catalogue import MODELS, Model, find
from xiaozhi.models.pull import Fetching, come_so_far, pull_if_missing
from xiaozhi.reload.reloader import Reloader
from xiaozhi.settings import Settings
from xiaozhi.stages.verify import verify

_log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 3.0
_TELL_EVERY_S: Final = 30.0
# A box that boots before its router, a mirror that is away for a day: tried again without a word.
_FIRST_RETRY_S: Final = 300.0
_LONGEST_RETRY_S: Final = 6 * 3600.0
# Models that `auto` takes when they are there, the best first.
_BY_ITSELF: Final = ("sense-voice", "zipformer")


def missing_models(settings: Settings) -> list[str]:
    """Which better models are to be fetched: for stages where nobody chose one and no folder of one is there. Blocking.

    A folder that is there is left alone whatever it holds: it may be somebody's own model.
    """
    if not settings.models.auto_pull:
        return []
    try:
        there = {model.role for model in MODELS if model.folder(settings.models.dir).exists()}
    except OSError:  # a folder that may not be looked into takes no models either
        return []
    chosen = settings.asr.engine != "auto" or settings.asr.model_dir is not None
    return [] if chosen or "recognition" in there else ["sense-voice"]


class PullState(StrEnum):
    """What becomes of a model."""

    FETCHING = "fetching"
    CHECKING = "checking"
    """It is complete: it is tried, and taken over."""
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True)
class Pull:
    """A model on its way.

    Attributes:
        model: which.
        state: how far.
        source: the mirror it comes from.
        sizes: bytes that have come, and bytes in all, by file.
        error: why it failed; one line.
        told: when it was last said how far it is, seconds of the loop's clock.
    """

    model: Model
    state: PullState = PullState.FETCHING
    source: str = ""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    error: str = ""
    told: float = 0.0

    @property
    def done_bytes(self) -> int:
        """What has come."""
        return sum(done for done, _ in self.sizes.values())

    @property
    def total_bytes(self) -> int:
        """What there is to come, as far as it is known."""
        return max(sum(total for _, total in self.sizes.values()), self.model.size_mb * 1_000_000, self.done_bytes)


class Pulls:
    """Fetches models, and builds engines anew when a better model has come.

    Args:
        services: whose settings say where models lie.
        reloader: exchanges the engines.
    """

    def __init__(self, services: Services, reloader: Reloader) -> None:
        self._services = services
        self._reloader = reloader
        self._loop = asyncio.get_running_loop()
        self._pulls: dict[str, Pull] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._absent: set[str] = set()  # models that would be used if they were there

    @property
    def on_the_way(self) -> list[str]:
        """Models that are being fetched."""
        return [name for name, pull in self._pulls.items() if pull.state in (PullState.FETCHING, PullState.CHECKING)]

    def start(self, name: str) -> None:
        """Fetch a model unless that is under way.

        Raises:
            LookupError: no model is called so.
        """
        if (model := find(name)) is None:
            raise LookupError(f"no model is called {name!r}")
        if name not in self.on_the_way:
            before = self._pulls.get(name)
            pull = self._pulls[name] = Pull(model, error=before.error if before is not None else "")
            task = self._loop.create_task(self._run_one(pull), name=f"pull-{name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._announce()

    def _announce(self) -> None:
        """Whoever speaks a language that is not known yet hears that it will be."""
        coming = (self._pulls[name].model.role for name in self.on_the_way)
        self._services.recogniser_is_coming = "recognition" in coming

    async def run(self) -> None:
        """Fetch what is missing, and look whether somebody else has put a model there. Runs until cancelled."""
        wanted = await asyncio.to_thread(missing_models, self._services.settings)
        retry_s, retry_at = _FIRST_RETRY_S, self._loop.time()
        self._absent = await asyncio.to_thread(self._better)
        while True:
            if wanted and self._loop.time() >= retry_at:
                for name in wanted:
                    self.start(name)
                retry_at, retry_s = self._loop.time() + retry_s, min(_LONGEST_RETRY_S, 2.0 * retry_s)
            await asyncio.sleep(_LOOK_EVERY_S)
            for name in sorted(self._absent, key=_BY_ITSELF.index):
                if name not in self.on_the_way and await self._installed(name):
                    self._pulls[name] = pull = Pull(_known(name), PullState.CHECKING)
                    await self._take(pull)
            wanted = [name for name in wanted if name in self._absent]

    def _better(self) -> set[str]:
        """Models that would be used instead of what is, or beside it, if they were there. Blocking."""
        asr, engine = self._services.settings.asr, self._services.recognition.engine.name
        if asr.engine != "auto" or asr.model_dir is not None:
            return set()
        if engine == "sense-voice" and _known("zipformer").installed(self._services.settings.models.dir):
            return set()  # it does not know what is spoken
        return {"pocketsphinx": set(_BY_ITSELF), "zipformer": {"sense-voice"}, "sense-voice": {"zipformer"}}.get(
            engine, set()
        )

    async def close(self) -> None:
        """Stop fetching; what has come in part is gone on with at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _installed(self, name: str) -> bool:
        return await asyncio.to_thread(_known(name).installed, self._services.settings.models.dir)

    # One model ----------------------------------------------------------------------------------------------------

    async def _run_one(self, pull: Pull) -> None:
        try:
            await self._fetch(pull)
        except Exception:  # noqa: BLE001 - serving goes on without the model; it is logged whole
            _log.exception("fetching %s failed", pull.model.name)
            pull.state, pull.error = PullState.FAILED, f"{pull.model.name}: internal error; see the log"
        self._announce()

    async def _fetch(self, pull: Pull) -> None:
        settings, model = self._services.settings.models, pull.model

        def progress(file: str, done: int, total: int | None) -> None:
            pull.sizes[file] = (done, total or 0)
            if self._loop.time() - pull.told >= _TELL_EVERY_S:
                self._tell(pull)

        def ask(mirror: str) -> None:
            pull.source, pull.sizes = mirror, {}
            _log.info("fetching %s (%d MB) from %s", model.name, model.size_mb, mirror)
            pull.told = self._loop.time()

        while True:
            try:
                why = await pull_if_missing(
                    model, settings.dir, settings, verify=verify, progress=progress, on_source=ask
                )
                break
            except Fetching:  # by the command line
                pull.source = ""
                pull.sizes = {"": (await asyncio.to_thread(come_so_far, model, settings.dir), 0)}
                await asyncio.sleep(_LOOK_EVERY_S)
        if why:
            # Without internet one line is enough, for all models and all tries.
            known = {one.error.partition(": ")[2] for one in self._pulls.values()}
            level = logging.DEBUG if why.partition(": ")[2] in known else logging.WARNING
            pull.state, pull.error = PullState.FAILED, why
            _log.log(level, "%s; going on without it", why)
            return
        pull.state = PullState.CHECKING
        await self._take(pull)

    def _tell(self, pull: Pull) -> None:
        pull.told = self._loop.time()
        done_mb, total_mb = pull.done_bytes / 1e6, pull.total_bytes / 1e6
        share = 100.0 * done_mb / max(0.1, total_mb)
        _log.info("%s: %.0f of %.0f MB (%.0f %%) from %s", pull.model.name, done_mb, total_mb, share, pull.source)

    async def _take(self, pull: Pull) -> None:
        """Build anew what is better with this model, where the settings leave the choice open."""
        name, keys = pull.model.name, self._decided_by(pull.model.name)
        self._absent.discard(name)
        if keys and (errors := (await self._reloader.rebuild(keys)).errors):
            pull.state, pull.error = PullState.FAILED, errors[0]
            return
        pull.state, pull.error = PullState.READY, ""
        _log.info("%s is there%s", name, " and in use" if keys else f"; to use it: {_line_for(pull.model)}")

    def _decided_by(self, name: str) -> list[str]:
        """The setting that takes a model by itself when it is there; none where another one was chosen."""
        settings = self._services.settings
        free = settings.asr.engine == "auto" and settings.asr.model_dir is None
        return ["asr.engine"] if free and name in _BY_ITSELF else []

    # What the pages show ------------------------------------------------------------------------------------------

    def progress(self) -> list[dict[str, Any]]:
        """What has been fetched since the start, or is."""
        return [
            {
                "name": name,
                "state": pull.state.value,
                "done_mb": round(pull.done_bytes / 1e6, 1),
                "total_mb": round(pull.total_bytes / 1e6, 1),
                "source": pull.source,
                "error": pull.error,
            }
            for name, pull in self._pulls.items()
        ]

    def shown(self) -> list[dict[str, Any]]:
        """Every known model, and whether it is there. Blocking."""
        return [
            {
                "name": model.name,
                "role": model.role,
                "about": model.about,
                "about_zh": model.about_zh,
                "size_mb": model.size_mb,
                "installed": model.installed(self._services.settings.models.dir),
                "by_itself": bool(self._decided_by(model.name)),
                "settings": _line_for(model),
            }
            for model in MODELS
        ]


def _line_for(model: Model) -> str:
    """The line of `settings.toml` that uses a model."""
    return model.settings or '[asr] engine = "auto"'


def _known(name: str) -> Model:
    model = find(name)
    assert model is not None
    return model
