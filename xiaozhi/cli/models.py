"""`xiaozhi models`: which there are, fetch one, remove one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import load, unknown

if TYPE_CHECKING:
    from xiaozhi.models.catalogue import Model
    from xiaozhi.settings import ModelsSettings

ABOUT = "Published speech models for better recognition and voices. They lie in the folder models.dir."
EXAMPLES = """\
examples:
  xiaozhi models list
  xiaozhi models pull sense-voice
  xiaozhi models pull sense-voice --mirror hf-mirror            reachable from mainland China
  xiaozhi models pull zipformer --url http://192.168.1.5/zipformer   a folder of files, or a .tar.bz2, of one's own
  xiaozhi models remove matcha-zh

An interrupted pull goes on where it stopped. Proxies are taken from https_proxy and http_proxy.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
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


def run(args: argparse.Namespace) -> None:
    """List, pull or remove; 1 when a model could not be fetched or removed, 2 when there is none of that name."""
    from xiaozhi.models.catalogue import MODELS, find

    settings = load(args).settings.models
    if args.action == "list":
        _list(settings.dir)
        return
    model = find(args.name)
    if model is None:
        raise unknown("model", args.name, (known.name for known in MODELS), "models list")
    if args.action == "remove":
        _remove(model, settings.dir)
    else:
        _pull(model, settings, args)


def _list(models_dir: Path) -> None:
    from xiaozhi.models.catalogue import MODELS
    from xiaozhi.models.pull import come_so_far

    print(f"{'NAME':20} {'ROLE':15} {'SIZE':>7}  {'INSTALLED':10} FOLDER")
    for model in MODELS:
        there = "yes" if model.installed(models_dir) else "no"
        if there == "no" and (come := come_so_far(model, models_dir)):  # by a running server, or a pull that was ended
            there = f"{min(99, come // (model.size_mb * 10_000))} %"
        print(f"{model.name:20} {model.role:15} {model.size_mb:>4} MB  {there:10} {model.folder(models_dir)}")
        print(f"{'':20} {model.about}")


def _pull(model: "Model", settings: "ModelsSettings", args: argparse.Namespace) -> None:
    import asyncio

    from xiaozhi.cli.progress import ProgressBar
    from xiaozhi.models import record
    from xiaozhi.models.pull import PullError, pull
    from xiaozhi.stages.verify import verify

    try:
        if args.forget:
            record.forget(settings.dir, model.name)
    except (OSError, ValueError) as error:
        raise PullError(f"{model.name}: {error}") from None
    sources = [model.source_at(args.url)] if args.url else model.sources_in(args.mirror or settings.mirrors)
    with ProgressBar() as bar:
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
        return
    print(f"{model.name} is in {pulled.folder}")
    print(f"to use it: {model.settings}" if model.settings else "it is found by itself, by a running server as well")


def _remove(model: "Model", models_dir: Path) -> None:
    from xiaozhi.models.pull import remove

    if remove(model, models_dir):
        print(f"{model.name} is gone from {models_dir}")
    else:
        print(f"{model.name} was not in {models_dir}")
