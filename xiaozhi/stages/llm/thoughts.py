"""What of one stream may be spoken: not the model's thoughts, wherever they stand and whoever has opened them."""

from xiaozhi.stages.llm.sse import Chunk, NotAChatStream
from xiaozhi.text.hidden import THINKING, HiddenSpans
from xiaozhi.text.thought import MOST_THOUGHT_CHARS, BegunThought, ThoughtState


class SpokenPart:
    """Takes the chunks of one answer, gives the text that may be spoken.

    Args:
        holds: the answer may begin in the middle of a thought: nothing is spoken before the thought has ended, or the
            answer shows that there is none.
    """

    def __init__(self, *, holds: bool) -> None:
        self._hidden = HiddenSpans(THINKING)
        self._begun = BegunThought() if holds else None
        self._spared = False  # the whole was an answer, held back for nothing

    @property
    def opened_by_prompt(self) -> bool | None:
        """Whether this answer began in the middle of a thought; None while it does not show it."""
        if self._hidden.lone or (self._begun is not None and self._begun.state is ThoughtState.ENDED):
            return True
        return False if self._spared else None

    def push(self, chunk: Chunk) -> str:
        """The next chunk; returns what may be spoken by now.

        Raises:
            NotAChatStream: the thought does not end.
        """
        if self._begun is None:
            return self._hidden.push(chunk.text) if chunk.text else ""
        text = self._begun.release() if chunk.thinking else ""  # its thoughts come apart
        if chunk.text:
            text += self._begun.push(chunk.text)
        if self._begun.overfull:
            raise NotAChatStream(f"thought for more than {MOST_THOUGHT_CHARS} characters")
        return self._hidden.push(text) if text else ""

    def finish(self, *, whole: bool) -> str:
        """The stream is over; returns what may be spoken of the rest.

        Args:
            whole: the model has ended by itself, without a call: what has no end of a thought in it is the answer.
        """
        text = ""
        if self._begun is not None and self._begun.state is ThoughtState.HOLDING and whole:
            held = self._begun.release()
            self._spared = bool(held.strip())
            text = self._hidden.push(held)
        return text + self._hidden.flush()
