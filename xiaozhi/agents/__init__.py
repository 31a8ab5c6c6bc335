"""Who speaks: agents with a prompt, a voice and a language."""

from xiaozhi.agents.agent import Agent, AgentError, VoicePreference
from xiaozhi.agents.roster import Roster

__all__ = ["Agent", "AgentError", "Roster", "VoicePreference"]
