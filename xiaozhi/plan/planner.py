"""From the measured cost of a turn to the number of nodes, by one table of formulas. Pure.

One node is one process: an event loop on one core, recognizers in threads of low priority on what the loop and the
codecs leave. A node carries as many devices as keep every limit of `Limits`; more devices never need fewer nodes.

The formulas are text, so that what `xiaozhi plan --explain` shows is what has been computed. An utterance waits for one
of several recognizers as in M/G/c: Erlang C, which is exact for exponential service times, scaled for others as
A. O. Allen and J. Cunneen do it (Probability, Statistics and Queueing Theory, 1990). `bench.plan_check` holds it
against a simulation and against real devices.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from types import CodeType
from typing import Final, Literal, TypeAlias

from xiaozhi.plan.costs import Costs, ModelName
from xiaozhi.program import PlainError

EngineName: TypeAlias = Literal["sense-voice", "zipformer", "two-pass", "remote"]
MODELS: Final[Mapping[EngineName, Sequence[ModelName]]] = {
    "sense-voice": ("sense-voice",),
    "zipformer": ("zipformer",),
    "two-pass": ("zipformer", "sense-voice"),
    "remote": (),
}
"""Recognizers that can be planned for, with the models that each of them holds."""

MAX_DEVICES: Final = 1_000_000

CONSTANTS: Final[Mapping[str, float]] = {
    # Sound that a device sends after the last word: until the server has decided that this was it.
    "tail_s": 1.0,
    # Lengths of utterances scatter: on 165 clips of Mandarin and English the standard deviation was 0.6 of the mean.
    "length_cv": 0.6,
    # Endpointing of the profile `balanced`: the silence before work begins, and before a whole sentence is answered.
    "soft_end_s": 0.096,
    "commit_s": 0.4,
    # Mandarin is spoken at four to five characters a second; models count about one token for each.
    "chars_per_s": 4.5,
    # Requests with the second ones for late answers: what [llm.hedge] share allows.
    "hedges": 1.05,
}
# A cloud's final text after the last sample, 95th percentile: published figures have a median of 221 to 247 ms.
REMOTE_S: Final = 0.4


@dataclass(frozen=True, slots=True)
class Formula:
    """One figure.

    Attributes:
        name: what it is called in later formulas.
        formula: of figures and constants, in the notation of Python.
        unit: of what comes out.
    """

    name: str
    formula: str
    unit: str


FLEET: Final = (
    Formula("nodes", "ceil(devices / most_per_node)", ""),
    Formula("node_devices", "ceil(devices / nodes)", "devices"),
)
QUEUE: Final = (
    Formula("waits", "erlang_c(recognition_share * workers, workers)", "of decodes"),
    Formula(
        "mean_wait_s", "waits * service_s / (workers * max(1e-9, 1 - recognition_share)) * (1 + scatter ** 2) / 2", "s"
    ),
    # Those that wait are taken to wait for an exponential time, which is exact for exponential service.
    Formula("wait_p95_s", "mean_wait_s / max(1e-9, waits) * log(max(0.05, waits) / 0.05)", "s for 95 %"),
)
"""What waits for a recognizer, from `recognition_share`, `service_s`, `scatter` and `workers`."""
NODE: Final = (
    Formula("turns", "devices * turns_per_minute / 60", "a second"),
    Formula("heard_s", "speech_s + tail_s", "s a turn"),
    Formula("loop_share", "(base_cores + turns * other_s * (speech_s + reply_s)) / speed", "cores"),
    Formula("threads", "turns * (heard_s * (vad_s + decode_s + streaming_s) + reply_s * encode_s) / speed", "cores"),
    Formula("work_s", "(fixed_s + per_audio_s * heard_s) / speed", "s a decode"),
    Formula("cpu_cores", "loop_share + threads + turns * whole_decodes * work_s", "cores"),
    Formula("free", "max(1e-9, min(workers, cores - loop_share - threads))", "cores for recognition"),
    Formula("service_s", "work_s * workers / free", "s a decode"),  # the workers share what is free
    Formula("scatter", "length_cv * per_audio_s * heard_s / max(1e-9, fixed_s + per_audio_s * heard_s)", "of the mean"),
    Formula("recognition_share", "turns * decodes * service_s / workers", "of the recognizers"),
    *QUEUE,
    # A long utterance: two deviations above the mean.
    Formula("recognized_s", "remote_s + service_s * (1 + 2 * scatter)", "s"),
    Formula("ready_s", "soft_end_s + wait_p95_s + recognized_s + first_token_s + voice_s", "s for 95 %"),
    Formula("first_audio_p95_s", "max(commit_s, ready_s)", "s for 95 %"),
    Formula("talking", "min(devices, turns * (heard_s + reply_s))", "devices"),
    Formula(
        "memory_gb", "(process_mb + models_mb) / 1000 + (devices * connection_kb + talking * turn_kb) / 1000000", "GB"
    ),
    Formula("up_bps", "turns * heard_s * device_up_bps * copies", "bit/s"),
    Formula("down_bps", "turns * reply_s * device_down_bps", "bit/s"),
)
"""What a number of devices does to one node."""
MONTH: Final = (
    Formula("turns", "devices * turns_per_minute * 60 * hours_per_day * 30", "a month"),
    Formula("requests", "turns * replies_per_turn * hedges", "a month"),
    Formula("tokens_in", "requests * request_tokens", "a month"),
    Formula("tokens_out", "requests * reply_s * chars_per_s", "a month"),
    Formula("voice_chars", "turns * replies_per_turn * reply_s * chars_per_s", "a month"),
)
"""What is bought from clouds in a month of 30 days."""


class Unplannable(PlainError):
    """Not even one device fits on such a node; says why."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the devices do.

    Attributes:
        devices: that are connected.
        turns_per_minute: of each, at the busiest time that is planned for.
        speech_s, reply_s: length of what is said and of what is answered, on average.
        engine: the recognizer.
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
        if not 1 <= self.devices <= MAX_DEVICES:
            raise ValueError(f"devices must lie between 1 and {MAX_DEVICES}")
        if min(self.turns_per_minute, self.speech_s, self.reply_s, self.p95_s) <= 0:
            raise ValueError("turns a minute, lengths and the 95th percentile must be above 0")
        if min(self.first_token_s, self.voice_s) < 0:
            raise ValueError("the times of upstreams must not be negative")
        if self.turns_per_minute * (self.speech_s + self.reply_s) > 60:
            raise ValueError("a device cannot talk and listen for more than 60 seconds of a minute")


