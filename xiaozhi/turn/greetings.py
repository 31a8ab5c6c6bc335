"""What a device says unasked: an answer to its wake word, a greeting, a goodbye. Pure."""

from typing import Final

from xiaozhi.settings import TurnSettings
from xiaozhi.text.language import is_chinese, language_of
from xiaozhi.text.messages import Key, message
from xiaozhi.turn.endpointing import plain
from xiaozhi.turn.machine import ListeningMode

_AUTO: Final = "auto"


class Greetings:
    """What one conversation says so. Of the settings an empty text means silence, `auto` the agent's own words.

    Args:
        settings: the `[turn]` table.
    """

    def __init__(self, settings: TurnSettings) -> None:
        self._settings: dict[Key, str] = {
            "wake_reply": settings.wake_reply,
            "greeting": settings.greeting,
            "goodbye": settings.goodbye,
        }
        self._agent: dict[Key, str] = {}
        self._exits = frozenset(plain(phrase) for phrase in settings.exit_phrases)
        self._woken = False
        self._met = False

    def take(self, *, wake_reply: str, greeting: str, goodbye: str) -> None:
        """Take over an agent's words; empty ones leave the built-in sentence in its place."""
        self._agent = {"wake_reply": wake_reply, "greeting": greeting, "goodbye": goodbye}

    def woken(self, *, listening: bool, language: str) -> str:
        """The wake word was heard: what to say now.

        A device that does not listen yet is still about to: what is said to it before `listen/start` could be lost,
        so it is kept for then.
        """
        if listening:
            self._met = True
            return self._text("wake_reply", language)
        self._woken = True
        return ""

    def listens(self, mode: ListeningMode, *, language: str) -> str:
        """The device begins to listen: what to say first. Nothing where a key is held: its user speaks already."""
        woken, met = self._woken, self._met
        self._woken, self._met = False, True
        if mode is ListeningMode.MANUAL:
            return ""
        if woken and self._settings["wake_reply"]:
            return self._text("wake_reply", language)
        return "" if met else self._text("greeting", language)

    def farewell(self, language: str) -> str:
        """What to say before the end; empty for nothing."""
        return self._text("goodbye", language)

    def leaves(self, text: str) -> bool:
        """Whether these words of the user end the conversation."""
        return plain(text) in self._exits

    def _text(self, key: Key, language: str) -> str:
        setting, own = self._settings[key], self._agent.get(key, "")
        if setting != _AUTO:
            return setting
        return (
            own
            if own and is_chinese(language_of(own, default=language)) == is_chinese(language)
            else message(key, language)
        )
