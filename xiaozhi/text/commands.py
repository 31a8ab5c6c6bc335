"""What the built-in responder understands in English, as phrases for a recogniser's grammar.

Only plain lower-case words of the CMU pronouncing dictionary, so that a grammar over them compiles. A small grammar is
what makes recognition of unclear voices work (measured on a synthetic voice: 17 of 18 phrases with a grammar, 1-2 of 6
sentences without), so phrases that sound alike are left out.
"""

from typing import Final

_PHRASES: Final = (
    "hello",
    "hi there",
    "good morning",
    "good evening",
    "good night",
    "how are you",
    "who are you",
    "what is your name",
    "how old are you",
    "what can you do",
    "help me please",
    "what time is it",
    "what is the time",
    "what is the date",
    "what is the date today",
    "what day is it today",
    "what year is it",
    "tell me a joke",
    "tell me another joke",
    "tell me a story",
    "sing me a song",
    "turn the volume up",
    "turn the volume down",
    "speak louder please",
    "what is the weather like today",
    "nice to meet you",
    "you are funny",
    "thank you",
    "thank you very much",
    "see you later",
    "good bye",
)
_SUMS: Final = (
    "what is two plus three",
    "what is ten minus four",
    "what is twelve times three",
    "what is twenty divided by five",
)

SPOKEN_COMMANDS_EN: Final[tuple[str, ...]] = _PHRASES + _SUMS
"""Phrases the built-in responder answers; the sums stand for all others."""
