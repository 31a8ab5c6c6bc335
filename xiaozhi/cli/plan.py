"""`xiaozhi plan`: how many nodes so many devices need, and what a month costs. Measures nothing, asks nobody.

Where this box was measured (`xiaozhi check --measure`, or a server that ran here), a node is taken to be like it.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xiaozhi.cli.frame import WrongUsage, load

if TYPE_CHECKING:
    from xiaozhi.plan.costs import Costs
    from xiaozhi.plan.planner import Box, Demand, Fleet, Limits

# What the documents behind this project plan: 1000 devices on 20 nodes, 100 devices on 8.
DOCUMENTS: Final = ((1000, 20), (100, 8))

_ENGINES = ("sense-voice", "zipformer", "two-pass", "remote")

ABOUT = "Compute nodes, cores, memory, bandwidth, tokens and cost from what a turn was measured to cost."
EXAMPLES = (
    "examples:\n"
    "  xiaozhi plan --devices 1000\n"
    "  xiaozhi plan --devices 300 --turns-per-minute 3 --cores 8 --memory-gb 16 --engine two-pass\n"
    "  xiaozhi plan --devices 1000 --explain\n"
    "  xiaozhi plan --devices 1000 --price-in 0.4 --price-out 1.2 --currency USD --node-price 40\n"
    "exit codes: 0 planned, 1 no such node can carry a device or the figures cannot be read, 2 wrong usage"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
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
    parser.add_argument(
        "--costs",
        type=Path,
        metavar="FILE",
        help="figures of your own, from bench.plan_costs; else of this box, else shipped",
    )
    parser.add_argument("--explain", action="store_true", help="show how each figure is computed, with its numbers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Print the plan."""
    from xiaozhi.plan.calibration import read_calibration
    from xiaozhi.plan.costs import DEFAULT_FILE, read_costs
    from xiaozhi.plan.planner import Box, Demand, Limits, explain, month, numbers_of, plan

    limits = Limits()
    prices = {
        "tokens in": ("tokens_in", 1e6, args.price_in),
        "tokens out": ("tokens_out", 1e6, args.price_out),
        "voice": ("voice_chars", 1e6, args.price_voice),
        "nodes": ("nodes", 1.0, args.node_price),
    }
    try:
        demand = Demand(
            args.devices, args.turns_per_minute, args.speech_s, args.reply_s, args.engine,
            args.first_token_ms / 1000.0, args.voice_ms / 1000.0, args.p95_ms / 1000.0,
        )  # fmt: skip
        box = Box(args.cores, args.memory_gb, args.cpu)
        if any(price is not None and price < 0 for _, _, price in prices.values()):
            raise ValueError("a price must not be negative")
        costs = read_costs(args.costs or DEFAULT_FILE)
        measured = read_calibration(load(args).settings.server.data_dir) if args.costs is None else None
        costs = measured.costs(costs) if measured is not None else costs
        fleet = plan(demand, box, costs, limits)
        bought = month(demand, costs, hours_per_day=args.hours_per_day, request_tokens=args.tokens_in)
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    amounts = {**bought, "nodes": fleet.nodes}
    paid = {name: amounts[of] / unit * price for name, (of, unit, price) in prices.items() if price is not None}
    compared = [
        _against_documents(theirs, plan(replace(demand, devices=devices), box, costs), devices)
        for devices, theirs in DOCUMENTS
    ]
    assumed = assumptions(demand, box, costs, limits, args)
    steps = [
        {"name": step.name, "formula": step.formula, "numbers": numbers_of(step, values), "value": values[step.name],
         "unit": step.unit}
        for step, values in explain(demand, box, costs, fleet)
    ]  # fmt: skip
    if args.json:
        told = {
            "demand": asdict(demand), "box": asdict(box), "limits": asdict(limits), "fleet": asdict(fleet),
            "month": {**bought, "costs": paid, "currency": args.currency}, "documents": compared,
            "assumptions": assumed, "provenance": costs.provenance.model_dump(), "steps": steps,
        }  # fmt: skip
        print(json.dumps(told, ensure_ascii=False))
        return
    print(table_of(demand, box, fleet, bought, paid, args.currency))
    if not paid:
        print("\nno cost: give --price-in and --price-out (a million tokens), --price-voice, --node-price")
    print(f"\nbottleneck: {fleet.bottleneck or 'none'}\n\n" + "\n".join(compared))
    if args.explain:
        print("\nhow a node's figures are computed (--costs names those that are measured), with")
        print("erlang_c(a, c) = l / (a^0/0! + ... + a^(c-1)/(c-1)! + l), l = a^c / c! / (1 - a / c):")
        width = max(len(str(step["name"])) for step in steps)
        for step in steps:
            print(f"{step['name']:<{width}} = {step['formula']}")
            print(f"{'':<{width}} = {step['numbers']} = {step['value']:.6g} {step['unit']}".rstrip())
    print("\nassumed:\n" + "\n".join(f"- {line}" for line in assumed))


