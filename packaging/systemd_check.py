"""Tries the single executable under a real systemd: `sudo python packaging/systemd_check.py dist/xiaozhi`.

A small Debian (made once by debootstrap, kept in `build/systemd-root`) is booted by systemd-nspawn over a throw-away
layer, with no network but its own loopback interface. There the unit that `xiaozhi deploy systemd` prints is installed
and lived with as an operator does: start, talk, keys, reload, a loop that stands still, a crash, stop in the middle of
a reply, start again. Needs Linux, root, and the packages systemd-container and debootstrap. Exits with 0 when all of it
went well. Two minutes, the first time three.
"""

# ruff: noqa: T201 - it is run by hand and says what it sees

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_PACKAGES: Final = "systemd,systemd-sysv,dbus,curl,procps"
_UNIT: Final = "xiaozhi.service"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_S: Final = 120.0
_TOKEN: Final = "a-token-only-root-may-read"
# What differs from the printed unit: nothing is fetched where there is no network, figures need the key, and nobody
# wants to wait half a minute for the watchdog.
_DROP_IN: Final = """\
[Service]
WatchdogSec=8
Environment=XIAOZHI_MODELS__AUTO_PULL=false 'XIAOZHI_TTS__ENGINES=["espeak"]' XIAOZHI_METRICS__ALLOW=[]
LoadCredential=XIAOZHI_METRICS__TOKEN:/etc/xiaozhi/keys/XIAOZHI_METRICS__TOKEN
"""
# Measured: 1.4. The rest is what a server is for: network, children, and settings of the scheduler for its own threads.
_MAX_EXPOSURE: Final = 1.5


class Machine:
    """The booted system.

    Args:
        leader: its first process, as seen from here.
        root: its files.
    """

    def __init__(self, leader: int, root: Path) -> None:
        self._enter = ["nsenter", "-t", str(leader), "-a", "env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8"]
        self.root = root

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command inside."""
        return subprocess.Popen(
            [*self._enter, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )

    def run(self, *words: str, limit_s: float = _START_S) -> tuple[int, str]:
        """Run a command inside to its end: its exit code and what it printed."""
        process = self.start(*words)
        try:
            out, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            sys.exit(f"FAILED: {' '.join(words)} does not end within {limit_s:g} s")
        return process.returncode, out

    def control(self, verb: str) -> float:
        """`systemctl VERB` for the service; seconds until it returned. Ends the check where it fails."""
        began = time.monotonic()
        code, out = self.run("systemctl", verb, _UNIT)
        _need(f"systemctl {verb}", code == 0, out + self.journal())
        return time.monotonic() - began

    def shown(self, name: str) -> str:
        """One property of the service."""
        return self.run("systemctl", "show", _UNIT, "--value", "-p", name)[1].strip()

    def journal(self) -> str:
        """Everything the service and systemd have written about it."""
        return self.run("journalctl", "-u", _UNIT, "-o", "cat", "--no-pager")[1]

    def server(self) -> int:
        """The process that serves, the child of the one that unpacks it; 0 for none."""
        main = self.shown("MainPID")
        if not main.isdecimal() or main == "0":
            return 0
        return int(self.run("pgrep", "-P", main)[1].split()[0])

    def fetch(self, path: str, *options: str) -> tuple[int, str]:
        """A request by curl, on the server's port: status and body."""
        url = f"http://127.0.0.1:8000{path}"
        _, out = self.run("curl", "-s", "-m", "10", "-w", "\n%{http_code}", *options, url)
        body, _, status = out.rpartition("\n")
        return int(status or 0), body


def _need(what: str, is_so: bool, shown: object = "") -> None:
    print(f"{'ok    ' if is_so else 'FAILED'}  {what}", flush=True)
    if not is_so:
        sys.exit(f"FAILED: {what}\n{shown}")


