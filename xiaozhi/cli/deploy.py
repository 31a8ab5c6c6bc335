"""`xiaozhi deploy`: configurations of what runs, watches and fronts the server."""

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import load
from xiaozhi.program import PlainError, executable, program

if TYPE_CHECKING:
    from xiaozhi.deploy.facts import Deployment

KINDS = {
    "systemd": "a hardened service unit with watchdog, limits and keys from files",
    "prometheus": "alert rules with the thresholds of [alerts]",
    "grafana": "a dashboard, to be imported",
    "haproxy": "a front with TLS, health checks, each device to its node",
    "nginx": "the same for nginx",
    "docker": "a Dockerfile",
    "compose": "a compose file: the server, and Redis and Prometheus if wanted",
    "kubernetes": "manifests: StatefulSet, autoscaling, Ingress, NetworkPolicy, Redis, ServiceMonitor",
}

ABOUT = "Prints a configuration of what runs, watches or fronts the server."
EXAMPLES = """\
examples:
  xiaozhi deploy systemd --binary /usr/local/bin/xiaozhi --out /etc/systemd/system/xiaozhi.service
  xiaozhi deploy haproxy --domain xiaozhi.example.org --node 10.0.0.5:8000 --node 10.0.0.6:8000
  xiaozhi deploy compose --redis --prometheus --out compose.yaml
  xiaozhi deploy kubernetes --domain xiaozhi.example.org --image registry.example.org/xiaozhi:1 --replicas 3
  xiaozhi --settings production.toml deploy prometheus --out rules.yml

Everything is written from the settings that hold here (port, limits, times, thresholds, names of keys) and says in its
first lines where it goes. Nothing is installed. `xiaozhi deploy KIND --help` names what can be chosen.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", title="kinds", required=True)
    made = {name: kinds.add_parser(name, help=text, description=f"Prints {text}.") for name, text in KINDS.items()}
    for kind in made.values():
        kind.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing it")
        kind.add_argument("--port", metavar="PORT", help="the server's port (server.port)")
    made["systemd"].add_argument(
        "--binary", type=Path, metavar="PATH", help="the executable to run; otherwise the one that runs now"
    )
    for name in ("haproxy", "nginx", "compose", "kubernetes"):
        made[name].add_argument(
            "--domain", default="", metavar="NAME", help="how devices know the server; otherwise from server.public_url"
        )
    for name in ("haproxy", "nginx", "prometheus"):
        made[name].add_argument(
            "--node", action="append", type=_node, default=[], metavar="HOST:PORT", help="a node; may be repeated"
        )
    for name in ("haproxy", "nginx"):
        made[name].add_argument("--cert", default="", metavar="FILE", help="the certificate of the domain")
        made[name].add_argument("--plain", action="store_true", help="without TLS, for a home network")
    made["nginx"].add_argument("--key", default="", metavar="FILE", help="the certificate's private key")
    for name in ("prometheus", "grafana"):
        made[name].add_argument("--job", default="xiaozhi", type=_word, metavar="NAME", help="the scrape job's name")
    for name in ("docker", "compose", "kubernetes"):
        made[name].add_argument(
            "--image", default="xiaozhi:latest", type=_word, metavar="NAME", help="the image's name"
        )
    made["compose"].add_argument("--redis", action="store_true", help="with Redis, which several nodes share")
    made["compose"].add_argument("--prometheus", action="store_true", help="with Prometheus")
    cluster = made["kubernetes"]
    cluster.add_argument("--replicas", type=_count, default=2, metavar="N", help="nodes at least (2)")
    cluster.add_argument("--namespace", default="xiaozhi", metavar="NAME", help="where everything goes (xiaozhi)")
    cluster.add_argument("--ingress-namespace", default="ingress-nginx", type=_word, metavar="NAME")
    cluster.add_argument("--monitor-namespace", default="monitoring", type=_word, metavar="NAME")
    cluster.add_argument("--no-redis", action="store_true", help="without Redis: nodes share nothing")
    cluster.add_argument("--no-monitor", action="store_true", help="without the Prometheus operator")


def _node(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or not set(host).isdisjoint(" ;\n{}"):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, for example 10.0.0.5:8000")
    return text


def _word(text: str) -> str:
    if not text or not text.isprintable() or not set(text).isdisjoint(" \"'`$;{}\\"):
        raise argparse.ArgumentTypeError(f"{text!r} is no name")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def run(args: argparse.Namespace) -> None:
    """Print or write it."""
    from xiaozhi.deploy.render import render

    # Their first lines say how they are made; what they tell those who operate the server stays as it is.
    text = render(args.kind, _plan(args)).replace("xiaozhi deploy", f"{program()} deploy")
    if args.out is None:
        sys.stdout.write(text)
        return
    try:
        args.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PlainError(f"{args.out} cannot be written: {error.strerror}") from error
    print(f"wrote {args.out}", file=sys.stderr)


def _plan(args: argparse.Namespace) -> "Deployment":
    from xiaozhi.deploy.facts import DeployError, Deployment

    loaded = load(args)
    given = vars(args)
    # A settings.toml that merely lies in this folder is not the one that the service will find.
    file = args.settings.absolute() if args.settings is not None else None
    domain = given.get("domain") or ""
    if domain and not all(part.replace("-", "").isalnum() and part.isascii() for part in domain.split(".")):
        raise DeployError(f"--domain {domain!r} is no name, for example xiaozhi.example.org")
    for option in ("cert", "key"):
        if not set(given.get(option) or "").isdisjoint(' \n;"{}'):
            raise DeployError(f"--{option}: {given[option]!r} has characters that a configuration does not take")
    server, models = loaded.settings.server, loaded.settings.models
    choices = {
        "certificate": given.get("cert") or "",
        "key": given.get("key") or "",
        "job": given.get("job") or "xiaozhi",
        "kubernetes_namespace": _namespace(given.get("namespace") or "xiaozhi"),
        "plain": bool(given.get("plain")),
        "redis": not given["no_redis"] if args.kind == "kubernetes" else bool(given.get("redis")),
        "prometheus": bool(given.get("prometheus")),
        "monitor": not given.get("no_monitor"),
        "ingress_namespace": given.get("ingress_namespace") or "ingress-nginx",
        "monitor_namespace": given.get("monitor_namespace") or "monitoring",
        # Where it may write: only below its own folder, unless the settings name another one.
        "folders": [
            ("XIAOZHI_SERVER__DATA_DIR", server.data_dir, "" if _is_chosen(server.data_dir, file) else "data"),
            ("XIAOZHI_MODELS__DIR", models.dir, "" if _is_chosen(models.dir, file) else "models"),
        ],
        "command": _command(args, file, loaded.settings.server.port) if args.kind == "systemd" else "",
    }
    return Deployment(
        settings=loaded.settings,
        settings_file=file,
        domain=domain,
        nodes=tuple(given.get("node") or ()),
        replicas=given.get("replicas") or 1,
        image=given.get("image") or "xiaozhi:latest",
        choices=choices,
    )


def _is_chosen(folder: Path, file: Path | None) -> bool:
    """An absolute path of the settings, and not one that is only relative to their file."""
    return folder.is_absolute() and (file is None or not folder.is_relative_to(file.parent))


def _namespace(text: str) -> str:
    from xiaozhi.deploy.facts import DeployError

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise DeployError(f"--namespace {text!r}: small letters, digits and - only, at most 63")
    return text


def _command(args: argparse.Namespace, file: Path | None, port: int) -> str:
    options = [f"--settings {file}"] if file is not None else []
    if args.port:
        options.append(f"--port {port}")
    return " ".join([str(_binary(args.binary)), "serve", *options])


def _binary(given: Path | None) -> Path:
    """The executable of the service: absolute, and where the service can see it.

    Raises:
        DeployError: it is not known or cannot be run.
    """
    from xiaozhi.deploy.facts import DeployError

    if given is not None:
        binary = given.absolute()
    else:
        found = executable() or shutil.which("xiaozhi")
        if found is None:
            raise DeployError("which executable is to run? name it with --binary PATH")
        binary = Path(found).absolute()
    if any(character.isspace() or character in "%$\"'\\" for character in str(binary)):
        raise DeployError(f"{binary}: a unit needs a path without blanks, quotes, % and $")
    if not binary.is_file():
        print(f"note: {binary} is not there yet", file=sys.stderr)
    if binary.is_relative_to("/home") or binary.is_relative_to("/root") or binary.is_relative_to("/tmp"):
        print(f"note: the service cannot see {binary}; copy it to /usr/local/bin and name it there", file=sys.stderr)
    return binary
