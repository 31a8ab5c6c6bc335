"""One turn with tools: ask the model, do what it wants, ask again, until it has answered."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from xiaozhi.events import Message, ToolSpec
from xiaozhi.stages.llm.stage import ModelAnswer
from xiaozhi.tools.tool import AudioSource
from xiaozhi.tools.toolbox import ToolAnswer, Toolbox


@dataclass(frozen=True, slots=True)
class Finished:
    """How a turn with tools ended.

    Attributes:
        messages: what the turn added to the conversation behind the user's words: answers with their calls, results,
            and the last answer when it said anything. What an interruption left unheard is the caller's to cut.
        spoken: everything the model said, in order.
        closing: still to be spoken: what a tool has to say where the model is not asked again; often empty.
        audio: sound to play behind that; None for none.
        ends_conversation: the conversation is over after this reply.
    """

    messages: tuple[Message, ...]
    spoken: tuple[str, ...]
    closing: str = ""
    audio: AudioSource | None = None
    ends_conversation: bool = False


Ask = Callable[[Sequence[Message], tuple[ToolSpec, ...]], Awaitable[ModelAnswer]]
"""Asks the model with a conversation and the tools it may call, and speaks what it says."""


async def _at_once() -> None:
    """The turn is committed already."""


async def with_tools(
    ask: Ask,
    box: Toolbox,
    messages: Sequence[Message],
    on_slow: Callable[[str], None] | None = None,
    *,
    before_calls: Callable[[], Awaitable[None]] = _at_once,
    on_answers: Callable[[Sequence[ToolAnswer]], None] = lambda _answers: None,
) -> Finished:
    """Let the model answer, calling tools as often as the settings allow.

    A result that is sound (music) ends the rounds: the model is not asked to comment on it. Cancelling cancels
    whatever runs. Errors of `ask` pass through; errors of tools are results.

    Args:
        ask: asks the model once.
        box: the conversation's tools; `prepare` or `begin_turn` has been called.
        messages: the conversation, the user's words last.
        on_slow: given a short sentence to speak when calls take long; at most once a turn.
        before_calls: waited for before anything is called: it returns when the turn is committed, and
            `box.begin_turn` has been called by then.
        on_answers: told what came of the calls of each round.
    """
    added: list[Message] = []
    spoken: list[str] = []
    ends = False
    fillers = [on_slow] if on_slow is not None else []

    def filler(sentence: str) -> None:
        if fillers and not spoken:  # somebody who has just been told "let me look" need not hear it twice
            fillers.pop()(sentence)

    while True:
        outcome = await ask([*messages, *added], () if box.exhausted else box.specs())
        if outcome.text:
            spoken.append(outcome.text)
        if not outcome.tool_calls or box.exhausted:
            if outcome.text:
                added.append(Message("assistant", outcome.text))
            return Finished(tuple(added), tuple(spoken), ends_conversation=ends)
        added.append(Message("assistant", outcome.text, tool_calls=outcome.tool_calls, provider=outcome.provider))
        await before_calls()
        answers = await box.run(outcome.tool_calls, filler)
        on_answers(answers)
        added += [answer.message() for answer in answers]
        ends = ends or any(answer.result.ends_conversation for answer in answers)
        sounding = next((answer.result for answer in answers if answer.result.audio is not None), None)
        if sounding is not None:
            return Finished(tuple(added), tuple(spoken), "" if outcome.text else sounding.text, sounding.audio, ends)
