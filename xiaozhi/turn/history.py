"""What was said in a conversation: the talker's texts and of every reply as much as was heard. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from xiaozhi.events import Clause, Message
from xiaozhi.text.emotions import emoji_of
from xiaozhi.text.language import language_of
from xiaozhi.text.messages import interrupted_mark
from xiaozhi.text.units import UNIT_MS, is_cjk, join_pieces, units


@dataclass(frozen=True, slots=True)
class _Turn:
    user: str
    assistant: str

    @property
    def chars(self) -> int:
        return len(self.user) + len(self.assistant)


class History:
    """The last turns of one conversation.

    When it is full a quarter is forgotten at once, whole turns: then the messages begin alike for several turns, and
    upstreams find what they have computed for that beginning in their caches.

    Args:
        max_turns: turns that are kept.
        max_chars: characters that are kept, of both sides together.
    """

    def __init__(self, *, max_turns: int, max_chars: int) -> None:
        self._max_turns = max_turns
        self._max_chars = max_chars
        self._turns: list[_Turn] = []

    def __len__(self) -> int:
        """How many turns are kept."""
        return len(self._turns)

    def add(self, user: str, spoken: Sequence[tuple[Clause, float]], played_ms: float, *, interrupted: bool) -> None:
        """Remember a turn that is over. One without a reply, not for the talker's breaking in, is not remembered.

        Args:
            user: what the talker said.
            spoken: the clauses of the reply whose audio has begun to be sent, each with the milliseconds sent.
            played_ms: how much of all that audio has been played.
            interrupted: the talker broke in.
        """
        reply = heard_text(spoken, played_ms) if interrupted else join_pieces([clause.text for clause, _ in spoken])
        if reply:
            # The models see their own style here: without the emoji they would soon leave it out.
            emotion = spoken[0][0].emotion
            reply = f"{emoji_of(emotion)} {reply}" if emotion else reply
        if interrupted:
            reply += interrupted_mark(language_of(reply, default=language_of(user)))
        if not reply:
            return
        self._turns.append(_Turn(user, reply))
        self._forget()

    def messages(self, system_prompt: str, user: str) -> list[Message]:
        """The conversation as a chat model takes it, `user` being the newest text. The system message never changes."""
        messages = [Message("system", system_prompt)] if system_prompt else []
        for turn in self._turns:
            messages += [Message("user", turn.user), Message("assistant", turn.assistant)]
        messages.append(Message("user", user))
        return messages

    def clear(self) -> None:
        """Forget everything."""
        self._turns.clear()

    def _forget(self) -> None:
        chars = sum(turn.chars for turn in self._turns)
        if len(self._turns) <= self._max_turns and chars <= self._max_chars:
            return
        keep_turns, keep_chars = (3 * self._max_turns + 3) // 4, 3 * self._max_chars // 4
        while self._turns and (
            len(self._turns) > keep_turns or chars > self._max_chars or (chars > keep_chars and len(self._turns) > 1)
        ):
            chars -= self._turns.pop(0).chars


def heard_text(spoken: Sequence[tuple[Clause, float]], played_ms: float) -> str:
    """How much of a reply that was broken off has been heard.

    Of every clause but the last all audio has been sent, so its length is known; the last may have been cut anywhere,
    so its length is guessed from the pace of the ones before, or from an ordinary pace.

    Args:
        spoken: the clauses with the milliseconds of their audio that were sent.
        played_ms: how much of all that audio was played.

    Returns:
        The text, cut at the end of a word, without a mark; empty when nothing was heard.
    """
    pieces = []
    whole_units = sum(units(clause.speech) for clause, _ in spoken[:-1])
    whole_ms = sum(sent_ms for _, sent_ms in spoken[:-1])
    unit_ms = whole_ms / whole_units if whole_units and whole_ms else UNIT_MS
    for index, (clause, sent_ms) in enumerate(spoken):
        last = index == len(spoken) - 1
        length_ms = max(sent_ms, units(clause.speech) * unit_ms) if last else sent_ms
        if played_ms < length_ms:
            pieces.append(_beginning(clause.text, played_ms / length_ms))
            break
        pieces.append(clause.text)
        played_ms -= length_ms
    return join_pieces([piece for piece in pieces if piece])


def _beginning(text: str, share: float) -> str:
    """The words of `text` that sound in the first `share` of its time."""
    budget = units(text) * share
    end = 0
    for index, char in enumerate(text, 1):
        budget -= units(char)
        if budget < -1e-9:
            break
        following = text[index : index + 1]
        if not following or is_cjk(char) or is_cjk(following) or not (char.isalnum() and following.isalnum()):
            end = index
    return text[:end].rstrip(" ，,、；;：:")
