"""Fetch a published model: mirrors in order, resumed, compared with the first pull, put in place in one step.

One that is slow is left for a quicker one, and one process at a time fetches a model.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import aiohttp

from xiaozhi.models import record
from xiaozhi.models.catalogue import Download, Model, ModelSource
from xiaozhi.models.fetch import (
    SLOW_BYTES_S,
    STUCK_BYTES_S,
    FetchError,
    Progress,
    StorageError,
    TooSlow,
    client,
    fetch,
    quiet,
    storage_error,
)
from xiaozhi.models.unpack import ArchiveError, unpack
from xiaozhi.program import PlainError, program
from xiaozhi.settings import ModelsSettings

_log = logging.getLogger(__name__)

PARTIAL_DIR = ".partial"
"""Where unfinished pulls wait to be gone on with, below `models.dir`."""

REACH_S = 4.5
"""Longest wait of an automatic pull for any mirror: a start without internet must not take more than 5 s."""

Verify: TypeAlias = Callable[[Model, Path], str]
"""Tries the model in a folder; an empty text when it is good, else one line why not. Blocking."""


class PullError(PlainError):
    """The model could not be fetched; one line for each mirror, with what to do."""


class Fetching(PullError):
    """Another process is fetching it."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is in place.

    Attributes:
        folder: where.
        source: the mirror it came from; empty when it was there already.
    """

    folder: Path
    source: str = ""


def trust(_model: Model, _folder: Path) -> str:
    """The check of those who have none: files that are there and were not changed are good."""
    return ""


async def pull(
    model: Model,
    models_dir: Path,
    sources: Sequence[ModelSource],
    *,
    connect_timeout_s: float = 5.0,
    verify: Verify = trust,
    progress: Progress = quiet,
    on_source: Callable[[str], None] = lambda _mirror: None,
) -> Pulled:
    """Fetch a model from the first source that has it whole and is quick, and put it in place.

    Where all that have it are slow the quickest of them is waited for. What was fetched in part stays for the next
    call, and for other mirrors of the same repository. Nothing is touched when the model is there and unchanged.

    Args:
        model: what to fetch.
        models_dir: the folder of all models; it is made when missing.
        sources: where from, in this order.
        connect_timeout_s: time for one mirror to answer, in seconds.
        verify: tries the fetched model before it is put in place.
        progress: told about every piece.
        on_source: told the mirror that is asked next.

    Raises:
        Fetching: another process is fetching it.
        PullError: no source had it, or this machine cannot store it.
    """
    if not sources:
        raise PullError(f"{model.name}: none of the chosen mirrors has it")
    reasons: list[str] = []
    try:
        if model.installed(models_dir) and not await asyncio.to_thread(
            _changed, model, model.folder(models_dir), models_dir
        ):
            return Pulled(model.folder(models_dir))
        work = models_dir / PARTIAL_DIR / model.name
        work.mkdir(parents=True, exist_ok=True)
        slow: list[tuple[float, ModelSource]] = []
        with _alone(work, model.name):
            async with client(connect_timeout_s) as session:
                for source, least_bytes_s in _in_turn(sources, slow):
                    try:
                        on_source(source.mirror)
                        parts = await _parts_from(session, source, model, work, progress, least_bytes_s)
                        await asyncio.to_thread(_install, parts, model, models_dir, work, verify)
                        return Pulled(model.folder(models_dir), source.mirror)
                    except StorageError:
                        raise
                    except FetchError as error:
                        reasons.append(f"{source.mirror}: {error}")
                        if isinstance(error, TooSlow):
                            slow.append((error.bytes_s, source))
                            _log.info("%s from %s; looking for a quicker one", model.name, error)
    except StorageError as error:
        raise PullError(f"{model.name}: {error}") from None
    except OSError as error:
        raise PullError(f"{model.name}: {storage_error(error, models_dir)}") from None
    except ValueError as error:  # the record of earlier pulls is damaged
        raise PullError(f"{model.name}: {error}") from None
    await asyncio.to_thread(_tidy, work)
    raise PullError("\n".join(dict.fromkeys(f"{model.name}: {reason}" for reason in reasons)))


def _in_turn(
    sources: Sequence[ModelSource], slow: Sequence[tuple[float, ModelSource]]
) -> Iterator[tuple[ModelSource, float]]:
    """Every source, with the least speed that is waited for; then the slow ones, the quickest first, at any speed."""
    yield from ((source, SLOW_BYTES_S) for source in sources)
    for _, source in sorted(slow, key=lambda one: -one[0]):
        yield source, STUCK_BYTES_S


async def pull_if_missing(
    model: Model,
    models_dir: Path,
    settings: ModelsSettings,
    *,
    verify: Verify = trust,
    progress: Progress = quiet,
    on_source: Callable[[str], None] = lambda _mirror: None,
) -> str:
    """Fetch a model for a server: without waiting more than 5 s for an answer.

    All mirrors are asked at the same time whether they can be reached; the first in order that can is used.

    Returns:
        An empty text when the model is in place, else one line why not. Never raises for a network or a disk.

    Raises:
        Fetching: another process is fetching it.
    """
    if model.installed(models_dir):
        return ""
    sources = model.sources_in(settings.mirrors)
    reach_s = min(settings.connect_timeout_s, REACH_S)
    async with client(reach_s) as session:
        answers = await asyncio.gather(*(_reachable(session, source, reach_s) for source in sources))
    sources = [source for source, answered in zip(sources, answers, strict=True) if answered]
    if not sources:
        return f"{model.name} cannot be fetched: no mirror can be reached ({', '.join(settings.mirrors)})"
    try:
        await pull(
            model,
            models_dir,
            sources,
            connect_timeout_s=settings.connect_timeout_s,
            verify=verify,
            progress=progress,
            on_source=on_source,
        )
    except Fetching:
        raise
    except PullError as error:
        return f"{model.name} cannot be fetched: " + str(error).splitlines()[-1].removeprefix(f"{model.name}: ")
    return ""


def remove(model: Model, models_dir: Path) -> bool:
    """Delete a model and what is left of unfinished pulls; whether there was anything. Its fingerprints stay recorded.

    Raises:
        PullError: it cannot be deleted.
    """
    found = False
    try:
        for folder in (model.folder(models_dir), models_dir / PARTIAL_DIR / model.name):
            if folder.is_dir():
                shutil.rmtree(folder)
                found = True
    except OSError as error:
        raise PullError(f"{model.name}: {storage_error(error, models_dir)}") from None
    return found


async def _reachable(session: aiohttp.ClientSession, source: ModelSource, reach_s: float) -> bool:
    """Whether the mirror answers and knows the first file."""
    try:
        async with (
            asyncio.timeout(reach_s),
            session.get(source.downloads[0].url, headers={"Range": "bytes=0-0"}) as reply,
        ):
            return reply.status < 400
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _parts_from(
    session: aiohttp.ClientSession,
    source: ModelSource,
    model: Model,
    work: Path,
    progress: Progress,
    least_bytes_s: float,
) -> list[tuple[Download, Path]]:
    """Fetch everything of one source."""
    parts = [(download, work / _part_name(download.url)) for download in source.downloads]
    for download, part in parts:
        await fetch(session, download.url, part, _shown_name(download), progress, least_bytes_s)
    return parts


@contextlib.contextmanager
def _alone(work: Path, name: str) -> Iterator[None]:
    """Keep other processes from writing into the same folder; without such locks (Windows) nobody is kept."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fetching(
                f"{name} is being fetched by another process; `{program()} models list` shows how far"
            ) from None
        yield
    finally:
        os.close(lock)


