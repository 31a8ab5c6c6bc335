"""The real command in processes of its own, as it is on a fresh machine: embedded defaults, no key, no download."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.test_models_pull import Mirror
from tests.test_models_pull import serving as mirroring
from xiaozhi.audio.wav import read_wav
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.console.password import first_password_path
from xiaozhi.models.catalogue import MODELS
from xiaozhi.models.pull import come_so_far
from xiaozhi.store import private_file

# Loading, warming and binding take about 3 s alone; tests share two processors.
START_S = 60.0
END_S = 60.0


def environment(port: int, folder: Path) -> dict[str, str]:
    """Nothing but a free port and no internet: the rest is the embedded default.

    And no device is turned away because others keep the processors busy.
    """
    ours = {
        "XIAOZHI_LOAD__SHED": "false",
        "XIAOZHI_SERVER__HOST": "127.0.0.1",
        "XIAOZHI_SERVER__PORT": str(port),
        "XIAOZHI_SERVER__DATA_DIR": str(folder / "data"),
        "XIAOZHI_MODELS__DIR": str(folder / "models"),
        "XIAOZHI_MODELS__AUTO_PULL": "false",
        "XIAOZHI_TTS__ENGINES": '["espeak"]',
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    foreign = ("XIAOZHI_", "OPENAI_", "PYTEST_")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(foreign)}, **ours}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "xiaozhi", *words]


def run(folder: Path, port: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in an empty folder."""
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(port, folder),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


class Running:
    """A server process.

    Attributes:
        port: where it listens.
        log: the lines that it has logged.
    """

    def __init__(
        self, folder: Path, port: int, *words: str, argv: list[str] | None = None, more: dict[str, str] | None = None
    ) -> None:
        self.port = port
        self.log: list[str] = []
        self._out = (folder / "out").open("w")
        self.process = subprocess.Popen(
            argv or command("serve", *words),
            cwd=folder,
            env=environment(port, folder) | (more or {}),
            stdout=self._out,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._up.wait(START_S), "it does not come up"
        assert self.process.poll() is None, self.errors()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if "serving" in line:
                self._up.set()
        self._up.set()

    def errors(self) -> str:
        """What it has written to standard error."""
        return "".join(self.log)

    def out(self) -> str:
        """What it has written to standard output."""
        return Path(self._out.name).read_text()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(END_S)
        self._reader.join(5)
        return code

    def close(self) -> None:
        """End the process if a test has left it running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._out.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to start in: no settings, no models."""
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Running]:
    with contextlib.closing(Running(folder, free_port())) as running:
        yield running


def test_a_spoken_question_is_answered_by_a_server_on_embedded_defaults(server: Running, folder: Path) -> None:
    for word in (f"ota=http://127.0.0.1:{server.port}/xiaozhi/ota/", "pocketsphinx", "espeak", "auth=token"):
        assert word in server.errors()

    reply = folder / "reply.wav"
    talk = run(folder, server.port, "talk", "--say", "what time is it", "--out", str(reply))
    assert (talk.returncode, talk.stderr) == (0, ""), talk.stdout
    assert "heard     what time is it" in talk.stdout
    assert "answered  It is" in talk.stdout or "answered  It's" in talk.stdout
    sound = read_wav(reply)
    assert len(sound) > 8000
    assert float(np.abs(sound).max()) > 0.05

    checked = run(folder, server.port, "check")
    assert f"127.0.0.1:{server.port}: a XiaoZhi server is already serving here" in checked.stdout
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "ready: already serving here"), checked.stdout

    taken = run(folder, server.port, "serve")
    assert (taken.returncode, taken.stdout) == (1, "")
    assert "warm" not in taken.stderr, "nothing was loaded for nothing"
    problem = [line for line in taken.stderr.splitlines() if line.startswith("xiaozhi:")]
    assert problem == [line for line in taken.stderr.splitlines() if "cannot listen" in line]
    assert f"127.0.0.1:{server.port}" in problem[0]
    assert "--port" in problem[0]
    assert "Traceback" not in taken.stderr

    assert server.stop() == 0
    log = server.errors()
    assert len([line for line in log.splitlines() if " INFO    turn  device=" in line]) == 1, log
    assert "what time is it" not in log, "transcripts are not logged unless enabled"
    assert "Traceback" not in log
    assert server.out() == "", "the page to read is for terminals"


