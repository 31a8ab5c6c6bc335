"""What was said in a conversation: the user's texts and of every reply as much as was heard. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from xiaozhi.events import Clause, Message
from xiaozhi.text.emotions import emoji_of
from xiaozhi.text.language import language_of
from xiaozhi.text.messages import interrupted_mark, unasked_mark
from xiaozhi.text.tokens import MESSAGE_TOKENS, tokens_of
from xiaozhi.text.units import UNIT_MS, is_cjk, join_pieces, units

# Above this share of the budget the older half is to be summed up, so that there is time for it before it is forgotten.
_FULL_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn that is over.

    Attributes:
        user: what the user said; empty where the assistant spoke unasked.
        assistant: what was heard of the reply.
        id: its number in the store; rises.
        tokens: about how many tokens both cost.
    """

    user: str
    assistant: str
    id: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, user: str, assistant: str, turn_id: int = 0) -> "PastTurn":
        """A turn whose tokens are counted."""
        asked = user or unasked_mark(language_of(assistant))
        return cls(user, assistant, turn_id, tokens_of(asked) + tokens_of(assistant) + 2 * MESSAGE_TOKENS)


class History:
    """The last turns of one conversation, and a summary of what was before.

    When it is full a quarter is forgotten at once, whole turns: then the messages begin alike for several turns, and
    upstreams find what they have computed for that beginning in their caches.

    Args:
        max_turns: turns that are kept.
        max_tokens: tokens that are kept, of both sides together, as `tokens_of` counts them.
    """

    def __init__(self, *, max_turns: int, max_tokens: int) -> None:
        self._max_turns = max_turns
        self._max_tokens = max_tokens
        self._turns: list[PastTurn] = []
        self.summary = ""
        """What was said before the turns that are kept."""

    def __len__(self) -> int:
        """How many turns are kept."""
        return _count(self._turns)

    @property
    def tokens(self) -> int:
        """About how many tokens the turns cost."""
        return sum(turn.tokens for turn in self._turns)

    def restore(self, turns: Sequence[PastTurn], summary: str) -> None:
        """Put what was said in earlier connections before what has been said in this one."""
        known = {turn.id for turn in self._turns}
        self._turns = [turn for turn in turns if turn.id not in known] + self._turns
        self.summary = self.summary or summary
        self._forget()

    def add(
        self,
        user: str,
        spoken: Sequence[tuple[Clause, float]],
        played_ms: float,
        *,
        interrupted: bool,
        turn_id: int = 0,
    ) -> str:
        """Remember a turn that is over. One without a reply, not for the user's breaking in, is not remembered.

        Nor is what is said unasked again and again, such as an alarm.

        Args:
            user: what the user said; empty where nobody had asked.
            spoken: the clauses of the reply whose audio has begun to be sent, each with the milliseconds sent.
            played_ms: how much of all that audio has been played.
            interrupted: the user broke in.
            turn_id: its number in the store.

        Returns:
            The reply as it is remembered: what was heard of it, with the mark of an interruption; empty for none.
        """
        reply = heard_text(spoken, played_ms) if interrupted else join_pieces([clause.text for clause, _ in spoken])
        if reply or (spoken and not spoken[0][0].speech):
            # The models see their own style here: without the emoji they would soon leave it out.
            emotion = spoken[0][0].emotion
            reply = f"{emoji_of(emotion)} {reply}".rstrip() if emotion else reply
        if interrupted and (reply or user):
            reply += interrupted_mark(language_of(reply, default=language_of(user)))
        if not user and self._turns and (self._turns[-1].user, self._turns[-1].assistant) == ("", reply):
            return ""
        if reply:
            self._turns.append(PastTurn.of(user, reply, turn_id))
            self._forget()
        return reply

    def messages(self, system_prompt: str, user: str) -> list[Message]:
        """The conversation as a chat model takes it, `user` being the newest text. The system message comes first."""
        pairs: list[tuple[str, str]] = []
        for turn in self._turns:
            if turn.user or not pairs:
                pairs.append((turn.user or unasked_mark(language_of(turn.assistant)), turn.assistant))
            else:  # templates of many models want both to take turns
                asked, answered = pairs[-1]
                pairs[-1] = (asked, f"{answered}\n{turn.assistant}")
        messages = [Message("system", system_prompt)] if system_prompt else []
        for asked, answered in pairs:
            messages += [Message("user", asked), Message("assistant", answered)]
        messages.append(Message("user", user))
        return messages

    def outgrown(self) -> Sequence[PastTurn]:
        """The older turns that should be summed up now; empty while there is room."""
        tokens = self.tokens
        if len(self._turns) < 2 or (
            len(self) <= _FULL_SHARE * self._max_turns and tokens <= _FULL_SHARE * self._max_tokens
        ):
            return ()
        older: list[PastTurn] = []
        for turn in self._turns[:-1]:
            if _count(self._turns[len(older) :]) <= self._max_turns / 2 and tokens <= self._max_tokens / 2:
                break
            older.append(turn)
            tokens -= turn.tokens
        return older

    def sum_up(self, turns: Sequence[PastTurn], summary: str) -> None:
        """Let a summary take the place of these turns, as far as they are still here."""
        self._turns = [turn for turn in self._turns if turn not in turns]
        self.summary = summary

    def clear(self) -> None:
        """Forget everything."""
        self._turns.clear()
        self.summary = ""

    def _forget(self) -> None:
        tokens, most = self.tokens, self._max_tokens
        if len(self) <= self._max_turns and tokens <= most:
            return
        keep_turns, keep_tokens = (3 * self._max_turns + 3) // 4, 3 * most // 4
        while self._turns and (
            len(self) > keep_turns or tokens > most or (tokens > keep_tokens and len(self._turns) > 1)
        ):
            tokens -= self._turns.pop(0).tokens


def _count(turns: Sequence[PastTurn]) -> int:
    """How many turns these are: what was said unasked is a part of the turn before, but has its bound as well."""
    return max(sum(bool(turn.user) for turn in turns), (len(turns) + 1) // 2)


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
