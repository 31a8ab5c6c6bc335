"""`xiaozhi migrate`: another server's settings as settings of ours, with what was taken and what was not."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.program import PlainError, program

if TYPE_CHECKING:
    from xiaozhi.migrate.report import ReportLanguage

ABOUT = "Turns another server's settings into ours and says line by line what was taken and what is to be done."
EXAMPLES = """\
examples:
  xiaozhi migrate xinnan data/.config.yaml                       writes settings.local.toml
  xiaozhi migrate xinnan data/.config.yaml --dry-run             only says what would be
  xiaozhi migrate xinnan data/.config.yaml --out new.toml --language zh

Keys are written into the new file, which only you may read, and are never printed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("server", choices=("xinnan",), help="whose: xinnan is xiaozhi-esp32-server of xinnan-tech")
    parser.add_argument("file", type=Path, metavar="FILE", help="its data/.config.yaml, or config.yaml")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="settings.local.toml beside the settings when not given"
    )
    parser.add_argument("--force", action="store_true", help="replace that file where there is one")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--language", choices=("zh", "en"), help="of the report; that of the terminal when not given")


def run(args: argparse.Namespace) -> None:
    """Migrate; 1 when the file cannot be used, or the new one is there already."""
    import json

    from xiaozhi.console.editing import edited
    from xiaozhi.migrate.report import summary
    from xiaozhi.migrate.xinnan import migrate_xinnan
    from xiaozhi.migrate.yaml_file import MAX_FILE_BYTES, read_yaml
    from xiaozhi.settings.load import DEFAULT_FILE, local_of
    from xiaozhi.store import private_file

    language: ReportLanguage = args.language or _terminal_language()
    out = args.out or local_of(args.settings or DEFAULT_FILE)
    if out.exists() and not args.force and not args.dry_run:
        raise PlainError(f"{out}: is there already; --force replaces it, --out FILE writes another, --dry-run none")
    try:
        with args.file.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PlainError(f"{args.file}: cannot be read: {error.strerror}") from error
    folder = args.file.resolve().parent
    found = migrate_xinnan(read_yaml(content, str(args.file)), folder.parent if folder.name == "data" else folder)
    changes = found.changes()
    if not args.dry_run and changes:
        try:
            private_file.write(out, edited("", changes).encode())
        except OSError as error:
            raise PlainError(f"{out}: cannot be written: {error.strerror}") from error
    written = str(out) if changes and not args.dry_run else None
    if args.json:
        lines = [line.json(language) for line in found.lines]
        print(json.dumps({"written": written, "settings": list(changes), "lines": lines}, ensure_ascii=False, indent=1))
        return
    for line in found.lines:
        print(line.text(language))
    print(f"\n{summary(found.lines, language)}")
    if written:
        words = ("已写入 {}；接着运行：{} check", "written to {}; now run: {} check")[language == "en"]
        print(words.format(written, program()))


def _terminal_language() -> "ReportLanguage":
    """Chinese where the terminal's locale is."""
    name = next((os.environ[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(key)), "")
    return "zh" if name.lower().startswith("zh") else "en"