@pytest.mark.real_time
async def test_a_signal_lets_a_reply_that_is_being_spoken_end(server: Running) -> None:
    async with Device(ClientIdentity.of("02:00:00:00:00:01")) as device:
        ota = await device.boot(f"http://127.0.0.1:{server.port}/xiaozhi/ota/")
        await device.connect(ota.url, ota.token)
        turn = asyncio.create_task(device.turn_text("what is two plus three"))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 100)
        server.process.send_signal(signal.SIGTERM)
        report = await turn
        assert (report.answered, report.dropped) == (True, {})
        assert report.tts_stop_ms is not None
        await device.until(lambda: not device.connected)
    assert await asyncio.to_thread(server.process.wait, END_S) == 0


_WITH_ANOTHER_MIRROR = """
import dataclasses, sys
from xiaozhi.models import catalogue
url = sys.argv[1]
def there(model):
    files = tuple(catalogue.Download(f"{url}/{model.name}/{file}", file) for file in model.files)
    return dataclasses.replace(model, sources=(catalogue.ModelSource("github", files),))
catalogue.MODELS = tuple(there(model) for model in catalogue.MODELS)
from xiaozhi.cli import main
sys.exit(main(sys.argv[2:]))
"""


async def test_it_answers_while_a_slow_mirror_sends_a_better_model(folder: Path) -> None:
    (folder / "serve.py").write_text(_WITH_ANOTHER_MIRROR)
    content = {"sense-voice/model.int8.onnx": bytes(2_000_000), "sense-voice/tokens.txt": b"a 0"}
    async with mirroring(Mirror(content, bytes_s=5000.0)) as mirror:
        argv = [sys.executable, str(folder / "serve.py"), mirror.url, "serve"]
        free = {"XIAOZHI_MODELS__AUTO_PULL": "true", "no_proxy": "*"}
        running = await asyncio.to_thread(lambda: Running(folder, free_port(), argv=argv, more=free))
        with contextlib.closing(running):
            assert "fetching sense-voice now" in running.errors()
            talk = await asyncio.to_thread(run, folder, running.port, "talk", "--text", "what is two plus three")
            assert talk.returncode == 0 and ("5" in talk.stdout or "five" in talk.stdout), talk.stdout
            assert "fetching sense-voice (240 MB) from github" in running.errors()
            async with asyncio.timeout(START_S):
                while not come_so_far(MODELS[0], folder / "models"):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.05)
            listed = await asyncio.to_thread(run, folder, running.port, "models", "list")
            assert re.search(r"sense-voice +recognition +240 MB +\d+ %", listed.stdout), listed.stdout
            pulled = await asyncio.to_thread(run, folder, running.port, "models", "pull", "sense-voice")
            assert pulled.returncode == 1 and "is being fetched by another process" in pulled.stderr
            assert running.stop() == 0, running.errors()
        assert "Traceback" not in running.errors()


def test_a_server_inside_talk_answers_too(folder: Path) -> None:
    reply = folder / "reply.wav"
    talk = run(folder, 1, "talk", "--serve", "--text", "what is two plus three", "--out", str(reply))
    assert talk.returncode == 0, talk.stderr
    assert "5" in talk.stdout or "five" in talk.stdout
    assert float(np.abs(read_wav(reply)).max()) > 0.05
    assert "Traceback" not in talk.stderr


def test_mistakes_are_one_line_and_exit_codes(folder: Path) -> None:
    lonely = run(folder, free_port(), "talk", "--quiet", "--text", "hello")
    assert (lonely.returncode, lonely.stderr.count("\n")) == (2, 1), lonely.stderr
    assert "no server" in lonely.stderr
    unknown = run(folder, 0, "--set", "server.prot=1", "serve")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (2, "", 1), unknown.stderr
    assert "server.port" in unknown.stderr, "the nearest valid key"


