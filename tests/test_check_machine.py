"""The check looks at the machine: each finding says what to do."""

import importlib
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from xiaozhi.checks import machine
from xiaozhi.checks.finding import Finding, Level, bad, ok, serving_fails, warn
from xiaozhi.overload.cpu import CpuClass
from xiaozhi.settings import ServerSettings, Settings


def with_settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


def test_a_finding_is_one_line() -> None:
    assert str(warn("llm qwen", "does not\nanswer")) == "warn  llm qwen               does not answer"


def test_serving_fails_only_for_what_is_bad_and_required() -> None:
    assert not serving_fails([ok("a", ""), warn("b", ""), bad("c", "", required=False)])
    assert serving_fails([ok("a", ""), bad("c", "")])


def test_a_free_port_is_good_and_a_taken_one_is_bad() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        found = machine.port(ServerSettings(host="127.0.0.1", port=number))
    assert (found.level, found.required) == (Level.BAD, True)
    assert "in use" in found.text and "--port" in found.text
    assert machine.port(ServerSettings(host="127.0.0.1", port=number)).level is Level.OK
    assert machine.port(ServerSettings(host="127.0.0.1", port=0)).text == "127.0.0.1, any free port"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_bad(host: str) -> None:
    found = machine.port(ServerSettings(host=host, port=0))
    assert found.level is Level.BAD
    assert "no address of this machine" in found.text


@pytest.mark.parametrize(
    ("url", "level"),
    [("", None), ("https://a.example", Level.OK), ("a.example:8000", Level.BAD), ("http://[::1]:80", Level.BAD)],
)
def test_a_public_address_must_be_one_that_devices_understand(url: str, level: Level | None) -> None:
    found = machine.public_url(ServerSettings(public_url=url))
    assert (found and found.level) == level


def test_a_folder_is_good_when_it_is_there_or_can_be_made(tmp_path: Path) -> None:
    assert machine.folder("server.data_dir", tmp_path) == ok("server.data_dir", str(tmp_path))
    there = machine.folder("server.data_dir", tmp_path / "a" / "b")
    assert there == ok("server.data_dir", f"{tmp_path}/a/b will be made")
    assert not (tmp_path / "a").exists()


def test_a_file_where_the_folder_should_be_is_bad(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    found = machine.folder("server.data_dir", tmp_path / "data")
    assert (found.level, found.required) == (Level.BAD, True)
    assert "cannot be written to" in found.text


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.disk(tmp_path / "not" / "there").subject == "disk"
    monkeypatch.setattr(machine, "LOW_DISK_MB", 10**12)
    assert machine.disk(tmp_path).level is Level.WARN


def test_the_processor_is_measured_against_the_settings() -> None:
    few = with_settings(asr={"workers": 1})
    assert "with VNNI" in machine.cpu(few, CpuClass.VNNI).text
    assert "without VNNI" in machine.cpu(few, CpuClass.AVX2).text
    assert "ARM dotprod" in machine.cpu(few, CpuClass.DOTPROD).text
    assert machine.cpu(few, CpuClass.OTHER).level is Level.OK
    many = machine.cpu(with_settings(asr={"workers": 64, "threads": 64}))
    assert (many.level, many.required) == (Level.WARN, False)


def test_a_low_limit_of_open_files_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    found = machine.descriptors(ServerSettings(max_devices=500))
    assert found.level is Level.WARN
    assert "LimitNOFILE=600" in found.text
    assert machine.descriptors(ServerSettings(max_devices=100)).level is Level.OK
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert "no limit" in machine.descriptors(ServerSettings()).text


def test_the_libraries_of_the_chosen_engines_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.libraries(Settings())
    assert found.level is Level.OK
    assert "onnxruntime" in found.text
    real = importlib.import_module

    def without_edge(name: str) -> Any:
        if name == "edge_tts":
            raise ImportError("No module named 'edge_tts'")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_edge)
    broken = machine.libraries(Settings())
    assert (broken.level, broken.required) == (Level.BAD, True)
    assert broken.text.startswith("edge-tts does not load")
    assert machine.libraries(with_settings(tts={"engines": ["espeak"]})).level is Level.OK


def found_auth(**sections: Any) -> Finding:
    return machine.auth(with_settings(**sections))


def test_an_open_door_is_a_warning_unless_only_this_machine_can_come() -> None:
    assert found_auth().level is Level.OK
    assert found_auth(auth={"mode": "open"}).level is Level.WARN
    assert found_auth(auth={"mode": "open"}, server={"host": "127.0.0.1"}).level is Level.OK
    assert found_auth(auth={"mode": "open"}, server={"host": "localhost"}).level is Level.OK
    assert found_auth(auth={"mode": "open"}, server={"host": "box.lan"}).level is Level.WARN
    short = found_auth(auth={"tokens": ["1234"]})
    assert short.level is Level.WARN
    assert "1234" not in str(short)
