"""What later turns are told of the tools of a turn: a model that does not see its calls stops making them. Pure."""

from collections.abc import Sequence
from typing import Final

# Enough for a value or a name; whoever needs more of it calls the tool again.
_MAX_RESULT_CHARS: Final = 80
_MAX_CHARS: Final = 400
MAX_NOTE_CHARS: Final = 700
"""The longest note below the user's words: how they sounded (172 characters at most), and this one (498)."""


def with_note(text: str, note: str) -> str:
    """The user's words as the model gets them: the note, which is never longer than `MAX_NOTE_CHARS`, below them."""
    return f"{text}\n{note[:MAX_NOTE_CHARS]}" if note else text


def tool_note(uses: Sequence[tuple[str, str, bool]], *, chinese: bool) -> str:
    """A note to put behind the user's words; empty where no tool was called.

    Args:
        uses: the name of each tool, what came of it, and whether it failed.
        chinese: the language of the note.
    """
    if not uses:
        return ""
    failed_word = "没有成功" if chinese else "failed"
    lines = []
    for name, result, failed in uses:
        brief = " ".join(result.split()).rstrip(".。")
        brief = brief if len(brief) <= _MAX_RESULT_CHARS else brief[: _MAX_RESULT_CHARS - 1] + "…"
        lines.append(f"{name}{f' ({failed_word})' if failed else ''}: {brief}")
    text = "; ".join(lines)
    text = text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
    if chinese:
        return f"（旁注：为了回答这句话调用过工具。{text}。以后需要时要重新调用，不要提起这条旁注。）"
    return f"(Side note: to answer this, tools were called. {text}. Call them anew when needed; do not mention this.)"
