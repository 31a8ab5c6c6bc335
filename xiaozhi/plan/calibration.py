"""How quick this box is, as it was measured once: kept in the data directory, and what follows from it.

What it is good for stands in it: the models, by what is in their files, the kind of processor, the runtimes. Where one
of them is another, it is measured again (`xiaozhi.plan.measuring`).
"""

import importlib.metadata
import logging
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xiaozhi.models.onnx_session import digest_of
from xiaozhi.overload.cpu import CpuClass, cpu_class
from xiaozhi.overload.usage import cores, limit_bytes
from xiaozhi.plan.costs import Costs, read_costs
from xiaozhi.plan.planner import Box, Demand, EngineName, Unplannable, plan
from xiaozhi.program import program
from xiaozhi.settings import AsrSettings, Settings
from xiaozhi.stages.asr.recogniser import Quickest
from xiaozhi.store import private_file

_log = logging.getLogger(__name__)

SOUND_S: Final = 3.0
"""Length of what is recognised for a measurement."""
ENCODER_EFFORTS: Final = (0, 5, 10)
"""Complexities of Opus that are measured; the shipped costs are those of 5."""
TALKER_TURNS_PER_MINUTE: Final = 3.0
"""Who talks with a device asks it something so often: every 20 s, 3 s of speech for 6 s of answer."""
_FILE: Final = "calibration.json"
# `interpreter_s` of the machine that the shipped costs were measured on.
_SHIPPED_INTERPRETER_S: Final = 0.00072
# Another way of decoding than the usual one must be quicker by this much to be chosen: less is in the noise.
_CLEARLY: Final = 0.9
# All cores for one are worth a second copy of the model where they save a fifth of the time.
_WORTH_A_COPY: Final = 0.8
_Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]
_Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Ground(_Part):
    """What measurements hold for: the same models on the same kind of machine.

    Attributes:
        cpu: class of the processor; `cores` of it.
        runtimes: versions of what models run in, by package.
        models: digests of the local recognisers' files, by engine.
    """

    cpu: CpuClass
    cores: int = Field(ge=1)
    runtimes: dict[_Name, _Name]
    models: dict[_Name, _Name]


class Decode(_Part):
    """`SOUND_S` of sound, recognised.

    Attributes:
        engine, variant, threads: with what.
        cpu_s: of the thread that did it; all there is to it with one thread.
        wall_s: until it was done.
        final_s: of these, behind the last sample, where it is recognised while one speaks.
    """

    engine: _Name
    variant: _Name
    threads: int = Field(ge=1, le=1024)
    cpu_s: _Seconds
    wall_s: _Seconds
    final_s: _Seconds | None = None


class Calibration(_Part):
    """What was measured.

    Attributes:
        version: of this layout.
        ground: what it holds for.
        date: of the measurement.
        decodes: of every variant with one thread, the usual one first, and of the quickest with more.
        encode_s: one frame of 60 ms, by complexity of Opus.
        vad_s: one window of 32 ms, of eight at once.
        interpreter_s: a piece of Python, `xiaozhi.plan.measuring.python`.
        disturbed: something else kept the processor busy meanwhile, so that threads could not be compared or time ran
            out: it stands for now, and is measured again.
    """

    version: Literal[1] = 1
    ground: Ground
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    decodes: tuple[Decode, ...] = Field(max_length=100)
    encode_s: dict[int, _Seconds]
    vad_s: _Seconds
    interpreter_s: _Seconds
    disturbed: bool = False

    def _alone(self, engine: str) -> list[Decode]:
        return [one for one in self.decodes if one.engine == engine and one.threads == 1]

    def best(self, engine: str) -> Decode | None:
        """The variant of an engine to use, with one thread: the usual one, or one that is clearly quicker."""
        found = self._alone(engine)
        if not found:
            return None
        usual, quickest = found[0], min(found, key=lambda one: one.cpu_s)
        return quickest if quickest.cpu_s < _CLEARLY * usual.cpu_s else usual

    @property
    def quickest(self) -> Quickest:
        """How SenseVoice is to be run here; the usual variant needs no name."""
        best = self.best("sense-voice")
        if best is None:
            return Quickest()
        variant = "" if best is self._alone("sense-voice")[0] else best.variant
        more = [
            one.threads
            for one in self.decodes
            if (one.engine, one.variant) == (best.engine, best.variant)
            and one.threads > 1
            and not self.disturbed
            and one.wall_s <= _WORTH_A_COPY * best.wall_s
        ]
        return Quickest(variant, max(more, default=1))

    def costs(self, shipped: Costs) -> Costs:
        """The costs of a turn on this box: what was measured, and the rest as much slower as Python is."""
        recognition = dict(shipped.recognition)
        for name, cost in shipped.recognition.items():
            if (best := self.best(name)) is not None:
                ratio = best.cpu_s / (cost.fixed_s + SOUND_S * cost.per_audio_s)
                recognition[name] = cost.model_copy(
                    update={
                        "fixed_s": cost.fixed_s * ratio,
                        "per_audio_s": cost.per_audio_s * ratio,
                        "final_s": best.final_s,
                    }
                )
        encode_s = self.encode_s.get(5, 0.06 * shipped.encode_s) / 0.06
        slower = self.interpreter_s / _SHIPPED_INTERPRETER_S
        own = shipped.provenance.model_copy(
            update={
                "machine": f"this box ({self.ground.cores} cores, {self.ground.cpu})",
                "date": self.date,
                "commands": (f"{program()} check --measure",),
                "note": "recognition, Opus and VAD; all else was measured elsewhere, and scaled as the interpreter is",
            }
        )
        return shipped.model_copy(
            update={
                "recognition": recognition,
                "encode_s": encode_s,
                "vad_s": self.vad_s / 0.032,
                "decode_s": shipped.decode_s * encode_s / shipped.encode_s,
                "other_s": shipped.other_s * slower,
                "base_cores": min(1.0, shipped.base_cores * slower),
                "provenance": own,
            }
        )

    def talkers(self, settings: AsrSettings) -> int | None:
        """How many may talk with their devices in the planner's time; None where nobody measured what recognises.

        Two passes are one under load, so they carry as many as the better of the two ways.
        """
        engines, costs = self._planned(settings), self.costs(read_costs())
        memory_gb = limit_bytes() / 1e9 or Box().memory_gb
        box = Box(self.ground.cores, memory_gb, recognizers=min(settings.workers, self.ground.cores))
        found = []
        for engine in engines:
            try:
                found.append(plan(Demand(1, TALKER_TURNS_PER_MINUTE, engine=engine), box, costs).most_per_node)
            except Unplannable:
                found.append(0)
        return max(found, default=None)

    def _planned(self, settings: AsrSettings) -> tuple[EngineName, ...]:
        """What recognises, in the planner's words; nothing where it was not measured."""
        if getattr(getattr(settings, settings.engine, None), "needs_network", False):
            return ("remote",)
        measured = {one.engine for one in self.decodes}
        if settings.engine in ("auto", "two-pass") and len(measured) == 2:
            return ("two-pass", "zipformer")
        names: tuple[EngineName, ...] = ("sense-voice", "zipformer")
        return tuple(name for name in names if name in measured and settings.engine in ("auto", name))

    def lines(self, settings: AsrSettings) -> list[str]:
        """For people: how many talkers, and what was measured."""
        talkers = self.talkers(settings)
        decoded = [
            f"{one.engine} {one.variant} "
            + (
                f"{1000 * one.cpu_s:.0f} ms"
                if one.threads == 1
                else f"{one.threads} threads {1000 * one.wall_s:.0f} ms"
            )
            for one in self.decodes
        ]
        if talkers is None:
            what = "this box: no model is installed whose speed was measured / 这台机器：还没有装能测速的识别模型"
        elif talkers == 0:
            what = "this box: too slow even for one talker / 这台机器：一个人用也太慢"
        else:
            what = f"this box: about {talkers} talkers / 这台机器：大约可供 {talkers} 人同时使用"
        encoded = ", ".join(f"{1000 * seconds:.2f}" for _, seconds in sorted(self.encode_s.items()))
        return [
            what,
            f"{self.ground.cpu}, {SOUND_S:g} s of speech: {', '.join(decoded) or 'nothing'}; 60 ms of Opus "
            f"{encoded} ms (complexity {', '.join(map(str, sorted(self.encode_s)))}); VAD {1e6 * self.vad_s:.0f} us a "
            f"window; {self.date}{', while something else kept it busy' if self.disturbed else ''}",
        ]


