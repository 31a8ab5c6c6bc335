"""The machine: port, folders, disk, processor, file descriptors, libraries."""

import errno
import http.client
import importlib
import importlib.metadata
import ipaddress
import shutil
import ssl
import tempfile
from pathlib import Path

from xiaozhi.access.binding import bind, why_not
from xiaozhi.checks.finding import Finding, bad, ok, warn
from xiaozhi.http.headers import SERVER_NAME
from xiaozhi.http.health import HEALTH_PATH
from xiaozhi.overload import usage
from xiaozhi.overload.cpu import CpuClass, cpu_class
from xiaozhi.plan.calibration import NOT_MEASURED, Calibration, ground_of, keep, read_calibration
from xiaozhi.plan.measuring import measure
from xiaozhi.settings import ServerSettings, Settings
from xiaozhi.stages.vad.silero import VadError

LOW_DISK_MB = 500
"""Free space below which models, caches and logs soon do not fit."""

DESCRIPTORS_OF_THE_PROCESS = 100
"""Open files beside the devices' sockets: models, logs, upstream connections."""


ALREADY_SERVING = "a XiaoZhi server is already serving here"

_ASK_S = 1.5


def port(settings: ServerSettings) -> Finding:
    """Whether the address can be listened on now, or a server of ours is there already. Blocking, up to 3 s."""
    return _port("server.port", settings.host, settings.port)


def tls_port(settings: ServerSettings) -> Finding | None:
    """The same of the other port that speaks TLS; nothing to say where there is none."""
    wanted = settings.tls_cert and settings.tls_key and settings.tls_port
    return _port("server.tls_port", settings.host, settings.tls_port) if wanted else None


def _port(subject: str, host: str, number: int) -> Finding:
    where = f"{host}:{number}"
    try:
        for probe in bind(host, number):
            with probe:
                probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_ours(host, number):
            return ok(subject, f"{where}: {ALREADY_SERVING}")
        return bad(subject, f"{where}: {why_not(error)}")
    return ok(subject, f"{where} is free" if number else f"{host}, any free port")


def _is_ours(host: str, number: int) -> bool:
    """Whether what listens there calls itself as our servers do; its certificate does not matter."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    for connection in (
        http.client.HTTPConnection(host, number, timeout=_ASK_S),
        http.client.HTTPSConnection(host, number, timeout=_ASK_S, context=trusting),
    ):
        try:
            connection.request("GET", f"{HEALTH_PATH}/live")
            if connection.getresponse().getheader("Server") == SERVER_NAME:
                return True
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    return False


def public_url(settings: ServerSettings) -> Finding | None:
    """Whether devices can understand the public address; nothing to say where none is set."""
    url = settings.public_url
    if not url:
        return None
    if not url.startswith(("http://", "https://", "ws://", "wss://")):
        return bad("server.public_url", f'{url} must begin with "http://" or "https://"')
    if "[" in url:
        return bad("server.public_url", f"{url}: devices know no IPv6 addresses; use a name or an IPv4 address")
    return ok("server.public_url", url)


def folder(subject: str, path: Path) -> Finding:
    """Whether files can be made in a folder, or the folder itself where it is not there yet."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return bad(subject, f"{path} cannot be written to ({error.strerror}): change its owner, or {subject}")
    return ok(subject, str(path) if existing == path else f"{path} will be made")


def disk(path: Path) -> Finding:
    """Whether there is room."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    free_mb = shutil.disk_usage(existing).free // 1_000_000
    if free_mb < LOW_DISK_MB:
        return warn(
            "disk", f"{free_mb} MB free at {existing}: free some; a model needs up to 250 MB, twice while it is fetched"
        )
    return ok("disk", f"{free_mb:,} MB free".replace(",", " "))


def cpu(settings: Settings, found: CpuClass | None = None) -> Finding:
    """Whether the processor has the instructions and the cores for what is asked of it."""
    cores = usage.cores()
    wanted = settings.asr.workers * settings.asr.threads
    if wanted > cores:
        return warn("cpu", f"{cores} cores for {wanted} recognition threads: lower asr.workers or asr.threads")
    match found or cpu_class():
        case CpuClass.OTHER:
            return ok("cpu", f"{cores} cores")
        case CpuClass.VNNI:
            return ok("cpu", f"{cores} cores, with VNNI: int8 models run at full speed")
        case CpuClass.AVX2:
            return ok("cpu", f"{cores} cores, without VNNI: int8 recognition takes about twice as long as with it")
        case other:
            return ok("cpu", f"{cores} cores, {other}")


def capacity(settings: Settings, *, measured_now: bool = False) -> list[Finding]:
    """How many talkers this box is good for, as it was measured. Blocking: up to a minute when it is measured now."""
    ground = ground_of(settings)
    if measured_now:
        try:
            found: Calibration | None = measure(settings, ground)
        except VadError:
            return []  # said of the VAD
        assert found is not None
        keep(settings.server.data_dir, found)
    else:
        found = read_calibration(settings.server.data_dir, ground)
    if found is None:
        return [ok("capacity", NOT_MEASURED)]
    talkers, measured = found.lines(settings.asr)
    return [(warn if found.talkers(settings.asr) == 0 else ok)("capacity", talkers), ok("measured", measured)]


def descriptors(settings: ServerSettings) -> Finding:
    """Whether the process may open enough sockets."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return ok("file descriptors", "no limit on this system")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_devices + DESCRIPTORS_OF_THE_PROCESS
    if limit != resource.RLIM_INFINITY and limit < needed:
        return warn(
            "file descriptors",
            f"{limit} allowed, {needed} needed for server.max_devices = {settings.max_devices}: "
            f"`ulimit -n {needed}`, or LimitNOFILE={needed} in the systemd unit",
        )
    return ok("file descriptors", f"{'no limit' if limit == resource.RLIM_INFINITY else limit}, {needed} needed")


def libraries(settings: Settings) -> Finding:
    """Whether every package that the chosen engines need is there and loads."""
    names = {"aiohttp": "aiohttp", "onnxruntime": "onnxruntime", "av": "av", "numpy": "numpy", "openai": "openai"}
    if settings.asr.engine != "pocketsphinx" or "sherpa" in settings.tts.engines:
        names["sherpa_onnx"] = "sherpa-onnx"
    if settings.asr.engine in ("auto", "pocketsphinx"):
        names["pocketsphinx"] = "pocketsphinx"
    if "edge" in settings.tts.engines:
        names["edge_tts"] = "edge-tts"
    if "espeak" in settings.tts.engines:
        names["espeakng_loader"] = "espeakng-loader"
    broken, versions = [], []
    for module, package in names.items():
        try:
            importlib.import_module(module)
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except (ImportError, OSError) as error:
            broken.append(f"{package} does not load ({error}); reinstall it: pip install --force-reinstall {package}")
    return bad("libraries", "; ".join(broken)) if broken else ok("libraries", ", ".join(versions))


def auth(settings: Settings) -> Finding:
    """Who may connect, and whether that is wise."""
    short = [token for token in settings.auth.tokens if len(token.get_secret_value()) < 16]
    if short:
        return warn("auth.tokens", "a token of less than 16 characters can be guessed: make it longer")
    if settings.auth.mode == "open" and not _only_local(settings.server.host):
        return warn("auth.mode", 'open: whoever reaches the port may talk; "token" outside a home network')
    return ok("auth.mode", settings.auth.mode)


def _only_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
