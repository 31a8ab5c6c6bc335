"""Which of two languages a sentence is said in."""

from xiaozhi.text.language import is_chinese


def pick(language: str, chinese: str, english: str) -> str:
    """The Chinese or the English sentence."""
    return chinese if is_chinese(language) else english


def shortened(text: str, most_chars: int) -> str:
    """The text, cut to at most `most_chars` characters with an ellipsis as the last of them."""
    return text if len(text) <= most_chars else text[: max(0, most_chars - 1)] + "…"
