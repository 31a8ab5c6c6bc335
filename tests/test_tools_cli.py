"""`xiaozhi tools`: list, call, check."""

import json
import sys
from pathlib import Path

import pytest

from xiaozhi.cli import main

SCRIPT = str(Path(__file__).with_name("mcp_server.py"))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def configure(**servers: object) -> None:
    Path("mcp.json").write_text(json.dumps({"mcpServers": servers}))
    Path("settings.toml").write_text('[tools]\nmcp_config = "mcp.json"\n')


SUMS = {"command": sys.executable, "args": [SCRIPT, "stdio"]}


def test_tools_are_listed_with_those_of_a_real_server_and_one_is_called(capfd: pytest.CaptureFixture[str]) -> None:
    configure(sums=SUMS)
    assert main(["tools", "list"]) == 0
    listed = capfd.readouterr().out
    assert "get_time(time_zone)  [built-in]" in listed
    assert "sums_add(a, b)  [sums]\n    Add two numbers." in listed
    assert main(["tools", "call", "sums_add", "a=1", "b=2"]) == 0
    assert capfd.readouterr().out == "3\n"


def test_a_built_in_tool_is_called_and_mistakes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "call", "calculate", "--json", '{"expression": "(3+4)*5"}']) == 0
    assert capsys.readouterr().out == "35\n"
    assert main(["tools", "call", "calculate"]) == 1
    assert "'expression' is missing" in capsys.readouterr().out
    assert main(["tools", "call", "calcualte"]) == 2
    assert "did you mean calculate?" in capsys.readouterr().err
    assert main(["tools", "call", "calculate", "35"]) == 2
    assert "not KEY=VALUE" in capsys.readouterr().err


def test_checking_tries_every_server(capfd: pytest.CaptureFixture[str]) -> None:
    configure(sums=SUMS, gone={"command": "/nowhere/server"})
    assert main(["tools", "check"]) == 1
    assert capfd.readouterr().out == "away  gone: no such command: /nowhere/server\nok    sums: 6 tools\n"


def test_checking_without_servers_says_where_to_put_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "check"]) == 0
    assert "[[tools.servers]]" in capsys.readouterr().out


def test_a_wrong_file_of_servers_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure(a={})
    assert main(["tools", "list"]) == 1
    assert capsys.readouterr().err == "xiaozhi: mcp.json: mcpServers.a: needs either command or url\n"


def test_tools_that_are_off_are_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", "tools.enabled=false", "tools", "list"]) == 0
    assert "tools are off" in capsys.readouterr().out