@dataclass(frozen=True, slots=True)
class Box:
    """One node.

    Attributes:
        cores, memory_gb: what it has.
        speed: of one of its cores, 1 for the machine the costs were measured on.
        recognizers: at the same time; 0: one core is left to the event loop.
    """

    cores: int = 4
    memory_gb: float = 8.0
    speed: float = 1.0
    recognizers: int = 0

    def __post_init__(self) -> None:
        if self.cores < 1 or self.memory_gb <= 0 or self.speed <= 0:
            raise ValueError("a box needs at least one core, memory, and a speed above 0")

    @property
    def workers(self) -> int:
        """Recognizers at the same time."""
        return self.recognizers or max(1, self.cores - 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a node may be filled to, as shares.

    Attributes:
        cpu, memory: of the whole box.
        loop: of the one core of the event loop; above, timers come late.
        recognition: of the recognizers' time; above, waits grow out of proportion.
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
        recognition_share: of the time of the recognizers; 0 where others recognize.
        memory_gb: taken.
        wait_p95_s: before a recognizer begins.
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


def erlang_c(load: float, workers: int) -> float:
    """The share of Poisson arrivals that have to wait (A. K. Erlang), 0 to 1; 1 when overloaded.

    Args:
        load: workers that are busy on average, in Erlang.
        workers: how many there are.
    """
    if load >= workers:
        return 1.0
    blocked = 1.0  # Erlang B by its recursion, which does not overflow
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1.0 - load / workers * (1.0 - blocked))


FUNCTIONS: Final = {"min": min, "max": max, "ceil": math.ceil, "log": math.log, "erlang_c": erlang_c}
"""What formulas may call."""


@cache
def _compiled(formula: str) -> CodeType:
    return compile(formula, "<formula>", "eval")


def evaluate(steps: Sequence[Formula], given: Mapping[str, float]) -> dict[str, float]:
    """`given` and `CONSTANTS` with every figure of `steps` added, in their order."""
    values = {**CONSTANTS, **given}
    for step in steps:  # every formula is a line of this module
        values[step.name] = eval(_compiled(step.formula), {"__builtins__": {}, **FUNCTIONS}, values)
    return values


