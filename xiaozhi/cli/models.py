"""`xiaozhi models`: which there are, fetch one, remove one."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.options import load
from xiaozhi.program import program

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it

    from xiaozhi.models.catalogue import Model
    from xiaozhi.settings import ModelsSettings

EXAMPLES = """\
examples:
  xiaozhi models list
  xiaozhi models pull sense-voice
  xiaozhi models pull sense-voice --mirror hf-mirror            reachable from mainland China
  xiaozhi models pull zipformer --url http://192.168.1.5/zipformer   a folder of files, or a .tar.bz2, of one's own
  xiaozhi models remove matcha-zh

An interrupted pull goes on where it stopped. Proxies are taken from https_proxy and http_proxy.
"""


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "models",
        help="list, fetch and remove speech models",
        description="Published speech models for better recognition and voices. They lie in the folder models.dir.",
        epilog=EXAMPLES,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="names, sizes, and which are installed")
    pulling = actions.add_parser("pull", help="fetch a model")
    pulling.add_argument("name", metavar="NAME", help="a name of `xiaozhi models list`")
    pulling.add_argument(
        "--mirror",
        action="append",
        choices=("github", "huggingface", "hf-mirror", "modelscope"),
        help="fetch from here instead of models.mirrors; may be repeated, the first is tried first",
    )
    pulling.add_argument("--url", metavar="BASE", help="fetch from this folder, or archive, instead of the publishers'")
    pulling.add_argument("--forget", action="store_true", help="accept files that differ from the first pull")
    removing = actions.add_parser("remove", help="delete a model from models.dir")
    removing.add_argument("name", metavar="NAME", help="a name of `xiaozhi models list`")


def run(args: argparse.Namespace) -> int:
    """List, pull or remove; 1 when a model could not be fetched or removed, 2 when there is none of that name."""
    settings = load(args).settings.models
    if args.action == "list":
        return _list(settings.dir)
    from xiaozhi.models.catalogue import MODELS, find

    model = find(args.name)
    if model is None:
        import difflib

        near = difflib.get_close_matches(args.name, [known.name for known in MODELS], 1)
        guess = f"; did you mean {near[0]}?" if near else f"; `{program()} models list` shows them"
        print(f"xiaozhi: no model is called {args.name!r}{guess}", file=sys.stderr)
        return 2
    from xiaozhi.models.pull import PullError

    try:
        return _remove(model, settings.dir) if args.action == "remove" else _pull(model, settings, args)
    except PullError as error:
        for line in str(error).splitlines():
            print(f"xiaozhi: {line}", file=sys.stderr)
        return 1


def _list(models_dir: Path) -> int:
    from xiaozhi.models.catalogue import MODELS
    from xiaozhi.models.pull import come_so_far

    print(f"{'NAME':20} {'ROLE':15} {'SIZE':>7}  {'INSTALLED':10} FOLDER")
    for model in MODELS:
        there = "yes" if model.installed(models_dir) else "no"
        if there == "no" and (come := come_so_far(model, models_dir)):  # by a running server, or a pull that was ended
            there = f"{min(99, come // (model.size_mb * 10_000))} %"
        print(f"{model.name:20} {model.role:15} {model.size_mb:>4} MB  {there:10} {model.folder(models_dir)}")
        print(f"{'':20} {model.about}")
    return 0


def _pull(model: "Model", settings: "ModelsSettings", args: argparse.Namespace) -> int:
    import asyncio

    from xiaozhi.cli.progress import Bar
    from xiaozhi.models import record
    from xiaozhi.models.pull import PullError, pull
    from xiaozhi.stages.verify import verify

    try:
        if args.forget:
            record.forget(settings.dir, model.name)
    except (OSError, ValueError) as error:
        raise PullError(f"{model.name}: {error}") from None
    sources = [model.source_at(args.url)] if args.url else model.sources_in(args.mirror or settings.mirrors)
    with Bar() as bar:
        pulled = asyncio.run(
            pull(
                model,
                settings.dir,
                sources,
                connect_timeout_s=settings.connect_timeout_s,
                verify=verify,
                progress=bar.show,
            )
        )
    if not pulled.source:
        print(f"{model.name} is already in {pulled.folder}, unchanged")
        return 0
    print(f"{model.name} is in {pulled.folder}")
    print(f"to use it: {model.settings}" if model.settings else "it is found by itself, by a running server as well")
    return 0


def _remove(model: "Model", models_dir: Path) -> int:
    from xiaozhi.models.pull import remove

    if remove(model, models_dir):
        print(f"{model.name} is gone from {models_dir}")
    else:
        print(f"{model.name} was not in {models_dir}")
    return 0
