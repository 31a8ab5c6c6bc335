"""Tries the single executable where there is nothing else: `python packaging/smoke.py dist/xiaozhi`.

As root it runs in an empty root folder (the C library, /proc and three devices are all there is: no Python, no shell,
no certificates) and in a network of its own with nothing but the loopback interface. Otherwise in an empty folder with
an empty environment. It serves, one turn is spoken to it by its own `talk`, its other parts are asked for, and it is
stopped by SIGTERM. Exits with 0 when all of it went well; says what took how long.
"""

# ruff: noqa: T201 - it is run by hand and says what it sees

import argparse
import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
_MS_REC_PRIVATE = 0x4000 | 0x40000  # linux/mount.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1  # linux/sockios.h, linux/if.h
_PORT = 8000
_START_S = 90.0
_MANAGER = "notify"  # the service manager's socket


def _libraries(binary: Path) -> list[Path]:
    """What the executable is linked with: the loader and the C library, which it does not carry."""
    shown = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=True).stdout
    found = [Path(path) for path in re.findall(r"(/\S+) \(0x", shown)]
    # Opened by name by the C library and by what the executable carries.
    names = ("libm.so.6", "librt.so.1", "libutil.so.1", "libresolv.so.2", "libnss_files.so.2", "libnss_dns.so.2")
    folder = next(path.parent for path in found if path.name.startswith("libc."))
    return [*found, *(folder / name for name in names if (folder / name).exists())]


def _empty_root(binary: Path, root: Path) -> None:
    for folder in ("tmp", "proc", "dev", "srv", "etc"):
        (root / folder).mkdir()
    for library in _libraries(binary):
        target = root / library.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)  # follows links: each name becomes a file
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    for name, minor in (("null", 3), ("random", 8), ("urandom", 9)):
        os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    shutil.copy2(binary, root / "xiaozhi")


def _own_network_and_mounts(root: Path) -> None:
    """Cut this process and its children off from the network, and give the new root its /proc."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(None, b"/", None, _MS_REC_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "make mounts private")
    if libc.mount(b"proc", os.fsencode(root / "proc"), b"proc", 0, None) != 0:
        print("note: /proc cannot be mounted here; going on without it")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


class Place:
    """Where the executable is run.

    Attributes:
        command: the executable as it is called there.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self._folder = folder
        self._enter: Callable[[], None] | None = None
        self.command = str(binary.resolve())
        if os.geteuid() == 0:
            _empty_root(binary, folder)
            try:
                _own_network_and_mounts(folder)
            except OSError as error:
                print(f"note: no network of its own ({error}); it may reach the internet")
            self._enter, self.command = self._change_root, "/xiaozhi"
            print("place: an empty root, as root")
        else:
            print("place: an empty folder and an empty environment (run it as root for an empty root)")

    def give_model(self) -> None:
        """Put a small model of SenseVoice's shape where it looks for models; it hears the same words in everything."""
        folder = (self._folder / "srv" if self._enter else self._folder) / "models" / "sense-voice"
        code = (
            "import sys, pathlib; from bench.sense_voice_model import build_tiny;"
            "build_tiny(pathlib.Path(sys.argv[1]), 'what time is it')"
        )
        repository = Path(__file__).resolve().parent.parent
        subprocess.run([sys.executable, "-c", code, str(folder)], cwd=repository, check=True)

    def _change_root(self) -> None:
        os.chroot(self._folder)
        os.chdir("/srv")

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start the executable with next to nothing in its environment."""
        inside = Path("/") if self._enter else self._folder
        return subprocess.Popen(
            [self.command, *words],
            cwd=None if self._enter else self._folder,
            env={
                "TMPDIR": "/tmp",
                "HOME": "/nonexistent",
                "PATH": "",
                "XIAOZHI_SERVER__PORT": str(_PORT),
                "NOTIFY_SOCKET": str(inside / _MANAGER),
            },
            preexec_fn=self._enter,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def run(self, *words: str) -> tuple[int, str, float]:
        """Run it to its end: exit code, everything it printed, seconds."""
        began = time.monotonic()
        process = self.start(*words)
        out, _ = process.communicate(timeout=_START_S)
        return process.returncode, out, time.monotonic() - began


@contextlib.contextmanager
def _serving(place: Place) -> Iterator[tuple["subprocess.Popen[str]", list[str], float]]:
    began = time.monotonic()
    process, lines, up = place.start("serve"), list[str](), threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if " serving  " in line:
                up.set()
        up.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not up.wait(_START_S) or process.poll() is not None:
            sys.exit("FAILED: the server does not start\n" + "".join(lines))
        yield process, lines, time.monotonic() - began
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5.0)


def _fetch(path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{_PORT}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def _need(what: str, is_so: bool, shown: object = "") -> None:
    print(f"{'ok    ' if is_so else 'FAILED'}  {what}")
    if not is_so:
        sys.exit(f"FAILED: {what}\n{shown}")


def _told(manager: socket.socket, line: str) -> None:
    """Wait until the service manager has been told this."""
    try:
        while line not in manager.recv(4096).decode().splitlines():
            continue
    except TimeoutError:
        sys.exit(f"FAILED: the service manager was not told {line}")
    print(f"ok      the service manager is told {line}")


def main() -> None:
    """Try it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    binary = parser.parse_args().binary
    with tempfile.TemporaryDirectory(prefix="xiaozhi-smoke-") as name:
        place = Place(binary, Path(name))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(30.0)
                manager.bind(str(Path(name) / _MANAGER))
                _try(place, binary, manager)
        finally:
            if os.geteuid() == 0:
                ctypes.CDLL(None).umount2(os.fsencode(Path(name) / "proc"), 2)  # MNT_DETACH


