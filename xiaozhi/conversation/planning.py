"""What a conversation answers with: an exact intent, or the model with its agent, its past and its tools."""

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from xiaozhi.agents import Agent
from xiaozhi.conversation.context import ConversationContext, acknowledgement
from xiaozhi.conversation.engines import Engines
from xiaozhi.events import Clause, Message
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.known_languages import EMBEDDED, is_unknown
from xiaozhi.text.messages import message, only_understands
from xiaozhi.text.script import script_of
from xiaozhi.tools.built_in.calculator import asked_conversion, local_answer
from xiaozhi.tools.built_in.volume import Wish, carry_out, dial_tool, wish
from xiaozhi.tools.device import DeviceTools
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.tools.tool import DeviceCalls, ToolContext, ToolError, ToolResult
from xiaozhi.tools.toolbox import Toolbox
from xiaozhi.turn.greetings import Greetings

_log = logging.getLogger(__name__)


class InHistory(Enum):
    """Whether what was heard of a reply, or of a sentence of the server's own, goes into the history."""

    NEVER = "never"  # an excuse, a notice
    BROKEN_OFF = "broken off"  # a goodbye: who lets it pass has gone, and models copy the ends of conversations
    ALWAYS = "always"


Action = Callable[[], Awaitable[ToolResult]]
"""Does what an exact intent asks for; its text is the sentence to say about it."""


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What a reply is made of.

    Attributes:
        language: to answer in, where the words do not show their own.
        messages: the conversation with the user's text at its end, for the model.
        conversation: of which device and agent they are.
        agent: who answers: how it sounds and which models it prefers; nobody in particular when left out.
        toolbox: what the model may call; None for nothing.
        script: what to say instead of asking the model.
        action: what to do, once the turn is committed, instead of asking the model.
        name: of the exact intent behind script or action, for the turn's record; empty for none.
        unasked: no user waits for it: without a sound it is never ready.
        in_history: whether it goes into the history.
        ends: the conversation is over after it.
        names: words that belong to this user alone: an answer with one of them is not for others.
        error: why it is no more than an excuse, for the turn's record; empty for an answer.
        unknown_language: what was heard makes no sense: it is not shown.
    """

    language: str
    messages: Sequence[Message] = ()
    conversation: str = ""
    agent: Agent | None = None
    toolbox: Toolbox | None = None
    script: Sequence[Clause] | None = None
    action: Action | None = None
    name: str = ""
    unasked: bool = False
    in_history: InHistory = InHistory.ALWAYS
    ends: bool = False
    names: Sequence[str] = ()
    error: str = ""
    unknown_language: bool = False


class Intents:
    """The exact intents of one conversation: understood word for word, before any model is asked.

    Args:
        context: who there is to switch to.
        greetings: what ends the conversation, and the words for it.
        toolbox: what this agent may do: a translator translates a sum and does not solve it.
    """

    def __init__(self, context: ConversationContext, greetings: Greetings, toolbox: Toolbox) -> None:
        self._context = context
        self._greetings = greetings
        self._toolbox = toolbox

    def of(self, text: str, language: str) -> ReplyPlan | None:
        """What an exact intent is answered with; None for everything that is the model's to answer. Has no effect.

        Args:
            text: what the user said.
            language: to answer in.

        Returns:
            A plan with an agent where that one answers from now on.
        """
        rules = (self._switch, self._leave, self._dial, self._reckon)
        return next((plan for rule in rules if (plan := rule(text, language)) is not None), None)

    def _switch(self, text: str, language: str) -> ReplyPlan | None:
        agent = self._context.wanted(text)
        return (
            None if agent is None else ReplyPlan(language, agent=agent, name="agent", script=[acknowledgement(agent)])
        )

    def _leave(self, text: str, language: str) -> ReplyPlan | None:
        if not self._greetings.leaves(text):
            return None
        goodbye = script_of(self._greetings.farewell(language), language=language)
        return ReplyPlan(language, name="goodbye", script=goodbye, ends=True)

    def _dial(self, text: str, language: str) -> ReplyPlan | None:
        wanted, device = wish(text), self._toolbox.context.device
        if wanted is None or device is None:
            return None
        tool = dial_tool(wanted.dial)
        if not (device.offers(tool) or device.listing) or not self._toolbox.permits(tool, "device"):
            return None
        return ReplyPlan(language, name=wanted.dial, action=partial(_turn_dial, wanted, device, language))

    def _reckon(self, text: str, language: str) -> ReplyPlan | None:
        answer = local_answer(text, language)
        tool = "calculate" if asked_conversion(text) is None else "convert_units"
        if answer is None or not self._toolbox.offers(tool):
            return None
        return ReplyPlan(language, name=tool, script=script_of(answer, language=language))


async def _turn_dial(wanted: Wish, device: DeviceCalls, language: str) -> ToolResult:
    await device.listed()
    try:
        return ToolResult(await carry_out(wanted, device, language))
    except ToolError as error:
        return ToolResult(str(error), failed=True)


class Planner:
    """Plans the replies of one conversation. Nothing has an effect before `committed`.

    Args:
        engines: what the recogniser knows.
        tools: what models may call.
        device_id: whose conversation it is.
        context: the agent and the past.
        greetings: takes the agent's own words.
    """

    def __init__(
        self, engines: Engines, tools: SharedTools, device_id: str, context: ConversationContext, greetings: Greetings
    ) -> None:
        self._device_id = device_id
        self._engines = engines
        self._context = context
        self._greetings = greetings
        self._toolbox = tools.toolbox(ToolContext(device_id, now=context.now, conversation=context))
        self._intents = Intents(context, greetings, self._toolbox)
        self._switch_to: Agent | None = None  # with the newest plan

    def use_device(self, device: DeviceTools | None) -> None:
        """The device offers tools of its own, or none any more."""
        self._toolbox.context.device = device
        self._toolbox.attach(device)

    def plan(self, text: str, transcript: Transcript, user: str) -> ReplyPlan:
        """How to answer a text; an excuse where that cannot be found out.

        Args:
            text: what the user said.
            transcript: how it sounded.
            user: the language of the text; an agent that speaks one language answers in its own.
        """
        self._switch_to = None
        try:
            return self._plan(text, transcript, user)
        except Exception:  # noqa: BLE001 - such as an expression in a prompt; it is logged whole, and the user told
            _log.exception("no reply could be planned", extra={"device": self._device_id})
            return self.excuse(user)

    def excuse(self, user: str) -> ReplyPlan:
        """What to say where no reply can be made."""
        self._switch_to = None
        script = script_of(message("apology", user), language=user, emotion="sad")
        return ReplyPlan(user, agent=self._context.agent, script=script, error="internal error")

    def _plan(self, text: str, transcript: Transcript, user: str) -> ReplyPlan:
        agent = self._context.agent
        known = self._engines.for_agents.recognition(agent).engine.languages
        if is_unknown(transcript, known, self._context.expected_language):
            said = only_understands(known or EMBEDDED, soon=self._engines.recogniser_is_coming)
            return ReplyPlan(
                "zh",
                agent=agent,
                script=[Clause(text, text, language, "sad") for text, language in zip(said, ("zh", "en"), strict=True)],
                name="unknown language",
                in_history=InHistory.NEVER,
                unknown_language=True,
            )
        language = agent.language if agent.language != "auto" else user
        toolbox = self._toolbox
        toolbox.context.language = language
        toolbox.allow(agent.tools)
        toolbox.prepare()
        intended = self._intents.of(text, language)
        if intended is None:
            messages = self._context.messages(text, transcript)
            whose = f"{self._device_id}/{agent.name}"
            return ReplyPlan(language, messages, whose, agent, toolbox, names=self._context.names)
        self._switch_to = intended.agent
        return dataclasses.replace(intended, agent=intended.agent or agent)

    def committed(self, text: str) -> None:
        """The newest plan is carried out: tools may be called, an agent changes."""
        try:
            if self._switch_to is not None:
                self._context.switch(self._switch_to)
            self.take_greetings()
            self._toolbox.begin_turn(text)
        except Exception:  # noqa: BLE001 - the reply is there and is heard all the same; it is logged whole
            _log.exception("a plan could not be carried out whole", extra={"device": self._device_id})

    def take_greetings(self) -> None:
        """An agent's own words are said where the settings leave it to the agent."""
        agent = self._context.agent
        self._greetings.take(wake_reply=agent.wake_reply, greeting=agent.greeting, goodbye=agent.goodbye)
