"""From the cost of a turn to the number of nodes. Pure.

One node is one process: an event loop on one core, recognisers in threads of low priority on what the loop and the
codecs leave. A node carries as many devices as keep every limit of `Limits`; more devices never need fewer nodes.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from xiaozhi.plan.costs import Costs, EngineName
from xiaozhi.plan.queueing import Queue

# Sound that a device sends after the last word: until the server has decided that this was it.
TAIL_S: Final = 1.0
# Lengths of utterances scatter: on 165 clips of Mandarin and English the standard deviation was 0.6 of the mean.
LENGTH_CV: Final = 0.6
# Endpointing of the profile `balanced`: the silence before work begins, and before a complete sentence is answered.
SOFT_END_S: Final = 0.096
COMMIT_S: Final = 0.4
_MAX_DEVICES: Final = 1_000_000
_SHARE: Final = 0.95
# A cloud's final text after the last sample, 95th percentile: published figures have a median of 221 to 247 ms.
REMOTE_S: Final = 0.4
MODELS: Final[dict[EngineName, tuple[Literal["sense-voice", "zipformer"], ...]]] = {
    "sense-voice": ("sense-voice",),
    "zipformer": ("zipformer",),
    "two-pass": ("zipformer", "sense-voice"),
    "remote": (),
}


@dataclass(frozen=True, slots=True)
class Demand:
    """What the devices do.

    Attributes:
        devices: that are connected.
        turns_per_minute: of each, at the busiest time that is planned for.
        speech_s, reply_s: length of what is said and of what is answered, on average.
        engine: the recogniser.
        first_token_s, voice_s: the 95th percentiles of the language model and of the voice to their first byte.
        p95_s: how late the first sound may be, after the last word, for 95 % of turns.
    """

    devices: int
    turns_per_minute: float = 1.0
    speech_s: float = 3.0
    reply_s: float = 6.0
    engine: EngineName = "sense-voice"
    first_token_s: float = 0.4
    voice_s: float = 0.2
    p95_s: float = 1.5

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= _MAX_DEVICES:
            raise ValueError(f"devices must lie between 1 and {_MAX_DEVICES}")
        if min(self.turns_per_minute, self.speech_s, self.reply_s, self.p95_s) <= 0:
            raise ValueError("turns a minute, lengths and the 95th percentile must be above 0")
        if min(self.first_token_s, self.voice_s) < 0:
            raise ValueError("the times of upstreams must not be negative")
        if self.turns_per_minute * (self.speech_s + self.reply_s) > 60:
            raise ValueError("a device cannot talk and listen for more than 60 seconds of a minute")

    @property
    def turns_per_s(self) -> float:
        """Of all devices together."""
        return self.devices * self.turns_per_minute / 60.0


@dataclass(frozen=True, slots=True)
class Box:
    """One node.

    Attributes:
        cores, memory_gb: what it has.
        speed: of one of its cores, 1 for the machine the costs were measured on.
    """

    cores: int = 4
    memory_gb: float = 8.0
    speed: float = 1.0

    def __post_init__(self) -> None:
        if self.cores < 1 or self.memory_gb <= 0 or self.speed <= 0:
            raise ValueError("a box needs at least one core, memory, and a speed above 0")

    @property
    def workers(self) -> int:
        """Recognisers at the same time: one core is left to the event loop."""
        return max(1, self.cores - 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a node may be filled to, as shares.

    Attributes:
        cpu, memory: of the whole box; what the documents behind this project allow.
        loop: of the one core of the event loop; above, timers come late.
        recognition: of the recognisers' time; above, waits grow out of proportion.
    """

    cpu: float = 0.7
    memory: float = 0.8
    loop: float = 0.6
    recognition: float = 0.8


@dataclass(frozen=True, slots=True)
class Node:
    """One node under its share of the devices.

    Attributes:
        devices: it carries.
        cpu_cores: busy on average; `loop_share` of them is the event loop's thread, 0 to 1 and above.
        recognition_share: of the time of the recognisers; 0 where others recognise.
        memory_gb: taken.
        wait_p95_s: before a recogniser begins.
        first_audio_p95_s: the first sound after the last word.
        up_bps, down_bps: on average.
    """

    devices: int
    cpu_cores: float
    loop_share: float
    recognition_share: float
    memory_gb: float
    wait_p95_s: float
    first_audio_p95_s: float
    up_bps: float
    down_bps: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """The answer.

    Attributes:
        nodes: of the same kind.
        most_per_node: devices that one can carry.
        node: one with an equal share of the devices.
        bottleneck: what forbids one more device on a node.
    """

    nodes: int
    most_per_node: int
    node: Node
    bottleneck: str


class Unplannable(Exception):
    """Not even one device fits on such a node; says why."""


def recognition_queue(demand: Demand, box: Box, costs: Costs, other_cores: float) -> Queue | None:
    """The queue in front of a node's recognisers; None where others recognise.

    Args:
        demand: of that node.
        box: the node.
        costs: measured.
        other_cores: busy with everything else, which goes before the recognisers.
    """
    if demand.engine == "remote":
        return None
    fixed_s, per_audio_s, decodes = _decoding(demand.engine, costs)
    length_s = demand.speech_s + TAIL_S
    varying_s = per_audio_s * length_s
    work_s = (fixed_s + varying_s) / box.speed
    free = max(1e-9, min(float(box.workers), box.cores - other_cores))
    service_s = work_s * box.workers / free  # the threads share what is left
    cv = LENGTH_CV * varying_s / (fixed_s + varying_s) if work_s else 0.0
    return Queue(demand.turns_per_s * decodes, service_s, cv, box.workers)


