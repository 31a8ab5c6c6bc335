"""What the tables of another server's settings are made of: where a value goes, or why it goes nowhere. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from xiaozhi.migrate.report import NO_WORDS, Words


class NotTaken(Exception):
    """A value has no place with us; says why, in both languages."""

    def __init__(self, words: Words) -> None:
        super().__init__(words.en)
        self.words = words


def as_it_is(value: Any) -> Any:
    """A value as it stands in the file."""
    return value


@dataclass(frozen=True, slots=True)
class Take:
    """A value that we have as well.

    Attributes:
        names: of the setting; the first that this version knows. `a.b` is `b` of the table `a`.
        convert: what becomes of the value; raises `NotTaken`.
        words: what is to be said of it.
    """

    names: tuple[str, ...]
    convert: Callable[[Any], Any] = as_it_is
    words: Words = NO_WORDS


@dataclass(frozen=True, slots=True)
class Leave:
    """A value that has no counterpart; `words` say why, or what to do. `quiet` ones are not even told."""

    words: Words = NO_WORDS
    quiet: bool = False


Rule: TypeAlias = Take | Leave
Rules: TypeAlias = Mapping[str, Rule]
QUIET: Final = Leave(quiet=True)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to have a kind of provider with us; possible when this version knows the engine.

    Attributes:
        engine: its name; of the language model the kind of endpoint, empty for OpenAI's interface.
        rules: for its values.
        preset: of an engine that serves several services by presets.
        fixed: values of our table that theirs implies.
        words: what is to be done with it.
    """

    engine: str
    rules: Rules
    preset: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    words: Words = NO_WORDS


@dataclass(frozen=True, slots=True)
class Provider:
    """One kind of provider of theirs.

    Attributes:
        ways: the best first; none for what we have in no version.
        words: said when no way is possible.
        reshape: joins values that are one setting with us; the names stay as the report says them.
    """

    ways: tuple[Way, ...] = ()
    words: Words = NO_WORDS
    reshape: Callable[[dict[str, Any]], dict[str, Any]] = as_it_is
