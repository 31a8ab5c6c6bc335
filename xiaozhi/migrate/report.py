"""What became of each value of the other server's file, in the two languages of whoever reads it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from xiaozhi.settings.errors import one_line

MAX_NAME_CHARS: Final = 100
ReportLanguage: TypeAlias = Literal["zh", "en"]
Fate: TypeAlias = Literal["taken", "left", "unavailable", "todo"]
"""`left` has no counterpart, `unavailable` is an engine that this version has not, `todo` is for the owner to do."""


@dataclass(frozen=True, slots=True)
class Words:
    """A sentence in both languages."""

    zh: str = ""
    en: str = ""

    def said(self, language: ReportLanguage) -> str:
        """In one of them."""
        return self.zh if language == "zh" else self.en


NO_WORDS: Final = Words()
_FATES: Final[dict[Fate, Words]] = {
    "taken": Words("已采用", "taken"),
    "left": Words("没有对应", "no counterpart"),
    "unavailable": Words("本版本没有", "not in this version"),
    "todo": Words("要做", "to do"),
}


@dataclass(slots=True)
class ReportLine:
    """One line of the report. It never holds a value, which may be a key.

    Attributes:
        fate: what became of it.
        theirs: the name in their file, `TTS.EdgeTTS.voice`.
        ours: the setting that has it now; empty where none has.
        words: why, or what to do.
    """

    fate: Fate
    theirs: str
    ours: str = ""
    words: Words = NO_WORDS

    def text(self, language: ReportLanguage) -> str:
        """For people."""
        where = shown_name(self.theirs) + (f" -> {self.ours}" if self.ours else "")
        said = self.words.said(language)
        gap = "：" if language == "zh" else ": "
        return f"[{_FATES[self.fate].said(language)}] {where}{gap + said if said else ''}"

    def json(self, language: ReportLanguage) -> dict[str, Any]:
        """For programs and for the console."""
        return {
            "fate": self.fate,
            "theirs": shown_name(self.theirs),
            "ours": self.ours,
            "text": self.words.said(language),
        }


def shown_name(name: str) -> str:
    """A name of a file of strangers, on one line of bounded length."""
    return one_line(name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1] + "…")


def summary(lines: Iterable[ReportLine], language: ReportLanguage) -> str:
    """How many of each kind there are."""
    counts = dict.fromkeys(_FATES, 0)
    for line in lines:
        counts[line.fate] += 1
    comma = "，" if language == "zh" else ", "
    return comma.join(f"{_FATES[fate].said(language)} {count}" for fate, count in counts.items())
