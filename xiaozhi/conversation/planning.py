"""What a conversation answers with: an exact intent, or the model with its agent, its past and its tools."""

import logging

from xiaozhi.conversation.answering import CachedRecognizer, Plan
from xiaozhi.conversation.intents import Intent, Intents
from xiaozhi.conversation.recall import Recollection
from xiaozhi.conversation.services import Services
from xiaozhi.events import Clause
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.known_languages import EMBEDDED, is_unknown
from xiaozhi.text.messages import message, only_understands
from xiaozhi.text.script import script_of
from xiaozhi.tools.device import DeviceTools
from xiaozhi.tools.tool import ToolContext
from xiaozhi.turn.unprompted import Manners

_log = logging.getLogger(__name__)


class Planner:
    """Plans the replies of one conversation. Nothing has an effect before `committed`.

    Args:
        services: the shared tools, and what the recogniser knows.
        device_id: whose conversation it is.
        recall: the agent and the past.
        manners: takes the agent's own words.
    """

    def __init__(self, services: Services, device_id: str, recall: Recollection, manners: Manners) -> None:
        self._device_id = device_id
        self._services = services
        self._recall = recall
        self._manners = manners
        self._box = services.tools.toolbox(ToolContext(device_id, now=recall.now, conversation=recall))
        self._intents = Intents(recall, manners, self._box)
        self._intent: Intent | None = None  # of the newest plan

    def use_device(self, device: DeviceTools | None) -> None:
        """The device offers tools of its own, or none any more."""
        self._box.context.device = device
        self._box.attach(device)

    def plan(self, text: str, transcript: Transcript, user: str) -> Plan:
        """How to answer a text; an excuse where that cannot be found out.

        Args:
            text: what the user said.
            transcript: how it sounded.
            user: the language of the text; an agent that speaks one language answers in its own.
        """
        try:
            return self._plan(text, transcript, user)
        except Exception:  # noqa: BLE001 - such as an expression in a prompt; it is logged whole, and the user told
            _log.exception("no reply could be planned", extra={"device": self._device_id})
            return self.excuse(user)

    def excuse(self, user: str) -> Plan:
        """What to say where no reply can be made."""
        self._intent = None
        script = script_of(message("apology", user), language=user, emotion="sad")
        return Plan(user, agent=self._recall.agent, script=script, error="internal error")

    def _plan(self, text: str, transcript: Transcript, user: str) -> Plan:
        agent = self._recall.agent
        known = self._services.recognition.engine.languages
        if is_unknown(transcript, known, self._recall.expected_language):
            said = only_understands(known or EMBEDDED, soon=self._services.recogniser_is_coming)
            script = [Clause(text, text, language, "sad") for text, language in zip(said, ("zh", "en"), strict=True)]
            self._intent = None
            return Plan(
                "zh",
                agent=agent,
                script=script,
                name="unknown language",
                remembered=CachedRecognizer.NEVER,
                unknown_language=True,
            )
        language = agent.language if agent.language != "auto" else user
        self._box.context.language = language
        self._box.allow(agent.tools)
        self._box.prepare()
        intent = self._intent = self._intents.of(text, language)
        if intent is None:
            messages = self._recall.messages(text, transcript)
            return Plan(language, messages, agent, self._box, names=self._recall.names)
        return Plan(
            language,
            agent=intent.agent or agent,
            script=intent.script,
            deed=intent.deed,
            name=intent.name,
            ends=intent.ends,
        )

    def committed(self, text: str) -> None:
        """The newest plan is carried out: tools may be called, an agent changes."""
        try:
            if self._intent is not None and self._intent.agent is not None:
                self._recall.switch(self._intent.agent)
            self.take_manners()
            self._box.begin_turn(text)
        except Exception:  # noqa: BLE001 - the reply is there and is heard all the same; it is logged whole
            _log.exception("a plan could not be carried out whole", extra={"device": self._device_id})

    def take_manners(self) -> None:
        """An agent's own words are said where the settings leave it to the agent."""
        agent = self._recall.agent
        self._manners.take(wake_reply=agent.wake_reply, greeting=agent.greeting, goodbye=agent.goodbye)
