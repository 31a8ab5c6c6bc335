"""Which of two languages a sentence is said in."""

from xiaozhi.text.language import is_chinese


def pick(language: str, chinese: str, english: str) -> str:
    """The Chinese or the English sentence."""
    return chinese if is_chinese(language) else english


def shortened(text: str, max_chars: int) -> str:
    """The text, cut to at most `max_chars` characters with an ellipsis as the last of them."""
    return text if len(text) <= max_chars else text[: max(0, max_chars - 1)] + "…"