def numbers_of(step: Formula, values: Mapping[str, float]) -> str:
    """A formula with its numbers put in, to six digits: it can be worked out again by hand."""
    return re.sub(r"\b[a-z_]\w*", lambda name: f"{values[name[0]]:.6g}" if name[0] in values else name[0], step.formula)


def figures_of(demand: Demand, box: Box, costs: Costs) -> dict[str, float]:
    """Every figure of one node under `demand`: what was given, the constants, and all of `NODE`."""
    models = {name: costs.recognition[name] for name in MODELS[demand.engine]}
    streaming, whole = models.get("zipformer"), models.get("sense-voice")
    decodes = costs.decodes_per_turn if whole else 0.0
    given: dict[str, float] = {
        **{name: value for name, value in asdict(demand).items() if name != "engine"},
        **costs.model_dump(exclude={"version", "provenance", "recognition", "up_bps", "down_bps"}),
        "device_up_bps": costs.up_bps,
        "device_down_bps": costs.down_bps,
        "cores": box.cores,
        "workers": box.workers,
        "speed": box.speed,
        "models_mb": sum(model.memory_mb for model in models.values()),
        "streaming_s": streaming.per_audio_s if streaming else 0.0,
        "fixed_s": whole.fixed_s if whole else 0.0,
        "per_audio_s": whole.per_audio_s if whole else 0.0,
        "decodes": decodes,
        "whole_decodes": decodes,
        "remote_s": 0.0 if models else REMOTE_S,
        "copies": 1 if models else 2,  # what others recognize goes on to them
    }
    if streaming and not whole:  # only the last piece waits for a thread, and its work is counted as streaming
        last_s = streaming.fixed_s if streaming.final_s is None else streaming.final_s
        given |= {"fixed_s": last_s, "decodes": 1.0}
    return evaluate(NODE, given)


def load_of(demand: Demand, box: Box, costs: Costs) -> Node:
    """What `demand` does to one node."""
    figures = figures_of(demand, box, costs)
    return Node(demand.devices, *(figures[field.name] for field in fields(Node)[1:]))


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
    while too_many <= MAX_DEVICES and not why_not(too_many):
        fits, too_many = too_many, too_many * 2
    too_many = min(too_many, MAX_DEVICES)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (fits, middle) if why_not(middle) else (middle, too_many)
    shared = evaluate(FLEET, {"devices": demand.devices, "most_per_node": fits})
    share = replace(demand, devices=int(shared["node_devices"]))
    bottleneck = why_not(fits + 1) if fits < MAX_DEVICES else ""
    return Fleet(int(shared["nodes"]), fits, load_of(share, box, costs), bottleneck)


def explain(demand: Demand, box: Box, costs: Costs, fleet: Fleet) -> list[tuple[Formula, dict[str, float]]]:
    """Every step on the way to a plan, with the figures that it was computed from and its own."""
    shared = evaluate(FLEET, {"devices": demand.devices, "most_per_node": fleet.most_per_node})
    node = figures_of(replace(demand, devices=fleet.node.devices), box, costs)
    return [(step, shared) for step in FLEET] + [(step, node) for step in NODE]


def month(demand: Demand, costs: Costs, *, hours_per_day: float, request_tokens: float) -> dict[str, float]:
    """The figures of `MONTH`.

    Args:
        demand: of all devices, in the hours in which they are used.
        costs: how many replies are begun for one that is given.
        hours_per_day: in which the devices are used as `demand` says, above 0 to 24.
        request_tokens: of one request: agent, tools, history and question.

    Raises:
        ValueError: an hour or a number of tokens that cannot be.
    """
    if not 0 < hours_per_day <= 24 or request_tokens < 0:
        raise ValueError("a day has above 0 and at most 24 hours, and tokens are not negative")
    values = evaluate(
        MONTH,
        {
            "devices": demand.devices,
            "turns_per_minute": demand.turns_per_minute,
            "reply_s": demand.reply_s,
            "replies_per_turn": costs.replies_per_turn,
            "hours_per_day": hours_per_day,
            "request_tokens": request_tokens,
        },
    )
    return {step.name: values[step.name] for step in MONTH}
