"""How the engines that may fail are doing, whichever are configured."""

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from xiaozhi.conversation.services import Services
from xiaozhi.stages.asr.remote_use import RemoteUse
from xiaozhi.upstream.breaker import BreakerState
from xiaozhi.upstream.pool import UpstreamPool, UpstreamState


@runtime_checkable
class Routed(Protocol):
    """A chat model over several endpoints; named by what it does, because its module loads a large client."""

    answered: int
    failed: int
    continued: int
    offline: int
    pool: UpstreamPool[object]

    def states(self) -> list[UpstreamState]:
        """How every endpoint does."""
        ...


@dataclass(frozen=True, slots=True)
class VoiceState:
    """How one voice does; counts are of sentences."""

    name: str
    breaker: BreakerState
    spoken: int
    failed: int
    last_error: str


def endpoint_states(services: Services) -> list[UpstreamState]:
    """Of the chat endpoints, in the order of the settings; none for the built-in responder."""
    return services.chat.states() if isinstance(services.chat, Routed) else []


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