def test_a_settings_file_with_an_unknown_key_is_one_line(folder: Path) -> None:
    (folder / "settings.toml").write_text("[asr]\nengin = 'auto'\n")
    wrong = run(folder, 0, "serve")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1), wrong.stderr
    for word in ("settings.toml", "asr.engin", "engine"):
        assert word in wrong.stderr


def test_a_data_folder_that_cannot_be_written_is_one_line(folder: Path) -> None:
    (folder / "taken").write_text("a file")
    wrong = run(folder, 0, "--set", f"server.data_dir={folder / 'taken'}", "serve")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "server.data_dir" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert wrong.stderr.count("\n") == 1


HELD_UP = """
import asyncio, os, re, sys, time
from xiaozhi.app import process
from xiaozhi.settings.load import load_settings

def for_ever():
    print("held up", flush=True)
    {how}

announce = process._announce
async def with_a_fault(*about):
    asyncio.get_running_loop().call_later(0.1, {begin})
    await announce(*about)

process._announce = with_a_fault
process._CLOSE_S = process._THREADS_S = 1.0
sys.exit(process.run(load_settings(None, {{"server.drain_s": "0"}}, os.environ).settings))
"""


@pytest.mark.parametrize(
    ("how", "begin", "code", "told"),
    [
        ("while True: pass", "for_ever", 1, "in for_ever"),
        ("re.match('^(a+)+$', 'a' * 60 + '!')", "for_ever", 1, "in for_ever"),
        ("time.sleep(3600)", "lambda: asyncio.get_running_loop().run_in_executor(None, for_ever)", 0, "are left: "),
    ],
)
def test_a_signal_ends_a_process_that_is_held_up(folder: Path, how: str, begin: str, code: int, told: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HELD_UP.format(how=how, begin=begin)],
        cwd=folder, env=environment(free_port(), folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while (line := process.stdout.readline()) and "held up" not in line:
                pass
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=END_S)
            assert process.returncode == code
            assert told in errors
        finally:
            process.kill()


# What is said at the start --------------------------------------------------------------------------------------------


def test_a_terminal_gets_the_page_to_read_and_the_password_and_the_log_gets_neither(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command("--set", "log.format=json", "serve"),
            cwd=folder,
            env=environment(free_port(), folder),
            stdin=theirs,
            stdout=theirs,
            stderr=log,
        )
    os.close(theirs)
    try:
        page = ""
        while "try it" not in page:
            page += os.read(ours, 4096).decode()
        process.terminate()
        assert process.wait(END_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    (password,) = re.findall(r"shown only this once\s+(\S+)", page)
    logged = (folder / "log").read_text()
    assert password not in logged and "try it" not in logged
    assert all(isinstance(json.loads(line), dict) for line in logged.splitlines())
    assert not first_password_path(folder / "data" / "console-password").exists(), "it was shown"


def test_without_a_terminal_the_password_is_in_a_file_of_its_own_and_nowhere_else(folder: Path) -> None:
    with contextlib.closing(Running(folder, free_port(), "--set", "log.format=json")) as running:
        lines = [json.loads(line) for line in running.log]
        file = first_password_path(folder / "data" / "console-password")
        assert any(str(file) in line["message"] for line in lines)
        (serving,) = [line for line in lines if line["message"] == "serving"]
        assert serving["console"] == f"http://127.0.0.1:{running.port}/console/"
        shown = run(folder, 0, "console", "password", "--show")
        password = shown.stdout.strip()
        assert shown.returncode == 0 and password == file.read_text().strip() and file.stat().st_mode & 0o777 == 0o600
        assert running.stop() == 0
        assert password not in running.errors() and running.out() == ""
    assert run(folder, 0, "console", "password", "--reset").returncode == 0
    gone = run(folder, 0, "console", "password", "--show")
    assert (gone.returncode, gone.stdout) == (1, "") and "console password" in gone.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can write for others")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """`sudo xiaozhi console password` must not lock out a service that runs as somebody else."""
    os.chown(tmp_path, 65_534, 65_534)
    private_file.write(tmp_path / "secret", b"x")
    assert (tmp_path / "secret").stat().st_uid == 65_534
