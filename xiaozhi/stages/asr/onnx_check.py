"""Looking at a model file before sherpa-onnx sees it.

Everything here raises `EngineError` with one line: the file, what is wrong, what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from xiaozhi.models.onnx_session import ORT_ERRORS, quiet_session
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.text.one_line import one_line

# What a size in a model's metadata may be at most. Beyond it sherpa-onnx would ask for absurd amounts of memory.
_MAX: Final = 1_000_000
_FLOAT_TYPES: Final = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


@dataclass(frozen=True, slots=True)
class TensorPort:
    """An input or output: its shape has an int for every fixed axis and None for every free one."""

    name: str
    shape: tuple[int | None, ...]
    type: str


class ModelFile:
    """An ONNX file opened for inspection.

    Args:
        path: the file.
        advice: what to do when something is wrong with it, such as "run: xiaozhi models pull sense-voice".

    Raises:
        EngineError: it is not there, empty, truncated, garbage, or a graph that cannot run.
    """

    def __init__(self, path: Path, advice: str) -> None:
        self.path = path
        self._advice = advice
        if not path.is_file():
            raise EngineError(f"{path}: no such file; {advice}")
        if path.stat().st_size == 0:
            raise self.wrong("is empty, perhaps a broken download")
        try:
            self._session = quiet_session(path)
        except ORT_ERRORS as error:
            raise self.wrong(f"is not a complete ONNX model ({one_line(error)})") from error
        self._metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.inputs = tuple(_port(one) for one in self._session.get_inputs())
        self.outputs = tuple(_port(one) for one in self._session.get_outputs())

    def wrong(self, what: str) -> EngineError:
        """An error about this file, to raise."""
        return EngineError(f"{self.path}: {what}; {self._advice}")

    def text(self, key: str) -> str:
        """A metadata value, empty where there is none."""
        return self._metadata.get(key, "")

    def number(self, key: str, least: int = 0) -> int:
        """A metadata value that must be a whole number of at least `least`."""
        return self.numbers(key, least, single=True)[0]

    def numbers(self, key: str, least: int = 0, *, single: bool = False) -> list[int]:
        """A metadata value that must be a list of whole numbers of at least `least`, separated by commas."""
        value = self._required(key)
        try:
            numbers = [int(part) for part in ([value] if single else value.split(","))]
        except ValueError as error:
            raise self.wrong(f"has the metadata {key} = {one_line(value, 40)!r}, not a whole number") from error
        if not all(least <= number <= _MAX for number in numbers):
            raise self.wrong(f"has the metadata {key} = {one_line(value, 40)!r}, out of range")
        return numbers

    def floats(self, key: str, count: int) -> None:
        """Check that a metadata value is a list of `count` finite numbers."""
        try:
            values = [float(part) for part in self._required(key).split(",")]
        except ValueError as error:
            raise self.wrong(f"has the metadata {key} with something that is not a number") from error
        if len(values) != count or not np.isfinite(values).all():
            raise self.wrong(f"has {len(values)} values in the metadata {key} where {count} finite ones are needed")

    def _required(self, key: str) -> str:
        value = self.text(key)
        if not value:
            raise self.wrong(f"has no {key} in its metadata, so it is not an export for sherpa-onnx")
        return value

    def expect_inputs(self, expected: Sequence[tuple[str, str, tuple[int | None, ...]]]) -> None:
        """Check names, types and shapes in order; sherpa-onnx passes inputs by position. None fits every size."""
        found = [port.name for port in self.inputs]
        if found != [name for name, _, _ in expected]:
            raise self.wrong(
                f"takes the inputs {one_line(', '.join(found), 60)}, not {', '.join(e[0] for e in expected)}"
            )
        for port, (name, kind, shape) in zip(self.inputs, expected, strict=True):
            if port.type != kind or not _fits(port.shape, shape):
                raise self.wrong(f"takes {name} as {port.type} {_show(port.shape)}, not as {kind} {_show(shape)}")

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the graph on a probe and return its outputs.

        Raises:
            EngineError: it loads but does not run.
        """
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, dict(feeds))
        except ORT_ERRORS as error:
            raise self.wrong(f"loads but does not run ({one_line(error)})") from error
        return outputs

    def blank_feeds(self) -> dict[str, NDArray[Any]]:
        """Zeros for every input, free axes of size 1."""
        return {
            port.name: np.zeros([1 if size is None else size for size in port.shape], _FLOAT_TYPES[port.type])
            for port in self.inputs
            if port.type in _FLOAT_TYPES
        }


def _port(node: Any) -> TensorPort:
    return TensorPort(node.name, tuple(size if isinstance(size, int) else None for size in node.shape), node.type)


def _fits(found: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    return len(found) == len(expected) and all(
        have is None or want is None or have == want for have, want in zip(found, expected, strict=True)
    )


def _show(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def read_tokens(path: Path, vocabulary: int, advice: str) -> list[str]:
    """Read `tokens.txt` (a symbol and its number on every line) and return the `vocabulary` symbols by number.

    Symbols beyond the vocabulary are allowed only where they are `#0`, `#1` and so on, which no model ever emits.

    Raises:
        EngineError: the file is missing, is not such a list, or belongs to another vocabulary.
    """

    def wrong(what: str) -> EngineError:
        return EngineError(f"{path}: {what}; {advice}")

    if not path.is_file():
        raise wrong("no such file")
    symbols: dict[int, str] = {}
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise wrong("is not a text file in UTF-8") from error
    for number, line in enumerate(lines, 1):
        # Only ASCII blanks separate, as in sherpa-onnx; some vocabularies have wider blanks as symbols.
        fields = line.strip(" \t\r\f\v").replace("\t", " ").split(" ")
        fields = [field for field in fields if field]
        if not fields:
            continue
        if len(fields) > 2 or not (fields[-1].isascii() and fields[-1].isdigit()):
            raise wrong(f"line {number} is not a symbol and its number: {one_line(repr(line), 40)}")
        symbols[int(fields[-1])] = fields[0] if len(fields) == 2 else " "
    missing = next((one for one in range(vocabulary) if one not in symbols), None)
    if missing is not None:
        raise wrong(f"has {len(symbols)} symbols, number {missing} is missing, the model needs {vocabulary}")
    strange = [symbol for one, symbol in symbols.items() if one >= vocabulary and not _is_auxiliary(symbol)]
    if strange:
        raise wrong(f"has {len(symbols)} symbols where the model has {vocabulary}, so it belongs to another model")
    return [symbols[one] for one in range(vocabulary)]


def _is_auxiliary(symbol: str) -> bool:
    return symbol.startswith("#") and symbol[1:].isdigit()
