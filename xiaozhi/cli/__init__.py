"""The command line. Sub-commands are imported only when they are called, so that `--help` is quick."""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from xiaozhi import __version__
from xiaozhi.program import PlainError, as_called, program

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

COMMANDS: Mapping[str, str] = {
    "serve": "run the server that devices talk to",
    "talk": "be a device: speak to a server, hear the reply, see where the time went",
    "check": "try every file, model, port, endpoint and key the settings name",
    "settings": "print a settings file with every setting, its default and what it is for",
    "models": "list, fetch and remove speech models",
    "cache": "show or clear the speech kept on disk",
    "devices": "list devices, bind, allow, block, name and remove them",
    "console": "set the password of the pages for owners",
    "tokens": "show and replace the keys that sign device tokens",
    "agents": "list, make, change and assign agents",
    "memories": "show, add and erase what is kept in mind about users",
    "say": "have connected devices say something",
    "history": "show or clear what was said to a device",
    "export": "write devices, agents, conversations and memories to one file",
    "import": "take what `export` wrote",
    "migrate": "take over the settings of another server",
    "route": "tell which endpoint a question would go to, and why",
    "plan": "compute nodes, memory, bandwidth and cost for a number of devices",
    "tools": "list, call and check what the model may call",
    "deploy": "print configurations: systemd, Prometheus, Grafana, HAProxy, nginx, Docker, Kubernetes",
}
"""Each is a module of this package, see `frame`."""

_MODULES: Mapping[str, str] = {"import": "import_"}  # `import` is a word of Python

EXAMPLES = """\
examples:
  xiaozhi serve                              run on ./settings.toml, or on the built-in defaults
  xiaozhi serve --port 8100 --set auth.mode=open
  xiaozhi talk --say "what time is it"       one turn, with a waterfall of its milliseconds
  xiaozhi models pull sense-voice            much better recognition, Chinese above all
  xiaozhi check                              what is missing, and what to do about it

exit codes:
  0 done    1 failed, or the check found something bad    2 wrong usage or settings    130 interrupted
"""

SETTINGS_OPTIONS = """\
options of every command, before or after its name:
  --settings FILE   read this settings file; otherwise ./settings.toml where there is one
  --set KEY=VALUE   override one setting, for example --set asr.workers=3; may be repeated
"""


class _Parser(argparse.ArgumentParser):
    """Help texts name the program as it is called here."""

    def format_help(self) -> str:
        """See `argparse.ArgumentParser`."""
        return as_called(super().format_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; `None` takes them from the process.

    Returns:
        The exit code, see `EXAMPLES`. Mistakes of the user are one line each on standard error, without a traceback.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as end:  # argparse ends so after --help and wrong usage
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `xiaozhi models list | head`; nothing more can be said to that reader
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - Python flushes standard output once more at exit
        return EXIT_OK


def _run(argv: list[str]) -> int:
    options, rest = _global_options().parse_known_args(argv)
    parser = _Parser(
        prog=program(),
        description="A voice companion server for XiaoZhi devices.",
        epilog=f"{SETTINGS_OPTIONS}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    called = rest[0] if rest else ""
    module = importlib.import_module(f"xiaozhi.cli.{_MODULES.get(called, called)}") if called in COMMANDS else None
    for name, summary in COMMANDS.items():
        if module is None or name != called:
            subparsers.add_parser(name, help=summary, add_help=False)
            continue
        module.add_arguments(
            subparsers.add_parser(
                name,
                help=summary,
                description=module.ABOUT,
                epilog=f"{SETTINGS_OPTIONS}\n{getattr(module, 'EXAMPLES', '')}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    args = parser.parse_args(rest)
    if options.version or args.version:
        print(f"xiaozhi {__version__}")
        return EXIT_OK
    if module is None:
        parser.print_help()
        return EXIT_USAGE
    args.settings = options.settings
    args.overrides = dict(options.set or ())
    for option in ("host", "port"):
        if (value := getattr(args, option, None)) is not None:
            args.overrides[f"server.{option}"] = str(value)
    from xiaozhi.settings.credentials import adopt_credentials
    from xiaozhi.settings.errors import SettingsError

    try:
        adopt_credentials(os.environ)
        return int(module.run(args) or EXIT_OK)
    except SettingsError as mistakes:
        for line in mistakes.errors:
            print(line, file=sys.stderr)
        return EXIT_USAGE
    except PlainError as error:
        from xiaozhi.cli.frame import tell

        tell(error)
        return error.exit_code


def _global_options() -> argparse.ArgumentParser:
    """What is understood anywhere on the command line."""
    from pathlib import Path

    parser = argparse.ArgumentParser(prog=program(), add_help=False, allow_abbrev=False)
    parser.add_argument("--settings", type=Path, metavar="FILE")
    parser.add_argument("--set", action="append", type=_assignment, metavar="KEY=VALUE")
    parser.add_argument("--version", action="store_true")
    return parser


def _assignment(text: str) -> tuple[str, str]:
    """`asr.workers=3` as a pair."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, for example asr.workers=3")
    return key.strip(), value
