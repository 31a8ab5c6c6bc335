"""What all tables of the settings have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=0, le=65535)]


Language = Literal["auto", "zh", "en", "ja", "ko", "yue"]


Provider = Literal["cpu", "cuda"]


Precision = Literal["auto", "int8", "fp16", "fp32"]


class Section(BaseModel):
    """A table: unknown keys are errors, values are checked and never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
