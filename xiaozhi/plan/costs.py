"""What a turn costs, as it was measured: read from a JSON file, `costs.json` of this package when none is named."""

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xiaozhi.program import PlainError

ModelName: TypeAlias = Literal["sense-voice", "zipformer"]

DEFAULT_FILE: Final = Path(__file__).with_name("costs.json")
_Cost: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]


class CostsError(PlainError):
    """A file of costs cannot be used; one line that names it and says why."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Provenance(_Part):
    """Where costs come from."""

    machine: str = Field(min_length=1)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    commands: tuple[str, ...] = Field(min_length=1)
    note: str = ""


class RecognitionCost(_Part):
    """One recognizer on one thread.

    Attributes:
        fixed_s: of each decode, however short.
        per_audio_s: for each second of audio.
        final_s: after the last sample, where it recognizes while somebody talks; None: a whole decode.
        memory_mb: of its model.
    """

    fixed_s: _Cost
    per_audio_s: _Cost
    final_s: _Cost | None = None
    memory_mb: _Cost


class Costs(_Part):
    """What a turn costs, as `python -m bench.plan_costs` measures it; times in seconds of one core of that machine.

    Attributes:
        version: of this layout.
        provenance: machine, commands, date.
        recognition: by model.
        decodes_per_turn: recognitions of one turn, early ones among them.
        replies_per_turn: replies that are begun for one that is given: speculation.
        vad_s, decode_s: for each second of audio from a device.
        encode_s: for each second of audio to a device.
        other_s: for each second of a turn (speech and reply): sockets, JSON, pacing, the streams of model and voice.
            Runs on the one thread of the event loop.
        base_cores: busy on the event loop's thread while nobody talks.
        process_mb: of a server without devices and without a recognizer's model.
        connection_kb, turn_kb: of a device that is connected, and in a turn on top of that.
        up_bps, down_bps: of one device on the wire while sound goes that way, with all headers.
    """

    version: Literal[1]
    provenance: Provenance
    recognition: dict[ModelName, RecognitionCost] = Field(min_length=1)
    decodes_per_turn: Annotated[float, Field(ge=1, le=20)]
    replies_per_turn: Annotated[float, Field(ge=1, le=20)]
    vad_s: _Cost
    decode_s: _Cost
    encode_s: _Cost
    other_s: _Cost
    base_cores: Annotated[float, Field(ge=0, le=1)] = 0.0
    process_mb: _Cost
    connection_kb: _Cost
    turn_kb: _Cost
    up_bps: _Cost
    down_bps: _Cost


def read_costs(path: Path = DEFAULT_FILE) -> Costs:
    """The costs of a file.

    Raises:
        CostsError: it cannot be read, or is no such file.
    """
    try:
        return Costs.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CostsError(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        line = f"{path}: {where + ': ' if where else ''}{first['msg']}; make one with: python -m bench.plan_costs"
        raise CostsError(line) from error