def _until(what: str, is_so: Callable[[], bool], machine: Machine, limit_s: float = _START_S) -> float:
    """Wait for something; the seconds it took."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > limit_s:
            _need(what, False, machine.journal())
        time.sleep(0.25)
    _need(what, True)
    return time.monotonic() - began


def _base(folder: Path) -> None:
    """Make the small Debian, once."""
    if (folder / "usr/lib/systemd/systemd").exists():
        return
    print(f"making a small Debian in {folder} …", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        shutil.rmtree(folder)
        sys.exit(f"debootstrap fails:\n{made.stdout[-2000:]}")
    (folder / "etc/machine-id").write_text("")


@contextlib.contextmanager
def _booted(base: Path) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="xiaozhi-systemd-") as name:
        root = Path(name) / "root"
        for folder in ("root", "upper", "work"):
            (Path(name) / folder).mkdir()
        layers = f"lowerdir={base.resolve()},upperdir={name}/upper,workdir={name}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], check=True)
        nspawn = subprocess.Popen(
            ["systemd-nspawn", "-D", str(root), "--boot", "--register=no", "--keep-unit", "--private-network",
             "--console=pipe", "--capability=all", f"--machine=xiaozhi-check-{os.getpid()}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        leader = 0
        try:
            leader = _leader(nspawn)
            machine = Machine(leader, root)
            running = "systemd is up"
            states = ("running", "degraded")
            _until(running, lambda: machine.run("systemctl", "is-system-running")[1].strip() in states, machine)
            print(f"        {machine.run('systemctl', '--version')[1].splitlines()[0]}")
            yield machine
        finally:
            if leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(leader, 9)  # the first process of the machine; the rest of it goes with it
            nspawn.kill()
            nspawn.wait()
            subprocess.run(["umount", "-l", str(root)], check=False)


def _leader(nspawn: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    for _ in range(120):
        if nspawn.poll() is not None:
            assert nspawn.stdout is not None
            sys.exit(f"FAILED: systemd-nspawn ends: {nspawn.stdout.read().decode(errors='replace')}")
        if found := children.read_text().split():
            # The outer child makes the namespaces; systemd is the one that is called so.
            for pid in found:
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return int(pid)
        time.sleep(0.25)
    sys.exit("FAILED: systemd does not start")


def _install(machine: Machine, binary: Path, model: Path | None) -> None:
    shutil.copy2(binary, machine.root / "usr/local/bin/xiaozhi")
    code, unit = machine.run("xiaozhi", "deploy", "systemd", "--binary", "/usr/local/bin/xiaozhi")
    _need("`xiaozhi deploy systemd` prints a unit", code == 0 and "[Service]" in unit, unit)
    etc = machine.root / "etc"
    (etc / "systemd/system" / _UNIT).write_text(unit)
    (etc / f"systemd/system/{_UNIT}.d").mkdir()
    (etc / f"systemd/system/{_UNIT}.d/check.conf").write_text(_DROP_IN)
    (etc / "xiaozhi/keys").mkdir(parents=True, mode=0o700)
    key = etc / "xiaozhi/keys/XIAOZHI_METRICS__TOKEN"
    key.write_text(_TOKEN + "\n")
    key.chmod(0o600)
    if model is not None:
        target = machine.root / "var/lib/private/xiaozhi/models/sense-voice"
        target.mkdir(parents=True)
        (machine.root / "var/lib/private").chmod(0o700)
        for name in ("model.int8.onnx", "tokens.txt"):
            shutil.copyfile(model / name, target / name)
    machine.run("systemctl", "daemon-reload")
    code, out = machine.run("systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{_UNIT}")
    _need("the unit is accepted without a word", code == 0 and not out.strip(), out)
    _, out = machine.run("systemd-analyze", "security", "--no-pager", _UNIT)
    score = float(re.findall(r"exposure level for \S+ ([\d.]+)", out.replace(":", ""))[-1])
    _need(f"its exposure is at most {_MAX_EXPOSURE} of 10 (it is {score})", score <= _MAX_EXPOSURE, out)


def _fenced(machine: Machine) -> None:
    pid = machine.server()
    status = dict(
        line.split(":\t", 1) for line in machine.run("cat", f"/proc/{pid}/status")[1].splitlines() if ":\t" in line
    )
    _need("it is not root, without capabilities, and filtered",
          status["Uid"].split()[0] != "0" and int(status["CapEff"], 16) == 0 and status["Seccomp"] == "2"
          and status["NoNewPrivs"] == "1", status)  # fmt: skip
    enter = ("nsenter", "-t", str(pid), "-m")
    _, out = machine.run(*enter, "touch", "/etc/x", "/usr/x", "/var/lib/x")
    _need("it can write nowhere else", out.count("Read-only file system") == 3, out)
    _, out = machine.run(*enter, "ls", "/var/tmp")
    _need("the executable is unpacked to the disk, out of others' sight", "_MEI" in out, out)
    _, out = machine.run("stat", "-Lc", "%a", "/var/lib/xiaozhi", "/var/lib/xiaozhi/data/xiaozhi.db")
    _need("what it keeps can be read by nobody else", out.split() == ["700", "600"], out)


def _talk(machine: Machine, *words: str) -> tuple[str, float]:
    code, out = machine.run("xiaozhi", "talk", *words)
    heard = re.findall(r"([\d.]+) s heard", out)
    _need(f"a turn: talk {' '.join(words)}", code == 0 and bool(heard) and "answered" in out, out + machine.journal())
    return out, float(heard[-1])


def _keys(machine: Machine) -> None:
    _need("figures need the key", machine.fetch("/metrics")[0] in (401, 403))
    status, body = machine.fetch("/metrics", "-H", f"Authorization: Bearer {_TOKEN}")
    _need("the key comes from LoadCredential", status == 200 and "xiaozhi_turns_total" in body, body)
    environment = machine.run("sh", "-c", f"tr '\\0' '\\n' < /proc/{machine.server()}/environ")[1]
    _need("it is not in the environment", _TOKEN not in environment and "CREDENTIALS_DIRECTORY" in environment)


def _cookies(machine: Machine, password: str) -> str:
    words = json.dumps({"password": password})
    status, body = machine.fetch(
        "/console/api/sign-in", "-c", "/root/jar", "-H", "Content-Type: application/json", "-d", words
    )
    _need("the console's first password opens it, with curl", status == 200, body)
    return machine.fetch("/console/api/devices", "-b", "/root/jar")[1]


def _restarts(machine: Machine, before: int, why: str) -> None:
    took_s = _until(
        f"{why}: systemd starts it again",
        lambda: int(machine.shown("NRestarts") or 0) > before and machine.shown("ActiveState") == "active",
        machine,
    )
    print(f"        {took_s:.1f} s until it served again")


def _stop_in_a_reply(machine: Machine, whole_s: float) -> None:
    talk = machine.start("xiaozhi", "talk", "--text", "what can you do")
    assert talk.stdout is not None
    lines = []
    for line in talk.stdout:
        lines.append(line)
        if line.startswith("connected as"):
            break
    time.sleep(1.5)  # into the reply, which lasts longer
    ended_early = talk.poll() is not None
    took_s = machine.control("stop")
    out = "".join(lines) + talk.communicate(timeout=_START_S)[0]
    heard = [float(number) for number in re.findall(r"([\d.]+) s heard", out)]
    _need("the reply was under way when it was stopped", not ended_early, out)
    _need(f"the reply was heard to its end ({took_s:.1f} s to stop)", bool(heard) and heard[-1] > whole_s - 0.4, out)
    _need("it ended cleanly", machine.shown("Result") == "success" and machine.shown("ExecMainStatus") == "0")
    _need("and left nothing in /var/tmp", "_MEI" not in machine.run("find", "/var/tmp")[1])


def _check(machine: Machine, binary: Path, model: Path | None) -> None:
    _install(machine, binary, model)
    took_s = machine.control("start")
    print(f"        {took_s:.1f} s from `systemctl start` to ready")
    banner = machine.journal()
    engines = ("silero", "espeak", "sense-voice" if model is not None else "pocketsphinx")
    _need(f"engines: {', '.join(engines)}", all(engine in banner for engine in engines), banner)
    _until("systemctl status says what it does", lambda: "0 devices online" in machine.shown("StatusText"), machine)
    _fenced(machine)
    _keys(machine)
    out, _ = _talk(machine, "--say", "what time is it")
    if model is None:
        _need("it was understood", "time is it" in out, out)
    _, whole_s = _talk(machine, "--text", "what can you do")
    print(f"        a reply of {whole_s} s")
    data = "server.data_dir=/var/lib/xiaozhi/data"
    code, password = machine.run("xiaozhi", "console", "password", "--show", "--set", data)
    password = password.strip()
    _need("the first password is to be had", code == 0 and bool(password), password)
    _need("and not from the journal", password not in banner, banner)
    known = _cookies(machine, password)
    machine.control("reload")
    _until("the settings were read again", lambda: "settings read again" in machine.journal(), machine)
    _need("and it is the same process", machine.shown("NRestarts") == "0")
    # PIDs are those of the machine's own namespace, so the signals are sent inside.
    machine.run("kill", "-STOP", str(machine.server()))
    _restarts(machine, 0, "a loop that stands still")
    machine.run("kill", "-SEGV", str(machine.server()))
    _restarts(machine, 1, "a crash")
    _stop_in_a_reply(machine, whole_s)
    machine.control("start")
    again = _cookies(machine, password)
    devices = [json.loads(text)["devices"] for text in (known, again)]
    _need(
        "what it knew it still knows", {one["id"] for one in devices[0]} <= {one["id"] for one in devices[1]}, devices
    )
    _need("without a fault in its log", "Traceback" not in machine.journal(), machine.journal())
    machine.control("stop")
    print("all well")


def main() -> None:
    """Try it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--root", type=Path, default=Path("build/systemd-root"), help="where the small Debian is kept")
    parser.add_argument("--model", type=Path, help="a folder with SenseVoice, to try it with sherpa-onnx")
    given = parser.parse_args()
    missing = [name for name in ("systemd-nspawn", "debootstrap", "nsenter") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.exit("needs root and: apt install systemd-container debootstrap util-linux")
    _base(given.root)
    with _booted(given.root) as machine:
        _check(machine, given.binary, given.model)


if __name__ == "__main__":
    main()
