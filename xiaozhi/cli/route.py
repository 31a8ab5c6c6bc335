"""`xiaozhi route "text"`: which tier and which endpoints a question would go to, and why. Nobody is asked."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from xiaozhi.cli.frame import load

if TYPE_CHECKING:
    from xiaozhi.settings import LlmSettings

ABOUT = "Tell which endpoint a question would go to by the rules of [llm.routing], and why. Asks nobody."
EXAMPLES = 'example: xiaozhi route "为什么天是蓝的" --json'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("text", help="what somebody says to a device")
    parser.add_argument("--image", action="store_true", help="a picture belongs to the question")
    parser.add_argument("--tools", action="store_true", help="the model may call tools")
    parser.add_argument("--tier", choices=("edge", "cloud"), default="", help="what the device prefers")
    for tier in ("edge", "cloud"):
        parser.add_argument(
            f"--{tier}-busy", type=_share, default=0.0, metavar="SHARE", help=f"taken slots of the {tier}, 0 to 1"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Print the route."""
    told = explain(load(args).settings.llm, args)
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"{told['tier'] or 'no tier'}: {told['reason']}")
    for endpoint in told["endpoints"]:
        place = f"{endpoint['order']}. {endpoint['name']} ({endpoint['tier']})"
        print(f"  {place}: {endpoint['model']}, {endpoint['share']:.0%} of such questions while all are equally quick")
    if not told["endpoints"]:
        print("  no endpoint is set: the built-in responder answers")


def explain(settings: "LlmSettings", args: argparse.Namespace) -> dict[str, Any]:
    """The route as plain data: tier, reason, fallback, length, and the endpoints in the order of their turn."""
    from xiaozhi.text.complexity import RoutedQuestion, choose_tier, length_of

    available = {endpoint.place for endpoint in settings.endpoints}
    busy = {"edge": args.edge_busy, "cloud": args.cloud_busy}
    question = RoutedQuestion(args.text, args.image, args.tools, args.tier, busy)
    # Without endpoints the rules are told as if both tiers were there.
    route = choose_tier(question, settings.routing, available or {"edge", "cloud"})
    enabled = settings.routing.enabled
    order = [route.tier, route.fallback] if enabled else [None]
    endpoints = []
    for number, tier in enumerate(order, 1):
        members = [one for one in settings.endpoints if tier is None or one.place == tier]
        weights = sum(one.weight for one in members)
        for one in sorted(members, key=lambda member: -member.weight):
            endpoints.append(
                {
                    "order": number,
                    "name": one.name,
                    "tier": one.place,
                    "model": one.model,
                    "share": round(one.weight / weights, 4),
                }
            )
    return {
        "text": args.text,
        "tier": route.tier if enabled else "",
        "fallback": (route.fallback or "") if enabled else "",
        "reason": route.reason if enabled else "routing is off: the weights decide",
        "length": length_of(args.text),
        "endpoints": endpoints,
    }


def _share(text: str) -> float:
    """A share from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return share
