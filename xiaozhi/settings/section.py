"""What all tables of the settings have in common."""

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """IP addresses and networks as they were given.

    Raises:
        ValueError: one is neither.
    """
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError('must be IP addresses or networks such as "10.0.0.0/8"') from None
    return texts


Port = Annotated[int, Field(ge=0, le=65535)]
Networks = Annotated[tuple[str, ...], AfterValidator(networks)]
Language = Literal["auto", "zh", "en", "ja", "ko", "yue"]
Provider = Literal["cpu", "cuda"]
Precision = Literal["auto", "int8", "fp16", "fp32"]
Applies: TypeAlias = Literal["at once", "next turn", "next connection", "restart"]
"""When a change takes effect in a running server.

`at once`: nothing has to be built for it. `next turn`: with the next turn of every device; the engine of the table, if
it has one, is built anew for it. `next connection`: when a device connects again. `restart`: after one.
"""


@dataclass(frozen=True, slots=True)
class When:
    """Marks a setting for which another rule holds than for its table."""

    applies: Applies


T = TypeVar("T")
AtOnce = Annotated[T, When("at once")]
NextTurn = Annotated[T, When("next turn")]
NextConnection = Annotated[T, When("next connection")]
OnRestart = Annotated[T, When("restart")]


class Section(BaseModel):
    """A table: unknown keys are errors, values are checked and never change afterwards.

    All that is known of a setting stands at its field: type, bounds, default; when a change applies, where it is not as
    for the whole table; and below it a text for people, English and behind `zh:` Chinese, see `xiaozhi.settings.texts`.
    `settings.toml`, the console, the README and the reload take it from there.

    Attributes:
        applies: when changes in this table take effect, `class AuthSettings(Section, applies="restart")`; None as in
            the table around it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    applies: ClassVar[Applies | None] = None

    def __init_subclass__(cls, applies: Applies | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.applies = applies
