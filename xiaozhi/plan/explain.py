"""How each figure of a plan comes about: formula, numbers put in, result, so that a person can do it again. Pure.

Nothing is computed by the model here: every line is worked out once more from the costs, and `check` of a line is what
the model says, so that the two can be compared.
"""

import math
from dataclasses import dataclass

from xiaozhi.plan.costs import Costs
from xiaozhi.plan.model import COMMIT_S, LENGTH_CV, MODELS, REMOTE_S, SOFT_END_S, TAIL_S, Box, Demand, Fleet


@dataclass(frozen=True, slots=True)
class Step:
    """One figure.

    Attributes:
        name: what it is called in later formulas.
        formula: in these names.
        numbers: the same with numbers put in.
        value: what comes out.
        unit: of that.
        model: what the plan says; None where it says nothing about this one.
    """

    name: str
    formula: str
    numbers: str
    value: float
    unit: str
    model: float | None = None


def explain(demand: Demand, box: Box, costs: Costs, fleet: Fleet) -> list[Step]:
    """The way to every figure of one node under its share of the devices, and to those of the fleet."""
    return _Way(demand, box, costs, fleet).steps


class _Way:
    def __init__(self, demand: Demand, box: Box, costs: Costs, fleet: Fleet) -> None:
        self.steps: list[Step] = []
        self._demand, self._box, self._costs, self._fleet = demand, box, costs, fleet
        self._speed = f" / {box.speed:g}"
        self._turns = self._heard = 0.0
        self._share()
        loop = self._loop()
        threads = self._threads()
        streaming = self._streaming()
        decoding = self._recognition(loop + threads + streaming)
        node = fleet.node
        self._put("processor", "loop + threads + streaming + decoding", f"{loop:.4g} + {threads:.4g} + "
                  f"{streaming:.4g} + {decoding:.4g}", loop + threads + streaming + decoding, "cores",
                  node.cpu_cores)  # fmt: skip
        self._memory()
        self._wire()

    def _put(self, name: str, formula: str, numbers: str, value: float, unit: str, model: float | None = None) -> float:
        self.steps.append(Step(name, formula, numbers, value, unit, model))
        return value

    def _share(self) -> None:
        demand, fleet = self._demand, self._fleet
        nodes = math.ceil(demand.devices / fleet.most_per_node)
        self._put("nodes", "devices / devices one node carries, rounded up", f"{demand.devices} / "
                  f"{fleet.most_per_node}", nodes, "", fleet.nodes)  # fmt: skip
        each = math.ceil(demand.devices / fleet.nodes)
        self._put("share", "devices / nodes, rounded up", f"{demand.devices} / {fleet.nodes}", each, "devices",
                  fleet.node.devices)  # fmt: skip
        self._each = each
        self._turns = self._put("turns", "share x turns a minute / 60", f"{each} x {demand.turns_per_minute:g} / 60",
                                each * demand.turns_per_minute / 60.0, "a second")  # fmt: skip
        self._heard = self._put("heard", "speech + tail", f"{demand.speech_s:g} + {TAIL_S:g}",
                                demand.speech_s + TAIL_S, "s a turn")  # fmt: skip

    def _loop(self) -> float:
        demand, costs, speed = self._demand, self._costs, self._box.speed
        return self._put(
            "loop", "(base + turns x other_s x (speech + reply)) / speed",
            f"({costs.base_cores:g} + {self._turns:.4g} x {costs.other_s:g} x ({demand.speech_s:g} + "
            f"{demand.reply_s:g})){self._speed}",
            (costs.base_cores + self._turns * costs.other_s * (demand.speech_s + demand.reply_s)) / speed,
            "cores", self._fleet.node.loop_share,
        )  # fmt: skip

    def _threads(self) -> float:
        demand, costs, speed = self._demand, self._costs, self._box.speed
        return self._put(
            "threads", "turns x (heard x (vad_s + decode_s) + reply x encode_s) / speed",
            f"{self._turns:.4g} x ({self._heard:g} x ({costs.vad_s:g} + {costs.decode_s:g}) + {demand.reply_s:g} x "
            f"{costs.encode_s:g}){self._speed}",
            self._turns * (self._heard * (costs.vad_s + costs.decode_s) + demand.reply_s * costs.encode_s) / speed,
            "cores",
        )  # fmt: skip

    def _streaming(self) -> float:
        if self._demand.engine not in ("zipformer", "two-pass"):
            return 0.0
        one = self._costs.recognition["zipformer"]
        return self._put(
            "streaming", "turns x heard x zipformer per second of sound / speed",
            f"{self._turns:.4g} x {self._heard:g} x {one.per_audio_s:g}{self._speed}",
            self._turns * self._heard * one.per_audio_s / self._box.speed, "cores",
        )  # fmt: skip

    def _recognition(self, other: float) -> float:
        """The queue in front of the recognisers and the first sound; what decoding takes, in cores."""
        demand, box, costs, node = self._demand, self._box, self._costs, self._fleet.node
        if demand.engine == "remote":
            self._first_sound(0.0, REMOTE_S)
            return 0.0
        if demand.engine == "zipformer":
            one = costs.recognition["zipformer"]
            fixed, per_s, decodes, formula = one.fixed_s if one.final_s is None else one.final_s, 0.0, 1.0, "final"
        else:
            one, decodes = costs.recognition["sense-voice"], costs.decodes_per_turn
            fixed, per_s, formula = one.fixed_s, one.per_audio_s, "fixed + per second x heard"
        work = self._put("work", f"({formula}) / speed", f"({fixed:g} + {per_s:g} x {self._heard:g}){self._speed}",
                         (fixed + per_s * self._heard) / box.speed, "s a decode")  # fmt: skip
        decoding = 0.0
        if demand.engine != "zipformer":
            decoding = self._put("decoding", "turns x decodes a turn x work", f"{self._turns:.4g} x {decodes:g} x "
                                 f"{work:.4g}", self._turns * decodes * work, "cores")  # fmt: skip
        free = self._put("free", "the smaller of cores - 1 and cores - (loop + threads + streaming)",
                         f"min({box.workers}, {box.cores} - {other:.4g})",
                         max(1e-9, min(float(box.workers), box.cores - other)), "cores")  # fmt: skip
        service = self._put("service", "work x workers / free", f"{work:.4g} x {box.workers} / {free:.4g}",
                            work * box.workers / free, "s")  # fmt: skip
        varying = per_s * self._heard
        part = varying / (fixed + varying)
        cv = self._put("scatter", f"{LENGTH_CV:g} x the part of work that grows with length",
                       f"{LENGTH_CV:g} x {varying:.4g} / {fixed + varying:.4g}", LENGTH_CV * part, "")  # fmt: skip
        busy = self._put("busy", "turns x decodes a turn x service / workers", f"{self._turns:.4g} x {decodes:g} x "
                         f"{service:.4g} / {box.workers}", self._turns * decodes * service / box.workers,
                         "of the recognisers", node.recognition_share)  # fmt: skip
        wait = self._wait(busy, service, cv)
        final = self._put("longest", "service x (1 + 2 x scatter)", f"{service:.4g} x (1 + 2 x {cv:.4g})",
                          service * (1.0 + 2.0 * cv), "s")  # fmt: skip
        self._first_sound(wait, final)
        return decoding

    def _wait(self, busy: float, service: float, cv: float) -> float:
        """Erlang C from its sum, not by the recursion of the model."""
        workers = self._box.workers
        offered = busy * workers
        last = offered**workers / math.factorial(workers) / (1.0 - busy)
        before = sum(offered**number / math.factorial(number) for number in range(workers))
        waits = self._put(
            "waits", "Erlang C: l / (a^0/0! + ... + a^(c-1)/(c-1)! + l), a = busy x c, c workers, "
            "l = a^c / c! / (1 - busy)",
            f"{last:.4g} / ({before:.4g} + {last:.4g}), a = {offered:.4g}, c = {workers}",
            last / (before + last), "of decodes",
        )  # fmt: skip
        if waits <= 0.05:
            return self._put("wait", "0: fewer than 5 % wait", f"{waits:.4g} <= 0.05", 0.0, "s, 95 %",
                             self._fleet.node.wait_p95_s)  # fmt: skip
        scale = service / (workers * (1.0 - busy)) * (1.0 + cv**2) / 2.0
        return self._put(
            "wait", "service / (c x (1 - busy)) x (1 + scatter^2) / 2 x ln(waits / 0.05)",
            f"{service:.4g} / ({workers} x (1 - {busy:.4g})) x (1 + {cv:.4g}^2) / 2 x ln({waits:.4g} / 0.05)",
            scale * math.log(waits / 0.05), "s, 95 %", self._fleet.node.wait_p95_s,
        )  # fmt: skip

    def _first_sound(self, wait: float, final: float) -> None:
        demand = self._demand
        ready = SOFT_END_S + wait + final + demand.first_token_s + demand.voice_s
        self._put(
            "first sound", f"the larger of {COMMIT_S:g} and soft end + wait + longest + first token + voice",
            f"max({COMMIT_S:g}, {SOFT_END_S:g} + {wait:.4g} + {final:.4g} + {demand.first_token_s:g} + "
            f"{demand.voice_s:g})",
            max(COMMIT_S, ready), "s, 95 %", self._fleet.node.first_audio_p95_s,
        )  # fmt: skip

    def _memory(self) -> None:
        demand, costs = self._demand, self._costs
        talking = self._put(
            "talking", "the smaller of share and turns x (heard + reply)",
            f"min({self._each}, {self._turns:.4g} x ({self._heard:g} + {demand.reply_s:g}))",
            min(float(self._each), self._turns * (self._heard + demand.reply_s)), "devices",
        )  # fmt: skip
        models = sum(costs.recognition[name].memory_mb for name in MODELS[demand.engine])
        self._put(
            "memory", "(process + models) / 1000 + (share x connection_kb + talking x turn_kb) / 1000000",
            f"({costs.process_mb:g} + {models:g}) / 1000 + ({self._each} x {costs.connection_kb:g} + {talking:.4g} x "
            f"{costs.turn_kb:g}) / 1000000",
            (costs.process_mb + models) / 1e3 + (self._each * costs.connection_kb + talking * costs.turn_kb) / 1e6,
            "GB", self._fleet.node.memory_gb,
        )  # fmt: skip

    def _wire(self) -> None:
        demand, costs, node = self._demand, self._costs, self._fleet.node
        twice = 2.0 if demand.engine == "remote" else 1.0
        again = " x 2 (it goes on to the recogniser)" if demand.engine == "remote" else ""
        numbers = f"{self._turns:.4g} x {self._heard:g} x {costs.up_bps:g}" + " x 2" * bool(again)
        self._put("up", f"turns x heard x up_bps{again}", numbers,
                  self._turns * self._heard * costs.up_bps * twice, "bit/s", node.up_bps)  # fmt: skip
        self._put("down", "turns x reply x down_bps", f"{self._turns:.4g} x {demand.reply_s:g} x {costs.down_bps:g}",
                  self._turns * demand.reply_s * costs.down_bps, "bit/s", node.down_bps)  # fmt: skip


def lines_of(steps: list[Step]) -> list[str]:
    """Two lines for each figure: the formula, and its numbers with what comes out."""
    width = max(len(step.name) for step in steps)
    lines = []
    for step in steps:
        lines.append(f"{step.name:<{width}} = {step.formula}")
        lines.append(f"{'':<{width}} = {step.numbers} = {step.value:.6g} {step.unit}".rstrip())
    return lines
