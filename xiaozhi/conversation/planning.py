"""What a conversation answers with: an exact intent, or the model with its persona, its past and its tools."""

import logging

from xiaozhi.conversation.answering import Plan, Remembered
from xiaozhi.conversation.intents import Intent, Intents
from xiaozhi.conversation.recollection import Recollection
from xiaozhi.events import Clause
from xiaozhi.services import Services
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.known_languages import EMBEDDED, is_unknown, languages_of
from xiaozhi.text.messages import message, only_understands
from xiaozhi.text.script import script_of
from xiaozhi.tools.device import DeviceTools
from xiaozhi.tools.tool import ToolContext
from xiaozhi.turn.manners import Manners

_log = logging.getLogger(__name__)


class Planner:
    """Plans the replies of one conversation. Nothing has an effect before `committed`.

    Args:
        services: the shared tools, and what the recogniser knows.
        device_id: whose conversation it is.
        recall: the persona and the past.
        manners: takes the persona's own words.
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

    def plan(self, text: str, transcript: Transcript, talker: str) -> Plan:
        """How to answer a text; an excuse where that cannot be found out.

        Args:
            text: what the talker said.
            transcript: how it sounded.
            talker: the language of the text; a persona that speaks one language answers in its own.
        """
        try:
            return self._plan(text, transcript, talker)
        except Exception:  # noqa: BLE001 - such as an expression in a prompt; it is logged whole, and the talker told
            _log.exception("no reply could be planned", extra={"device": self._device_id})
            return self.excuse(talker)

    def excuse(self, talker: str) -> Plan:
        """What to say where no reply can be made."""
        self._intent = None
        script = script_of(message("apology", talker), language=talker, emotion="sad")
        return Plan(talker, persona=self._recall.agent, script=script, error="internal error")

    def _plan(self, text: str, transcript: Transcript, talker: str) -> Plan:
        persona = self._recall.agent
        known = languages_of(self._services.ears.engine)
        if is_unknown(transcript, known, self._recall.expected_language):
            said = only_understands(known or EMBEDDED, soon=self._services.ears_are_coming)
            script = [Clause(text, text, language, "sad") for text, language in zip(said, ("zh", "en"), strict=True)]
            self._intent = None
            return Plan(
                "zh",
                persona=persona,
                script=script,
                name="unknown language",
                remembered=Remembered.NEVER,
                unknown_language=True,
            )
        language = persona.language if persona.language != "auto" else talker
        self._box.context.language = language
        self._box.allow(persona.tools)
        self._box.prepare()
        intent = self._intent = self._intents.of(text, language)
        if intent is None:
            messages = self._recall.messages(text, transcript)
            return Plan(language, messages, persona, self._box, names=self._recall.names)
        return Plan(
            language,
            persona=intent.persona or persona,
            script=intent.script,
            deed=intent.deed,
            name=intent.name,
            ends=intent.ends,
        )

    def committed(self, text: str) -> None:
        """The newest plan is carried out: tools may be called, a persona changes."""
        try:
            if self._intent is not None and self._intent.persona is not None:
                self._recall.switch(self._intent.persona)
            self.take_manners()
            self._box.begin_turn(text)
        except Exception:  # noqa: BLE001 - the reply is there and is heard all the same; it is logged whole
            _log.exception("a plan could not be carried out whole", extra={"device": self._device_id})

    def take_manners(self) -> None:
        """A persona's own words are said where the settings leave it to the persona."""
        persona = self._recall.agent
        self._manners.take(wake_reply=persona.wake_reply, greeting=persona.greeting, goodbye=persona.goodbye)
