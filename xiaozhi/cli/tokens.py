"""`xiaozhi tokens`: the keys that sign device tokens."""

import argparse
import time

from xiaozhi.cli.frame import load
from xiaozhi.program import PlainError

ABOUT = (
    "Devices get tokens from the OTA address when they boot, and show them when they connect. "
    "A running server takes up new keys within ten seconds."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("show", help="which keys there are and how long they count")
    rotate = actions.add_parser("rotate", help="sign with a new key from now on; older tokens hold until they expire")
    rotate.add_argument(
        "--forget",
        action="store_true",
        help="refuse every older token at once, for when a key may have been stolen; devices get new ones at boot",
    )


def run(args: argparse.Namespace) -> None:
    """Show them, after replacing the one that signs where that is asked for."""
    from xiaozhi.access.token_keys import load_keys, rotate_keys

    settings = load(args).settings
    now_s = time.time()
    try:
        if args.action == "rotate":
            ring = rotate_keys(
                settings.server.data_dir, now_s, settings.auth.token_ttl_days * 86_400.0, forget=args.forget
            )
        else:
            ring = load_keys(settings.server.data_dir, now_s)
    except OSError as error:
        raise PlainError(f"server.data_dir: {settings.server.data_dir} cannot be used: {error.strerror}") from error
    for key in ring.keys:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.made_s))
        if not key.honoured_until_s:
            state = "signs"
        elif key.honoured_until_s > now_s:
            state = time.strftime("counts until %Y-%m-%d %H:%M", time.localtime(key.honoured_until_s))
        else:
            state = "over"
        print(f"key {key.generation:>5}  made {made}  {state}")
