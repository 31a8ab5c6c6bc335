"""How long a text sounds, without a voice: counted in units of one Chinese character."""

from typing import Final

# Measured habits of speech: Mandarin is spoken at 4.5 to 5 characters a second, English at 14 to 15 letters a second;
# so three letters sound about as long as one Chinese character.
_LETTER: Final = 1.0 / 3.0

UNIT_MS: Final = 220.0
"""How long one unit sounds at an ordinary pace, in milliseconds."""


def is_cjk(char: str) -> bool:
    """Whether a character is a Chinese character, kana or hangul: written without blanks, one syllable or so each."""
    return (
        "\u3040" <= char <= "\u30ff"
        or "\u3400" <= char <= "\u9fff"
        or "\uac00" <= char <= "\ud7af"
        or "\uf900" <= char <= "\ufaff"
        or "\U00020000" <= char <= "\U0003ffff"
    )


def units(text: str) -> float:
    """The length of what can be spoken: 1 for a Chinese character, a third for a letter or digit, 0 for the rest."""
    return sum(1.0 if is_cjk(char) else _LETTER for char in text if char.isalnum())


def longest_speech_s(text: str) -> float:
    """Longer than this no voice takes for a text, in seconds: six times an ordinary pace, and some silence around it.

    The slowest that settings allow is a quarter of it. A digit or a capital may be a word of its own.
    """
    words = sum(char.isdigit() or char.isupper() for char in text)
    return 4.0 + words + 6.0 * units(text) * UNIT_MS / 1000.0


def speakable_chars(text: str) -> int:
    """How many letters, digits and Chinese characters there are."""
    return sum(map(str.isalnum, text))


def join_pieces(pieces: list[str]) -> str:
    """Put pieces of a text together again: with a blank, except beside Chinese."""
    joined = ""
    for piece in pieces:
        beside_chinese = not joined or not piece or not joined[-1].isascii() or not piece[0].isascii()
        joined += piece if beside_chinese else " " + piece
    return joined
