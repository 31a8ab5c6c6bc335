"""The catalogue holds together, and names are looked up without holding up the end."""

import asyncio
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from xiaozhi.models import resolver
from xiaozhi.models.catalogue import MODELS, Download, Model, find
from xiaozhi.settings import ModelsSettings

MIRRORS = ModelsSettings().mirrors
HOSTS = {
    "github": "github.com",
    "huggingface": "huggingface.co",
    "hf-mirror": "hf-mirror.com",
    "modelscope": "www.modelscope.cn",
}
IN_CHINA = {"hf-mirror", "modelscope"}


def test_names_are_distinct_and_found() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    assert all(find(model.name) is model for model in MODELS)
    assert find("nothing") is None


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_source_brings_every_file(model: Model) -> None:
    assert len(model.sources) >= 2
    for source in model.sources:
        single = {download.file for download in source.downloads if not download.is_archive}
        has_archive = any(download.is_archive for download in source.downloads)
        assert single <= set(model.files)
        assert has_archive or single == set(model.files)
        for download in source.downloads:
            parts = urlsplit(download.url)
            assert (parts.scheme, parts.hostname) == ("https", HOSTS[source.mirror])
            assert "//" not in parts.path
            assert download.is_archive == parts.path.endswith(".tar.bz2")
    assert {file for file, _ in model.sha256} <= set(model.files)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_can_be_had_in_mainland_china_and_is_described_in_both_languages(model: Model) -> None:
    assert IN_CHINA & {source.mirror for source in model.sources_in(MIRRORS)}
    assert model.about and any("\u4e00" <= letter <= "\u9fff" for letter in model.about_zh)


def test_mirrors_are_taken_in_the_order_of_the_settings_and_wasteful_ones_last() -> None:
    def order(name: str, *mirrors: str) -> list[str]:
        model = find(name)
        assert model is not None
        return [source.mirror for source in model.sources_in(mirrors)]

    assert order("sense-voice", *MIRRORS) == ["github", "huggingface", "hf-mirror", "modelscope"]
    assert order("sense-voice", "hf-mirror", "github") == ["hf-mirror", "github"]
    assert order("zipformer", *MIRRORS) == ["huggingface", "hf-mirror", "github"]


def test_a_private_copy_is_a_folder_or_an_archive() -> None:
    model = find("sense-voice")
    assert model is not None
    folder = model.source_at("http://box/sense-voice/")
    assert folder.downloads == (
        Download("http://box/sense-voice/model.int8.onnx", "model.int8.onnx"),
        Download("http://box/sense-voice/tokens.txt", "tokens.txt"),
    )
    assert model.source_at("http://box/sv.tar.bz2").downloads == (Download("http://box/sv.tar.bz2"),)


def test_a_model_is_installed_when_every_file_is_there_and_not_empty(tmp_path: Path) -> None:
    model = find("sense-voice")
    assert model is not None
    model.folder(tmp_path).mkdir()
    (model.folder(tmp_path) / "model.int8.onnx").write_bytes(b"x")
    (model.folder(tmp_path) / "tokens.txt").write_bytes(b"")
    assert model.missing(tmp_path) == ["tokens.txt"]
    (model.folder(tmp_path) / "tokens.txt").write_bytes(b"a 0")
    assert model.installed(tmp_path)


def test_a_name_server_that_hangs_does_not_hold_up_the_end_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = threading.Event(), threading.Event()

    def hanging(*_: object, **__: object) -> list[object]:
        asked.set()
        answer.wait()
        return []

    async def look_up() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", hanging)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver.DaemonResolver().resolve("somewhere.example", 443)

    asyncio.run(look_up())  # would wait for the look-up if it ran in the loop's own threads
    assert asked.is_set()
    answer.set()


async def test_a_name_is_looked_up_and_a_wrong_one_refused() -> None:
    (found, *_) = await resolver.DaemonResolver().resolve("127.0.0.1", 80, socket.AF_INET)
    assert (found["host"], found["port"]) == ("127.0.0.1", 80)
    for name in ("no-such-host.invalid", "a" * 70 + ".example", "."):
        with pytest.raises(OSError, match=r"."):
            await resolver.DaemonResolver().resolve(name, 80)