def come_so_far(model: Model, models_dir: Path) -> int:
    """Bytes of an unfinished pull that are there, of the mirror that has given most. Blocking."""
    parts = list((models_dir / PARTIAL_DIR / model.name).glob("*.part"))
    return max((part.stat().st_size for part in parts), default=0)


def _install(
    parts: Sequence[tuple[Download, Path]], model: Model, models_dir: Path, work: Path, verify: Verify
) -> None:
    """Assemble the fetched parts, try them, and swap the folder in. Blocking.

    Raises:
        FetchError: what has come is no good; it is deleted, because going on with it would never help.
    """
    try:
        _assemble(parts, model, models_dir, work, verify)
    except FetchError as error:
        if not isinstance(error, StorageError):
            for _, part in parts:
                part.unlink(missing_ok=True)
        raise


def _assemble(
    parts: Sequence[tuple[Download, Path]], model: Model, models_dir: Path, work: Path, verify: Verify
) -> None:
    ready = work / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    elsewhere = {download.file for download, _ in parts if not download.is_archive}
    for download, part in parts:
        if download.is_archive:
            try:
                files = [file for file in model.files if file not in elsewhere]
                unpack(part, ready, files)
            except ArchiveError as error:
                raise FetchError(str(error).replace(part.name, _shown_name(download))) from None
        else:
            (ready / download.file).parent.mkdir(parents=True, exist_ok=True)
            part.rename(ready / download.file)
    for file in model.files:
        _refuse_impostor(ready / file)
    if change := _changed(model, ready, models_dir):
        raise FetchError(change)
    if reason := verify(model, ready):
        raise FetchError(f"the model does not load: {reason}")
    found = {file: record.fingerprint(ready / file) for file in model.files}
    _swap(ready, model.folder(models_dir), work / "old")
    record.record(models_dir, model.name, found)
    shutil.rmtree(work, ignore_errors=True)
    _tidy(work)


def _tidy(work: Path) -> None:
    """Leave no empty folders behind; what has come in part stays."""
    shutil.rmtree(work / "ready", ignore_errors=True)
    for folder in (work, work.parent):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def _swap(ready: Path, folder: Path, old: Path) -> None:
    """Put `ready` where `folder` was; at no time does a half model lie there."""
    shutil.rmtree(old, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(old)
    ready.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _changed(model: Model, folder: Path, models_dir: Path) -> str:
    """One line when a file is not what was published or recorded at the first good pull. Blocking."""
    known = {file: record.Fingerprint(0, sha256) for file, sha256 in model.sha256}
    known |= record.recorded(models_dir, model.name)
    for file in model.files:
        if (expected := known.get(file)) is None:
            continue
        found = record.fingerprint(folder / file)
        if found.sha256 != expected.sha256:
            return (
                f"{file} is not the one that was recorded (SHA-256 {found.sha256[:12]}…, {found.size} bytes, instead "
                f"of {expected.sha256[:12]}…): damaged on the way, or published anew; "
                f"`{program()} models pull {model.name} --forget` accepts a new one"
            )
    return ""


def _refuse_impostor(path: Path) -> None:
    """A web page, or the pointer of a large-file store, under the name of a model."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if not head:
        raise FetchError(f"{path.name} is empty")
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"version https://git-lfs")):
        raise FetchError(f"{path.name} is not the file but a page or pointer to it")


def _part_name(url: str) -> str:
    """A name for the partial file of a URL: versions never share one, mirrors of one repository do."""
    return (
        f"{hashlib.sha256(urlsplit(url).path.encode()).hexdigest()[:10]}-{urlsplit(url).path.rsplit('/', 1)[-1]}.part"
    )


def _shown_name(download: Download) -> str:
    return download.file or urlsplit(download.url).path.rsplit("/", 1)[-1]
