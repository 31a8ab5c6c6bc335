"""A plan as text. Pure."""

from typing import Final

from xiaozhi.plan.costs import Costs
from xiaozhi.plan.model import Box, Demand, Fleet, Limits
from xiaozhi.plan.upstream import Month

# What the documents behind this project plan: 1000 devices on 20 nodes, 100 devices on 8.
DOCUMENTS: Final = ((1000, 20), (100, 8))


def table_of(demand: Demand, box: Box, fleet: Fleet, month: Month) -> str:
    """The figures, aligned."""
    node, nodes = fleet.node, fleet.nodes
    rows = [
        (
            "nodes",
            f"{nodes}",
            f"{box.cores} cores, {box.memory_gb:g} GB each; one carries {fleet.most_per_node} devices",
        ),
        (
            "cores",
            f"{nodes * box.cores}",
            f"{node.cpu_cores:.2f} of {box.cores} busy on a node with {node.devices} devices",
        ),
        ("event loop", f"{node.loop_share:.0%}", "of its one core"),
        ("recognition", f"{node.recognition_share:.0%}", f"of its threads; 95 % begin within {_ms(node.wait_p95_s)}"),
        ("memory", f"{node.memory_gb:.2f} GB", f"on each node, {nodes * node.memory_gb:.1f} GB in all"),
        ("up", _bits(nodes * node.up_bps), "on average while the devices are used, all nodes together"),
        ("down", _bits(nodes * node.down_bps), "likewise"),
        (
            "first sound",
            _ms(node.first_audio_p95_s),
            f"after the last word for 95 % of turns; asked: {_ms(demand.p95_s)}",
        ),
        ("turns", _many(month.turns), "a month"),
        ("requests", _many(month.requests), "to the language model a month"),
        ("tokens", f"{_many(month.tokens_in)} in", f"{_many(month.tokens_out)} out a month"),
        ("characters", _many(month.voice_chars), "spoken by the voice a month"),
    ]
    rows += [(name, f"{cost:,.0f} {month.currency}", "a month") for name, cost in month.costs.items()]
    if len(month.costs) > 1:
        rows.append(("together", f"{sum(month.costs.values()):,.0f} {month.currency}", "a month"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:>{widths[1]}}  {more}" for name, value, more in rows)


def against_documents(fleets: dict[int, Fleet]) -> list[str]:
    """One line for each figure of the documents.

    Args:
        fleets: planned for the numbers of devices in `DOCUMENTS`.
    """
    return [
        f"{devices} devices: the documents plan {theirs} nodes of {devices / theirs:g} devices, this plan "
        f"{_nodes(fleets[devices].nodes)} of {fleets[devices].node.devices}"
        for devices, theirs in DOCUMENTS
    ]


def assumptions(
    demand: Demand, box: Box, costs: Costs, limits: Limits, hours_per_day: float, tokens_in: float
) -> list[str]:
    """One sentence for each."""
    source = costs.provenance
    lines = [
        f"Costs of a turn were measured on {source.machine} on {source.date} ({source.note or 'no note'}); "
        f"a core here is taken to be {box.speed:g} times as quick.",
        "Turns come at random (Poisson) from all devices together, at the rate of the busiest time.",
        f"A device is heard for the {demand.speech_s:g} s it speaks and 1 s more, and hears {demand.reply_s:g} s.",
        f"A node is filled to {limits.cpu:.0%} of its processor, {limits.loop:.0%} of the event loop's core, "
        f"{limits.recognition:.0%} of its recognisers and {limits.memory:.0%} of its memory.",
        f"The language model begins within {_ms(demand.first_token_s)} and the voice within {_ms(demand.voice_s)} "
        "for 95 % of requests; the 95th percentiles are added, which is on the safe side where they are independent.",
        f"A month has 30 days of {hours_per_day:g} hours of such use; a request has {tokens_in:g} tokens in; "
        f"{costs.replies_per_turn:g} replies are begun for one given (speculation), 5 % are asked for twice (hedges).",
        "A loop that is not overfull adds nothing to the first sound; what runs on it is linear in turns and seconds.",
        "No node is spare and all devices share the nodes evenly: add one for every one that may fail at a time.",
        "Voices come from a service; a local voice needs its own measurement.",
    ]
    match demand.engine:
        case "remote":
            lines.insert(
                2, "Others recognise: their time is taken as 400 ms, sound goes on to them, and nothing waits here."
            )
        case "zipformer":
            lines.insert(2, "Recognition runs while somebody speaks; only the last piece waits for a thread.")
        case _:
            lines.insert(
                2,
                f"An utterance waits for one of {box.workers} recognisers of one thread and low priority each (M/G/c: "
                "Erlang C, scaled by Allen and Cunneen for lengths that scatter by 0.6 of their mean); "
                f"{costs.decodes_per_turn:g} decodes a turn.",
            )
    return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"


def _bits(bps: float) -> str:
    return f"{bps / 1e6:.2f} Mbit/s"


def _many(amount: float) -> str:
    for size, name in ((1e9, " bn"), (1e6, " M"), (1e3, " k")):
        if amount >= size:
            return f"{amount / size:.1f}{name}"
    return f"{amount:.0f}"
