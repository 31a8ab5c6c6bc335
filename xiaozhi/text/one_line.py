"""Errors of other people's libraries in one line."""


def one_line(error: object, limit: int = 160) -> str:
    """The text of an error without line breaks, cut to `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