def load_of(demand: Demand, box: Box, costs: Costs) -> Node:
    """What `demand` does to one node."""
    turns, heard_s = demand.turns_per_s, demand.speech_s + TAIL_S
    loop = (costs.base_cores + turns * costs.other_s * (demand.speech_s + demand.reply_s)) / box.speed
    threads = turns * (heard_s * (costs.vad_s + costs.decode_s) + demand.reply_s * costs.encode_s) / box.speed
    streaming = 0.0
    if demand.engine in ("zipformer", "two-pass"):
        streaming = turns * heard_s * costs.recognition["zipformer"].per_audio_s / box.speed
    queue = recognition_queue(demand, box, costs, loop + threads + streaming)
    wait_s = final_s = share = decoding = 0.0
    if queue is not None:
        share, wait_s = queue.utilisation, queue.wait_quantile_s(_SHARE)
        final_s = queue.service_s * (1.0 + 2.0 * queue.service_cv)  # a long utterance: two deviations above the mean
        fixed_s, per_audio_s, decodes = _decoding(demand.engine, costs)
        decoding = turns * decodes * (fixed_s + per_audio_s * heard_s) / box.speed
        if demand.engine == "zipformer":
            decoding = 0.0  # its work is done while somebody talks; the queue holds only the last piece
    elif demand.engine == "remote":
        final_s = REMOTE_S
    ready_s = SOFT_END_S + wait_s + final_s + demand.first_token_s + demand.voice_s
    talking = min(float(demand.devices), turns * (heard_s + demand.reply_s))
    models_mb = sum(costs.recognition[name].memory_mb for name in MODELS[demand.engine])
    turn_mb = (demand.devices * costs.connection_kb + talking * costs.turn_kb) / 1000.0
    extra_up = 1.0 if demand.engine != "remote" else 2.0  # it goes on to the recogniser
    return Node(
        devices=demand.devices,
        cpu_cores=loop + threads + streaming + decoding,
        loop_share=loop,
        recognition_share=share,
        memory_gb=(costs.process_mb + models_mb + turn_mb) / 1000.0,
        wait_p95_s=wait_s,
        first_audio_p95_s=max(COMMIT_S, ready_s),
        up_bps=turns * heard_s * costs.up_bps * extra_up,
        down_bps=turns * demand.reply_s * costs.down_bps,
    )


def broken_limit(node: Node, demand: Demand, box: Box, limits: Limits) -> str:
    """The first limit that a node breaks, in words; empty when it keeps all."""
    checks = (
        (node.memory_gb > limits.memory * box.memory_gb, f"memory above {limits.memory:.0%}"),
        (node.loop_share > limits.loop, f"the event loop's core above {limits.loop:.0%}"),
        (node.recognition_share > limits.recognition, f"recognition above {limits.recognition:.0%} of its threads"),
        (node.cpu_cores > limits.cpu * box.cores, f"processor above {limits.cpu:.0%}"),
        (
            node.first_audio_p95_s > demand.p95_s,
            f"first sound later than {demand.p95_s * 1000:.0f} ms for 5 % of turns",
        ),
    )
    return next((words for broken, words in checks if broken), "")


def plan(demand: Demand, box: Box, costs: Costs, limits: Limits = Limits()) -> Fleet:
    """How many nodes are needed, and what forbids fewer.

    Raises:
        Unplannable: a node cannot carry one device; says what it breaks.
    """
    missing = [name for name in MODELS[demand.engine] if name not in costs.recognition]
    if missing:
        raise Unplannable(f"the figures hold nothing about {missing[0]}")

    def why_not(devices: int) -> str:
        one = replace(demand, devices=devices)
        return broken_limit(load_of(one, box, costs), one, box, limits)

    if alone := why_not(1):
        raise Unplannable(f"one device is too much for such a node: {alone}")
    fits, too_many = 1, 2
    while too_many <= _MAX_DEVICES and not why_not(too_many):
        fits, too_many = too_many, too_many * 2
    too_many = min(too_many, _MAX_DEVICES)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (fits, middle) if why_not(middle) else (middle, too_many)
    nodes = math.ceil(demand.devices / fits)
    share = replace(demand, devices=math.ceil(demand.devices / nodes))
    return Fleet(nodes, fits, load_of(share, box, costs), why_not(fits + 1) if fits < _MAX_DEVICES else "")


def _decoding(engine: EngineName, costs: Costs) -> tuple[float, float, float]:
    """Of one recognition in the queue: fixed seconds, seconds for each second of audio, and how many a turn has."""
    if engine == "zipformer":
        one = costs.recognition["zipformer"]
        return one.fixed_s if one.final_s is None else one.final_s, 0.0, 1.0
    one = costs.recognition["sense-voice"]
    return one.fixed_s, one.per_audio_s, costs.decodes_per_turn
