"""How the engines that may fail are doing, whichever are configured."""

import time
from dataclasses import dataclass

from xiaozhi.conversation.services import Services
from xiaozhi.stages.asr.remote_use import RemoteUse
from xiaozhi.upstream.breaker import BreakerState


@dataclass(frozen=True, slots=True)
class VoiceState:
    """How one voice does; counts are of sentences."""

    name: str
    breaker: BreakerState
    spoken: int
    failed: int
    last_error: str


def voice_states(services: Services) -> list[VoiceState]:
    """Of the voices, best first."""
    chain = services.voice
    return [
        VoiceState(state.name, breaker.state(time.monotonic()), state.spoken, state.failed, state.last_error)
        for state, breaker in zip(chain.states, chain.breakers, strict=True)
    ]


def remote_recognition(services: Services) -> RemoteUse | None:
    """How the recognition service does, where there is one."""
    return services.recognition.engine.remote


def none_well(states: list[BreakerState]) -> bool:
    """Whether there are some and each has failed and not been seen to work since."""
    return bool(states) and all(state is not BreakerState.CLOSED for state in states)


def all_resting(states: list[BreakerState]) -> bool:
    """Whether there are some and none of them may be asked now; after its rest one is tried again."""
    return bool(states) and all(state is BreakerState.OPEN for state in states)