def table_of(
    demand: "Demand", box: "Box", fleet: "Fleet", bought: Mapping[str, float], paid: Mapping[str, float], currency: str
) -> str:
    """The figures, aligned."""
    node, nodes = fleet.node, fleet.nodes
    rows = [
        ("nodes", f"{nodes}",
         f"{box.cores} cores, {box.memory_gb:g} GB each; one carries {fleet.most_per_node} devices"),
        ("cores", f"{nodes * box.cores}",
         f"{node.cpu_cores:.2f} of {box.cores} busy on a node with {node.devices} devices"),
        ("event loop", f"{node.loop_share:.0%}", "of its one core"),
        ("recognition", f"{node.recognition_share:.0%}", f"of its threads; 95 % begin within {_ms(node.wait_p95_s)}"),
        ("memory", f"{node.memory_gb:.2f} GB", f"on each node, {nodes * node.memory_gb:.1f} GB in all"),
        ("up", _bits(nodes * node.up_bps), "on average while the devices are used, all nodes together"),
        ("down", _bits(nodes * node.down_bps), "likewise"),
        ("first sound", _ms(node.first_audio_p95_s),
         f"after the last word for 95 % of turns; asked: {_ms(demand.p95_s)}"),
        ("turns", _many(bought["turns"]), "a month"),
        ("requests", _many(bought["requests"]), "to the language model a month"),
        ("tokens", f"{_many(bought['tokens_in'])} in", f"{_many(bought['tokens_out'])} out a month"),
        ("characters", _many(bought["voice_chars"]), "spoken by the voice a month"),
        *((name, f"{cost:,.0f} {currency}", "a month") for name, cost in paid.items()),
    ]  # fmt: skip
    if len(paid) > 1:
        rows.append(("together", f"{sum(paid.values()):,.0f} {currency}", "a month"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:>{widths[1]}}  {more}" for name, value, more in rows)


def assumptions(demand: "Demand", box: "Box", costs: "Costs", limits: "Limits", args: argparse.Namespace) -> list[str]:
    """One sentence for each."""
    source = costs.provenance
    match demand.engine:
        case "remote":
            heard = "Others recognise: their time is taken as 400 ms, sound goes on to them, and nothing waits here."
        case "zipformer":
            heard = "Recognition runs while somebody speaks; only the last piece waits for a thread."
        case _:
            heard = (
                f"An utterance waits for one of {box.workers} recognisers of one thread and low priority each (M/G/c: "
                "Erlang C, scaled by Allen and Cunneen for lengths that scatter by 0.6 of their mean); "
                f"{costs.decodes_per_turn:g} decodes a turn."
            )
    return [
        f"Costs of a turn were measured on {source.machine} on {source.date} ({source.note or 'no note'}); "
        f"a core here is taken to be {box.speed:g} times as quick.",
        "Turns come at random (Poisson) from all devices together, at the rate of the busiest time.",
        heard,
        f"A device is heard for the {demand.speech_s:g} s it speaks and 1 s more, and hears {demand.reply_s:g} s.",
        f"A node is filled to {limits.cpu:.0%} of its processor, {limits.loop:.0%} of the event loop's core, "
        f"{limits.recognition:.0%} of its recognisers and {limits.memory:.0%} of its memory.",
        f"The language model begins within {_ms(demand.first_token_s)} and the voice within {_ms(demand.voice_s)} "
        "for 95 % of requests; the 95th percentiles are added, which is on the safe side where they are independent.",
        f"A month has 30 days of {args.hours_per_day:g} hours of such use; a request has {args.tokens_in:g} tokens in; "
        f"{costs.replies_per_turn:g} replies are begun for one given (speculation), 5 % are asked for twice (hedges).",
        "A loop that is not overfull adds nothing to the first sound; what runs on it is linear in turns and seconds.",
        "No node is spare and all devices share the nodes evenly: add one for every one that may fail at a time.",
        "Voices come from a service; a local voice needs its own measurement.",
    ]


def _against_documents(theirs: int, fleet: "Fleet", devices: int) -> str:
    ours = f"{fleet.nodes} node{'' if fleet.nodes == 1 else 's'} of {fleet.node.devices}"
    return f"{devices} devices: the documents plan {theirs} nodes of {devices / theirs:g} devices, this plan {ours}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _bits(bps: float) -> str:
    return f"{bps / 1e6:.2f} Mbit/s"


def _many(amount: float) -> str:
    for size, name in ((1e9, " bn"), (1e6, " M"), (1e3, " k")):
        if amount >= size:
            return f"{amount / size:.1f}{name}"
    return f"{amount:.0f}"
