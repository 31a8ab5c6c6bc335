"""`xiaozhi plan`: how many nodes so many devices need, and what a month costs. Measures nothing, asks nobody."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it

_ENGINES = ("sense-voice", "zipformer", "two-pass", "remote")


def add_parser(subparsers: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "plan",
        help="compute nodes, memory, bandwidth and cost for a number of devices",
        description="Compute nodes, cores, memory, bandwidth, tokens and cost from what a turn was measured to cost.",
        epilog="examples:\n"
        "  xiaozhi plan --devices 1000\n"
        "  xiaozhi plan --devices 300 --turns-per-minute 3 --cores 8 --memory-gb 16 --engine two-pass\n"
        "  xiaozhi plan --devices 1000 --explain\n"
        "  xiaozhi plan --devices 1000 --price-in 0.4 --price-out 1.2 --currency USD --node-price 40\n"
        "exit codes: 0 planned, 1 no such node can carry a device or the figures cannot be read, 2 wrong usage",
    )
    parser.add_argument("--devices", type=int, required=True, metavar="N")
    parser.add_argument("--turns-per-minute", type=float, default=1.0, help="of each device at the busiest time; 1")
    parser.add_argument("--speech-s", type=float, default=3.0, help="length of what is said; 3")
    parser.add_argument("--reply-s", type=float, default=6.0, help="length of what is answered; 6")
    parser.add_argument("--engine", choices=_ENGINES, default="sense-voice", help="recogniser; sense-voice")
    parser.add_argument("--p95-ms", type=float, default=1500.0, help="first sound for 95 %% of turns; 1500")
    parser.add_argument("--first-token-ms", type=float, default=400.0, help="of the language model, 95 %%; 400")
    parser.add_argument("--voice-ms", type=float, default=200.0, help="of the voice, 95 %%; 200")
    parser.add_argument("--cores", type=int, default=4, help="of a node; 4")
    parser.add_argument("--memory-gb", type=float, default=8.0, help="of a node; 8")
    parser.add_argument("--cpu", type=float, default=1.0, metavar="FACTOR", help="speed of a core, measured one: 1")
    parser.add_argument("--hours-per-day", type=float, default=4.0, help="in which devices are used like that; 4")
    parser.add_argument("--tokens-in", type=float, default=900.0, help="of one request, history included; 900")
    parser.add_argument("--price-in", type=float, metavar="PRICE", help="of a million tokens in")
    parser.add_argument("--price-out", type=float, metavar="PRICE", help="of a million tokens out")
    parser.add_argument("--price-voice", type=float, metavar="PRICE", help="of a million characters spoken")
    parser.add_argument("--node-price", type=float, metavar="PRICE", help="of a node for a month")
    parser.add_argument("--currency", default="USD", help="of the prices; USD")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="figures of your own, from bench.plan_costs")
    parser.add_argument("--explain", action="store_true", help="show how each figure is computed, with its numbers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from xiaozhi.plan.costs import DEFAULT_FILE, CostsError, read_costs
    from xiaozhi.plan.explain import explain, lines_of
    from xiaozhi.plan.model import Box, Demand, Limits, Unplannable, plan
    from xiaozhi.plan.upstream import Prices, month
    from xiaozhi.plan.words import DOCUMENTS, against_documents, assumptions, table_of

    limits = Limits()
    prices = Prices(args.price_in, args.price_out, args.price_voice, args.node_price, args.currency)
    try:
        demand = Demand(
            args.devices, args.turns_per_minute, args.speech_s, args.reply_s, args.engine,
            args.first_token_ms / 1000.0, args.voice_ms / 1000.0, args.p95_ms / 1000.0,
        )  # fmt: skip
        box = Box(args.cores, args.memory_gb, args.cpu)
        if any(price is not None and price < 0 for price in (*asdict(prices).values(),) if not isinstance(price, str)):
            raise ValueError("a price must not be negative")
        costs = read_costs(args.costs or DEFAULT_FILE)
        fleet = plan(demand, box, costs, limits)
        taken = month(
            demand, prices, nodes=fleet.nodes, hours_per_day=args.hours_per_day, tokens_in=args.tokens_in,
            replies_per_turn=costs.replies_per_turn,
        )  # fmt: skip
    except ValueError as error:
        print(f"xiaozhi: {error}", file=sys.stderr)
        return 2
    except (CostsError, Unplannable) as error:
        print(f"xiaozhi: {error}", file=sys.stderr)
        return 1
    compared = against_documents({number: plan(replace(demand, devices=number), box, costs) for number, _ in DOCUMENTS})
    assumed = assumptions(demand, box, costs, limits, args.hours_per_day, args.tokens_in)
    if args.json:
        told = {
            "demand": asdict(demand), "box": asdict(box), "limits": asdict(limits), "fleet": asdict(fleet),
            "month": asdict(taken), "documents": compared, "assumptions": assumed,
            "provenance": costs.provenance.model_dump(),
            "steps": [asdict(step) for step in explain(demand, box, costs, fleet)],
        }  # fmt: skip
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print(table_of(demand, box, fleet, taken))
    if not taken.costs:
        print("\nno cost: give --price-in and --price-out (a million tokens), --price-voice, --node-price")
    print(f"\nbottleneck: {fleet.bottleneck or 'none'}\n\n" + "\n".join(compared))
    if args.explain:
        print("\nhow a node's figures are computed (names with _ are of the costs file, see --costs):")
        print("\n".join(lines_of(explain(demand, box, costs, fleet))))
    print("\nassumed:\n" + "\n".join(f"- {line}" for line in assumed))
    return 0