def _try(place: Place, binary: Path, manager: socket.socket) -> None:
    code, out, took_s = place.run("--version")
    _need("it says its version", code == 0 and out.startswith("xiaozhi "), out)
    print(f"        {took_s:.1f} s to unpack and to print one line; {binary.stat().st_size / 1e6:.0f} MB")
    with _serving(place) as (process, lines, start_s):
        banner = "".join(lines)
        _need("it serves on embedded defaults", all(word in banner for word in ("pocketsphinx", "espeak")), banner)
        print(f"        {start_s:.1f} s from the command to the first device, offline")
        code, out, took_s = place.run("talk", "--say", "what time is it")
        _need("a spoken question is heard and answered", code == 0 and "answered" in out and "time is it" in out, out)
        print(f"        {took_s:.1f} s for `talk --say` from command to end")
        _need("its figures are there", "xiaozhi_turns_total" in _fetch("/metrics"))
        _need("its console is there", "<html" in _fetch("/console/"))
        code, out, _ = place.run("agents", "list")
        _need("agents are inside", code == 0 and out.count("\n") > 8, out)
        code, out, _ = place.run("check")
        _need("`check` loads every library", "does not load" not in out and "libraries" in out, out)
        code, out, _ = place.run("settings")
        _need("what is said about settings is inside", code == 0 and "# Recognitions at the same time" in out, out)
        _told(manager, "READY=1")
        process.send_signal(signal.SIGHUP)  # as systemd does, to the process that it has started: it unpacks, no more
        _told(manager, "RELOADING=1")
        _told(manager, "READY=1")
        process.send_signal(signal.SIGTERM)
        _told(manager, "STOPPING=1")
        code = process.wait(60.0)
        _need("it ends cleanly on SIGTERM", code == 0, f"exit code {code}\n" + "".join(lines[-20:]))
        _need("without a fault in its log", "Traceback" not in "".join(lines), "".join(lines))
    place.give_model()
    with _serving(place) as (_, lines, start_s):
        banner = "".join(lines)
        _need("it serves with a model, by sherpa-onnx", "asr sense-voice" in banner, banner)
        code, out, _ = place.run("talk", "--say", "what time is it")
        _need("a question is heard by it", code == 0 and "time is it" in out, out)
    print("all well")


if __name__ == "__main__":
    main()