NOT_MEASURED: Final = (
    f"this box is not measured yet: a server does it when it runs, `{program()} check --measure` does it now / "
    "这台机器还没有测过速：服务运行时会自己测，上面的命令马上测"
)
"""What is said while there is no calibration."""


def model_folders(settings: AsrSettings, models_dir: Path) -> dict[str, Path]:
    """Where the local recognisers that are installed have their files, by engine. Blocking."""
    own, streaming = settings.model_dir, settings.streaming_model_dir
    if own is not None and any(own.glob("encoder*.onnx")):
        own, streaming = None, own
    folders = {"sense-voice": own or models_dir / "sense-voice", "zipformer": streaming or models_dir / "zipformer"}
    return {name: folder for name, folder in folders.items() if any(folder.glob("*.onnx"))}


def ground_of(settings: Settings) -> Ground:
    """What a measurement would hold for now. Blocking: a second where large models are read the first time."""
    models = {}
    for name, folder in model_folders(settings.asr, settings.models.dir).items():
        files = [path for path in folder.glob("*.onnx") if ".rewritten-" not in path.name]
        try:
            models[name] = "-".join(digest_of(path)[:16] for path in sorted(files))[:100]
        except OSError as error:
            _log.warning("%s: cannot be read (%s)", folder, error.strerror)
    runtimes = {name: _version(name) for name in ("onnxruntime", "sherpa-onnx")}
    return Ground(cpu=cpu_class(), cores=cores(), runtimes=runtimes, models=models)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # in an executable that was made without these data
        return "unknown"


def read_calibration(data_dir: Path, ground: Ground | None = None) -> Calibration | None:
    """What was measured of this box; None where nothing was, it is damaged, or it was another box.

    Args:
        data_dir: `server.data_dir`.
        ground: has to be the same, `ground_of`; without it, only the machine.
    """
    path = data_dir / _FILE
    try:
        content = private_file.read(path)
        if content is None:
            return None
        found = Calibration.model_validate_json(content)
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "damaged"
        _log.warning("%s: %s; it is measured again", path, why)
        return None
    machine = (found.ground.cpu, found.ground.cores)
    same = found.ground == ground if ground is not None else machine == (cpu_class(), cores())
    return found if same else None


def this_box(data_dir: Path) -> tuple[CpuClass, Calibration | None]:
    """The class of its processor, and what was measured of it, with whatever models."""
    return cpu_class(), read_calibration(data_dir)


def keep(data_dir: Path, calibration: Calibration) -> None:
    """Write it down; where that cannot be done, it holds until this process ends. Blocking."""
    path = data_dir / _FILE
    try:
        private_file.write(path, calibration.model_dump_json(indent=2).encode())
    except OSError as error:
        _log.warning("%s cannot be written (%s): this box will be measured again", path, error.strerror)
