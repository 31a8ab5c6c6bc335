"""`[turn]`: when a turn ends and a reply may begin."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from xiaozhi.settings.section import Section

# What a profile stands for. Any single value in the file overrides its profile's.
TURN_PROFILES: Mapping[str, Mapping[str, int]] = {
    "conservative": {
        "soft_end_ms": 192, "known_ms": 400, "complete_ms": 500, "neutral_ms": 1100, "trailing_ms": 1700,
        "max_speculations": 2,
    },
    "balanced": {
        "soft_end_ms": 96, "known_ms": 240, "complete_ms": 350, "neutral_ms": 900, "trailing_ms": 1400,
        "max_speculations": 5,
    },
    "aggressive": {
        "soft_end_ms": 64, "known_ms": 160, "complete_ms": 300, "neutral_ms": 600, "trailing_ms": 1000,
        "max_speculations": 5,
    },
}  # fmt: skip


def _of_profile(name: str) -> Callable[[dict[str, Any]], int]:
    """The profile's value of a setting, for where the setting itself is not given."""
    # A profile that is not valid is not among the validated values; its own error is reported, not this one.
    return lambda valid: TURN_PROFILES[valid.get("profile", "balanced")][name]


class TurnSettings(Section):
    """When a turn ends and a reply may begin; silences are audio time since the last voiced sample.

    The defaults are those of the profile `balanced`; another profile changes them, and single values override it.
    """

    profile: Literal["conservative", "balanced", "aggressive"] = "balanced"
    soft_end_ms: int = Field(default_factory=_of_profile("soft_end_ms"), ge=32, le=2000)
    known_ms: int = Field(default_factory=_of_profile("known_ms"), ge=32, le=5000)
    complete_ms: int = Field(default_factory=_of_profile("complete_ms"), ge=32, le=5000)
    neutral_ms: int = Field(default_factory=_of_profile("neutral_ms"), ge=32, le=5000)
    trailing_ms: int = Field(default_factory=_of_profile("trailing_ms"), ge=32, le=10_000)
    commit_max_ms: int = Field(2000, ge=100, le=20_000)
    speculate: bool = True
    max_speculations: int = Field(default_factory=_of_profile("max_speculations"), ge=1, le=20)
    max_utterance_s: float = Field(30.0, ge=2, le=120)
    min_utterance_ms: int = Field(200, ge=0, le=2000)
    gap_ms: int = Field(150, ge=80, le=5000)
    stall_s: float = Field(1.5, ge=0.2, le=30)
    barge_in: bool = True
    barge_in_ms: int = Field(300, ge=64, le=3000)
    wake_words: tuple[str, ...] = (
        "你好小智",
        "小智小智",
        "小智",
        "嗨小智",
        "嘿小智",
        "hi esp",
        "hey xiaozhi",
        "hello xiaozhi",
    )
    wake_reply: str = Field("", max_length=40)
    greeting: str = Field("", max_length=200)
    goodbye: str = Field("auto", max_length=200)
    exit_phrases: tuple[str, ...] = (
        "再见",
        "拜拜",
        "退下",
        "退下吧",
        "小智再见",
        "再见小智",
        "goodbye",
        "good bye",
        "bye",
        "bye bye",
        "goodbye xiaozhi",
    )
