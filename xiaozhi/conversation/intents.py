"""Exact intents: wishes understood word for word, carried out before any model is asked."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from xiaozhi.agents import Agent
from xiaozhi.conversation.answering import Action
from xiaozhi.conversation.recall import Recollection, acknowledgement
from xiaozhi.events import Clause
from xiaozhi.text.script import script_of
from xiaozhi.tools.built_in.calculator import asked_conversion, local_answer
from xiaozhi.tools.built_in.volume import Wish, carry_out, dial_tool, wish
from xiaozhi.tools.tool import DeviceCalls, ToolError, ToolResult
from xiaozhi.tools.toolbox import Toolbox
from xiaozhi.turn.unprompted import Manners


@dataclass(frozen=True, slots=True)
class Intent:
    """What follows from a wish.

    Attributes:
        name: for the log and the turn's record.
        script: what to say.
        deed: what to do once the turn is committed; it says what came of it.
        agent: who answers from now on.
        ends: the conversation is over after it.
    """

    name: str
    script: tuple[Clause, ...] | None = None
    deed: Action | None = None
    agent: Agent | None = None
    ends: bool = False


class Intents:
    """The exact intents of one conversation, in the order in which they are tried.

    Args:
        recall: who there is to switch to.
        manners: what ends the conversation, and the words for it.
        box: what this agent may do: a translator translates a sum and does not solve it.
    """

    def __init__(self, recall: Recollection, manners: Manners, box: Toolbox) -> None:
        self._recall = recall
        self._manners = manners
        self._box = box
        self._rules: tuple[Callable[[str, str], Intent | None], ...] = (
            self._switch,
            self._leave,
            self._dial,
            self._reckon,
        )

    def of(self, text: str, language: str) -> Intent | None:
        """The intent of a text; None for everything that is the model's to answer. Has no effect.

        Args:
            text: what the user said.
            language: to answer in.
        """
        return next((intent for rule in self._rules if (intent := rule(text, language)) is not None), None)

    def _switch(self, text: str, language: str) -> Intent | None:
        agent = self._recall.wanted(text)
        return None if agent is None else Intent("agent", (acknowledgement(agent),), agent=agent)

    def _leave(self, text: str, language: str) -> Intent | None:
        if not self._manners.leaves(text):
            return None
        return Intent("goodbye", tuple(script_of(self._manners.farewell(language), language=language)), ends=True)

    def _dial(self, text: str, language: str) -> Intent | None:
        wanted, device = wish(text), self._box.context.device
        if wanted is None or device is None:
            return None
        tool = dial_tool(wanted.dial)
        if not (device.offers(tool) or device.listing) or not self._box.permits(tool, "device"):
            return None
        return Intent(wanted.dial, deed=partial(_turn_dial, wanted, device, language))

    def _reckon(self, text: str, language: str) -> Intent | None:
        answer = local_answer(text, language)
        tool = "calculate" if asked_conversion(text) is None else "convert_units"
        if answer is None or not self._box.offers(tool):
            return None
        return Intent(tool, tuple(script_of(answer, language=language)))


async def _turn_dial(wanted: Wish, device: DeviceCalls, language: str) -> ToolResult:
    await device.listed()
    try:
        return ToolResult(await carry_out(wanted, device, language))
    except ToolError as error:
        return ToolResult(str(error), failed=True)
